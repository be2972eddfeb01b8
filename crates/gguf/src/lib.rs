//! GGUF files: a checked memory-mapped reader and the block formats' scalar dequantisation.
