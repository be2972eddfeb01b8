//! A Llama of 3.5 million parameters that tells children's stories, so that programs run with nothing to fetch.
#![forbid(unsafe_code)]

/// The GGUF file.
pub static BYTES: &[u8] = include_bytes!("../demo.gguf");
