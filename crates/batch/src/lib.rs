//! Durable batches: a file of requests in, a file of results out that survives a crash at any instant.
//!
//! The output is its own journal. A result is appended as one line and brought to disk before it counts as done; results
//! that are complete at the same moment share one write. A run that is killed and started again finds out from the output
//! what is done, cuts off what a crash has torn, and goes on with the rest: nothing is lost, and nothing is there twice. As
//! a result depends on its request alone, the results are those of a run that nothing interrupted.
//!
//! What a run's results depend on is in a [`Manifest`] beside the output; a run that differs in any of it is refused. The
//! output is locked while a run writes it.
//!
//! Memory does not depend on the length of the input, but for an index of ids that takes less than 32 bytes a line.
//!
//! A run is prepared in four steps, none of which changes what is there before the last: [`Input::open`],
//! [`Output::open`], [`Input::scan`], [`Output::begin`]. Then [`run`] does it. This crate knows neither a command line nor
//! HTTP; it is used by both.
#![forbid(unsafe_code)]

mod durable;
mod error;
mod index;
mod input;
mod journal;
mod lines;
mod manifest;
mod request;
mod run;

pub use error::{Error, Result};
pub use input::{Input, Scan, Shard};
pub use journal::{Errors, Existing, Found, Journal, Output};
pub use manifest::{Difference, FileHash, Manifest};
pub use request::Model;
pub use run::{End, Options, Order, Totals, run};
