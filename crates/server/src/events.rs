//! The channel of a request's events, from the engine's thread to the request's task.
//!
//! The engine must never wait for a reader, so the channel is unbounded. Instead, unread events are counted: when a reader
//! falls too far behind, its sequences are cancelled as if it had gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use rustorch_llama::{Event, EventSink};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::access::Access;
use crate::metrics::Metrics;
use crate::queue::Places;

/// Most unread events of a request. At a few hundred bytes each they take a few megabytes, and only for a client that does
/// not read for thousands of tokens.
pub(crate) const MAX_BACKLOG: usize = 16 * 1024;

/// The task's end. Dropping it cancels the request's sequences before the next step.
#[derive(Debug)]
pub(crate) struct Events {
    receiver: UnboundedReceiver<(usize, Event)>,
    backlog: Arc<AtomicUsize>,
}

/// Makes the engine's ends of one request's events.
pub(crate) struct Sinks {
    events: UnboundedSender<(usize, Event)>,
    backlog: Arc<AtomicUsize>,
    places: Places,
    metrics: Arc<Metrics>,
    arrived: Instant,
    access: Arc<Access>,
}

/// The engine's end, of one sequence.
pub(crate) struct Sink {
    choice: usize,
    events: UnboundedSender<(usize, Event)>,
    backlog: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
    /// When the sequence's latest token came or, before the first, its request.
    since: Instant,
    num_tokens: usize,
    arrived: Instant,
    access: Arc<Access>,
    /// Released when the engine drops the sequence. `None` if its request had fewer places than sequences.
    _place: Option<Places>,
}

/// Both ends of a request that arrived at `arrived` and holds `places`, at most one a sequence.
pub(crate) fn channel(
    places: Places,
    metrics: Arc<Metrics>,
    arrived: Instant,
    access: Arc<Access>,
) -> (Sinks, Events) {
    let (events, receiver) = mpsc::unbounded_channel();
    let backlog = Arc::new(AtomicUsize::new(0));
    let sinks = Sinks { events, backlog: Arc::clone(&backlog), places, metrics, arrived, access };
    (sinks, Events { receiver, backlog })
}

impl Sinks {
    /// The sink of the sequence with this index.
    pub fn sink(&mut self, choice: usize) -> Sink {
        Sink {
            choice,
            events: self.events.clone(),
            backlog: Arc::clone(&self.backlog),
            metrics: Arc::clone(&self.metrics),
            since: self.arrived,
            num_tokens: 0,
            arrived: self.arrived,
            access: Arc::clone(&self.access),
            _place: self.places.split(),
        }
    }
}

impl EventSink for Sink {
    fn send(&mut self, event: Event) {
        match &event {
            Event::Token(_) => {
                let now = Instant::now();
                self.metrics.token(now - self.since, self.num_tokens > 0);
                self.access.token(now - self.arrived);
                self.since = now;
                self.num_tokens += 1;
            }
            // A token that ends a sequence without being text is counted and not sent.
            Event::Finished { usage, .. } => {
                self.access.unsent_tokens(usage.completion_tokens.saturating_sub(self.num_tokens));
            }
            _ => {}
        }
        self.backlog.fetch_add(1, Ordering::Relaxed);
        // A failure means that the reader has gone, which `is_closed` tells.
        let _ = self.events.send((self.choice, event));
    }

    fn is_closed(&self) -> bool {
        self.events.is_closed() || self.backlog.load(Ordering::Relaxed) > MAX_BACKLOG
    }
}

impl Events {
    /// Waits for the next event and the index of its sequence.
    pub async fn next(&mut self) -> Option<(usize, Event)> {
        let event = self.receiver.recv().await;
        self.took(event)
    }

    /// The next event, if it is there already.
    pub fn try_next(&mut self) -> Option<(usize, Event)> {
        let event = self.receiver.try_recv().ok();
        self.took(event)
    }

    /// Whether the reader has fallen so far behind that its sequences are cancelled.
    pub fn has_overflowed(&self) -> bool {
        self.backlog.load(Ordering::Relaxed) > MAX_BACKLOG
    }

    fn took(&mut self, event: Option<(usize, Event)>) -> Option<(usize, Event)> {
        // Once exceeded, always exceeded: the sequences may have been cancelled for it.
        if event.is_some() && !self.has_overflowed() {
            self.backlog.fetch_sub(1, Ordering::Relaxed);
        }
        event
    }
}

#[cfg(test)]
mod tests {
    use rustorch_llama::{ClientId, TokenEvent};

    use super::*;
    use crate::queue::Queue;

    fn token() -> Event {
        Event::Token(TokenEvent { token_id: 1, text: "a".into(), logprobs: None, num_in_text: 1 })
    }

    #[test]
    fn a_reader_that_falls_behind_is_cut_off_for_good() {
        let queue = Queue::new(1, 0);
        let places = queue.reserve(ClientId(1), 1).unwrap();
        let (mut sinks, mut events) =
            channel(places, Arc::new(Metrics::default()), Instant::now(), Arc::default());
        let mut sink = sinks.sink(0);
        for _ in 0..MAX_BACKLOG {
            sink.send(token());
        }
        assert!(!sink.is_closed());
        assert!(events.try_next().is_some(), "what is read makes room");
        sink.send(token());
        assert!(!sink.is_closed());
        sink.send(token());
        assert!(sink.is_closed() && events.has_overflowed());
        while events.try_next().is_some() {}
        assert!(sink.is_closed() && events.has_overflowed());
    }

    #[test]
    fn a_place_is_free_when_the_engine_drops_the_sequence() {
        let queue = Queue::new(2, 0);
        let places = queue.reserve(ClientId(1), 2).unwrap();
        let (mut sinks, events) =
            channel(places, Arc::new(Metrics::default()), Instant::now(), Arc::default());
        let [first, second] = [sinks.sink(0), sinks.sink(1)];
        drop(sinks);
        assert!(queue.check().is_err());
        drop(first);
        assert!(queue.reserve(ClientId(1), 1).is_ok());
        drop(events);
        assert!(second.is_closed(), "a reader that has gone");
    }
}
