//! The description of a batch, as the API returns it and as it is stored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock;

/// A batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Batch {
    pub id: String,
    pub object: String,
    pub endpoint: String,
    pub errors: Option<BatchErrors>,
    pub input_file_id: String,
    pub completion_window: String,
    pub status: Status,
    pub output_file_id: Option<String>,
    pub error_file_id: Option<String>,
    pub created_at: u64,
    pub in_progress_at: Option<u64>,
    pub finalizing_at: Option<u64>,
    pub completed_at: Option<u64>,
    pub failed_at: Option<u64>,
    pub cancelling_at: Option<u64>,
    pub cancelled_at: Option<u64>,
    pub request_counts: Counts,
    pub metadata: Option<BTreeMap<String, String>>,
}

/// The status of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Validating,
    Failed,
    InProgress,
    Finalizing,
    Completed,
    Cancelling,
    Cancelled,
}

/// Counts of a batch's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub total: u64,
    pub completed: u64,
    pub failed: u64,
}

/// Why a batch failed or does not go on, as a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BatchErrors {
    object: String,
    data: Vec<BatchError>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct BatchError {
    code: String,
    message: String,
    param: Option<String>,
    line: Option<u64>,
}

impl Status {
    /// Whether nothing more will happen to the batch.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Failed | Self::Completed | Self::Cancelled)
    }
}

impl Batch {
    /// Changes the status and records the time.
    pub fn enter(&mut self, status: Status) {
        let now = Some(clock::unix_seconds());
        self.status = status;
        match status {
            Status::Validating => {}
            Status::Failed => self.failed_at = now,
            Status::InProgress => self.in_progress_at = self.in_progress_at.or(now),
            Status::Finalizing => self.finalizing_at = now,
            Status::Completed => self.completed_at = now,
            Status::Cancelling => self.cancelling_at = now,
            Status::Cancelled => self.cancelled_at = now,
        }
    }

    /// Changes the status to [`Status::Failed`], with the reason.
    pub fn fail(&mut self, code: &str, message: String) {
        self.enter(Status::Failed);
        self.note(code, message);
    }

    /// Says why the batch failed or does not go on.
    pub fn note(&mut self, code: &str, message: String) {
        let error = BatchError { code: code.to_owned(), message, param: None, line: None };
        self.errors = Some(BatchErrors { object: "list".to_owned(), data: vec![error] });
    }
}
