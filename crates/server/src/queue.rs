//! The limit of sequences in flight: those of the batch and those of a queue of limited length.
//!
//! The engine's own queue is unbounded, so the server counts: a sequence holds a place from before its submission until the
//! engine drops it. An eighth of the queue is kept for clients that hold few, so that nobody can fill the queue for all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::StatusCode;
use rustorch_llama::ClientId;

use crate::refusal::Refusal;

/// Places for sequences.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Arc<Mutex<State>>,
    capacity: usize,
    /// Places that a client gets only if it holds no more than so many, those included.
    kept: usize,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// Of clients that hold places.
    held: HashMap<ClientId, usize>,
}

/// Places of one client, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Places {
    state: Arc<Mutex<State>>,
    client: ClientId,
    count: usize,
}

impl Queue {
    /// Places for `running` sequences and `waiting` more.
    pub fn new(running: usize, waiting: usize) -> Self {
        let capacity = running.saturating_add(waiting);
        let state = State { free: capacity, held: HashMap::new() };
        Self { state: Arc::new(Mutex::new(state)), capacity, kept: waiting / 8 }
    }

    /// Takes `count` places for `client`, or none.
    ///
    /// # Errors
    /// 429 if there are too few now; 400 if it could never have so many.
    pub fn reserve(&self, client: ClientId, count: usize) -> Result<Places, Refusal> {
        let most = self.most();
        if count > most {
            let rest = format!("expected at most {most} choices over all prompts, found {count}");
            return Err(Refusal::field("n", rest));
        }
        let mut state = lock(&self.state);
        let held = state.held.get(&client).copied().unwrap_or_default() + count;
        let left = state.free.checked_sub(count).ok_or_else(full)?;
        if left < self.kept && held > self.kept {
            return Err(full());
        }
        state.free = left;
        state.held.insert(client, held);
        Ok(Places { state: Arc::clone(&self.state), client, count })
    }

    /// Most places of one client.
    pub fn most(&self) -> usize {
        self.capacity - self.kept
    }

    /// Refuses if there is no place at all, so that a refused request is not parsed.
    ///
    /// # Errors
    /// 429.
    pub fn check(&self) -> Result<(), Refusal> {
        if lock(&self.state).free == 0 { Err(full()) } else { Ok(()) }
    }

    /// How many clients hold places, and the most that one of them holds.
    pub fn clients(&self) -> (usize, usize) {
        let state = lock(&self.state);
        (state.held.len(), state.held.values().copied().max().unwrap_or_default())
    }
}

impl Places {
    /// Takes one of them out, if there is one.
    pub fn split(&mut self) -> Option<Self> {
        self.count = self.count.checked_sub(1)?;
        Some(Self { state: Arc::clone(&self.state), client: self.client, count: 1 })
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        state.free += self.count;
        let left = state.held.get(&self.client).copied().unwrap_or_default().saturating_sub(self.count);
        match left {
            0 => drop(state.held.remove(&self.client)),
            left => drop(state.held.insert(self.client, left)),
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // Nothing panics while it is locked.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn full() -> Refusal {
    let message = "the queue is full: try again in a moment";
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "queue_full", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(result: Result<Places, Refusal>) -> Result<(), u16> {
        result.map(drop).map_err(|refusal| refusal.0.status)
    }

    #[test]
    fn places_are_taken_all_or_none_and_given_back() {
        let queue = Queue::new(2, 1);
        let client = ClientId::default();
        let held = queue.reserve(client, 2).unwrap();
        assert_eq!(status(queue.reserve(client, 2)), Err(429));
        assert_eq!(status(queue.reserve(client, 4)), Err(400), "more than there are");
        let last = queue.reserve(client, 1).unwrap();
        assert!(queue.check().is_err());
        drop((held, last));
        assert_eq!(queue.clients(), (0, 0));
        assert_eq!(status(queue.reserve(client, 3)), Ok(()));
    }

    #[test]
    fn a_client_leaves_places_for_others() {
        let queue = Queue::new(8, 16);
        let [greedy, other, third] = [1, 2, 3].map(ClientId);
        assert_eq!(status(queue.reserve(greedy, 23)), Err(400), "two are kept");
        let mut held = queue.reserve(greedy, 22).unwrap();
        assert_eq!(status(queue.reserve(greedy, 1)), Err(429));
        assert_eq!(status(queue.reserve(other, 3)), Err(429), "more than is left");
        let few = queue.reserve(other, 1).unwrap();
        let last = queue.reserve(third, 1).unwrap();
        assert_eq!(status(queue.reserve(other, 1)), Err(429));
        assert_eq!(queue.clients(), (3, 22));
        let one = held.split().unwrap();
        drop((few, last, held));
        assert_eq!(queue.clients(), (1, 1));
        drop(one);
        assert_eq!(queue.clients(), (0, 0));
    }
}
