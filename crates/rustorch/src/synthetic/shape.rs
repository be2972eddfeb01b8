//! The published shapes: what `config.json` of each model says.

/// A model's dimensions and position embedding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// As it is asked for.
    pub name: &'static str,
    /// `general.architecture` of its files.
    pub architecture: &'static str,
    /// Transformer layers.
    pub num_layers: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads.
    pub num_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Experts instead of one feed-forward layer.
    pub experts: Option<ShapeExperts>,
    /// Tokens.
    pub vocab_size: usize,
    /// Trained context.
    pub context_length: usize,
    /// RMSNorm's epsilon.
    pub norm_eps: f32,
    /// Norms of queries and keys, and of both branches' outputs.
    pub norms: ShapeNorms,
    /// Tokens that a layer sees, of the layers that do not see everything.
    pub window: Option<usize>,
    /// Base of RoPE's wavelengths.
    pub rope_base: f32,
    /// Divides the angles of layers without a window.
    pub rope_linear: Option<f32>,
    /// YaRN's factor, and the context before it.
    pub rope_yarn: Option<(f32, usize)>,
    /// How the context was extended, if it was.
    pub rope_scaling: Option<Llama3Scaling>,
    /// Whether all matrices have biases and heads have sinks, as those of gpt-oss.
    pub has_biases_and_sinks: bool,
    /// Whether the embedding table serves as the LM head.
    pub tied_embeddings: bool,
}

/// The experts of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShapeExperts {
    /// Experts.
    pub count: usize,
    /// Experts of a token.
    pub used: usize,
    /// Width of an expert.
    pub inner: usize,
}

/// Norms beside the two that every layer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShapeNorms {
    /// None.
    None,
    /// None; the one before the feed-forward layer is called `post_attention_norm`.
    Renamed,
    /// Of each head of queries and keys.
    Heads,
    /// Those, and of the outputs of both branches.
    HeadsAndBranches,
}

/// Llama 3.1's context extension: slow pairs divided by `factor`, fast ones kept, a ramp between.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Llama3Scaling {
    /// Divides the angles of pairs that turn less than `low_freq_factor` times within the original context.
    pub factor: f32,
    /// See `factor`.
    pub low_freq_factor: f32,
    /// Pairs that turn more often than this within the original context are kept.
    pub high_freq_factor: f32,
    /// Context before the extension.
    pub original_context: usize,
}

impl Llama3Scaling {
    const fn by(factor: f32) -> Option<Self> {
        Some(Self { factor, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 8192 })
    }

    /// What divides the angle of a pair that turns once in `wavelength` positions.
    fn divisor(&self, wavelength: f64) -> f64 {
        let turns = self.original_context as f64 / wavelength;
        let (low, high) = (f64::from(self.low_freq_factor), f64::from(self.high_freq_factor));
        let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
        1.0 / (kept + (1.0 - kept) / f64::from(self.factor))
    }
}

/// The 8B one.
const LLAMA_3_1: Shape = Shape {
    name: "llama-3.1-8b",
    architecture: "llama",
    num_layers: 32,
    hidden_size: 4096,
    num_heads: 32,
    num_kv_heads: 8,
    head_dim: 128,
    intermediate_size: 14_336,
    experts: None,
    vocab_size: 128_256,
    context_length: 131_072,
    norm_eps: 1e-5,
    norms: ShapeNorms::None,
    window: None,
    rope_base: 500_000.0,
    rope_linear: None,
    rope_yarn: None,
    rope_scaling: Llama3Scaling::by(8.0),
    has_biases_and_sinks: false,
    tied_embeddings: false,
};

/// The smallest of a family, whose others differ in few figures.
const QWEN3: Shape = Shape {
    name: "qwen3-0.6b",
    architecture: "qwen3",
    num_layers: 28,
    hidden_size: 1024,
    num_heads: 16,
    num_kv_heads: 8,
    head_dim: 128,
    intermediate_size: 3072,
    experts: None,
    vocab_size: 151_936,
    context_length: 40_960,
    norm_eps: 1e-6,
    norms: ShapeNorms::Heads,
    window: None,
    rope_base: 1_000_000.0,
    rope_linear: None,
    rope_yarn: None,
    rope_scaling: None,
    has_biases_and_sinks: false,
    tied_embeddings: true,
};

