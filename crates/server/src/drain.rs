//! Shutting down: running requests are finished, new ones are refused.

use tokio::sync::watch;

/// Counts running requests and knows whether the server is shutting down.
#[derive(Debug)]
pub(crate) struct Drain {
    draining: watch::Sender<bool>,
    under_way: watch::Sender<usize>,
}

/// One running request, until its last byte has been sent.
#[derive(Debug)]
pub(crate) struct Ticket(watch::Sender<usize>);

impl Drain {
    /// For a server that is running. Sending true on `draining` shuts it down.
    pub fn new(draining: watch::Sender<bool>) -> Self {
        Self { draining, under_way: watch::Sender::new(0) }
    }

    /// Whether the server is shutting down.
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Counts a request.
    pub fn enter(&self) -> Ticket {
        self.under_way.send_modify(|count| *count += 1);
        Ticket(self.under_way.clone())
    }

    /// Waits until the server is told to shut down.
    pub async fn begun(&self) {
        // The sender is ours, so it cannot be gone.
        let _ = self.draining.subscribe().wait_for(|draining| *draining).await;
    }

    /// Waits until no request is running.
    pub async fn idle(&self) {
        let _ = self.under_way.subscribe().wait_for(|count| *count == 0).await;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
