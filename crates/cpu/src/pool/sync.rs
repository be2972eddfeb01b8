//! What the pool synchronises with. `check` has a twin of this module under a model checker.

use std::cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
pub(super) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
pub(super) use std::sync::{Arc, Mutex};
use std::thread;
pub(super) use std::thread::{JoinHandle, Thread, park};

/// Rounds of spinning before a waiting thread gives its core away; some tens of microseconds.
pub(super) const SPINS: u32 = 20_000;
/// As `SPINS`, with more threads than cores: whoever waits then keeps another from working.
pub(super) const SPINS_OVERSUBSCRIBED: u32 = 50;

pub(super) fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name).spawn(work)
}

pub(super) fn unpark(thread: &Thread) {
    thread.unpark();
}

/// Orders what a thread wrote before it with what it reads after it: of two threads that each write, pass the fence and
/// read what the other wrote, one sees the other's value.
pub(super) fn full_fence() {
    std::sync::atomic::fence(Ordering::SeqCst);
}

/// One round of waiting for another thread that is at work.
pub(super) fn spin() {
    std::hint::spin_loop();
}

/// Returns when `done`; spins for so many rounds, then gives the core away between looks.
pub(super) fn wait_until(spins: u32, done: impl Fn() -> bool) {
    let mut round = 0;
    while !done() {
        round += 1;
        if round < spins { spin() } else { thread::yield_now() }
    }
}

/// Calls `work`; whether it panicked. What it panicked with is leaked: its destructor might panic again, outside of this.
pub(super) fn panics(work: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(work)).map_err(std::mem::forget).is_err()
}

/// A cell whose accesses the checker can see.
pub(super) struct UnsafeCell<T>(cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    pub fn new(value: T) -> Self {
        Self(cell::UnsafeCell::new(value))
    }

    /// Calls `read` with a pointer that is valid for reads while nobody writes.
    pub fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
        read(self.0.get())
    }

    /// Calls `write` with a pointer that is valid for writes while nobody else uses the cell.
    pub fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
        write(self.0.get())
    }
}
