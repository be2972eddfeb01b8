//! The pool under a model checker: loom runs a scenario in every order of its threads' steps, and with every value that a
//! weak memory may let a load see, up to so many preemptions.
//!
//! The source is the pool's own, compiled a second time with loom's atomics in place of the standard library's. Loom
//! reports a deadlock (a wake-up that was lost), a job that is written while a worker still reads it, results that the
//! caller does not see, and a task that runs twice or never. The faults at the end show that it finds such mistakes.

#[allow(clippy::duplicate_mod)] // On purpose: the same source over another `sync`.
#[path = "thread_pool.rs"]
mod thread_pool;

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use loom::cell::UnsafeCell;
use loom::sync::{Arc, Condvar, Mutex};

use thread_pool::ThreadPool;

/// The twin of `pool::sync`.
mod sync {
    use std::io;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    // Not loom's, which cannot be dropped while loom's own panic unwinds. Nothing is ordered by it.
    pub(super) use std::sync::Arc;

    pub(super) use loom::cell::UnsafeCell;
    pub(super) use loom::sync::Mutex;
    pub(super) use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
    pub(super) use loom::thread::{JoinHandle, Thread, park};

    use super::{MISSING, Missing, TaskPanic};

    /// A worker looks once, then parks: more looks are the same again.
    pub(super) const SPINS: u32 = 1;
    pub(super) const SPINS_OVERSUBSCRIBED: u32 = 1;

    pub(super) fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
        loom::thread::Builder::new().name(name).spawn(work)
    }

    pub(super) fn unpark(thread: &Thread) {
        if MISSING.get() != Some(Missing::WakeUp) {
            thread.unpark();
        }
    }

    pub(super) fn full_fence() {
        if MISSING.get() != Some(Missing::Fence) {
            loom::sync::atomic::fence(Ordering::SeqCst);
        }
    }

    /// Nothing: the next look may come at once, or after any steps of the others.
    pub(super) fn spin() {}

    pub(super) fn wait_until(_spins: u32, done: impl Fn() -> bool) {
        while MISSING.get() != Some(Missing::Wait) && !done() {
            loom::thread::yield_now();
        }
    }

    /// Leaves loom's own panics alone.
    pub(super) fn panics(work: impl FnOnce()) -> bool {
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(()) => false,
            Err(panic) if panic.is::<TaskPanic>() => true,
            Err(panic) => resume_unwind(panic),
        }
    }
}

/// What a task panics with.
struct TaskPanic;

/// What the pool lacks, on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// Nobody is unparked.
    WakeUp,
    /// Neither side of parking has its fence.
    Fence,
    /// The caller of `run` does not wait for the workers that joined.
    Wait,
}

thread_local! {
    /// Loom runs all threads of a model on the one that called it.
    static MISSING: Cell<Option<Missing>> = const { Cell::new(None) };
}

/// Explores a scenario with up to `preemptions` preemptions.
fn explore(preemptions: usize, scenario: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(scenario);
}

/// Results that tasks write, each its own, and that the caller reads afterwards.
struct Results(Vec<UnsafeCell<usize>>);

// SAFETY: loom reports accesses to a cell that are not ordered.
unsafe impl Sync for Results {}

impl Results {
    fn new(num_tasks: usize) -> Self {
        Self((0..num_tasks).map(|_| UnsafeCell::new(0)).collect())
    }

    fn add(&self, task: usize) {
        // SAFETY: the cell is alive; loom reports another access that is not ordered with this one.
        self.0[task].with_mut(|count| unsafe { *count += 1 });
    }

    /// Checks that each task ran so many times.
    fn check(&self, runs: usize) {
        for count in &self.0 {
            // SAFETY: as in `add`.
            count.with(|count| assert_eq!(unsafe { *count }, runs));
        }
    }
}

fn run_jobs(num_threads: usize, num_tasks: usize, jobs: usize) {
    let pool = ThreadPool::new(num_threads).unwrap();
    for _ in 0..jobs {
        let results = Results::new(num_tasks);
        pool.run(num_tasks, |task| results.add(task));
        results.check(1);
    }
}

/// A job whose first task, the caller's, needs a worker to run the second.
fn need_a_worker() {
    // Not dropped when loom panics: it would wait for workers that never go on.
    let pool = ManuallyDrop::new(ThreadPool::new(2).unwrap());
    let (done, changed) = (Mutex::new(false), Condvar::new());
    pool.run(2, |task| {
        let mut done = done.lock().unwrap();
        if task == 0 {
            while !*done {
                done = changed.wait(done).unwrap();
            }
        } else {
            *done = true;
            changed.notify_one();
        }
    });
    drop(ManuallyDrop::into_inner(pool));
}

/// Two jobs that hold on to nothing, so that a worker that is late for the first harms nothing but loom's peace.
fn empty_jobs() {
    let pool = ManuallyDrop::new(ThreadPool::new(2).unwrap());
    pool.run(2, |_| {});
    pool.run(2, |_| {});
    drop(ManuallyDrop::into_inner(pool));
}

#[test]
fn a_pool_starts_and_stops() {
    explore(3, || assert_eq!(ThreadPool::new(3).unwrap().num_threads(), 3));
}

#[test]
fn every_task_runs_once_and_its_result_is_seen() {
    explore(2, || run_jobs(2, 3, 2));
}

#[test]
fn two_workers_share_a_job() {
    explore(2, || run_jobs(3, 2, 1));
}

#[test]
fn a_parked_worker_is_woken() {
    explore(3, need_a_worker);
}

#[test]
fn jobs_of_two_callers_take_turns() {
    explore(2, || {
        let pool = Arc::new(ThreadPool::new(2).unwrap());
        let run = |pool: &ThreadPool| {
            let results = Results::new(2);
            pool.run(2, |task| results.add(task));
            results.check(1);
        };
        let other = {
            let pool = Arc::clone(&pool);
            loom::thread::spawn(move || run(&pool))
        };
        run(&pool);
        other.join().unwrap();
    });
}

#[test]
fn a_panic_reaches_the_caller_after_all_tasks_and_spares_the_pool() {
    explore(2, || {
        let pool = ThreadPool::new(2).unwrap();
        let results = Results::new(2);
        let job = || {
            pool.run(2, |task| {
                results.add(task);
                if task == 1 {
                    resume_unwind(Box::new(TaskPanic));
                }
            });
        };
        assert!(catch_unwind(AssertUnwindSafe(job)).is_err());
        results.check(1);
        pool.run(2, |task| results.add(task));
        results.check(2);
    });
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_missing_wake_up_is_found() {
    MISSING.set(Some(Missing::WakeUp));
    explore(2, need_a_worker);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_missing_fence_is_found() {
    MISSING.set(Some(Missing::Fence));
    explore(2, need_a_worker);
}

#[test]
#[should_panic(expected = "Concurrent")]
fn a_late_worker_that_is_not_waited_for_is_found() {
    MISSING.set(Some(Missing::Wait));
    explore(2, empty_jobs);
}
