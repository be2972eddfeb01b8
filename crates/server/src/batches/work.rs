//! The batches of a server and the thread that runs them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use batch::{
    Compression, Defaults, End, Error, Errors, Existing, Input, InputFormat, Manifest, Model, Options, Order,
    Output, Report, Shard, Totals, UnknownFields,
};
use rustorch_llama::Priority;

use crate::batches::batch::{Batch, Counts, Status};
use crate::batches::results::publish;
use crate::config::{DataConfig, ServedModel};
use crate::files::{FileStore, StoredFile, write_durably};
use crate::metrics::Metrics;
use crate::trouble::Trouble;
use crate::{clock, random};

/// Lines in memory at once, as a multiple of the engine's batch size.
const WINDOW: usize = 4;
const DESCRIPTION: &str = "batch.json";
const JOURNAL: &str = "results.jsonl";

/// The batches of a server.
#[derive(Debug)]
pub(crate) struct Batches {
    folder: PathBuf,
    files: Arc<FileStore>,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    changed: Condvar,
    /// Stops the running batch; a new one for each.
    stop: Mutex<Arc<AtomicBool>>,
}

#[derive(Debug, Default)]
struct State {
    batches: BTreeMap<String, Batch>,
    /// The id of the running batch.
    running: Option<String>,
    /// Why batches pause, if they do.
    trouble: Option<Trouble>,
    going_down: bool,
}

const ID: &str = "batch_";

/// Whether a folder of this name may be a batch's.
pub(crate) fn is_batch_id(name: &str) -> bool {
    name.strip_prefix(ID).is_some_and(random::is_id)
}

/// What a client gives to create a batch.
#[derive(Debug)]
pub(crate) struct NewBatch {
    pub input: StoredFile,
    pub endpoint: String,
    pub completion_window: String,
    pub metadata: Option<BTreeMap<String, String>>,
}

