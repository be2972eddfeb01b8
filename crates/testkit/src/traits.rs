//! What the families of a file's architecture differ in, read from its metadata in float64.
//!
//! Written from the models' papers and llama.cpp's reading of their files: what a family adds to `llama` is a line of
//! [`Traits::read`]. What only shows in the tensors (biases, norms of heads, fused matrices) the forward finds there.

use gguf::{Array, Gguf, Metadata, Value};

use crate::rope::Rope;

/// A model's constants.
pub(crate) struct Traits {
    pub head_dim: usize,
    pub norm_eps: f64,
    /// Factor on embeddings.
    pub embed_scale: f64,
    /// Factor on logits.
    pub logit_scale: f64,
    /// Logits become `cap * tanh(logit / cap)`.
    pub final_cap: Option<f64>,
    /// Factor on both branches.
    pub residual_scale: f64,
    /// The activation of feed-forward layers.
    pub act: Act,
    /// How tokens are given to experts.
    pub routing: Option<Routing>,
    pub layers: Vec<LayerTraits>,
}

/// The activation of a feed-forward layer.
#[derive(Clone, Copy)]
pub(crate) enum Act {
    Swiglu,
    Geglu,
    /// That of gpt-oss, whose inputs are clamped.
    ClampedSwiglu,
}

/// How a router's logits become experts and weights.
pub(crate) struct Routing {
    /// Experts of a token.
    pub used: usize,
    /// Whether weights are shares of a softmax over the token's own experts, not over all.
    pub of_selected: bool,
    /// Whether the weights are divided by their sum.
    pub norm: bool,
    /// Factor on weights.
    pub scale: f64,
}

/// A layer's constants.
#[derive(Clone)]
pub(crate) struct LayerTraits {
    pub num_heads: usize,
    pub num_kv_heads: usize,
    pub rope: Option<Rope>,
    /// Factor on scores.
    pub scale: f64,
    /// Scores become `cap * tanh(score / cap)`.
    pub cap: Option<f64>,
    /// Positions that a token sees, its own included.
    pub window: Option<usize>,
    /// Whether `post_attention_norm` is the norm before the feed-forward layer.
    pub renamed_ffn_norm: bool,
    /// `(beta, length)`: queries are multiplied by `1 + beta ln(floor(position / length) + 1)`.
    pub temperature: Option<(f64, f64)>,
}

