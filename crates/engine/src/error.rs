//! The crate's one error type. A refusal names what was asked, what is permitted and what was found.

use model::RunError;

/// The result of starting an engine or of asking it for something.
pub type Result<T> = std::result::Result<T, EngineError>;

/// Why an engine did not start, refused a request or ended it early.
///
/// Cloned to every request that the same failure ends.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The prompt has no token to take logits from.
    #[error("prompt_token_ids: expected at least one token, found none\nhint: begin with the BOS token")]
    EmptyPrompt,
    /// A token id that the model has no row for.
    #[error("{field}: token id {found} is out of range, expected less than {vocab_size}")]
    TokenOutOfRange {
        /// The field and, of a list, the index in it.
        field: String,
        /// The id.
        found: u32,
        /// Tokens of the model's vocabulary.
        vocab_size: usize,
    },
    /// The request is longer than the model's context.
    #[error(
        "prompt of {prompt} tokens plus max_tokens {max_tokens}: expected at most the context of {max_seq_len} tokens, \
         found {}\nhint: shorten the prompt, lower max_tokens or raise the context", prompt.saturating_add(*max_tokens)
    )]
    ContextTooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens to generate.
        max_tokens: usize,
        /// The context.
        max_seq_len: usize,
    },
    /// The request would not fit the KV pages even if it ran alone.
    #[error(
        "prompt of {prompt} tokens plus max_tokens {max_tokens}: expected at most the {pool} tokens that the KV pages \
         hold, found {}\nhint: give the KV cache more memory or lower max_tokens", prompt.saturating_add(*max_tokens)
    )]
    PoolTooSmall {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens to generate.
        max_tokens: usize,
        /// Tokens that all pages together hold.
        pool: usize,
    },
    /// A sampling parameter is out of its range.
    #[error("{name}: expected {expected}, found {found}")]
    InvalidParam {
        /// The field of [`SamplingParams`](crate::SamplingParams).
        name: &'static str,
        /// The permitted range.
        expected: String,
        /// The value.
        found: String,
    },
    /// Stop strings were given to an engine that generates no text.
    #[error("stop: expected none, as this engine has no tokenizer, found {found}\nhint: use stop_token_ids")]
    StopWithoutTokenizer {
        /// How many there were.
        found: usize,
    },
    /// An option contradicts what the runner can do.
    #[error("{name}: expected {expected}, found {found}")]
    InvalidOption {
        /// The field of [`EngineOptions`](crate::EngineOptions) or [`RunnerSpec`](model::RunnerSpec).
        name: &'static str,
        /// The permitted range.
        expected: String,
        /// The value.
        found: usize,
    },
    /// The model or its device failed during a step in which the request took part.
    #[error("step failed: {0}")]
    Run(#[from] RunError),
    /// Every logit is NaN or minus infinity, of the model itself or through `logit_bias`.
    #[error(
        "no token can be sampled after {position} tokens: expected a finite logit, found none\n\
         hint: the weights may be damaged, or logit_bias forbids every token"
    )]
    NoFiniteLogit {
        /// Tokens of the sequence so far.
        position: usize,
    },
    /// The request's grammar has no way on: it is too complex, or the vocabulary lacks a token that it wants.
    #[error("the grammar cannot be followed: {0}")]
    Constraint(String),
    /// The state to embed has no direction: it is NaN, infinite or zero throughout.
    #[error(
        "no embedding of the prompt of {prompt} tokens: expected finite values that are not all zero, found none\n\
         hint: the weights may be damaged"
    )]
    NoFiniteEmbedding {
        /// Tokens of the prompt.
        prompt: usize,
    },
    /// The operating system gave no thread.
    #[error("the engine's thread did not start: {0}")]
    Spawn(String),
    /// The engine was shut down, or its thread ended by a panic.
    #[error("the engine has stopped")]
    Stopped,
}
