//! SIGINT and SIGTERM: the first asks the program to stop, the second ends it.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Signals received since they are watched.
pub struct Signals {
    stop: Arc<AtomicBool>,
    number: Arc<AtomicUsize>,
}

impl Signals {
    /// Handles both signals; a second one has its usual effect.
    pub fn watch() -> io::Result<Self> {
        let signals = Self { stop: Arc::default(), number: Arc::default() };
        for signal in [SIGINT, SIGTERM] {
            // Runs before the flag is set below, so the first signal does not end the program.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&signals.stop))?;
            flag::register_usize(signal, Arc::clone(&signals.number), signal as usize)?;
            flag::register(signal, Arc::clone(&signals.stop))?;
        }
        Ok(signals)
    }

    /// True once a signal was received.
    pub fn stop(&self) -> &AtomicBool {
        &self.stop
    }

    /// Its name, and the exit status of shells for it: 128 plus its number.
    pub fn received(&self) -> (&'static str, ExitCode) {
        let number = self.number.load(Ordering::Relaxed) as i32;
        let name = if number == SIGTERM { "SIGTERM" } else { "SIGINT" };
        (name, ExitCode::from(128 + number as u8))
    }
}