impl Traits {
    /// Reads those of a model that is run for up to `context` tokens.
    pub(crate) fn read(gguf: &Gguf, context: usize) -> Self {
        let keys = Keys::of(gguf);
        let arch = keys.architecture;
        let num_layers = keys.need_usize("block_count");
        let heads = keys.counts("attention.head_count", num_layers).expect("attention.head_count");
        let kv_heads = keys.counts("attention.head_count_kv", num_layers).unwrap_or(heads.clone());
        let hidden = keys.need_usize("embedding_length");
        let head_dim =
            keys.usize("attention.key_length").unwrap_or_else(|| hidden / heads.first().unwrap_or(&1));
        let halves = arch.starts_with("qwen") || matches!(arch, "phi3" | "gemma2" | "gemma3" | "gpt-oss");
        let rope = Rope::from_gguf(gguf, &keys, head_dim, halves, context);
        // Of layers with a window.
        let base = keys.f64("rope.freq_base_swa").unwrap_or(10000.0);
        let local = if arch == "gemma3" { rope.unscaled(base) } else { rope.clone() };
        let rotates = |layer: usize| match arch {
            "smollm3" => !(layer + 1).is_multiple_of(4),
            "granite" | "granitemoe" => keys.bool("rope.scaling.finetuned").unwrap_or(true),
            _ => true,
        };
        // The last layer of each period sees everything.
        let period = match arch {
            "gemma2" | "gpt-oss" => 2,
            _ if keys.bools("attention.sliding_window_pattern").is_some() => 1,
            _ => keys.usize("attention.sliding_window_pattern").unwrap_or(6),
        };
        let pattern = keys.bools("attention.sliding_window_pattern");
        let is_local = |layer: usize| match &pattern {
            Some(pattern) => pattern[layer],
            None => layer % period < period - 1,
        };
        let window = |layer: usize| match arch {
            "gemma2" | "gemma3" | "gpt-oss" if is_local(layer) => keys.usize("attention.sliding_window"),
            _ => None,
        };
        let largest = |layers: usize| num_layers == layers;
        let scale = match arch {
            "gemma2" if largest(46) => 1.0 / (hidden as f64 / heads[0] as f64).sqrt(),
            "gemma3" if largest(62) => 1.0 / (hidden as f64 / heads[0] as f64).sqrt(),
            "granite" | "granitemoe" => keys.f64("attention.scale").unwrap_or(1.0 / (head_dim as f64).sqrt()),
            _ => 1.0 / (head_dim as f64).sqrt(),
        };
        let temperature =
            keys.f64("attention.temperature_scale").filter(|_| arch == "mistral3").map(|beta| {
                let trained = || keys.need_usize("context_length");
                let length = keys.usize("rope.scaling.original_context_length").unwrap_or_else(trained);
                (beta, length as f64)
            });
        let layer = |layer: usize| LayerTraits {
            num_heads: heads[layer],
            num_kv_heads: kv_heads[layer],
            rope: rotates(layer).then(|| if window(layer).is_some() { local.clone() } else { rope.clone() }),
            scale,
            cap: keys.f64("attn_logit_softcapping").filter(|_| arch == "gemma2"),
            window: window(layer),
            renamed_ffn_norm: arch == "gpt-oss",
            temperature,
        };
        let is_gemma = arch.starts_with("gemma");
        let granite = |key: &str| keys.f64(key).filter(|_| arch.starts_with("granite")).unwrap_or(1.0);
        Self {
            head_dim,
            norm_eps: keys.f64("attention.layer_norm_rms_epsilon").expect("layer_norm_rms_epsilon"),
            embed_scale: if is_gemma { (hidden as f64).sqrt() } else { granite("embedding_scale") },
            logit_scale: 1.0 / granite("logit_scale"),
            final_cap: keys.f64("final_logit_softcapping").filter(|_| is_gemma),
            residual_scale: granite("residual_scale"),
            act: match arch {
                "gpt-oss" => Act::ClampedSwiglu,
                _ if is_gemma => Act::Geglu,
                _ => Act::Swiglu,
            },
            routing: keys.usize("expert_used_count").map(|used| Routing {
                used,
                of_selected: arch == "gpt-oss",
                norm: !matches!(arch, "qwen2moe" | "gpt-oss"),
                scale: keys.f64("expert_weights_scale").filter(|&scale| scale != 0.0).unwrap_or(1.0),
            }),
            layers: (0..num_layers).map(layer).collect(),
        }
    }
}

/// The keys under a file's architecture.
pub(crate) struct Keys<'a> {
    metadata: &'a Metadata,
    pub architecture: &'a str,
}

impl<'a> Keys<'a> {
    fn of(gguf: &'a Gguf) -> Self {
        let metadata = gguf.metadata();
        Self { metadata, architecture: metadata.architecture().unwrap() }
    }

    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    pub(crate) fn usize(&self, name: &str) -> Option<usize> {
        self.metadata.u32(&self.key(name)).unwrap().map(|value| value as usize)
    }

    pub(crate) fn need_usize(&self, name: &str) -> usize {
        self.usize(name).unwrap_or_else(|| panic!("{} is missing", self.key(name)))
    }

    pub(crate) fn f64(&self, name: &str) -> Option<f64> {
        self.metadata.f32(&self.key(name)).unwrap().map(f64::from)
    }

    pub(crate) fn str(&self, name: &str) -> Option<&'a str> {
        self.metadata.str(&self.key(name)).unwrap()
    }

    fn bool(&self, name: &str) -> Option<bool> {
        self.metadata.bool(&self.key(name)).unwrap()
    }

    fn bools(&self, name: &str) -> Option<&'a [bool]> {
        match self.metadata.get(&self.key(name)) {
            Some(Value::Array(Array::Bool(values))) => Some(values),
            _ => None,
        }
    }

    /// A number for each layer: of an array, or the same for all.
    fn counts(&self, name: &str, num_layers: usize) -> Option<Vec<usize>> {
        if let Some(Value::Array(_)) = self.metadata.get(&self.key(name)) {
            let counts = self.metadata.u32s(&self.key(name)).unwrap()?;
            return Some(counts.into_iter().map(|count| count as usize).collect());
        }
        self.usize(name).map(|count| vec![count; num_layers])
    }
}
