//! The pool itself. What it synchronises with comes from `super::sync`, so that `check` can put a model checker there.

use std::num::NonZeroUsize;

use super::sync::{
    Arc, AtomicBool, AtomicU64, AtomicUsize, JoinHandle, Mutex, Ordering, SPINS, SPINS_OVERSUBSCRIBED,
    Thread, UnsafeCell, full_fence, panics, park, spawn, spin, unpark, wait_until,
};

type Task<'a> = dyn Fn(usize) + Sync + 'a;

/// The job under way. Written by the caller of `run` before it opens the job, read by workers that joined it.
struct Job {
    task: *const Task<'static>,
    num_tasks: usize,
}

/// Keeps a counter from sharing a cache line with another thread's.
#[repr(align(128))]
struct CacheLine<T>(T);

struct Shared {
    /// `epoch << 32 | OPEN | workers that joined this epoch`.
    state: AtomicU64,
    /// Workers that left the current epoch.
    left: AtomicUsize,
    /// The next task of each thread's run, the caller's first.
    next_task: Vec<CacheLine<AtomicUsize>>,
    job: UnsafeCell<Job>,
    panicked: AtomicBool,
    stop: AtomicBool,
    /// Workers that have begun to look for jobs.
    started: AtomicUsize,
    /// One flag a worker: set while it is parked or about to be.
    parked: Vec<AtomicBool>,
    /// Rounds of spinning before a waiting thread gives its core away.
    spins: u32,
}

// SAFETY: `job` is written only while no worker is inside a job (see `run`) and read only by workers that joined.
unsafe impl Sync for Shared {}
// SAFETY: the raw pointer in `job` is dereferenced only while the closure it points to is borrowed by `run`.
unsafe impl Send for Shared {}

const OPEN: u64 = 1 << 31;
const JOINED: u64 = OPEN - 1;

/// A fixed set of threads. Dropping it joins them.
pub(crate) struct ThreadPool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Handles to unpark, by worker.
    threads: Vec<Thread>,
    /// Held during a job: jobs of several callers take turns.
    turn: Mutex<()>,
}

