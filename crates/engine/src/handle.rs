//! The caller's side of an engine's thread.

use std::fmt;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crate::admission::Admission;
use crate::error::{EngineError, Result};
use crate::events::{EventSink, RequestStream, TaggedSink};
use crate::replicas::{ReplicaStats, Replicas};
use crate::request::{EmbeddingRequest, Event, Request};
use crate::sequence::Sequence;
use crate::stats::EngineStats;

/// Submits requests to an engine, which may have a replica on each of several devices. Clones share it; when the last one is dropped,
/// the engine stops.
#[derive(Clone)]
pub struct EngineHandle {
    shared: Arc<Shared>,
}

/// What an engine's thread is told.
pub(crate) enum Command {
    Submit(Vec<Sequence>),
    Stop,
}

struct Shared {
    admission: Admission,
    replicas: Arc<Replicas>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// A handle whose threads are being started. Dropped, it ends them.
pub(crate) struct HandleParts(Shared);

impl HandleParts {
    pub fn new(admission: Admission, replicas: Arc<Replicas>) -> Self {
        Self(Shared { admission, replicas, threads: Mutex::default() })
    }

    pub fn add_thread(&mut self, thread: JoinHandle<()>) {
        self.0.threads.get_mut().unwrap_or_else(PoisonError::into_inner).push(thread);
    }
}

impl From<HandleParts> for EngineHandle {
    fn from(parts: HandleParts) -> Self {
        Self { shared: Arc::new(parts.0) }
    }
}

impl EngineHandle {
    /// Tokens of the longest sequence, prompt and output together: what the context holds, or all KV pages if that is less.
    pub fn max_seq_tokens(&self) -> usize {
        self.shared.admission.most_tokens()
    }

    /// Queues a request; its events are the stream's. Dropping the stream cancels it.
    ///
    /// The queue has no bound: whoever has many requests keeps a few times as many as run in it and submits the next when
    /// one ends.
    ///
    /// # Errors
    /// The reason why the request can never be served: an empty prompt, a token out of the vocabulary, a parameter out of
    /// its range, a length beyond the context or beyond all KV pages. [`EngineError::Stopped`] if the engine has stopped.
    pub fn submit(&self, request: Request) -> Result<RequestStream> {
        let (sink, stream) = RequestStream::new();
        self.submit_with(request, sink)?;
        Ok(stream)
    }

    /// Queues a request whose events go, with its `tag`, to a channel that many requests share. Once the receiver is
    /// dropped, each of them is cancelled when it has something to send.
    ///
    /// # Errors
    /// As [`submit`](Self::submit); nothing is sent then.
    pub fn submit_to(&self, request: Request, tag: u64, events: &Sender<(u64, Event)>) -> Result<()> {
        self.submit_with(request, TaggedSink { tag, events: events.clone(), closed: false })
    }

    /// Queues a request whose events go to `sink`.
    ///
    /// # Errors
    /// As [`submit`](Self::submit); nothing is sent then.
    pub fn submit_with(&self, request: Request, sink: impl EventSink + 'static) -> Result<()> {
        self.submit_together([(request, sink)])
    }

    /// Queues several requests, each with its sink, between two steps: none of them begins before all have arrived. Of an engine with
    /// replicas that holds for each of them: neighbours with the same prompt stay together, others may run on different ones.
    ///
    /// # Errors
    /// As [`submit`](Self::submit) for the first that is refused; none is queued then, and nothing is sent.
    pub fn submit_together<S: EventSink + 'static>(
        &self,
        requests: impl IntoIterator<Item = (Request, S)>,
    ) -> Result<()> {
        let admission = &self.shared.admission;
        self.queue(all_or_none(requests.into_iter().map(|(request, sink)| admission.admit(request, sink)))?)
    }

    /// Queues a prompt to embed; the stream's only event is [`Event::Embedding`] or [`Event::Error`]. Dropping the stream
    /// cancels it.
    ///
    /// # Errors
    /// The reason why it can never be served: an empty prompt, a token out of the vocabulary, a length beyond the context
    /// or beyond all KV pages. [`EngineError::Stopped`] if the engine has stopped.
    pub fn embed(&self, request: EmbeddingRequest) -> Result<RequestStream> {
        let (sink, stream) = RequestStream::new();
        self.embed_with(request, sink)?;
        Ok(stream)
    }

    /// Queues a prompt to embed whose event goes to `sink`.
    ///
    /// # Errors
    /// As [`embed`](Self::embed); nothing is sent then.
    pub fn embed_with(&self, request: EmbeddingRequest, sink: impl EventSink + 'static) -> Result<()> {
        self.embed_together([(request, sink)])
    }

    /// Queues several prompts to embed, each with its sink, between two steps.
    ///
    /// # Errors
    /// As [`embed`](Self::embed) for the first that is refused; none is queued then, and nothing is sent.
    pub fn embed_together<S: EventSink + 'static>(
        &self,
        requests: impl IntoIterator<Item = (EmbeddingRequest, S)>,
    ) -> Result<()> {
        let admission = &self.shared.admission;
        let seqs = requests.into_iter().map(|(request, sink)| admission.admit_embedding(request, sink));
        self.queue(all_or_none(seqs)?)
    }

    fn queue(&self, seqs: Vec<Sequence>) -> Result<()> {
        self.shared.replicas.queue(seqs).map_err(|seqs| {
            forget(seqs);
            EngineError::Stopped
        })
    }

    /// The figures after the latest step; of an engine with replicas, their sums.
    pub fn stats(&self) -> EngineStats {
        let mut sum = EngineStats::default();
        self.shared.replicas.stats().for_each(|replica| sum.add(&replica.stats));
        sum
    }

    /// The figures of each replica, in the order in which their devices were given; an engine without others is one.
    pub fn replicas(&self) -> Vec<ReplicaStats> {
        self.shared.replicas.stats().collect()
    }

    /// Ends every request with [`EngineError::Stopped`] and waits until the engine's threads have ended.
    pub fn shutdown(&self) {
        self.shared.stop();
    }
}

/// Gathers admitted sequences; after the first refusal there are none.
fn all_or_none(admitted: impl Iterator<Item = Result<Sequence>>) -> Result<Vec<Sequence>> {
    let mut seqs = Vec::new();
    for seq in admitted {
        match seq {
            Ok(seq) => seqs.push(seq),
            Err(error) => {
                forget(seqs);
                return Err(error);
            }
        }
    }
    Ok(seqs)
}

/// Drops sequences whose submission failed: the caller learns it from the error, not from their sinks.
fn forget(seqs: Vec<Sequence>) {
    for mut seq in seqs {
        seq.events.forget();
    }
}

impl fmt::Debug for EngineHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineHandle").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Shared {
    fn stop(&self) {
        self.replicas.stop();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // The last handle may be dropped by an event sink, on an engine's own thread, which cannot wait for itself.
            if thread.thread().id() != thread::current().id() && thread.join().is_err() {
                tracing::error!("the engine's thread ended by a panic");
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop();
    }
}
