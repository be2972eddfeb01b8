//! The way down: what has begun is finished, what is new is refused.

use tokio::sync::watch;

/// Counts what is under way, and knows whether the server is going down.
#[derive(Debug)]
pub(crate) struct Drain {
    draining: watch::Sender<bool>,
    under_way: watch::Sender<usize>,
}

/// One request under way, until its last byte is handed over.
#[derive(Debug)]
pub(crate) struct Ticket(watch::Sender<usize>);

impl Drain {
    /// A server that is up. Whoever holds `draining` takes it down.
    pub fn new(draining: watch::Sender<bool>) -> Self {
        Self { draining, under_way: watch::Sender::new(0) }
    }

    /// Whether the server is going down.
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Notes a request.
    pub fn enter(&self) -> Ticket {
        self.under_way.send_modify(|count| *count += 1);
        Ticket(self.under_way.clone())
    }

    /// Waits until the server is told to go down.
    pub async fn begun(&self) {
        // The sender is ours, so it cannot be gone.
        let _ = self.draining.subscribe().wait_for(|draining| *draining).await;
    }

    /// Waits until nothing is under way.
    pub async fn idle(&self) {
        let _ = self.under_way.subscribe().wait_for(|count| *count == 0).await;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
