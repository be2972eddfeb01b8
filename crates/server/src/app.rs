//! What all handlers share.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use prometheus_client::registry::Registry;
use tokio::task::spawn_blocking;

use crate::auth::ApiKey;
use crate::batches::Batches;
use crate::config::{ServedModel, ServerConfig};
use crate::drain::{Drain, Ticket};
use crate::files::FileStore;
use crate::metrics::Metrics;
use crate::queue::Queue;
use crate::refusal::Refusal;

/// What all handlers share.
#[derive(Debug)]
pub(crate) struct App {
    pub model: ServedModel,
    pub config: ServerConfig,
    /// Seconds since 1970 when the server started.
    pub started: u64,
    pub queue: Queue,
    pub metrics: Arc<Metrics>,
    pub registry: Registry,
    pub drain: Drain,
    /// `None` without a data folder.
    pub files: Option<Arc<FileStore>>,
    pub batches: Option<Arc<Batches>>,
    pub api_key: Option<ApiKey>,
    /// The lock file of the data folder.
    lock: Option<File>,
}

pub(crate) type AppState = Arc<App>;

/// What a handler knows of its request beside the request itself.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// Random, as 32 hexadecimal digits.
    pub id: Arc<str>,
    pub arrived: Instant,
    pub deadline: tokio::time::Instant,
    /// Held until the answer has been sent: draining waits for it.
    pub _ticket: Arc<Ticket>,
}

impl App {
    /// Opens the data folder, if one is configured.
    pub fn new(model: ServedModel, config: ServerConfig, drain: Drain) -> io::Result<Self> {
        let lock = config.data.as_ref().map(|data| lock(&data.folder)).transpose()?;
        let files = config.data.as_ref().map(|data| FileStore::open(data.folder.join("files")));
        let files = files.transpose().map_err(io::Error::other)?.map(Arc::new);
        let batches = match (&config.data, &files) {
            (Some(data), Some(files)) => {
                Some(Arc::new(Batches::open(data.folder.join("batches"), Arc::clone(files))?))
            }
            _ => None,
        };
        let metrics = Arc::new(Metrics::default());
        let batch_size = model.config.batch_size;
        Ok(Self {
            started: crate::clock::unix_seconds(),
            queue: Queue::new(batch_size, config.max_queue),
            registry: metrics.registry(model.engine.clone()),
            metrics,
            drain,
            api_key: config.api_key.as_deref().map(ApiKey::new),
            lock,
            files,
            batches,
            model,
            config,
        })
    }

    /// Unlocks the data folder for another server, even if a connection still holds this `App`.
    pub fn release_data(&self) {
        if let Some(Err(error)) = self.lock.as_ref().map(File::unlock) {
            tracing::warn!(%error, "the data folder stays locked");
        }
    }
}

/// Locks a data folder for this server. The system releases the lock when the process ends, however it ends.
fn lock(folder: &Path) -> io::Result<File> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", folder.display()));
    fs::create_dir_all(folder).map_err(named)?;
    let file = File::create(folder.join("lock")).map_err(named)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(named(io::Error::other("expected to be its only user, found it locked by another server")))
        }
        Err(TryLockError::Error(error)) => Err(named(error)),
    }
}

/// Runs slow work, such as tokenising, on a thread for blocking work, so that no other request waits for it.
///
/// # Errors
/// Those of `work`.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(Refusal::internal("the request", &error)))
}
