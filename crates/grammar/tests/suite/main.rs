//! Grammars over a small vocabulary: what is compiled yields only what was asked for.

mod grammars;
mod schemas;
mod vocabulary;
