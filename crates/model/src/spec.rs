//! A model family as data: everything that the one graph has to know about a model, layer by layer.
//!
//! A file of `families` turns a file's metadata into a [`ModelSpec`]; the decoder, the loader, the
//! memory estimate and the devices read nothing else. Variations between families are fields here, never branches on a
//! family's name.

use crate::check::{MAX_COUNT, check};
use crate::{ExpertsSpec, KvDtype, KvHeads, KvShape, QkvShape, Result, RopeConfig};

/// A model: the shapes of its weights and the constants of its graph.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpec {
    /// `general.architecture` of the file: the family that described the model.
    pub architecture: &'static str,
    /// Where the file keeps the weights.
    pub tensors: TensorNames,
    /// Rows of the embedding table and of the LM head.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Tokens of the longest sequence in training.
    pub context_length: usize,
    /// RMSNorm's epsilon.
    pub norm_eps: f32,
    /// Embeddings are multiplied by it.
    pub embed_scale: f32,
    /// Logits are multiplied by it, before the soft cap.
    pub logit_scale: f32,
    /// Logits become `cap * tanh(logit / cap)`.
    pub final_softcap: Option<f32>,
    /// Rotations, which layers name by their index.
    pub ropes: Vec<RopeConfig>,
    /// Transformer layers, first to last.
    pub layers: Vec<LayerSpec>,
}

/// One transformer layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSpec {
    /// The attention.
    pub attn: AttentionSpec,
    /// The feed-forward layer.
    pub ffn: FfnSpec,
    /// The norms beside the one before the attention and the one before the feed-forward layer.
    pub norms: NormSlots,
    /// What both branches are multiplied by before they are added to the residual stream.
    pub residual_scale: f32,
}

/// The attention of a layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionSpec {
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Index in [`ModelSpec::ropes`]; `None` of a layer that does not rotate.
    pub rope: Option<usize>,
    /// Norm of queries and keys before the rotation.
    pub qk_norm: Option<QkNorm>,
    /// Scores are multiplied by it: `1 / sqrt(head_dim)` in most families.
    pub scale: f32,
    /// Queries are multiplied by a factor that grows with their position.
    pub temperature: Option<Temperature>,
    /// Scores become `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// A row sees this many positions, its own included; all before it when `None`.
    pub window: Option<usize>,
    /// Whether each head has a logit that takes part in the softmax and has no value.
    pub sinks: bool,
    /// The layer whose keys and values this one reads instead of storing its own.
    pub kv_from: Option<usize>,
}

/// A factor on queries: `1 + scale * ln(floor(position / length) + 1)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Temperature {
    /// Of the logarithm.
    pub scale: f32,
    /// Tokens after which the factor first grows.
    pub length: u32,
}

impl Temperature {
    /// The factors of the positions `0..positions`.
    pub fn factors(&self, positions: usize) -> Vec<f32> {
        let factor = |position: usize| {
            let periods = position / self.length as usize;
            (1.0 + f64::from(self.scale) * libm::log(periods as f64 + 1.0)) as f32
        };
        (0..positions).map(factor).collect()
    }
}

/// How queries and keys are normed before they are rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    /// Each head by itself, with one weight of `head_dim` values for the queries and one for the keys.
    PerHead,
}

/// Which norms a layer has beside those before its two branches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NormSlots {
    /// Of the attention's output, before it is added to the residual stream.
    pub post_attn: bool,
    /// Of the feed-forward layer's output, before it is added to the residual stream.
    pub post_ffn: bool,
}

/// The feed-forward layer.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum FfnSpec {
    /// `down(act(gate(x)) * up(x))`.
    Dense {
        /// Width between the products.
        inner: usize,
        /// The activation of the gate.
        act: Activation,
    },
    /// The sum of some of many such layers.
    Experts(ExpertsSpec),
}

impl FfnSpec {
    /// Width between the products, of an expert where there are several.
    pub fn inner(&self) -> usize {
        match *self {
            FfnSpec::Dense { inner, .. } | FfnSpec::Experts(ExpertsSpec { inner, .. }) => inner,
        }
    }

    /// The experts, if there are several.
    pub fn experts(&self) -> Option<&ExpertsSpec> {
        match self {
            FfnSpec::Dense { .. } => None,
            FfnSpec::Experts(experts) => Some(experts),
        }
    }

