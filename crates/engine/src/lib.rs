//! Continuous batching: sequences, paged KV blocks, scheduler, sampler and the engine thread.
//!
//! A request's life: [`EngineHandle::submit`] checks it on the caller's thread and makes a sequence of it. The engine's
//! thread queues the sequence; the scheduler gives it pages and takes its tokens, in chunks, into the steps that a
//! [`model::Runner`] computes; when all have run, the sampler chooses the next token from the sequence's row of logits, and so on
//! until the sequence ends. Its events arrive in a [`RequestStream`]. How steps are composed never shows in them.
//!
//! This crate knows no model and no device: it sees both through [`model::Runner`].
#![forbid(unsafe_code)]

mod admission;
mod block_manager;
mod choosing;
mod constraint;
mod dry;
mod embedding;
mod engine;
mod error;
mod events;
mod free_list;
mod generation;
mod handle;
mod options;
mod pacing;
mod policies;
mod prefix_index;
mod prompts;
mod replicas;
mod request;
mod router;
mod sampler;
mod sampling_params;
mod sampling_state;
mod scheduler;
mod scoring;
mod sequence;
mod stats;
mod stop;
mod strings;
mod text;
mod truncation;
mod turns;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use constraint::{Constraint, Grammar, SharedGrammar};
pub use engine::Engine;
pub use error::{EngineError, Result};
pub use events::{EventSink, RequestStream};
pub use handle::EngineHandle;
pub use options::EngineOptions;
pub use prefix_index::PrefixCache;
pub use replicas::ReplicaStats;
pub use request::{
    Client, ClientId, Completion, Embedding, EmbeddingRequest, Event, FinishReason, Pooling, Priority,
    Request, TokenEvent, TokenLogprobs, Usage, Weight,
};
pub use sampling_params::{Dry, Mirostat, SamplingParams, Xtc};
pub use stats::EngineStats;