impl ThreadPool {
    /// A pool in which `num_threads` threads work, the caller of `run` included.
    pub fn new(num_threads: usize) -> std::io::Result<Self> {
        let num_workers = num_threads.max(1) - 1;
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let nothing: &'static Task<'static> = &|_| {};
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            left: AtomicUsize::new(0),
            next_task: (0..=num_workers).map(|_| CacheLine(AtomicUsize::new(0))).collect(),
            job: UnsafeCell::new(Job { task: nothing, num_tasks: 0 }),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            started: AtomicUsize::new(0),
            parked: (0..num_workers).map(|_| AtomicBool::new(false)).collect(),
            spins: if num_threads <= cores { SPINS } else { SPINS_OVERSUBSCRIBED },
        });
        let mut pool = Self { shared, workers: Vec::new(), threads: Vec::new(), turn: Mutex::new(()) };
        for worker_idx in 0..num_workers {
            let shared = Arc::clone(&pool.shared);
            let worker = spawn(format!("rustorch-cpu-{worker_idx}"), move || {
                shared.started.fetch_add(1, Ordering::Relaxed);
                shared.work(worker_idx);
            })?;
            pool.threads.push(worker.thread().clone());
            pool.workers.push(worker);
        }
        // A thread allocates as it starts, which the system may put off: not into somebody's step.
        wait_until(0, || pool.shared.started.load(Ordering::Relaxed) == num_workers);
        Ok(pool)
    }

    /// Threads that work, the caller included.
    pub fn num_threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task(i)` once for every `i` in `0..num_tasks`, in any order and on any of the threads.
    ///
    /// # Panics
    /// When a task panicked, after all threads have left the job.
    pub fn run(&self, num_tasks: usize, task: impl Fn(usize) + Sync) {
        if num_tasks <= 1 || self.workers.is_empty() {
            (0..num_tasks).for_each(task);
            return;
        }
        let turn = self.turn.lock().expect("nobody panics who has it");
        let shared = &*self.shared;
        let task: &Task<'_> = &task;
        // SAFETY: only the lifetime changes. No thread uses the pointer after this call: it ends when every worker
        // that joined has left, and a closed job takes no new ones.
        let task: *const Task<'static> =
            unsafe { std::mem::transmute::<&Task<'_>, &'static Task<'static>>(task) };
        // SAFETY: the previous job is closed and its workers have left, so nobody reads `job`; `turn` excludes writers.
        shared.job.with_mut(|job| unsafe { *job = Job { task, num_tasks } });
        for (thread_idx, next_task) in shared.next_task.iter().enumerate() {
            next_task.0.store(shared.first_task(thread_idx, num_tasks), Ordering::Relaxed);
        }
        shared.left.store(0, Ordering::Relaxed);
        let epoch = (shared.state.load(Ordering::Relaxed) >> 32).wrapping_add(1);
        shared.state.store((epoch << 32) | OPEN, Ordering::Release);
        // The job is open before the flags are read; see `wait_for_job`.
        full_fence();
        for (parked, thread) in shared.parked.iter().zip(&self.threads) {
            if parked.load(Ordering::Relaxed) {
                unpark(thread);
            }
        }

        shared.draw_tasks(0);

        let joined = shared.state.fetch_and(!OPEN, Ordering::AcqRel) & JOINED;
        wait_until(shared.spins, || shared.left.load(Ordering::Acquire) as u64 == joined);
        let panicked = shared.panicked.swap(false, Ordering::Relaxed);
        drop(turn);
        assert!(!panicked, "a task of the thread pool panicked");
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        // Whoever is unparked sees what was written before.
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in &self.threads {
            unpark(thread);
        }
        for worker in self.workers.drain(..) {
            // A worker catches its tasks' panics, so there is nothing to report.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// A worker's life: wait for a job, join it if it is still open, draw tasks, leave.
    fn work(&self, worker_idx: usize) {
        let mut last_epoch = 0;
        while let Some(epoch) = self.wait_for_job(worker_idx, last_epoch) {
            last_epoch = epoch;
            if self.join(epoch) {
                self.draw_tasks(worker_idx + 1);
                self.left.fetch_add(1, Ordering::Release);
            }
        }
    }

    /// The epoch of the next open job, or `None` when the pool is being dropped.
    fn wait_for_job(&self, worker_idx: usize, last_epoch: u64) -> Option<u64> {
        let open_epoch = || {
            let state = self.state.load(Ordering::Acquire);
            (state & OPEN != 0 && state >> 32 != last_epoch).then_some(state >> 32)
        };
        loop {
            for _ in 0..self.spins {
                if self.stop.load(Ordering::Relaxed) {
                    return None;
                }
                if let Some(epoch) = open_epoch() {
                    return Some(epoch);
                }
                spin();
            }
            // The flag is set before the last look at the state, and `run` opens the job before it looks at the flag, with a
            // fence between the two on either side: one sees the other.
            self.parked[worker_idx].store(true, Ordering::Relaxed);
            full_fence();
            if open_epoch().is_none() && !self.stop.load(Ordering::Relaxed) {
                park();
            }
            self.parked[worker_idx].store(false, Ordering::Relaxed);
        }
    }

    /// Counts this worker into the job of `epoch`, unless it has closed meanwhile.
    fn join(&self, epoch: u64) -> bool {
        let mut state = self.state.load(Ordering::Acquire);
        while state & OPEN != 0 && state >> 32 == epoch {
            match self.state.compare_exchange_weak(state, state + 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
        false
    }

    /// Where a thread's run of tasks begins, and the one before it ends.
    fn first_task(&self, thread_idx: usize, num_tasks: usize) -> usize {
        num_tasks * thread_idx / self.next_task.len()
    }

    /// Runs tasks until none is left: the thread's own, then the others'. Panics are kept for the caller of `run`.
    fn draw_tasks(&self, thread_idx: usize) {
        self.job.with(|job| {
            // SAFETY: the calling thread has joined the job (or is the one that wrote it), so `job` is not being written.
            let Job { task, num_tasks } = unsafe { &*job };
            // SAFETY: `run` keeps the closure borrowed until every thread that joined has left.
            let task = unsafe { &**task };
            let num_threads = self.next_task.len();
            for owner in (thread_idx..num_threads).chain(0..thread_idx) {
                let end = self.first_task(owner + 1, *num_tasks);
                loop {
                    let i = self.next_task[owner].0.fetch_add(1, Ordering::Relaxed);
                    if i >= end {
                        break;
                    }
                    if panics(|| task(i)) {
                        self.panicked.store(true, Ordering::Relaxed);
                    }
                }
            }
        });
    }
}