    /// Width between the products of the part that every token takes, if there is one.
    pub fn dense_inner(&self) -> Option<usize> {
        match self {
            FfnSpec::Dense { inner, .. } => Some(*inner),
            FfnSpec::Experts(experts) => experts.shared.map(|shared| shared.inner),
        }
    }
}

/// Where a family keeps its weights: names without `.weight`, `.bias` and, of a layer's tensors, `blk.N.`.
///
/// A list names the tensors whose rows are stacked into one product; a fused tensor is a list of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorNames {
    /// `[vocab, hidden]` embedding table.
    pub embedding: &'static str,
    /// `[hidden]` norm before the LM head.
    pub output_norm: &'static str,
    /// `[vocab, hidden]` LM head; absent in files that use the embedding table for it.
    pub output: &'static str,
    /// `[rope.dim / 2]` divisors of the rotation's frequencies; optional.
    pub rope_factors: &'static str,
    /// As `rope_factors`, for contexts longer than the original one ([`RopeScaling::LongRope`](crate::RopeScaling::LongRope)).
    pub rope_factors_long: &'static str,
    /// As `rope_factors`, for contexts up to the original one.
    pub rope_factors_short: &'static str,
    /// `[hidden]` norm before the attention.
    pub attn_norm: &'static str,
    /// `[q_dim + 2 kv_dim, hidden]`: queries, keys and values.
    pub qkv: &'static [&'static str],
    /// The same as one tensor, which is read where a file has it.
    pub fused_qkv: &'static str,
    /// `[head_dim]` norm of the queries ([`QkNorm::PerHead`]).
    pub q_norm: &'static str,
    /// `[head_dim]` norm of the keys.
    pub k_norm: &'static str,
    /// `[num_heads]` logits of the attention's sinks.
    pub sinks: &'static str,
    /// `[hidden, q_dim]`.
    pub attn_out: &'static str,
    /// `[hidden]` norm of the attention's output.
    pub post_attn_norm: &'static str,
    /// `[hidden]` norm before the feed-forward layer.
    pub ffn_norm: &'static str,
    /// `[2 inner, hidden]`: gate, then up.
    pub gate_up: &'static [&'static str],
    /// `[hidden, inner]`.
    pub down: &'static str,
    /// `[hidden]` norm of the feed-forward layer's output.
    pub post_ffn_norm: &'static str,
    /// `[experts, hidden]` router.
    pub router: &'static str,
    /// `[experts][2 inner, hidden]` of experts, as `gate_up`; of old files `gate_up` with the expert's number behind it.
    pub expert_gate_up: &'static [&'static str],
    /// The same as one tensor, which is read where a file has it.
    pub fused_expert_gate_up: &'static str,
    /// `[experts][hidden, inner]`; of old files `down` with the expert's number behind it.
    pub expert_down: &'static str,
    /// `[1, hidden]` gate of the expert that every token takes.
    pub shared_gate: &'static str,
    /// `[2 inner, hidden]` of that expert.
    pub shared_gate_up: &'static [&'static str],
    /// `[hidden, inner]` of that expert.
    pub shared_down: &'static str,
}

impl TensorNames {
    /// The names that most families use. A family states those that differ.
    pub const STANDARD: Self = Self {
        embedding: "token_embd",
        output_norm: "output_norm",
        output: "output",
        rope_factors: "rope_freqs",
        rope_factors_long: "rope_factors_long",
        rope_factors_short: "rope_factors_short",
        attn_norm: "attn_norm",
        qkv: &["attn_q", "attn_k", "attn_v"],
        fused_qkv: "attn_qkv",
        q_norm: "attn_q_norm",
        k_norm: "attn_k_norm",
        sinks: "attn_sinks",
        attn_out: "attn_output",
        post_attn_norm: "post_attention_norm",
        ffn_norm: "ffn_norm",
        gate_up: &["ffn_gate", "ffn_up"],
        down: "ffn_down",
        post_ffn_norm: "post_ffw_norm",
        router: "ffn_gate_inp",
        expert_gate_up: &["ffn_gate_exps", "ffn_up_exps"],
        fused_expert_gate_up: "ffn_gate_up_exps",
        expert_down: "ffn_down_exps",
        shared_gate: "ffn_gate_inp_shexp",
        shared_gate_up: &["ffn_gate_shexp", "ffn_up_shexp"],
        shared_down: "ffn_down_shexp",
    };
}

