//! The metadata under one architecture's prefix, and what families read from it alike.

use gguf::{Array, Gguf, Value};

use super::Family;
use crate::check::{MAX_COUNT, check};
use crate::{
    Activation, AttentionSpec, Error, ExpertsSpec, FfnSpec, Gating, LayerSpec, ModelSpec, NormSlots, Result,
    RopeConfig, RopeScaling, RopeStyle, Routing, SharedExpert,
};

/// A file's metadata as one family reads it. Names are given without the architecture's prefix.
pub struct Keys<'a> {
    gguf: &'a Gguf,
    family: &'static Family,
}

impl<'a> Keys<'a> {
    pub(super) fn new(gguf: &'a Gguf, family: &'static Family) -> Self {
        Self { gguf, family }
    }

    /// The family that reads.
    pub fn family(&self) -> &'static Family {
        self.family
    }

    /// The full name of a key, as errors give it.
    pub fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.family.architecture)
    }

    /// A count, if the file has it.
    ///
    /// # Errors
    /// When the value is no count.
    pub fn find_count(&self, name: &str) -> Result<Option<usize>> {
        Ok(self.gguf.metadata().u32(&self.key(name))?.map(|value| value as usize))
    }

    /// A count.
    ///
    /// # Errors
    /// When the file does not have it.
    pub fn count(&self, name: &str) -> Result<usize> {
        self.find_count(name)?.ok_or_else(|| self.missing(name, "a count"))
    }

    /// A count for each of `layers` layers, if the file has it: one number for all, or an array.
    ///
    /// # Errors
    /// When the value is neither, or the array has another length.
    pub fn find_counts(&self, name: &str, layers: usize) -> Result<Option<Vec<usize>>> {
        let key = self.key(name);
        if !matches!(self.gguf.metadata().get(&key), Some(Value::Array(_))) {
            return Ok(self.find_count(name)?.map(|count| vec![count; layers]));
        }
        let counts = self.gguf.metadata().u32s(&key)?.unwrap_or_default();
        check(counts.len() == layers, &key, format_args!("{layers} numbers, one a layer"), counts.len())?;
        Ok(Some(counts.into_iter().map(|count| count as usize).collect()))
    }

    /// Which layers have a window: as an array says, or all but the last of every `period`, which a number may replace.
    ///
    /// # Errors
    /// When the value is neither, or the array has another length.
    pub fn local_layers(&self, period: usize) -> Result<Vec<bool>> {
        let (name, layers) = ("attention.sliding_window_pattern", self.num_layers()?);
        let key = self.key(name);
        if let Some(Value::Array(Array::Bool(pattern))) = self.gguf.metadata().get(&key) {
            let expected = format_args!("{layers} values, one a layer").to_string();
            check(pattern.len() == layers, &key, expected, pattern.len())?;
            return Ok(pattern.clone());
        }
        let period = self.find_count(name)?.unwrap_or(period);
        check(period > 0, &key, "at least 1", period)?;
        Ok((0..layers).map(|layer_idx| layer_idx % period + 1 < period).collect())
    }

    /// A yes or no, if the file has it.
    ///
    /// # Errors
    /// When the value is neither.
    pub fn find_bool(&self, name: &str) -> Result<Option<bool>> {
        Ok(self.gguf.metadata().bool(&self.key(name))?)
    }

    /// Whether the file has a tensor `<name>.weight`.
    pub fn has_tensor(&self, name: &str) -> bool {
        self.gguf.find_tensor(&format!("{name}.weight")).is_some()
    }

    /// The number of layers. Checked here, since a description has an entry for each.
    ///
    /// # Errors
    /// When the file does not have it, or has fewer tensors than layers.
    pub fn num_layers(&self) -> Result<usize> {
        let layers = self.count("block_count")?;
        check(layers <= MAX_COUNT, "num_layers", format_args!("at most {MAX_COUNT}"), layers)?;
        let tensors = self.gguf.tensors().count();
        let expected = format!("at most {tensors}, the number of the file's tensors");
        check(layers <= tensors, &self.key("block_count"), expected, layers)?;
        Ok(layers)
    }

    /// A number, if the file has it.
    ///
    /// # Errors
    /// When the value is no number.
    pub fn find_f32(&self, name: &str) -> Result<Option<f32>> {
        Ok(self.gguf.metadata().f32(&self.key(name))?)
    }

    /// A number.
    ///
    /// # Errors
    /// When the file does not have it.
    pub fn f32(&self, name: &str) -> Result<f32> {
        self.find_f32(name)?.ok_or_else(|| self.missing(name, "a number"))
    }

    fn missing(&self, name: &str, expected: &'static str) -> Error {
        Error::MissingKey { key: self.key(name), expected }
    }

    /// The embedding table's rows: what the weights really hold, whatever the metadata say.
    ///
    /// # Errors
    /// When there is no table, or `vocab_size` contradicts it.
    pub fn vocab_size(&self) -> Result<usize> {
        let table = format!("{}.weight", self.family.tensors.embedding);
        let rows = self.gguf.tensor(&table)?.rows();
        if let Some(stated) = self.find_count("vocab_size")? {
            check(stated == rows, &self.key("vocab_size"), format_args!("{rows} (rows of {table})"), stated)?;
        }
        Ok(rows)
    }

    /// Width of a head: `attention.key_length`, or the hidden size over the heads.
    ///
    /// # Errors
    /// When the division leaves a remainder, or keys and values differ in width.
    pub fn head_dim(&self, hidden_size: usize, num_heads: usize) -> Result<usize> {
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

    /// A decoder with grouped-query attention and SwiGLU, from the keys that most families have: what a family changes
    /// where it differs. One rotation of this style for all layers.
    ///
    /// # Errors
    /// A key that is missing, mistyped or out of range, by name; experts.
    pub fn standard_spec(&self, style: RopeStyle) -> Result<ModelSpec> {
        // Experts carry an architecture's name but are another feed-forward layer.
        let experts = self.find_count("expert_count")?.unwrap_or(0);
        check(experts == 0, &self.key("expert_count"), "0, as this family has no experts here", experts)?;
        self.expert_spec(style)
    }

    /// As [`standard_spec`](Self::standard_spec), with experts in every layer if the file has some: with weights from a softmax,
    /// divided by their sum; as wide as `expert_feed_forward_length` says, or else as `feed_forward_length`; and with a shared
    /// expert without a gate if `expert_shared_feed_forward_length` says so.
    ///
    /// # Errors
    /// A key that is missing, mistyped or out of range, by name.
    pub fn expert_spec(&self, style: RopeStyle) -> Result<ModelSpec> {
        let num_layers = self.num_layers()?;
        let missing = |name: &str| self.missing(name, "a count, or one for each layer");
        let counts = |name: &str| self.find_counts(name, num_layers);
        let hidden_size = self.count("embedding_length")?;
        let heads = counts("attention.head_count")?.ok_or_else(|| missing("attention.head_count"))?;
        let kv_heads = counts("attention.head_count_kv")?.unwrap_or_else(|| heads.clone());
        let (inner, expert_inner) = (counts("feed_forward_length")?, counts("expert_feed_forward_length")?);
        let experts = self.experts()?;
        let inner = match experts {
            Some(_) => expert_inner.or(inner),
            None => inner,
        };
        let inner = inner.ok_or_else(|| missing("feed_forward_length"))?;
        let ffn = |inner: usize| match experts {
            None => FfnSpec::Dense { inner, act: Activation::Silu },
            Some(experts) => FfnSpec::Experts(ExpertsSpec { inner, ..experts }),
        };
        let head_dim = self.head_dim(hidden_size, heads.first().copied().unwrap_or(0))?;
        let context_length = self.count("context_length")?;
        let layer = |layer_idx: usize| LayerSpec {
            attn: AttentionSpec {
                num_heads: heads[layer_idx],
                num_kv_heads: kv_heads[layer_idx],
                head_dim,
                rope: Some(0),
                qk_norm: None,
                scale: 1.0 / (head_dim as f32).sqrt(),
                temperature: None,
                softcap: None,
                window: None,
                sinks: false,
                kv_from: None,
            },
            ffn: ffn(inner[layer_idx]),
            norms: NormSlots::default(),
            residual_scale: 1.0,
        };
        Ok(ModelSpec {
            architecture: self.family.architecture,
            tensors: self.family.tensors,
            vocab_size: self.vocab_size()?,
            hidden_size,
            context_length,
            norm_eps: self.f32("attention.layer_norm_rms_epsilon")?,
            embed_scale: 1.0,
            logit_scale: 1.0,
            final_softcap: None,
            ropes: vec![RopeConfig {
                base: self.find_f32("rope.freq_base")?.unwrap_or(10000.0),
                dim: self.find_count("rope.dimension_count")?.unwrap_or(head_dim),
                style,
                scaling: self.rope_scaling(context_length)?,
            }],
            layers: (0..num_layers).map(layer).collect(),
        })
    }

    /// The experts of a layer, if there are some, without their width.
    fn experts(&self) -> Result<Option<ExpertsSpec>> {
        let Some(num_experts) = self.find_count("expert_count")?.filter(|&count| count > 0) else {
            return Ok(None);
        };
        let gating = match self.find_count("expert_gating_func")?.unwrap_or(0) {
            // 0 is how converters write "as usual".
            0 | 1 => Gating::Softmax,
            3 => Gating::SoftmaxOfSelected,
            other => {
                let expected = "1 (softmax) or 3 (softmax of the selected)";
                return Err(Error::InvalidValue {
                    what: self.key("expert_gating_func"),
                    expected: expected.into(),
                    found: other.to_string(),
                });
            }
        };
        for (name, most) in [("leading_dense_block_count", 0), ("expert_group_count", 1)] {
            let found = self.find_count(name)?.unwrap_or(0);
            check(found <= most, &self.key(name), format_args!("at most {most}"), found)?;
        }
        let scale = self.find_f32("expert_weights_scale")?.filter(|&scale| scale != 0.0);
        let shared = self.find_count("expert_shared_feed_forward_length")?.filter(|&inner| inner > 0);
        Ok(Some(ExpertsSpec {
            num_experts,
            inner: 0,
            act: Activation::Silu,
            routing: Routing {
                top_k: self.count("expert_used_count")?,
                gating,
                norm: true,
                scale: scale.unwrap_or(1.0),
            },
            shared: shared.map(|inner| SharedExpert { inner, gated: false }),
        }))
    }

    /// Tokens of the context before stretching; the trained context if the file does not say.
    ///
    /// # Errors
    /// A mistyped value.
    pub fn original_context(&self, context_length: usize) -> Result<u32> {
        let stated = self.find_count("rope.scaling.original_context_length")?;
        Ok(stated.unwrap_or(context_length) as u32)
    }

    /// How the file stretches a context of `context_length` trained tokens.
    ///
    /// # Errors
    /// A kind that is not known, or a mistyped value.
    pub fn rope_scaling(&self, context_length: usize) -> Result<RopeScaling> {
        let kind_key = self.key("rope.scaling.type");
        // Files older than the `scaling` group state a linear factor alone.
        let kind = self.gguf.metadata().str(&kind_key)?.unwrap_or("linear");
        let factor = match self.find_f32("rope.scaling.factor")? {
            Some(factor) => factor,
            None => self.find_f32("rope.scale_linear")?.unwrap_or(1.0),
        };
        // A factor of 0 is how some converters write "no scaling".
        let factor = if factor == 0.0 { 1.0 } else { factor };
        match kind {
            // The divisors of long and short contexts are tensors: the family that has them looks for them.
            "none" | "longrope" => Ok(RopeScaling::None),
            "linear" if factor == 1.0 => Ok(RopeScaling::None),
            "linear" => Ok(RopeScaling::Linear { factor }),
            "yarn" => Ok(RopeScaling::Yarn {
                factor,
                original_context: self.original_context(context_length)?,
                attn_factor: self.find_f32("rope.scaling.attn_factor")?.unwrap_or(1.0),
                ext_factor: self.find_f32("rope.scaling.yarn_ext_factor")?.unwrap_or(1.0),
                beta_fast: self.find_f32("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                beta_slow: self.find_f32("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
                log_multiplier: self.find_f32("rope.scaling.yarn_log_multiplier")?.unwrap_or(0.0),
            }),
            other => Err(Error::InvalidValue {
                what: kind_key,
                expected: "none, linear, yarn or longrope".into(),
                found: other.to_owned(),
            }),
        }
    }
}
