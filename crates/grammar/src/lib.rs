//! Structured output: a JSON schema, a regular expression, a list of choices or a grammar becomes a [`Constraint`], which says
//! before each token which tokens may follow.
//!
//! [`Grammars`] holds what compiling needs of one model's vocabulary, made on first use. [`Grammars::compile`] turns a [`Spec`]
//! into a [`Grammar`], under limits: a hostile schema gets an error. [`Grammar::start`] gives the state of one text.
//!
//! The masks come from the crate `llguidance` (an Earley parser over a lexer of regular-expression derivatives). What that
//! crate accepts without enforcing it is tightened or refused by name before it sees it, see `schema.rs`.
//!
//! The crate knows neither HTTP nor models; of a vocabulary it knows the bytes of each token.
//!
//! ```
//! use grammar::{Grammars, Spec};
//! # let mut writer = gguf::GgufWriter::new();
//! # let tokens: Vec<String> = ["</s>", "y", "e", "s", "no", "x"].map(String::from).to_vec();
//! # writer.metadata("tokenizer.ggml.model", gguf::Value::String("llama".into()));
//! # writer.metadata("tokenizer.ggml.eos_token_id", gguf::Value::U32(0));
//! # writer.metadata("tokenizer.ggml.tokens", gguf::Value::Array(gguf::Array::String(tokens)));
//! # writer.metadata("tokenizer.ggml.token_type", gguf::Value::Array(gguf::Array::I32(vec![3, 1, 1, 1, 1, 1])));
//! # let file = gguf::Gguf::from_vec(writer.write())?;
//! # let tokenizer = std::sync::Arc::new(tokenizer::Tokenizer::from_gguf(&file)?);
//! let grammars = Grammars::new(tokenizer);
//! let grammar = grammars.compile(&Spec::Choice(vec!["yes".to_owned(), "no".to_owned()]))?;
//! let mut constraint = grammar.start();
//! let mask = constraint.mask()?;
//! assert!(mask.allows(1) && mask.allows(4) && !mask.allows(5) && !constraint.may_end()?);
//! constraint.commit(4)?;
//! assert!(constraint.is_finished());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod constraint;
mod error;
mod formats;
mod gbnf;
mod grammars;
mod lark;
mod pattern;
mod rule;
mod schema;

pub use constraint::{Constraint, Mask};
pub use error::{GrammarError, Result};
pub use grammars::{Grammar, Grammars, Spec};
pub use rule::Rule;