/// The activation of a gated feed-forward layer (arXiv 2002.05202).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `gate / (1 + exp(-gate)) * up`: SwiGLU.
    Silu,
    /// `0.5 gate (1 + tanh(sqrt(2 / pi) (gate + 0.044715 gate^3))) * up`: GeGLU.
    GeluTanh,
    /// `x / (1 + exp(-1.702 x)) * (y + 1)` with `x = min(gate, 7)` and `y = up`, but from -7 to 7: the SwiGLU of gpt-oss.
    ClampedSwiglu,
}

impl AttentionSpec {
    /// Attention over all positions with nothing that a family may add, for tests of shapes.
    #[cfg(test)]
    pub(crate) fn plain(num_heads: usize, num_kv_heads: usize, head_dim: usize) -> Self {
        Self {
            num_heads,
            num_kv_heads,
            head_dim,
            rope: None,
            qk_norm: None,
            scale: 1.0,
            temperature: None,
            softcap: None,
            window: None,
            sinks: false,
            kv_from: None,
        }
    }

    /// The stacked row of the QKV projection.
    pub fn qkv(&self) -> QkvShape {
        QkvShape { num_heads: self.num_heads, num_kv_heads: self.num_kv_heads, head_dim: self.head_dim }
    }

    /// Width of all query heads, and of the attention's output.
    pub fn q_dim(&self) -> usize {
        self.num_heads * self.head_dim
    }

    /// Width of all key (or value) heads.
    pub fn kv_dim(&self) -> usize {
        self.num_kv_heads * self.head_dim
    }
}

impl ModelSpec {
    /// Transformer layers.
    pub fn num_layers(&self) -> usize {
        self.layers.len()
    }

    /// The widest row of `width` over all layers.
    pub fn widest(&self, width: impl Fn(&LayerSpec) -> usize) -> usize {
        self.layers.iter().map(width).max().unwrap_or(0)
    }

    /// The KV cache of `num_pages` pages: the heads of every layer that stores keys and values of its own.
    pub fn kv_shape(&self, num_pages: usize, page_size: usize, dtype: KvDtype) -> KvShape {
        let stores = self.layers.iter().filter(|layer| layer.attn.kv_from.is_none());
        let heads = |layer: &LayerSpec| KvHeads {
            num_kv_heads: layer.attn.num_kv_heads,
            head_dim: layer.attn.head_dim,
        };
        KvShape { num_pages, page_size, dtype, layers: stores.map(heads).collect() }
    }

    /// For each layer, the index of its keys and values among [`KvShape::layers`].
    pub fn kv_layers(&self) -> Vec<usize> {
        let mut own = Vec::with_capacity(self.layers.len());
        let mut next = 0;
        for layer in &self.layers {
            own.push(match layer.attn.kv_from {
                Some(from) => own[from],
                None => {
                    next += 1;
                    next - 1
                }
            });
        }
        own
    }

    /// The factors on queries that layers have, each once.
    pub fn temperatures(&self) -> Vec<Temperature> {
        let mut all: Vec<Temperature> = Vec::new();
        for temperature in self.layers.iter().filter_map(|layer| layer.attn.temperature) {
            if !all.contains(&temperature) {
                all.push(temperature);
            }
        }
        all
    }

    /// The routing of the layers that have experts, which is the same in all: the number of experts and of those of a token.
    pub fn experts(&self) -> Option<&ExpertsSpec> {
        self.layers.iter().find_map(|layer| layer.ffn.experts())
    }

    /// Checks the fields against each other.
    ///
    /// # Errors
    /// The first field that is out of range, with the permitted values and the one found.
    pub fn validate(&self) -> Result<()> {
        count("vocab_size", self.vocab_size)?;
        count("hidden_size", self.hidden_size)?;
        count("num_layers", self.layers.len())?;
        let eps = self.norm_eps;
        check(eps.is_finite() && eps >= 0.0, "norm_eps", "a finite number, 0 or more", eps)?;
        nonzero("embed_scale", self.embed_scale)?;
        nonzero("logit_scale", self.logit_scale)?;
        if let Some(cap) = self.final_softcap {
            positive("final_softcap", cap)?;
        }
        self.ropes.iter().try_for_each(RopeConfig::validate)?;
        for experts in self.layers.iter().filter_map(|layer| layer.ffn.experts()) {
            experts.validate()?;
            let counts = |experts: &ExpertsSpec| (experts.num_experts, experts.routing.top_k);
            let first = self.experts().map_or((0, 0), counts);
            let found = format!("{:?}", counts(experts));
            let expected = format!("{first:?} in every layer with experts");
            check(counts(experts) == first, "expert_count and expert_used_count", expected, found)?;
        }
        (0..self.layers.len()).try_for_each(|layer_idx| self.validate_layer(layer_idx))
    }

