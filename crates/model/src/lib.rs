//! The Llama graph, its configuration and weights, generic over a device backend.
//!
//! The transformer is written once, in [`Llama::forward`], against the [`Backend`] trait. A step is one ragged
//! [`Batch`]: a flat list of tokens with, for each sequence, a range of rows, so prompt chunks and decodes ride
//! together and nothing is padded. This crate never sees a device, a thread or a file path.
#![forbid(unsafe_code)]

mod backend;
mod batch;
mod config;
mod error;
mod llama;
mod rope;
mod weights;

pub use backend::{AttentionMode, Backend, KvShape, QkvShape, Roofs, RopeShape};
pub use batch::{Batch, BatchLimits, Logits, StepSize};
pub use config::{KvDtype, LlamaConfig, RopeConfig, RopeScaling, RopeStyle};
pub use error::{Error, Result};
pub use llama::{Llama, RunState};
pub use rope::RopeTable;
pub use weights::Linear;
