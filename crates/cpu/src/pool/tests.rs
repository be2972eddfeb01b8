//! The pool on real threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::ThreadPool;

#[test]
fn every_task_runs_once_for_any_number_of_threads() {
    for threads in 1..=5 {
        let pool = ThreadPool::new(threads).unwrap();
        for num_tasks in [0, 1, 2, 7, 100, 3] {
            let counts: Vec<AtomicUsize> = (0..num_tasks).map(|_| AtomicUsize::new(0)).collect();
            for _ in 0..50 {
                pool.run(num_tasks, |i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
            }
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 50), "{threads} threads");
        }
    }
}

#[test]
fn callers_on_several_threads_take_turns() {
    let pool = ThreadPool::new(3).unwrap();
    let total = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100 {
                    pool.run(5, |i| {
                        total.fetch_add(i, Ordering::Relaxed);
                    });
                }
            });
        }
    });
    assert_eq!(total.into_inner(), 4 * 100 * 10);
}

#[test]
fn a_panicking_task_panics_the_caller_and_spares_the_pool() {
    let pool = ThreadPool::new(3).unwrap();
    let result = catch_unwind(AssertUnwindSafe(|| pool.run(10, |i| assert_ne!(i, 7))));
    assert!(result.is_err());
    let count = AtomicUsize::new(0);
    pool.run(10, |_| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(count.into_inner(), 10);
}