    fn validate_layer(&self, layer_idx: usize) -> Result<()> {
        let LayerSpec { attn, ffn, residual_scale, .. } = &self.layers[layer_idx];
        count("num_heads", attn.num_heads)?;
        count("num_kv_heads", attn.num_kv_heads)?;
        count("head_dim", attn.head_dim)?;
        count("intermediate_size", ffn.inner())?;
        nonzero("residual_scale", *residual_scale)?;
        nonzero("attention scale", attn.scale)?;
        if let Some(Temperature { scale, length }) = attn.temperature {
            nonzero("attention temperature scale", scale)?;
            count("attention temperature length", length as usize)?;
        }
        if let Some(cap) = attn.softcap {
            positive("attention softcap", cap)?;
        }
        if let Some(window) = attn.window {
            count("attention window", window)?;
        }
        check(
            attn.num_heads.is_multiple_of(attn.num_kv_heads),
            "num_kv_heads",
            format_args!("a divisor of num_heads = {}", attn.num_heads),
            attn.num_kv_heads,
        )?;
        if let Some(rope) = attn.rope {
            let known =
                format_args!("less than {}, the rotations of the model", self.ropes.len()).to_string();
            check(rope < self.ropes.len(), "rope", known, rope)?;
            let dim = self.ropes[rope].dim;
            check(
                dim >= 2 && dim.is_multiple_of(2) && dim <= attn.head_dim,
                "rope.dim",
                format_args!("an even number from 2 to head_dim = {}", attn.head_dim),
                dim,
            )?;
        }
        if let Some(from) = attn.kv_from {
            let source = self.layers[..layer_idx].get(from).map(|layer| &layer.attn);
            let shares = source.is_some_and(|source| {
                source.kv_from.is_none()
                    && (source.num_kv_heads, source.head_dim) == (attn.num_kv_heads, attn.head_dim)
            });
            let expected =
                format_args!("a layer before {layer_idx} that stores heads of the same shape").to_string();
            check(shares, "kv_from", expected, from)?;
        }
        Ok(())
    }

    /// Compares what the weights fix with the description of the file.
    ///
    /// # Errors
    /// The first difference, naming both values.
    pub fn check_against(&self, file: &ModelSpec) -> Result<()> {
        same("vocab_size", self.vocab_size, file.vocab_size)?;
        same("hidden_size", self.hidden_size, file.hidden_size)?;
        same("num_layers", self.layers.len(), file.layers.len())?;
        for (ours, theirs) in self.layers.iter().zip(&file.layers) {
            same("num_heads", ours.attn.num_heads, theirs.attn.num_heads)?;
            same("num_kv_heads", ours.attn.num_kv_heads, theirs.attn.num_kv_heads)?;
            same("head_dim", ours.attn.head_dim, theirs.attn.head_dim)?;
            same("intermediate_size", ours.ffn.inner(), theirs.ffn.inner())?;
            let experts = |layer: &LayerSpec| layer.ffn.experts().map_or(0, |experts| experts.num_experts);
            same("num_experts", experts(ours), experts(theirs))?;
            let shared = |layer: &LayerSpec| layer.ffn.dense_inner().unwrap_or(0);
            same("shared intermediate_size", shared(ours), shared(theirs))?;
        }
        Ok(())
    }
}

fn same(field: &str, ours: usize, theirs: usize) -> Result<()> {
    let what = format!("config field {field}");
    check(ours == theirs, &what, format_args!("{theirs} (the file's weights)"), ours)
}

pub(crate) fn count(field: &str, value: usize) -> Result<()> {
    check(value >= 1, field, "at least 1", value)?;
    check(value <= MAX_COUNT, field, format_args!("at most {MAX_COUNT}"), value)
}

fn positive(field: &str, value: f32) -> Result<()> {
    check(value.is_finite() && value > 0.0, field, "a finite number above 0", value)
}

pub(crate) fn nonzero(field: &str, value: f32) -> Result<()> {
    check(value.is_finite() && value != 0.0, field, "a finite number other than 0", value)
}
