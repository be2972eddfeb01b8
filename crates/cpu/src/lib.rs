//! The CPU backend of RusTorch Llama.
