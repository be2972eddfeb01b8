//! The two ends of a request's events: the engine's, which never leaves one without an ending, and the caller's.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use crate::error::{EngineError, Result};
use crate::request::{Completion, Embedding, Event, FinishReason, TokenEvent, TokenLogprobs, Usage};

/// Where a request's events go.
///
/// The engine calls it on its own thread between steps, so it must not block: a bounded channel would let one slow reader
/// hold up every sequence.
pub trait EventSink: Send {
    /// Takes the next event. The last one is [`Event::Finished`], [`Event::Embedding`] or [`Event::Error`], and it
    /// always comes.
    fn send(&mut self, event: Event);

    /// True once nobody wants the events: the engine asks before each step, and cancels the request.
    fn is_closed(&self) -> bool;
}

/// The engine's end: sends one ending, whatever happens to the sequence that owns it.
pub(crate) struct EventSender {
    sink: Box<dyn EventSink>,
    ending: Option<Ending>,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Finished(FinishReason),
    Embedding,
    Error,
    /// Without an event.
    Forgotten,
}

impl EventSender {
    pub fn new(sink: impl EventSink + 'static) -> Self {
        Self { sink: Box::new(sink), ending: None }
    }

    pub fn token(&mut self, token: TokenEvent) {
        debug_assert!(self.ending.is_none(), "a token after the end");
        self.sink.send(Event::Token(token));
    }

    pub fn prompt(&mut self, logprobs: Vec<TokenLogprobs>) {
        debug_assert!(self.ending.is_none(), "a prompt after the end");
        self.sink.send(Event::Prompt(logprobs));
    }

    pub fn finish(&mut self, reason: FinishReason, usage: Usage, stop_string: Option<String>) {
        let (prompt_tokens, generated_tokens) = (usage.prompt_tokens, usage.completion_tokens);
        tracing::debug!(?reason, prompt_tokens, generated_tokens, "finished");
        self.end(Ending::Finished(reason), Event::Finished { reason, usage, stop_string });
    }

    pub fn embedding(&mut self, values: Vec<f32>, usage: Usage) {
        self.end(Ending::Embedding, Event::Embedding { values, usage });
    }

    pub fn fail(&mut self, error: EngineError) {
        self.end(Ending::Error, Event::Error(error));
    }

    /// Sends nothing more, not even an ending: the caller learns it in another way.
    pub fn forget(&mut self) {
        self.ending = Some(Ending::Forgotten);
    }

    pub fn ending(&self) -> Option<Ending> {
        self.ending
    }

    pub fn has_ended(&self) -> bool {
        self.ending.is_some()
    }

    pub fn is_closed(&self) -> bool {
        self.sink.is_closed()
    }

    fn end(&mut self, ending: Ending, event: Event) {
        debug_assert!(self.ending.is_none(), "a second end");
        self.ending = Some(ending);
        self.sink.send(event);
    }
}

impl Drop for EventSender {
    fn drop(&mut self) {
        if self.ending.is_none() {
            self.sink.send(Event::Error(EngineError::Stopped));
        }
    }
}

impl fmt::Debug for EventSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventSender").field("ending", &self.ending).finish_non_exhaustive()
    }
}

/// A request's events. Dropping it cancels the request before the next step.
#[derive(Debug)]
pub struct RequestStream {
    events: mpsc::Receiver<Event>,
    dropped: Arc<AtomicBool>,
}

/// The engine's side of a [`RequestStream`].
struct StreamSink {
    events: mpsc::Sender<Event>,
    dropped: Arc<AtomicBool>,
}

impl RequestStream {
    pub(crate) fn new() -> (impl EventSink, Self) {
        let (sender, receiver) = mpsc::channel();
        let dropped = Arc::new(AtomicBool::new(false));
        (StreamSink { events: sender, dropped: Arc::clone(&dropped) }, Self { events: receiver, dropped })
    }

    /// Waits for the next event. `None` after the ending.
    pub fn recv(&mut self) -> Option<Event> {
        self.events.recv().ok()
    }

    /// The next event if it is there already. `None` means not yet, or after the ending never.
    pub fn try_recv(&mut self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// Waits for the end and returns all that was generated.
    ///
    /// # Errors
    /// The error that ended the request.
    pub fn completion(self) -> Result<Completion> {
        Completion::collect(self)
    }

    /// Waits for the end of a request for an embedding and returns it.
    ///
    /// # Errors
    /// The error that ended the request.
    pub fn embedding(self) -> Result<Embedding> {
        Embedding::collect(self)
    }
}

impl Iterator for RequestStream {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.recv()
    }
}

impl Drop for RequestStream {
    fn drop(&mut self) {
        self.dropped.store(true, Ordering::Relaxed);
    }
}

impl EventSink for StreamSink {
    fn send(&mut self, event: Event) {
        // A failure means that the stream was dropped, which `is_closed` tells.
        let _ = self.events.send(event);
    }

    fn is_closed(&self) -> bool {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Sends events to a channel that many requests share, each with its request's tag.
pub(crate) struct TaggedSink {
    pub tag: u64,
    pub events: mpsc::Sender<(u64, Event)>,
    pub closed: bool,
}

impl EventSink for TaggedSink {
    fn send(&mut self, event: Event) {
        self.closed |= self.events.send((self.tag, event)).is_err();
    }

    fn is_closed(&self) -> bool {
        self.closed
    }
}
