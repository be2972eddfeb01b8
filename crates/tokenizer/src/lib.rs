//! Text to tokens and back from GGUF metadata, and chat templates.
