//! The public face's error type.

use std::path::PathBuf;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a model could not be loaded or a call not be served. Whatever it is, no slot of the model has changed, unless the
/// device itself failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file is malformed.
    #[error(transparent)]
    Gguf(#[from] gguf::GgufError),
    /// The model could not be configured or loaded.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// As `Model`, of a file.
    #[error("{path}: {source}")]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: model::Error,
    },
    /// The tokenizer could not be read.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::TokenizerError),
    /// The engine did not start or refused a request.
    #[error(transparent)]
    Engine(#[from] engine::EngineError),
    /// The device failed in a step; the slots of the sequences that it ran are empty.
    #[error("step failed: {0}")]
    Run(#[from] model::RunError),
    /// The model does not fit the device's memory.
    #[error(transparent)]
    DoesNotFit(Box<DoesNotFit>),
    /// One of several devices could not load the model.
    #[error("{device}: {source}")]
    OnDevice {
        /// The device.
        device: String,
        /// Why.
        source: Box<Error>,
    },
    /// Replicas on devices that do not compute the same bits, so that results would depend on where a request runs.
    #[error(
        "replicas: expected devices of one model, as others compute different bits, found {first} and {other}\n\
         hint: run a process for each"
    )]
    UnlikeDevices {
        /// The first device.
        first: String,
        /// One that is unlike it.
        other: String,
    },
    /// All devices of a kind were asked for, and there is none.
    #[error("{kind}:all: expected at least one device, found none\nhint: `rustorch devices` lists them")]
    NoDevices {
        /// What they are called.
        kind: &'static str,
    },
    /// What runs the demo model, in a build without it.
    #[error("expected the demo model, which this program was built without\nhint: feature `demo-model`")]
    NoDemoModel,
    /// A batch without sequences.
    #[error("batch: expected at least one sequence, found none")]
    EmptyBatch,
    /// A sequence without tokens.
    #[error("sequence {sequence}: expected at least one token, found none")]
    EmptySequence {
        /// Its index in the batch.
        sequence: usize,
    },
    /// More sequences than slots.
    #[error(
        "batch: expected at most {batch_size} sequences, found {found}\nhint: set_batch_size makes more slots"
    )]
    BatchTooLarge {
        /// Sequences found.
        found: usize,
        /// Slots of the model.
        batch_size: usize,
    },
    /// As many start positions as sequences are needed.
    #[error("start positions: expected {sequences}, one a sequence, found {found}")]
    StartCount {
        /// Sequences of the batch.
        sequences: usize,
        /// Start positions found.
        found: usize,
    },
    /// A token id that has no embedding.
    #[error(
        "sequence {sequence}: token {found} at index {index}: expected an id below the vocabulary size {vocab_size}"
    )]
    TokenOutOfRange {
        /// The sequence's index in the batch.
        sequence: usize,
        /// The token's index in the sequence.
        index: usize,
        /// The id found.
        found: u32,
        /// Tokens of the vocabulary.
        vocab_size: usize,
    },
    /// A sequence would be longer than the context.
    #[error(
        "sequence {sequence}: {start} cached tokens plus {tokens} new ones: expected at most the context of \
         {max_seq_len}, found {}\nhint: load with a greater max_seq_len", start + tokens
    )]
    ContextOverflow {
        /// The sequence's index in the batch.
        sequence: usize,
        /// Position of its first new token.
        start: usize,
        /// Its new tokens.
        tokens: usize,
        /// The context.
        max_seq_len: usize,
    },
    /// A sequence would continue where nothing is cached.
    #[error(
        "sequence {sequence}: start position {start} is beyond the {cached} tokens cached in its slot: \
         expected at most {cached}"
    )]
    StartBeyondCache {
        /// The sequence's index in the batch.
        sequence: usize,
        /// The start position asked for.
        start: usize,
        /// Tokens in the slot.
        cached: usize,
    },
    /// A batch size, or another count, of zero or beyond what can be.
    #[error("{what}: expected {expected}, found {found}")]
    InvalidValue {
        /// The parameter.
        what: &'static str,
        /// Its range.
        expected: String,
        /// The value.
        found: String,
    },
}

/// What does not fit a device's memory.
#[derive(Debug, thiserror::Error)]
#[error(
    "{device}: expected memory for {needed} ({parts}), found {available} available of {total}\nhint: {hint}"
)]
pub struct DoesNotFit {
    /// The device.
    pub device: String,
    /// What is needed.
    pub needed: String,
    /// What for.
    pub parts: String,
    /// What other programs have left.
    pub available: String,
    /// What it has.
    pub total: String,
    /// What would fit.
    pub hint: String,
}
