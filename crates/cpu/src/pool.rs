//! A thread pool for work that comes every few microseconds.
//!
//! [`ThreadPool::run`] splits a job into numbered tasks. Each thread has a run of them, which it takes in order, so that it
//! reads memory from one end to the other; a thread that is done takes from the others' runs, so that a slow core does less
//! instead of holding the others up. A worker that the system has not scheduled yet is not waited for: it joins a job
//! only while tasks remain, and the caller waits for those alone that joined. Between jobs workers spin briefly, then park.
//!
//! Which thread runs a task never shows in its result: tasks write disjoint outputs and share no accumulator.

#[cfg(all(test, feature = "check-pool"))]
mod check;
mod sync;
#[cfg(test)]
mod tests;
mod thread_pool;

pub(crate) use thread_pool::ThreadPool;
