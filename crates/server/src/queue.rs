//! The limit of sequences in flight: those of the batch and those of a queue of limited length.
//!
//! The engine's own queue is unbounded, so the server counts: a sequence holds a place from before its submission until the
//! engine drops it.

use std::sync::Arc;

use axum::http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::refusal::Refusal;

/// Places for sequences.
#[derive(Debug)]
pub(crate) struct Queue {
    places: Arc<Semaphore>,
    capacity: usize,
}

impl Queue {
    /// Places for `running` sequences and `waiting` more.
    pub fn new(running: usize, waiting: usize) -> Self {
        let capacity = running.saturating_add(waiting).min(Semaphore::MAX_PERMITS);
        Self { places: Arc::new(Semaphore::new(capacity)), capacity }
    }

    /// Takes `count` places, or none.
    ///
    /// # Errors
    /// 429 if there are too few now; 400 if there are too few in all.
    pub fn reserve(&self, count: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        if count > self.capacity {
            let capacity = self.capacity;
            let rest = format!("expected at most {capacity} choices over all prompts, found {count}");
            return Err(Refusal::field("n", rest));
        }
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        Arc::clone(&self.places).try_acquire_many_owned(count).map_err(|_| full())
    }

    /// Refuses if there is no place at all, so that a refused request is not parsed.
    ///
    /// # Errors
    /// 429.
    pub fn check(&self) -> Result<(), Refusal> {
        if self.places.available_permits() == 0 { Err(full()) } else { Ok(()) }
    }
}

fn full() -> Refusal {
    let message = "the queue is full: try again in a moment";
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "queue_full", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_taken_all_or_none_and_given_back() {
        let queue = Queue::new(2, 1);
        let status =
            |result: Result<_, Refusal>| result.map(|_: OwnedSemaphorePermit| ()).map_err(|e| e.0.status);
        let held = queue.reserve(2).unwrap();
        assert_eq!(status(queue.reserve(2)), Err(429));
        assert_eq!(status(queue.reserve(4)), Err(400), "more than there are");
        let last = queue.reserve(1).unwrap();
        assert!(queue.check().is_err());
        drop((held, last));
        assert_eq!(status(queue.reserve(3)), Ok(()));
    }
}
