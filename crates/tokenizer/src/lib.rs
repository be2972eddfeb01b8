//! Text to tokens and back, as a GGUF file's vocabulary has it, and chats by the model's own template.
//!
//! Two kinds of vocabulary are supported: SentencePiece's (`tokenizer.ggml.model` = `llama`), merged by
//! score, and byte-level BPE (`gpt2`), merged by rank within the words that a pre-tokenizer cuts. What they
//! have in common, merging neighbours, is one function. Results equal llama.cpp's, except that plain text
//! never becomes a control token.
//!
//! Why not the `tokenizers` crate: its look-ahead patterns need a back-tracking engine, which gives up on
//! long runs of white space (the crate then leaves the rest of the text in one piece, without an error); it
//! knows no merging by score; and with its 80 dependencies it costs more to build than everything here. The
//! part it would replace is `merge.rs`.
//!
//! The crate knows no models and no devices. [`Tokenizer::encode`] finds special tokens (`special.rs`) and
//! passes the text between them to `spm.rs` or `bpe.rs` (which splits it with `pre.rs`), and these merge
//! symbols (`merge.rs`). [`Detokenizer`] is the way back.
//!
//! ```no_run
//! use gguf::Gguf;
//! use tokenizer::{Bos, ChatMessage, GenerationPrompt, Special, Tokenizer};
//!
//! let tokenizer = Tokenizer::from_gguf(&Gguf::open("model.gguf".as_ref())?)?;
//! let tokens = tokenizer.encode("Once upon a time", Special::Text, Bos::Add);
//! let mut detokenizer = tokenizer.detokenizer();
//! let text: String = tokens.iter().map(|&id| detokenizer.push(&tokenizer, id)).collect();
//!
//! let messages = [ChatMessage::new("user", "Tell me a story.")];
//! let prompt = tokenizer.apply_chat_template(&messages, GenerationPrompt::Add)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod bpe;
mod chat;
mod counted;
mod deadline;
mod detokenizer;
mod error;
mod guard;
mod infill;
mod jinja;
mod merge;
mod pre;
mod python;
mod reads;
mod special;
mod spm;
mod time;
mod tokenizer;
mod vocab;

pub use chat::{Chat, ChatMessage, ChatTemplate, GenerationPrompt};
pub use detokenizer::{ControlTokens, Detokenizer};
pub use error::{Result, TokenizerError};
pub use infill::Infill;
pub use time::strftime as format_time;
pub use tokenizer::{Bos, Special, Tokenizer};
