//! Durable batches: a file of requests in, a file of results out that survives a crash at any instant.
//!
//! The output is its own journal. A result is one line; it counts as done once it is on disk, and results that are complete
//! at the same moment share one write. A run that was killed and is started again reads the output, removes a line that the
//! crash has cut short, and answers the remaining requests. No result is lost and none is there twice. A result depends on
//! its request alone, so the results equal those of an uninterrupted run.
//!
//! A [`Manifest`] beside the output records everything the results depend on. A run with another manifest is refused. The
//! output is locked while a run writes it.
//!
//! Memory does not grow with the input, except for an index of ids: less than 32 bytes a line.
//!
//! A [`Job`] is an input in parts, for as many runs on as many machines, whose results together are those of one run.
//!
//! A run is prepared in four steps: [`Input::open`], [`Output::open`], [`Input::scan`], [`Output::begin`]. Only the last
//! changes a file. Then [`run`] runs it. [`Work`] is these steps for a file or a part of a job. This crate knows neither a command
//! line nor HTTP nor Python; all three use it.
#![forbid(unsafe_code)]

mod clock;
mod day;
mod durable;
mod error;
mod hashed;
mod index;
mod input;
mod job;
mod journal;
mod kept;
mod ledger;
mod lines;
mod manifest;
mod merge;
mod records;
mod request;
mod run;
mod settings;
mod shard;
mod sniff;
mod split;
mod table;
mod verify;
mod work;

pub use clock::unix_seconds;
pub use day::Day;
pub use error::{Difference, Error, Result};
pub use input::{Input, Scan};
pub use job::{Job, Part};
pub use journal::{Existing, Journal, Output};
pub use kept::{Errors, Found};
pub use manifest::{FileHash, Manifest};
pub use merge::Merged;
pub use records::{Compression, InputFormat};
pub use request::{Defaults, Model, row_seed};
pub use run::{End, Options, Order, Report, Totals, run};
pub use settings::{DefaultFields, Irreproducible, Settings, fingerprint};
pub use shard::Shard;
pub use verify::Sampled;
pub use work::{Begun, Work};

/// What is done with fields that nobody knows.
pub use openai::UnknownFields;
