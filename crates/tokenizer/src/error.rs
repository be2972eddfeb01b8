//! The crate's one error type. A message names the key or token, then what was expected and found.

/// The result of reading a tokenizer or rendering a chat.
pub type Result<T> = std::result::Result<T, TokenizerError>;

/// What is wrong with a file's tokenizer, or with a chat.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Each variant's message describes it and its fields.
pub enum TokenizerError {
    #[error(transparent)]
    Gguf(#[from] gguf::GgufError),

    #[error("metadata key {key:?} is missing; hint: is this a model file with its vocabulary?")]
    MissingKey { key: &'static str },

    #[error("{key} {found:?} is not supported; supported: {}", supported.join(", "))]
    Unsupported { key: &'static str, found: String, supported: Vec<&'static str> },

    #[error("metadata key {key:?} has {found} elements; expected {expected}, one for each token")]
    ArrayLength { key: &'static str, expected: usize, found: usize },

    #[error("metadata key {key:?}: element {index} is {found}; expected {expected}")]
    Element { key: &'static str, index: usize, found: String, expected: &'static str },

    #[error(
        "the model has no chat template: metadata key \"tokenizer.chat_template\" is missing or empty; \
         hint: prompt it with plain text"
    )]
    NoChatTemplate,

    #[error("the chat template does not parse: {0}")]
    ChatTemplateSyntax(String),

    #[error("the chat template failed: {0}")]
    ChatTemplateFailed(String),

    #[error(
        "message {index} has the role {role:?}; expected a word of ASCII letters, digits, '_' and '-', \
         such as \"user\""
    )]
    Role { index: usize, role: String },
}