/// How a run of a batch ended.
enum Outcome {
    Complete,
    Stopped,
    Failed { code: &'static str, message: String },
}

impl Batches {
    /// Opens the folder of batches and creates it if necessary.
    ///
    /// # Errors
    /// When it cannot be read or written, or a description in it is malformed.
    pub fn open(folder: PathBuf, files: Arc<FileStore>, metrics: Arc<Metrics>) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let mut batches = BTreeMap::new();
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if !entry.file_name().to_str().is_some_and(is_batch_id) {
                tracing::warn!(path = %entry.path().display(), "not a batch of this server; it is left alone");
                continue;
            }
            let path = entry.path().join(DESCRIPTION);
            // After a crash a folder may have no description: its creation was never confirmed to the client.
            let text = match fs::read(&path) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let batch: Batch = serde_json::from_slice(&text)
                .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
            batches.insert(batch.id.clone(), batch);
        }
        let state = Mutex::new(State { batches, ..State::default() });
        Ok(Self { folder, files, metrics, state, changed: Condvar::new(), stop: Mutex::default() })
    }

    /// Creates a batch and writes it to disk before the client is answered.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn create(&self, new: NewBatch) -> io::Result<Batch> {
        let NewBatch { input, endpoint, completion_window, metadata } = new;
        let batch = Batch {
            id: format!("{ID}{}", random::id()),
            object: "batch".to_owned(),
            endpoint,
            errors: None,
            input_file_id: input.id,
            completion_window,
            status: Status::Validating,
            output_file_id: None,
            error_file_id: None,
            created_at: clock::unix_seconds(),
            in_progress_at: None,
            finalizing_at: None,
            completed_at: None,
            failed_at: None,
            cancelling_at: None,
            cancelled_at: None,
            request_counts: Counts::default(),
            metadata,
        };
        let folder = self.folder.join(&batch.id);
        let made = fs::create_dir(&folder);
        if let Err(error) = made.and_then(|()| self.put(&mut self.state(), batch.clone())) {
            // The client is told that there is no such batch. Nobody else has put anything there.
            let _ = fs::remove_dir_all(folder);
            self.files.fails(&error);
            return Err(error);
        }
        self.files.works();
        Ok(batch)
    }

    /// The batch with this id.
    pub fn get(&self, id: &str) -> Option<Batch> {
        self.state().batches.get(id).cloned()
    }

    /// All batches, the oldest first.
    pub fn list(&self) -> Vec<Batch> {
        let mut batches: Vec<_> = self.state().batches.values().cloned().collect();
        batches.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        batches
    }

    /// Whether a batch that is not finished reads this file.
    pub fn reads(&self, file_id: &str) -> bool {
        let state = self.state();
        state.batches.values().any(|batch| !batch.status.is_final() && batch.input_file_id == file_id)
    }

    /// Starts to cancel an unfinished batch; the results it has are kept. `None` if there is no such batch.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn cancel(&self, id: &str) -> io::Result<Option<Batch>> {
        let mut state = self.state();
        let Some(mut batch) = state.batches.get(id).cloned() else { return Ok(None) };
        if !batch.status.is_final() && batch.status != Status::Cancelling {
            batch.enter(Status::Cancelling);
            self.put(&mut state, batch.clone())?;
            if state.running.as_deref() == Some(id) {
                self.stop_running();
            }
        }
        Ok(Some(batch))
    }

    /// Stops the running batch, which the next start of the server continues, and makes [`work`](Self::work) return.
    pub fn go_down(&self) {
        self.state().going_down = true;
        self.stop_running();
        self.changed.notify_all();
    }

    /// Why batches pause, if they do.
    pub fn trouble(&self) -> Option<Trouble> {
        self.state().trouble.clone()
    }

    /// Runs batches until the server shuts down.
    pub fn work(&self, model: &ServedModel, data: &DataConfig, unknown_fields: UnknownFields) {
        while let Some((mut batch, stop)) = self.next() {
            let worked = self.work_one(&mut batch, &stop, model, data, unknown_fields);
            self.state().running = None;
            match worked {
                Ok(()) => self.end_trouble(),
                Err(error) => self.pause(&batch.id, &error),
            }
        }
        self.end_trouble();
    }

    /// Waits before the disk is tried again. What a batch has on disk stays there, and the batch goes on from it.
    fn pause(&self, id: &str, error: &io::Error) {
        let mut state = self.state();
        let trouble = Trouble::after(state.trouble.as_ref(), error);
        if state.trouble.is_none() {
            tracing::error!(%error, batch = id, "batches pause: the data folder cannot be used");
        }
        self.metrics.data_folder_fails();
        if let Some(batch) = state.batches.get_mut(id) {
            batch.note(
                "disk_error",
                format!("the server cannot use its disk and tries again: {}", trouble.reason),
            );
        }
        let until = Instant::now() + trouble.pause();
        state.trouble = Some(trouble);
        while !state.going_down {
            let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
            else {
                return;
            };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn end_trouble(&self) {
        if let Some(trouble) = self.state().trouble.take() {
            self.metrics.data_folder_works();
            tracing::info!(failures = trouble.failures, "batches go on: the data folder can be used");
        }
    }

    /// Waits for an unfinished batch and returns the oldest; `None` when the server shuts down.
    fn next(&self) -> Option<(Batch, Arc<AtomicBool>)> {
        let mut state = self.state();
        loop {
            if state.going_down {
                return None;
            }
            let open = state.batches.values().filter(|batch| !batch.status.is_final());
            if let Some(batch) = open.min_by_key(|batch| (batch.created_at, &batch.id)).cloned() {
                let stop = Arc::new(AtomicBool::new(false));
                *self.stop.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&stop);
                state.running = Some(batch.id.clone());
                return Some((Batch { errors: None, ..batch }, stop));
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn work_one(
        &self,
        batch: &mut Batch,
        stop: &AtomicBool,
        model: &ServedModel,
        data: &DataConfig,
        unknown_fields: UnknownFields,
    ) -> io::Result<()> {
        let journal = self.folder.join(&batch.id).join(JOURNAL);
        let outcome = if batch.status == Status::Cancelling {
            Outcome::Stopped
        } else {
            self.run(batch, &journal, stop, model, data, unknown_fields)?
        };
        let is_cancelled = {
            let mut state = self.state();
            let found = state.batches.get(&batch.id).filter(|found| found.status == Status::Cancelling);
            let cancelling_at = found.and_then(|found| found.cancelling_at);
            batch.cancelling_at = cancelling_at;
            if matches!(outcome, Outcome::Stopped) && cancelling_at.is_none() {
                // The server shuts down; the next start continues the batch.
                return self.put(&mut state, batch.clone());
            }
            cancelling_at.is_some()
        };
        match outcome {
            Outcome::Failed { code, message } => {
                publish(batch, &journal, &self.files)?;
                batch.fail(code, message);
            }
            Outcome::Complete | Outcome::Stopped => {
                batch.enter(Status::Finalizing);
                self.put(&mut self.state(), batch.clone())?;
                publish(batch, &journal, &self.files)?;
                batch.enter(if is_cancelled { Status::Cancelled } else { Status::Completed });
            }
        }
        self.put(&mut self.state(), batch.clone())?;
        // The files hold all results now.
        let _ = fs::remove_file(Manifest::path(&journal));
        let _ = fs::remove_file(journal);
        Ok(())
    }

    /// Checks the input and answers the requests that have no result in the journal.
    fn run(
        &self,
        batch: &mut Batch,
        journal: &Path,
        stop: &AtomicBool,
        model: &ServedModel,
        data: &DataConfig,
        unknown_fields: UnknownFields,
    ) -> io::Result<Outcome> {
        let Some(input) = self.files.get(&batch.input_file_id) else {
            let message = format!("the input file {} is gone", batch.input_file_id);
            return Ok(Outcome::Failed { code: "no_such_file", message });
        };
        let input =
            match Input::open(&self.files.content(&input), InputFormat::JsonLines, Compression::Refuse) {
                Ok(input) => input,
                Err(error) => return Ok(failed(&error)),
            };
        let scan = match input.scan(Shard::WHOLE) {
            Ok(scan) => scan,
            Err(error) => return Ok(failed(&error)),
        };
        batch.request_counts.total = scan.as_ref().map_or(0, |scan| scan.lines);
        if batch.request_counts.total == 0 {
            let message = "the input file has no lines".to_owned();
            return Ok(Outcome::Failed { code: "empty_file", message });
        }
        if !self.begin(batch)? {
            return Ok(Outcome::Stopped);
        }

        let opened = Output::open(journal)
            .and_then(|output| output.begin(data.manifest.clone(), Existing::Resume, Errors::Keep, scan));
        let mut journal = match opened {
            Ok(journal) => journal,
            Err(error) => return failed_or_disk(error),
        };
        if journal.found().has_other_bits {
            tracing::warn!(
                batch = batch.id,
                "results that it has may be of an older version, whose numbers can differ from this one's in the last bits"
            );
        }
        let context = Model {
            tokenizer: &model.tokenizer,
            grammars: &model.grammars,
            names: &model.names,
            hidden_size: model.config.hidden_size(),
            pooling: model.pooling,
            fingerprint: model.fingerprint.as_deref(),
            seed: data.seed,
            unknown_fields,
            defaults: &Defaults::default(),
        };
        let window = NonZeroUsize::MIN.saturating_add(WINDOW * model.config.batch_size - 1);
        let options =
            Options { window, order: Order::AsFinished, shard: Shard::WHOLE, priority: Priority::Low };
        let id = batch.id.clone();
        let mut report = |report: Report<'_>| match report {
            Report::Totals(totals) => {
                if let Some(batch) = self.state().batches.get_mut(&id) {
                    batch.request_counts = counts(batch.request_counts.total, totals);
                }
            }
            Report::IgnoredField { name, line } => {
                tracing::warn!(batch = id, line, "the field {name:?} is not known and has no effect");
            }
            // The batch's file of errors has them.
            Report::Error { .. } => {}
        };
        match batch::run(&model.engine, &context, input, &mut journal, &options, stop, &mut report) {
            Ok((totals, end)) => {
                batch.request_counts = counts(batch.request_counts.total, &totals);
                Ok(if end == End::Complete { Outcome::Complete } else { Outcome::Stopped })
            }
            Err(Error::EngineStopped) => Ok(Outcome::Stopped),
            Err(error) => failed_or_disk(error),
        }
    }

    /// Changes the status to [`Status::InProgress`], unless the batch was cancelled meanwhile.
    fn begin(&self, batch: &mut Batch) -> io::Result<bool> {
        let mut state = self.state();
        if state.batches.get(&batch.id).is_some_and(|batch| batch.status == Status::Cancelling) {
            return Ok(false);
        }
        batch.enter(Status::InProgress);
        self.put(&mut state, batch.clone())?;
        Ok(true)
    }

    /// Writes a batch's description to disk, then makes it visible.
    fn put(&self, state: &mut State, batch: Batch) -> io::Result<()> {
        write_durably(&self.folder.join(&batch.id).join(DESCRIPTION), &serde_json::to_vec(&batch)?)?;
        state.batches.insert(batch.id.clone(), batch);
        self.changed.notify_all();
        Ok(())
    }

    fn stop_running(&self) {
        self.stop.lock().unwrap_or_else(PoisonError::into_inner).store(true, Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn counts(total: u64, totals: &Totals) -> Counts {
    let failed = totals.found.errors + totals.errors;
    Counts { total, completed: totals.found.results + totals.results - failed, failed }
}

/// Why the runner failed; an error if it can be tried again.
fn failed_or_disk(error: Error) -> io::Result<Outcome> {
    match error {
        Error::Io { source, .. } => Err(source),
        // The next run repairs it.
        Error::OutputChanged { .. } => Err(io::Error::other(error)),
        error => Ok(failed(&error)),
    }
}

/// Why the runner failed.
fn failed(error: &Error) -> Outcome {
    let code = match error {
        Error::DuplicateId { .. } => "duplicate_custom_id",
        Error::OtherRun { .. } => "other_model",
        Error::NotJsonLines { .. } => "invalid_file",
        _ => "batch_failed",
    };
    tracing::warn!(%error, "a batch failed");
    // Messages begin with a path on the server, which is removed.
    let message = match error {
        Error::NotJsonLines { found, .. } => format!("input: expected JSON lines, found {found}"),
        Error::DuplicateId { custom_id, first, second, .. } => {
            format!("custom_id {custom_id:?}: expected it once, found it in lines {first} and {second}")
        }
        Error::OtherRun { differences, .. } => {
            let differences: Vec<_> = differences.iter().map(ToString::to_string).collect();
            format!("the batch was begun with another model or other options: {}", differences.join("; "))
        }
        _ => "the server could not go on with the batch; its log says why".to_owned(),
    };
    Outcome::Failed { code, message }
}
