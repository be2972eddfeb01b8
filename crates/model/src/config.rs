//! What a model is, as data: shapes, RoPE and norm from the file's metadata, and what the caller may choose.
//!
//! Variations of the family are fields here, never branches in the graph.

use gguf::{Gguf, Metadata};

use crate::{Error, Result};

/// The architectures (`general.architecture`) that the graph runs.
pub const SUPPORTED_ARCHITECTURES: [&str; 1] = ["llama"];

/// The element type of cached K and V.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KvDtype {
    /// 16-bit IEEE: half the memory and bandwidth.
    #[default]
    F16,
    /// 32-bit IEEE: exact.
    F32,
}

impl KvDtype {
    /// Size of one element in bytes.
    pub fn bytes(self) -> usize {
        match self {
            KvDtype::F16 => 2,
            KvDtype::F32 => 4,
        }
    }
}

/// Which two dimensions of a head turn together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeStyle {
    /// `(2i, 2i + 1)`: Llama files, whose converter permuted Q and K for it.
    Interleaved,
    /// `(i, i + dim / 2)`: GPT-NeoX and its heirs.
    Halves,
}

/// How positions beyond the trained context are reached.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// As trained.
    None,
    /// Every angle divided by `factor`.
    Linear {
        /// Stretch of the context.
        factor: f32,
    },
    /// YaRN (arXiv 2309.00071): slow pairs divided by `factor`, fast ones kept, a ramp between.
    Yarn {
        /// Stretch of the context.
        factor: f32,
        /// Tokens of the context before stretching.
        original_context: u32,
        /// Multiplies the attention temperature that YaRN derives from `factor`.
        attn_factor: f32,
        /// 1 for YaRN proper, 0 for plain interpolation.
        ext_factor: f32,
        /// Pairs that turn more often than this within the original context are kept.
        beta_fast: f32,
        /// Pairs that turn less often than this are divided by `factor`.
        beta_slow: f32,
    },
}

/// Rotary position embedding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeConfig {
    /// Base of the geometric series of wavelengths.
    pub base: f32,
    /// Dimensions of a head that are rotated; even, at most `head_dim`.
    pub dim: usize,
    /// Which dimensions pair up.
    pub style: RopeStyle,
    /// Context extension.
    pub scaling: RopeScaling,
}

