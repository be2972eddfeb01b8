//! OpenAI's API without HTTP: request bodies to engine requests, the engine's events to response bodies.
//!
//! `rustorch batch` and the server answer through this crate, so that the same body gets the same bytes from both. A
//! request's life: [`parse_object`] reads its JSON; [`prepare`] returns the [`Work`] for an engine and an empty [`Answer`].
//! [`Work::submit`] queues all of its sequences or none. [`Answer::add`] collects the events; when
//! [`Answer::is_complete`], [`Answer::body`] is the response. To stream instead, [`Answer::into_chunks`] makes bodies of
//! server-sent events, and [`Answer::into_stream`] their text. Bodies of `/v1/responses` and of Anthropic's, Ollama's and
//! llama.cpp's APIs are converted to those of chats and completions, and their answers are the same text as a list of blocks.
//!
//! Whatever is wrong with a request is an [`ApiError`]: a status, and OpenAI's own JSON.
//!
//! ```
//! use std::sync::mpsc;
//! use openai::{Context, Endpoint, Identity, ModelNames, parse_object, prepare};
//! use rustorch_llama::{EventSink, Event, Grammars, LlamaConfig, Tokenizer, Weights, demo};
//!
//! struct Sink(usize, mpsc::Sender<(usize, Event)>);
//! impl EventSink for Sink {
//!     fn send(&mut self, event: Event) {
//!         let _ = self.1.send((self.0, event));
//!     }
//!     fn is_closed(&self) -> bool {
//!         false
//!     }
//! }
//!
//! let gguf = demo::gguf();
//! let tokenizer = std::sync::Arc::new(Tokenizer::from_gguf(&gguf)?);
//! let config = LlamaConfig::from_gguf(&gguf)?.with_max_seq_len(64);
//! let weights = Weights::load(&gguf, config, Default::default())?;
//! let engine = weights.start_engine(Some(tokenizer.clone()), Default::default())?;
//!
//! let body = parse_object(br#"{"prompt": "Once upon a", "max_tokens": 2, "temperature": 0, "n": 2}"#)?;
//! let hidden_size = weights.config().hidden_size();
//! let grammars = Grammars::new(tokenizer.clone());
//! let context = Context {
//!     tokenizer: &tokenizer,
//!     grammars: &grammars,
//!     model: "demo",
//!     names: ModelNames::Any,
//!     hidden_size,
//!     pooling: Default::default(),
//!     fingerprint: None,
//!     seed: 0,
//!     unknown_fields: Default::default(),
//! };
//! let prepared = prepare(Endpoint::Completions, &body, &context)?;
//! let (events, received) = mpsc::channel();
//! prepared.work.submit(&engine, |choice| Sink(choice, events.clone()))?;
//! let mut answer = prepared.answer;
//! while !answer.is_complete() {
//!     let (choice, event) = received.recv()?;
//!     answer.add(choice, event)?;
//! }
//! let body = serde_json::to_value(answer.body(&Identity { suffix: "7", created: 0 }, &tokenizer))?;
//! assert_eq!(body["id"], "cmpl-7");
//! assert_eq!(body["choices"][1]["text"], " time,");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod answer;
mod anthropic;
mod blocks;
mod body;
mod chunks;
mod convert;
mod embeddings;
mod error;
mod field_list;
mod fields;
mod limits;
mod llamacpp;
mod logprobs;
mod message;
mod ollama;
mod prepare;
mod refusals;
mod rerank;
mod responses;
mod stream;
mod structured;
mod timings;
mod tools;
mod work;

pub use answer::{Answer, Identity, ResponseBody, UsageBody};
pub use anthropic::error_body as anthropic_error;
pub use body::StreamOptions;
pub use chunks::{Chunk, Chunks};
pub use error::ApiError;
pub use field_list::{Field, FieldList, Refused, UnknownFields, markdown};
pub use fields::{Object, parse_object, shown};
pub use ollama::{error_body as ollama_error, rfc3339};
pub use prepare::{Context, ModelNames, Prepared, count_tokens, prepare, render};
pub use stream::Stream;
pub use work::Work;

/// An endpoint of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `/v1/completions`
    Completions,
    /// `/v1/chat/completions`
    ChatCompletions,
    /// `/v1/embeddings`
    Embeddings,
    /// `/v1/responses`
    Responses,
    /// `/v1/messages`, of Anthropic's API
    Messages,
    /// `/v1/rerank`, of Jina's and Cohere's APIs
    Rerank,
    /// `/v1/score`, of vLLM's
    Score,
    /// `/completion`, of llama.cpp's
    LlamaCompletion,
    /// `/infill`, of llama.cpp's
    LlamaInfill,
    /// `/api/chat`, of Ollama's
    OllamaChat,
    /// `/api/generate`, of Ollama's
    OllamaGenerate,
    /// `/api/embed`, of Ollama's
    OllamaEmbed,
}

impl Endpoint {
    /// Every endpoint, in the order in which messages list them.
    pub const ALL: [Self; 12] = [
        Self::Completions,
        Self::ChatCompletions,
        Self::Embeddings,
        Self::Responses,
        Self::Messages,
        Self::Rerank,
        Self::Score,
        Self::LlamaCompletion,
        Self::LlamaInfill,
        Self::OllamaChat,
        Self::OllamaGenerate,
        Self::OllamaEmbed,
    ];

    /// The path of its URL.
    pub fn path(self) -> &'static str {
        match self {
            Self::Completions => "/v1/completions",
            Self::ChatCompletions => "/v1/chat/completions",
            Self::Embeddings => "/v1/embeddings",
            Self::Responses => "/v1/responses",
            Self::Messages => "/v1/messages",
            Self::Rerank => "/v1/rerank",
            Self::Score => "/v1/score",
            Self::LlamaCompletion => "/completion",
            Self::LlamaInfill => "/infill",
            Self::OllamaChat => "/api/chat",
            Self::OllamaGenerate => "/api/generate",
            Self::OllamaEmbed => "/api/embed",
        }
    }

    /// All fields of its bodies that the server knows.
    pub fn fields(self) -> &'static FieldList {
        match self {
            Self::Completions => &refusals::COMPLETIONS,
            Self::ChatCompletions => &refusals::CHAT,
            Self::Embeddings => &refusals::EMBEDDINGS,
            Self::Responses => &responses::RESPONSES,
            Self::Messages => &anthropic::MESSAGES,
            Self::Rerank => &rerank::RERANK,
            Self::Score => &rerank::SCORE,
            Self::LlamaCompletion => &llamacpp::COMPLETION,
            Self::LlamaInfill => &llamacpp::INFILL,
            Self::OllamaChat => &ollama::CHAT,
            Self::OllamaGenerate => &ollama::GENERATE,
            Self::OllamaEmbed => &ollama::EMBED,
        }
    }

    /// Whether its texts are embedded rather than answered.
    pub fn embeds(self) -> bool {
        matches!(self, Self::Embeddings | Self::Rerank | Self::Score | Self::OllamaEmbed)
    }

    /// The endpoint of this path, if it is one.
    pub fn from_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|endpoint| endpoint.path() == path)
    }
}
