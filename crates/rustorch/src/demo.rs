//! The embedded demo model: a small Llama that tells children's stories, so that everything runs with nothing to fetch.

use gguf::Gguf;

/// The file, as `models/demo` made it.
pub use demo_model::BYTES;

/// The demo model's file, opened.
pub fn gguf() -> Gguf {
    Gguf::from_static(BYTES).expect("the embedded demo model is a valid GGUF file")
}
