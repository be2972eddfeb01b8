//! Batched inference of Llama-family models from GGUF files: many sequences, one pass over the weights.
//!
//! [`LlamaModel`] gives logits: its batch is a set of slots, each caching one sequence, and
//! [`forward_batch`](LlamaModel::forward_batch) serves all of them in one ragged pass. [`Weights::start_engine`] gives
//! text: an engine on its own thread with continuous batching over a pool of KV pages.
//!
//! On a given device the logits of a sequence are the same bits whether it runs alone or in any batch, in any slot, with
//! its prompt in one chunk or many, its prefix computed or found in the cache, whatever the page size and the number of CPU
//! threads. All CPUs are one such device, whatever their instruction sets.
//!
//! ```
//! use rustorch_llama::{LlamaConfig, LlamaModel, demo};
//!
//! let gguf = demo::gguf();
//! let config = LlamaConfig::from_gguf(&gguf)?.with_batch_size(2).with_max_seq_len(64);
//! let mut model = LlamaModel::load(&gguf, config, Default::default())?;
//! let logits = model.forward_batch(&[&[1, 2, 3], &[4]])?;
//! assert_eq!((logits.len(), logits[0].len()), (2, model.config().vocab_size()));
//! # Ok::<(), rustorch_llama::Error>(())
//! ```
//!
//! # Examples
//!
//! `cargo run --release -p rustorch-llama --example NAME [MODEL.gguf]`; without a path they run the demo model.
//!
//! - [`batch_inference_demo`]: logits of ragged batches, batch sizes, and what batching brings
//! - [`streaming`]: texts as they come, of several requests
//! - [`chat`]: a conversation with the model's template
//! - [`classify`]: labels by their log-probabilities
//! - [`embeddings_search`]: the text that is nearest to a question
//! - [`tokio_stream`]: an engine's events in asynchronous tasks
//!
//! [`batch_inference_demo`]: https://github.com/rustorch/rustorch-llama/blob/main/crates/rustorch/examples/batch_inference_demo.rs
//! [`streaming`]: https://github.com/rustorch/rustorch-llama/blob/main/crates/rustorch/examples/streaming.rs
//! [`chat`]: https://github.com/rustorch/rustorch-llama/blob/main/crates/rustorch/examples/chat.rs
//! [`classify`]: https://github.com/rustorch/rustorch-llama/blob/main/crates/rustorch/examples/classify.rs
//! [`embeddings_search`]: https://github.com/rustorch/rustorch-llama/blob/main/crates/rustorch/examples/embeddings_search.rs
//! [`tokio_stream`]: https://github.com/rustorch/rustorch-llama/blob/main/crates/rustorch/examples/tokio_stream.rs
#![forbid(unsafe_code)]

mod batch_size;
#[cfg(any(test, feature = "demo-model"))]
pub mod demo;
mod device;
mod device_list;
mod error;
mod grammars;
mod kv_cache;
mod load_options;
mod memory_fit;
mod model;
mod perplexity;
mod platforms;
mod pooling;
mod sizes;
pub mod synthetic;
mod weights;

pub use ::model::{
    Activation, AttentionMode, AttentionSpec, Error as ModelError, ExpertsSpec, FfnSpec, Gating, KvDtype,
    LayerSpec, LlamaConfig, ModelSpec, NormSlots, Peaks, QkNorm, RopeConfig, RopeScaling, RopeStyle, Routing,
    RunError, SharedExpert, Temperature, TensorNames, families,
};
pub use conformance::{Finding, Report as DeviceReport};
pub use cpu::{Activations, CpuOptions, Isa, release_freed_memory};
pub use devices::{DeviceMemory, GpuChoice, GpuDescription, GpuOptions, MatrixUnits, Profile, Subgroups};
pub use engine::{
    Client, ClientId, Completion, Constraint, Dry, Embedding, EmbeddingRequest, EngineError, EngineHandle,
    EngineStats, Event, EventSink, FinishReason, Grammar, Mirostat, Pooling, PrefixCache, Priority,
    ReplicaStats, Request, RequestStream, SamplingParams, SharedGrammar, TokenEvent, TokenLogprobs, Usage,
    Weight, Xtc,
};
pub use gguf::{Array, Format, Gguf, GgufError, Metadata, TensorView, Value};
pub use grammar::{GrammarError, Rule as GrammarRule, Spec as GrammarSpec};
pub use tokenizer::{
    Bos, Chat, ChatMessage, ChatTemplate, ControlTokens, Detokenizer, GenerationPrompt, Infill, Special,
    Tokenizer, TokenizerError, format_time,
};

pub use batch_size::BatchSize;
pub use device::Device;
pub use device_list::Devices;
pub use error::{DoesNotFit, Error, Result};
pub use grammars::Grammars;
pub use kv_cache::KvCache;
pub use load_options::LoadOptions;
pub use model::LlamaModel;
pub use perplexity::{Perplexity, perplexity};
pub use platforms::{DeviceInfo, KernelTime, check_device, devices, what_auto_takes};
pub use pooling::file_pooling;
pub use weights::{EngineConfig, Weights};
