//! A model and how it is to be run: the description of the weights, and what the caller may choose.

use gguf::Gguf;

use crate::check::{MAX_COUNT, check};
use crate::families::{self, FAMILIES, Family};
use crate::{KvDtype, ModelSpec, Result, RopeConfig};

/// A model and how it is to be run.
///
/// Start from [`LlamaConfig::from_gguf`] and override with the `with_*` methods. [`spec`](Self::spec) must agree with the
/// file's weights (loading compares them); the other fields are the caller's choice.
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    /// The family of the file.
    pub family: &'static Family,
    /// What the model is.
    pub spec: ModelSpec,
    /// Longest sequence, prompt and generated tokens together. From a file: the trained context.
    pub max_seq_len: usize,
    /// Sequences (cache slots) that can be run together.
    pub batch_size: usize,
    /// Element type of the KV cache.
    pub kv_dtype: KvDtype,
    /// Tokens of a KV page. Results do not depend on it.
    pub page_size: usize,
    /// Most tokens of one pass over the weights, over all sequences. Results do not depend on it.
    pub max_batch_tokens: usize,
    /// Most tokens of one sequence in a pass; longer prompts are split. Results do not depend on it.
    pub prompt_chunk: usize,
}

impl LlamaConfig {
    /// Sequences that can be run together unless the caller says otherwise.
    pub const DEFAULT_BATCH_SIZE: usize = 8;
    /// Tokens of a KV page unless the caller says otherwise.
    pub const DEFAULT_PAGE_SIZE: usize = 32;
    /// Tokens of one pass unless the caller says otherwise.
    pub const DEFAULT_MAX_BATCH_TOKENS: usize = 512;

    /// Reads the model's description from a file; the trained context and the defaults for the rest.
    ///
    /// # Errors
    /// An unsupported architecture, or a key that is missing, mistyped or out of range: each by name.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        Self::from_gguf_with(gguf, &FAMILIES)
    }

    /// As [`from_gguf`](Self::from_gguf), for a file of one of these families.
    ///
    /// # Errors
    /// As `from_gguf`.
    pub fn from_gguf_with(gguf: &Gguf, families: &[&'static Family]) -> Result<Self> {
        let family = families::of_file(gguf, families)?;
        let spec = family.read(gguf)?;
        let config = Self {
            family,
            max_seq_len: spec.context_length,
            spec,
            batch_size: Self::DEFAULT_BATCH_SIZE,
            kv_dtype: KvDtype::default(),
            page_size: Self::DEFAULT_PAGE_SIZE,
            max_batch_tokens: Self::DEFAULT_MAX_BATCH_TOKENS,
            prompt_chunk: Self::DEFAULT_MAX_BATCH_TOKENS,
        };
        config.validate()?;
        Ok(config)
    }

    /// Sets the longest sequence, in tokens.
    pub fn with_max_seq_len(mut self, tokens: usize) -> Self {
        self.max_seq_len = tokens;
        self
    }

    /// Sets the number of sequences that can be run together.
    pub fn with_batch_size(mut self, sequences: usize) -> Self {
        self.batch_size = sequences;
        self
    }

    /// Sets the element type of the KV cache.
    pub fn with_kv_dtype(mut self, dtype: KvDtype) -> Self {
        self.kv_dtype = dtype;
        self
    }

    /// Sets the tokens of a KV page.
    pub fn with_page_size(mut self, tokens: usize) -> Self {
        self.page_size = tokens;
        self
    }

    /// Sets the most tokens of one sequence in a pass.
    pub fn with_prompt_chunk(mut self, tokens: usize) -> Self {
        self.prompt_chunk = tokens;
        self
    }

    /// Sets the most tokens of one pass over the weights.
    pub fn with_max_batch_tokens(mut self, tokens: usize) -> Self {
        self.max_batch_tokens = tokens;
        self
    }

    /// Sets the rotary position embedding, of every rotation that the model has.
    pub fn with_rope(mut self, rope: RopeConfig) -> Self {
        self.spec.ropes.fill(rope);
        self
    }

    /// Rows of the embedding table and of the LM head.
    pub fn vocab_size(&self) -> usize {
        self.spec.vocab_size
    }

    /// Width of the residual stream.
    pub fn hidden_size(&self) -> usize {
        self.spec.hidden_size
    }

    /// Transformer layers.
    pub fn num_layers(&self) -> usize {
        self.spec.num_layers()
    }

    /// Pages that one sequence of `max_seq_len` tokens takes.
    pub fn pages_per_seq(&self) -> usize {
        self.max_seq_len.div_ceil(self.page_size)
    }

    /// Bytes of K and V of one token, over all layers; of a file whose counts no weights confirm, at most `u64::MAX`.
    pub fn kv_bytes_per_token(&self) -> u64 {
        self.spec.kv_shape(1, 1, self.kv_dtype).bytes()
    }

    /// Checks the fields against each other.
    ///
    /// # Errors
    /// The first field that is out of range, with the permitted values and the one found.
    pub fn validate(&self) -> Result<()> {
        self.spec.validate()?;
        let positive = [
            ("max_seq_len", self.max_seq_len),
            ("batch_size", self.batch_size),
            ("page_size", self.page_size),
            ("max_batch_tokens", self.max_batch_tokens),
            ("prompt_chunk", self.prompt_chunk),
        ];
        for (field, value) in positive {
            check(value >= 1, field, "at least 1", value)?;
            check(value <= MAX_COUNT, field, format_args!("at most {MAX_COUNT}"), value)?;
        }
        Ok(())
    }
}
