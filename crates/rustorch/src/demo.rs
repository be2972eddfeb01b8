//! The embedded demo model: a small Llama that tells children's stories, so that everything runs with nothing to fetch.

use gguf::Gguf;

/// The file, as `models/demo` made it.
pub static BYTES: &[u8] = include_bytes!("../../../models/demo/demo.gguf");

/// The demo model's file, opened.
pub fn gguf() -> Gguf {
    Gguf::from_static(BYTES).expect("the embedded demo model is a valid GGUF file")
}