impl Shape {
    /// Every shape: those of Llama, then others, each the smallest first.
    pub const ALL: [Shape; 12] = [
        Shape {
            name: "tinyllama-1.1b",
            architecture: "llama",
            num_layers: 22,
            hidden_size: 2048,
            num_heads: 32,
            num_kv_heads: 4,
            head_dim: 64,
            intermediate_size: 5632,
            experts: None,
            vocab_size: 32_000,
            context_length: 2048,
            norm_eps: 1e-5,
            norms: ShapeNorms::None,
            window: None,
            rope_base: 10_000.0,
            rope_linear: None,
            rope_yarn: None,
            rope_scaling: None,
            has_biases_and_sinks: false,
            tied_embeddings: false,
        },
        Shape {
            name: "llama-3.2-1b",
            architecture: "llama",
            num_layers: 16,
            hidden_size: 2048,
            num_heads: 32,
            num_kv_heads: 8,
            head_dim: 64,
            intermediate_size: 8192,
            experts: None,
            vocab_size: 128_256,
            context_length: 131_072,
            norm_eps: 1e-5,
            norms: ShapeNorms::None,
            window: None,
            rope_base: 500_000.0,
            rope_linear: None,
            rope_yarn: None,
            rope_scaling: Llama3Scaling::by(32.0),
            has_biases_and_sinks: false,
            tied_embeddings: true,
        },
        Shape {
            name: "llama-3.2-3b",
            architecture: "llama",
            num_layers: 28,
            hidden_size: 3072,
            num_heads: 24,
            num_kv_heads: 8,
            head_dim: 128,
            intermediate_size: 8192,
            experts: None,
            vocab_size: 128_256,
            context_length: 131_072,
            norm_eps: 1e-5,
            norms: ShapeNorms::None,
            window: None,
            rope_base: 500_000.0,
            rope_linear: None,
            rope_yarn: None,
            rope_scaling: Llama3Scaling::by(32.0),
            has_biases_and_sinks: false,
            tied_embeddings: true,
        },
        LLAMA_3_1,
        Shape {
            name: "llama-3.1-70b",
            num_layers: 80,
            hidden_size: 8192,
            num_heads: 64,
            intermediate_size: 28_672,
            ..LLAMA_3_1
        },
        QWEN3,
        Shape {
            name: "qwen3-4b",
            num_layers: 36,
            hidden_size: 2560,
            num_heads: 32,
            intermediate_size: 9728,
            ..QWEN3
        },
        Shape {
            name: "qwen3-8b",
            num_layers: 36,
            hidden_size: 4096,
            num_heads: 32,
            intermediate_size: 12_288,
            tied_embeddings: false,
            ..QWEN3
        },
        Shape {
            name: "gemma3-4b",
            architecture: "gemma3",
            num_layers: 34,
            hidden_size: 2560,
            num_heads: 8,
            num_kv_heads: 4,
            head_dim: 256,
            intermediate_size: 10_240,
            experts: None,
            vocab_size: 262_208,
            context_length: 131_072,
            norm_eps: 1e-6,
            norms: ShapeNorms::HeadsAndBranches,
            window: Some(1024),
            rope_base: 1_000_000.0,
            rope_linear: Some(8.0),
            rope_yarn: None,
            rope_scaling: None,
            has_biases_and_sinks: false,
            tied_embeddings: true,
        },
        Shape {
            name: "qwen3-30b-a3b",
            architecture: "qwen3moe",
            num_layers: 48,
            hidden_size: 2048,
            num_heads: 32,
            num_kv_heads: 4,
            intermediate_size: 6144,
            experts: Some(ShapeExperts { count: 128, used: 8, inner: 768 }),
            tied_embeddings: false,
            ..QWEN3
        },
        Shape {
            name: "gpt-oss-20b",
            architecture: "gpt-oss",
            num_layers: 24,
            hidden_size: 2880,
            num_heads: 64,
            num_kv_heads: 8,
            head_dim: 64,
            intermediate_size: 2880,
            experts: Some(ShapeExperts { count: 32, used: 4, inner: 2880 }),
            vocab_size: 201_088,
            context_length: 131_072,
            norm_eps: 1e-5,
            norms: ShapeNorms::Renamed,
            window: Some(128),
            rope_base: 150_000.0,
            rope_linear: None,
            rope_yarn: Some((32.0, 4096)),
            rope_scaling: None,
            has_biases_and_sinks: true,
            tied_embeddings: false,
        },
        Shape {
            name: "mixtral-8x7b",
            architecture: "llama",
            num_layers: 32,
            hidden_size: 4096,
            num_heads: 32,
            num_kv_heads: 8,
            head_dim: 128,
            intermediate_size: 14_336,
            experts: Some(ShapeExperts { count: 8, used: 2, inner: 14_336 }),
            vocab_size: 32_000,
            context_length: 32_768,
            norm_eps: 1e-5,
            norms: ShapeNorms::None,
            window: None,
            rope_base: 1_000_000.0,
            rope_linear: None,
            rope_yarn: None,
            rope_scaling: None,
            has_biases_and_sinks: false,
            tied_embeddings: false,
        },
    ];

    /// Query heads that share a key and value head.
    pub fn heads_per_kv_head(&self) -> usize {
        self.num_heads / self.num_kv_heads
    }

    /// `rope_freqs.weight`: one divisor for each rotated pair, as the converter of llama.cpp computes them.
    pub fn rope_factors(&self) -> Option<Vec<f32>> {
        let scaling = self.rope_scaling?;
        let pairs = self.head_dim / 2;
        let wavelength =
            |pair: usize| std::f64::consts::TAU * f64::from(self.rope_base).powf(pair as f64 / pairs as f64);
        Some((0..pairs).map(|pair| scaling.divisor(wavelength(pair)) as f32).collect())
    }
}
