//! Batches: files of requests that the durable runner works off, one batch after the other, beside live requests.
//!
//! A batch is a folder with `batch.json`, written whole at every change of its status, and the runner's journal. A thread
//! takes the oldest batch that is not finished and goes on with it, whether it has just been created or was under way when
//! the server ended. When it is done, the journal becomes two files: results and errors.

mod batch;
mod results;
mod work;

pub(crate) use batch::{Batch, Status};
pub(crate) use work::{Batches, NewBatch};