/// A Llama model and how it is to be run.
///
/// Start from [`LlamaConfig::from_gguf`] and override with the `with_*` methods. The shape fields must agree with the
/// file's weights (loading compares them); the others are the caller's choice.
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    /// Rows of the embedding table and of the LM head.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Transformer layers.
    pub num_layers: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// RMSNorm's epsilon.
    pub norm_eps: f32,
    /// Rotary position embedding.
    pub rope: RopeConfig,
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

    /// Reads the configuration from a file's metadata; the trained context and the defaults for the rest.
    ///
    /// # Errors
    /// An unsupported architecture, or a key that is missing, mistyped or out of range: each by name.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let metadata = gguf.metadata();
        let arch = metadata.architecture()?;
        if !SUPPORTED_ARCHITECTURES.contains(&arch) {
            return Err(Error::UnsupportedArchitecture {
                found: arch.to_owned(),
                supported: SUPPORTED_ARCHITECTURES.join(", "),
            });
        }
        let keys = Keys { metadata, arch };
        keys.refuse_experts()?;
        let hidden_size = keys.count("embedding_length")?;
        let num_heads = keys.count("attention.head_count")?;
        let head_dim = keys.head_dim(hidden_size, num_heads)?;
        let max_seq_len = keys.count("context_length")?;
        let config = Self {
            vocab_size: vocab_size(gguf, &keys)?,
            hidden_size,
            num_heads,
            num_kv_heads: keys.find_count("attention.head_count_kv")?.unwrap_or(num_heads),
            head_dim,
            num_layers: keys.count("block_count")?,
            intermediate_size: keys.count("feed_forward_length")?,
            norm_eps: keys.f32("attention.layer_norm_rms_epsilon")?,
            rope: keys.rope(head_dim, max_seq_len)?,
            max_seq_len,
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

    /// Sets the rotary position embedding.
    pub fn with_rope(mut self, rope: RopeConfig) -> Self {
        self.rope = rope;
        self
    }

    /// Width of all query heads, and of the attention's output: `num_heads * head_dim`.
    pub fn q_dim(&self) -> usize {
        self.num_heads * self.head_dim
    }

    /// Width of all key (or value) heads: `num_kv_heads * head_dim`.
    pub fn kv_dim(&self) -> usize {
        self.num_kv_heads * self.head_dim
    }

    /// Pages that one sequence of `max_seq_len` tokens takes.
    pub fn pages_per_seq(&self) -> usize {
        self.max_seq_len.div_ceil(self.page_size)
    }

    /// Bytes of K and V of one token, over all layers; of a file whose counts no weights confirm, at most `u64::MAX`.
    pub fn kv_bytes_per_token(&self) -> u64 {
        let elements = (2 * self.num_layers as u64).saturating_mul(self.kv_dim() as u64);
        elements.saturating_mul(self.kv_dtype.bytes() as u64)
    }

    /// Checks the fields against each other.
    ///
    /// # Errors
    /// The first field that is out of range, with the permitted values and the one found.
    pub fn validate(&self) -> Result<()> {
        let positive = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_heads", self.num_heads),
            ("num_kv_heads", self.num_kv_heads),
            ("head_dim", self.head_dim),
            ("num_layers", self.num_layers),
            ("intermediate_size", self.intermediate_size),
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
        check(
            self.num_heads.is_multiple_of(self.num_kv_heads),
            "num_kv_heads",
            format_args!("a divisor of num_heads = {}", self.num_heads),
            self.num_kv_heads,
        )?;
        check(
            self.rope.dim >= 2 && self.rope.dim.is_multiple_of(2) && self.rope.dim <= self.head_dim,
            "rope.dim",
            format_args!("an even number from 2 to head_dim = {}", self.head_dim),
            self.rope.dim,
        )?;
        let base = self.rope.base;
        check(base.is_finite() && base > 1.0, "rope.base", "a finite number above 1", base)?;
        let eps = self.norm_eps;
        check(eps.is_finite() && eps >= 0.0, "norm_eps", "a finite number, 0 or more", eps)?;
        self.validate_rope_scaling()
    }

    fn validate_rope_scaling(&self) -> Result<()> {
        let positive = |field: &str, value: f32| {
            let ok = value.is_finite() && value > 0.0;
            check(ok, &format!("rope.scaling.{field}"), "a finite number above 0", value)
        };
        match self.rope.scaling {
            RopeScaling::None => Ok(()),
            RopeScaling::Linear { factor } => positive("factor", factor),
            RopeScaling::Yarn { factor, original_context, attn_factor, ext_factor, beta_fast, beta_slow } => {
                positive("factor", factor)?;
                positive("attn_factor", attn_factor)?;
                positive("yarn_beta_fast", beta_fast)?;
                positive("yarn_beta_slow", beta_slow)?;
                let unit = (0.0..=1.0).contains(&ext_factor);
                check(unit, "rope.scaling.yarn_ext_factor", "0 to 1", ext_factor)?;
                let field = "rope.scaling.original_context_length";
                check(original_context > 0, field, "at least 1", original_context)
            }
        }
    }

    /// Compares the fields that the weights fix with those of the file.
    ///
    /// # Errors
    /// The first difference, naming both values.
    pub fn check_against(&self, file: &LlamaConfig) -> Result<()> {
        let fixed = [
            ("vocab_size", self.vocab_size, file.vocab_size),
            ("hidden_size", self.hidden_size, file.hidden_size),
            ("num_heads", self.num_heads, file.num_heads),
            ("num_kv_heads", self.num_kv_heads, file.num_kv_heads),
            ("head_dim", self.head_dim, file.head_dim),
            ("num_layers", self.num_layers, file.num_layers),
            ("intermediate_size", self.intermediate_size, file.intermediate_size),
        ];
        for (field, ours, theirs) in fixed {
            check(
                ours == theirs,
                &format!("config field {field}"),
                format_args!("{theirs} (the file's weights)"),
                ours,
            )?;
        }
        Ok(())
    }
}

/// No count of a real model or machine comes near; products of two stay far from overflow.
const MAX_COUNT: usize = 1 << 24;

fn check(
    ok: bool,
    what: &str,
    expected: impl std::fmt::Display,
    found: impl std::fmt::Display,
) -> Result<()> {
    if ok {
        return Ok(());
    }
    Err(Error::InvalidValue {
        what: what.to_owned(),
        expected: expected.to_string(),
        found: found.to_string(),
    })
}

/// The embedding table's rows: what the weights really hold, whatever the metadata say.
fn vocab_size(gguf: &Gguf, keys: &Keys<'_>) -> Result<usize> {
    let rows = gguf.tensor("token_embd.weight")?.rows();
    if let Some(stated) = keys.find_count("vocab_size")? {
        check(
            stated == rows,
            &keys.key("vocab_size"),
            format_args!("{rows} (rows of token_embd.weight)"),
            stated,
        )?;
    }
    Ok(rows)
}

