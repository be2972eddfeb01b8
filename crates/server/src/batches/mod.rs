//! Batches: files of requests that the durable runner answers, one batch after the other, beside live requests.
//!
//! A batch is a folder with `batch.json`, written whole at every change of its status, and the runner's journal. A thread
//! takes the oldest unfinished batch and runs it; a batch that was running when the server ended is continued. When it is
//! done, the journal is split into two files: results and errors. While the disk cannot be written, batches pause: they are tried
//! again after a time that grows to minutes, and their status says why.

mod batch;
mod results;
mod work;

pub(crate) use batch::{Batch, Status};
pub(crate) use work::{Batches, NewBatch, is_batch_id};
