//! What can go wrong between a file and its logits.

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a model could not be configured, loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file itself is malformed, or lacks a tensor or a key.
    #[error(transparent)]
    Gguf(#[from] gguf::GgufError),
    /// The file holds a model family that this engine does not run.
    #[error("general.architecture: '{found}' is not supported\nhint: supported architectures: {supported}")]
    UnsupportedArchitecture {
        /// The architecture the file names.
        found: String,
        /// Comma-separated list of the supported ones.
        supported: String,
    },
    /// A metadata key that the model cannot do without is absent.
    #[error(
        "{key}: missing, expected {expected}\nhint: the file may be truncated or made by an old converter"
    )]
    MissingKey {
        /// Full key.
        key: String,
        /// What its value would have been.
        expected: &'static str,
    },
    /// A metadata or configuration value is out of its range or contradicts another.
    #[error("{what}: expected {expected}, found {found}")]
    InvalidValue {
        /// Key or field.
        what: String,
        /// The permitted values.
        expected: String,
        /// The value found.
        found: String,
    },
    /// A tensor's shape does not follow from the configuration.
    #[error("tensor {tensor}: expected shape {expected}, found {found}")]
    Shape {
        /// Tensor name.
        tensor: String,
        /// `[cols, rows]` in GGUF order and where the figures come from.
        expected: String,
        /// `[cols, rows]` in GGUF order.
        found: String,
    },
    /// The file holds tensors that the graph would silently ignore.
    #[error(
        "tensor {tensor}: not part of the {architecture} graph ({count} such tensors), expected every tensor to be used\n\
         hint: the file probably holds a variant of the architecture that is not supported"
    )]
    UnreadTensor {
        /// The first such tensor, in file order.
        tensor: String,
        /// The family that the file was read as.
        architecture: &'static str,
        /// How many there are.
        count: usize,
    },
    /// The device cannot hold what was asked for.
    #[error(
        "{what}: {needed} bytes could not be allocated\nhint: lower the batch size, the context or the KV type's width"
    )]
    OutOfMemory {
        /// The buffer.
        what: String,
        /// Its size.
        needed: u64,
    },
    /// The device failed while running.
    #[error("device: {0}")]
    Device(String),
}

/// Why a [`Runner`](crate::Runner) could not run a step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RunError(String);

impl RunError {
    /// An error with this message, which every request of the step is told.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl From<Error> for RunError {
    fn from(error: Error) -> Self {
        Self(error.to_string())
    }
}
