//! Batched inference of Llama-family models from GGUF files.
