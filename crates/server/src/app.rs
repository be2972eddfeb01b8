//! What all handlers share.

use std::io;
use std::sync::{Arc, Weak};
use std::time::Instant;

use prometheus_client::registry::Registry;
use rustorch_llama::Client;
use tokio::task::spawn_blocking;

use crate::access::Access;
use crate::auth::Keys;
use crate::batches::Batches;
use crate::config::{ServedModel, ServerConfig};
use crate::data_folder::DataFolder;
use crate::drain::{Drain, Ticket};
use crate::files::FileStore;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::proxies::Proxies;
use crate::queue::Queue;
use crate::refusal::Refusal;

/// What all handlers share.
#[derive(Debug)]
pub(crate) struct App {
    pub model: ServedModel,
    pub config: ServerConfig,
    /// Seconds since 1970 when the server started.
    pub started: u64,
    pub queue: Arc<Queue>,
    pub memory: Arc<Memory>,
    pub metrics: Arc<Metrics>,
    pub registry: Registry,
    pub drain: Drain,
    /// `None` without a data folder.
    pub files: Option<Arc<FileStore>>,
    pub batches: Option<Arc<Batches>>,
    pub keys: Keys,
    pub proxies: Proxies,
    /// `None` without a data folder.
    data: Option<DataFolder>,
}

pub(crate) type AppState = Arc<App>;

/// What a handler knows of its request beside the request itself.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// Random, as 32 hexadecimal digits.
    pub id: Arc<str>,
    /// Clients are told apart by their keys or, if there are not several, by their addresses.
    pub client: Client,
    pub arrived: Instant,
    pub deadline: tokio::time::Instant,
    /// What the access log says of it.
    pub access: Arc<Access>,
    /// Held until the answer has been sent: draining waits for it.
    pub _ticket: Arc<Ticket>,
}

impl App {
    /// Opens the data folder, if one is configured.
    pub fn new(model: ServedModel, config: ServerConfig, drain: Drain) -> io::Result<Self> {
        let metrics = Arc::new(Metrics::default());
        let data = config.data.as_ref().map(|data| DataFolder::open(&data.folder)).transpose()?;
        let (files, batches) = match &data {
            Some(data) => {
                let files = Arc::new(FileStore::open(data.files()).map_err(io::Error::other)?);
                let batches = Batches::open(data.batches(), Arc::clone(&files), Arc::clone(&metrics))?;
                // All of the folder could be read.
                files.remove_leftovers().map_err(io::Error::other)?;
                (Some(files), Some(Arc::new(batches)))
            }
            None => (None, None),
        };
        let batch_size = model.config.batch_size;
        let queue = Arc::new(Queue::new(batch_size, config.max_queue));
        let memory = Arc::new(Memory::new(config.request_memory));
        Ok(Self {
            started: crate::clock::unix_seconds(),
            registry: metrics.registry(model.engine.clone(), Arc::clone(&memory), Arc::clone(&queue)),
            queue,
            memory,
            metrics,
            drain,
            keys: Keys::new(&config.api_keys),
            proxies: Proxies(config.trusted_proxies.clone()),
            data,
            files,
            batches,
            model,
            config,
        })
    }

    /// Unlocks the data folder for another server, even if a connection still holds this `App`.
    pub fn release_data(&self) {
        if let Some(data) = &self.data {
            data.release();
        }
    }
}

/// Runs slow work, such as tokenising, on a thread for blocking work, so that no other request waits for it. Work that has not begun when
/// its future is dropped is not done.
///
/// # Errors
/// Those of `work`.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    blocking_while_awaited(|_| work()).await
}

/// As [`blocking`]; `work` can look whether its future has been dropped: the strong count of what it is given is then 0.
///
/// # Errors
/// Those of `work`.
pub(crate) async fn blocking_while_awaited<T: Send + 'static>(
    work: impl FnOnce(&Weak<()>) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let waiting = Arc::new(());
    let is_waiting = Arc::downgrade(&waiting);
    let work = move || match is_waiting.strong_count() {
        // The client left while other work had all threads.
        0 => Err(Refusal::client_left()),
        _ => work(&is_waiting),
    };
    let done = spawn_blocking(work).await;
    drop(waiting);
    done.unwrap_or_else(|error| Err(Refusal::internal("the request", &error)))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn nothing_is_done_for_those_who_have_left() {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        let (done, was_done) = channel();
        let work = |name: &'static str| {
            let done = done.clone();
            blocking(move || done.send(name).map_err(|error| Refusal::internal("a test", &error)))
        };
        let (begin, may_begin) = channel::<()>();
        runtime.block_on(async {
            let first = spawn_blocking(move || may_begin.recv());
            // Each is in the queue of the one thread.
            let (mut left, mut stays) = (Box::pin(work("left")), Box::pin(work("stays")));
            assert!(left.as_mut().now_or_never().is_none() && stays.as_mut().now_or_never().is_none());
            drop(left);
            begin.send(()).unwrap();
            first.await.unwrap().unwrap();
            stays.await.unwrap();
        });
        assert_eq!(was_done.try_iter().collect::<Vec<_>>(), ["stays"]);
    }
}
