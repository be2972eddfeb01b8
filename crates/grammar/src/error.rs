//! The crate's one error type.

/// The result of compiling or following a grammar.
pub type Result<T> = std::result::Result<T, GrammarError>;

/// Why a grammar was refused, or a constraint cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GrammarError {
    /// A JSON schema says something that would not be enforced, or contradicts itself.
    #[error("schema{path}: {message}")]
    Schema {
        /// Where in the schema, as a JSON pointer; empty at its root.
        path: String,
        /// What was expected and found.
        message: String,
    },
    /// A regular expression that is not supported.
    #[error("regex: {0}")]
    Regex(String),
    /// A list of choices without any, or with an empty one.
    #[error("choice: expected strings that are not empty, found {found}")]
    Choice {
        /// What there was.
        found: String,
    },
    /// A grammar in GBNF with an error.
    #[error("grammar, line {line}: {message}")]
    Gbnf {
        /// The line, from 1.
        line: usize,
        /// What was expected and found.
        message: String,
    },
    /// A grammar in Lark's syntax with an error.
    #[error("grammar: {0}")]
    Lark(String),
    /// The text is longer than any grammar may be.
    #[error("{what}: expected at most {limit} bytes, found {found}")]
    TooLarge {
        /// Which kind of grammar.
        what: &'static str,
        /// The limit.
        limit: usize,
        /// The length.
        found: usize,
    },
    /// Masks could not be computed: the grammar is too complex, or the vocabulary has no token that it wants.
    #[error("no token can follow: {0}")]
    Stuck(String),
}