/// The metadata under one architecture's prefix.
struct Keys<'a> {
    metadata: &'a Metadata,
    arch: &'a str,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.arch)
    }

    fn find_count(&self, name: &str) -> Result<Option<usize>> {
        Ok(self.metadata.u32(&self.key(name))?.map(|value| value as usize))
    }

    fn count(&self, name: &str) -> Result<usize> {
        self.find_count(name)?.ok_or_else(|| self.missing(name, "a count"))
    }

    fn find_f32(&self, name: &str) -> Result<Option<f32>> {
        Ok(self.metadata.f32(&self.key(name))?)
    }

    fn f32(&self, name: &str) -> Result<f32> {
        self.find_f32(name)?.ok_or_else(|| self.missing(name, "a number"))
    }

    fn missing(&self, name: &str, expected: &'static str) -> Error {
        Error::MissingKey { key: self.key(name), expected }
    }

    /// Mixture-of-experts files carry the architecture's name but another feed-forward layer.
    fn refuse_experts(&self) -> Result<()> {
        let experts = self.find_count("expert_count")?.unwrap_or(0);
        check(experts == 0, &self.key("expert_count"), "0 (mixtures of experts are not supported)", experts)
    }

    fn head_dim(&self, hidden_size: usize, num_heads: usize) -> Result<usize> {
        let head_dim = match self.find_count("attention.key_length")? {
            Some(length) => length,
            None => {
                let divides = num_heads > 0 && hidden_size.is_multiple_of(num_heads);
                let expected = format!("a divisor of embedding_length = {hidden_size}");
                check(divides, &self.key("attention.head_count"), expected, num_heads)?;
                hidden_size / num_heads
            }
        };
        let value_length = self.find_count("attention.value_length")?.unwrap_or(head_dim);
        let expected = format!("{head_dim} (the width of a key head)");
        check(value_length == head_dim, &self.key("attention.value_length"), expected, value_length)?;
        Ok(head_dim)
    }

    fn rope(&self, head_dim: usize, max_seq_len: usize) -> Result<RopeConfig> {
        Ok(RopeConfig {
            base: self.find_f32("rope.freq_base")?.unwrap_or(10000.0),
            dim: self.find_count("rope.dimension_count")?.unwrap_or(head_dim),
            style: RopeStyle::Interleaved,
            scaling: self.rope_scaling(max_seq_len)?,
        })
    }

    fn rope_scaling(&self, max_seq_len: usize) -> Result<RopeScaling> {
        let kind_key = self.key("rope.scaling.type");
        // Files older than the `scaling` group state a linear factor alone.
        let kind = self.metadata.str(&kind_key)?.unwrap_or("linear");
        let factor = match self.find_f32("rope.scaling.factor")? {
            Some(factor) => factor,
            None => self.find_f32("rope.scale_linear")?.unwrap_or(1.0),
        };
        // A factor of 0 is how some converters write "no scaling".
        let factor = if factor == 0.0 { 1.0 } else { factor };
        match kind {
            "none" => Ok(RopeScaling::None),
            "linear" if factor == 1.0 => Ok(RopeScaling::None),
            "linear" => Ok(RopeScaling::Linear { factor }),
            "yarn" => Ok(RopeScaling::Yarn {
                factor,
                original_context: self
                    .find_count("rope.scaling.original_context_length")?
                    .unwrap_or(max_seq_len) as u32,
                attn_factor: self.find_f32("rope.scaling.attn_factor")?.unwrap_or(1.0),
                ext_factor: self.find_f32("rope.scaling.yarn_ext_factor")?.unwrap_or(1.0),
                beta_fast: self.find_f32("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                beta_slow: self.find_f32("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
            }),
            other => Err(Error::InvalidValue {
                what: kind_key,
                expected: "none, linear or yarn".into(),
                found: other.to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(scaling: RopeScaling) -> LlamaConfig {
        LlamaConfig {
            vocab_size: 32,
            hidden_size: 16,
            num_heads: 2,
            num_kv_heads: 1,
            head_dim: 8,
            num_layers: 1,
            intermediate_size: 32,
            norm_eps: 1e-5,
            rope: RopeConfig { base: 10000.0, dim: 8, style: RopeStyle::Interleaved, scaling },
            max_seq_len: 64,
            batch_size: 1,
            kv_dtype: KvDtype::F16,
            page_size: 16,
            max_batch_tokens: 64,
            prompt_chunk: 64,
        }
    }

    #[test]
    fn rope_scaling_must_give_finite_angles() {
        let check = |scaling, expect: Option<&str>| {
            let error = config(scaling).validate().err().map(|error| error.to_string());
            assert_eq!(error.as_deref(), expect);
        };
        let yarn = |attn_factor, original_context, ext_factor| RopeScaling::Yarn {
            factor: 4.0,
            original_context,
            attn_factor,
            ext_factor,
            beta_fast: 32.0,
            beta_slow: 1.0,
        };
        check(RopeScaling::None, None);
        check(yarn(1.0, 64, 1.0), None);
        let factor = "rope.scaling.factor: expected a finite number above 0, found 0";
        check(RopeScaling::Linear { factor: 0.0 }, Some(factor));
        let attn = "rope.scaling.attn_factor: expected a finite number above 0, found NaN";
        check(yarn(f32::NAN, 64, 1.0), Some(attn));
        let context = "rope.scaling.original_context_length: expected at least 1, found 0";
        check(yarn(1.0, 0, 1.0), Some(context));
        check(yarn(1.0, 64, 2.0), Some("rope.scaling.yarn_ext_factor: expected 0 to 1, found 2"));
    }
}
