//! The program as its users meet it: arguments, standard streams, files, exit status.
//!
//! Every test runs the binary, most on the embedded demo model. The numbers themselves are tested where they are computed. These
//! tests check that commands print them, the same for the same request, and that refusals say what is wrong.

mod batch_answers;
mod batch_durable;
mod batch_files;
mod batch_parts;
mod batch_refusals;
mod batch_reproducible;
mod batch_streams;
mod batch_tables;
mod bench;
mod chat;
#[cfg(feature = "device-tests")]
mod device;
mod generate;
mod harness;
mod inspect;
mod logits;
mod malformed;
mod perplexity;
mod serve;
mod settings;
#[cfg(target_os = "linux")]
mod terminal;
mod tokenize;
mod usage;
