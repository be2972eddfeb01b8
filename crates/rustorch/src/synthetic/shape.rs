//! The published shapes: what `config.json` of each model says.

/// A model's dimensions and position embedding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// As it is asked for.
    pub name: &'static str,
    /// Transformer layers.
    pub num_layers: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads.
    pub num_kv_heads: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Tokens.
    pub vocab_size: usize,
    /// Trained context.
    pub context_length: usize,
    /// Base of RoPE's wavelengths.
    pub rope_base: f32,
    /// How the context was extended, if it was.
    pub rope_scaling: Option<Llama3Scaling>,
    /// Whether the embedding table serves as the LM head.
    pub tied_embeddings: bool,
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

impl Shape {
    /// Every shape, the smallest first.
    pub const ALL: [Shape; 4] = [
        Shape {
            name: "tinyllama-1.1b",
            num_layers: 22,
            hidden_size: 2048,
            num_heads: 32,
            num_kv_heads: 4,
            intermediate_size: 5632,
            vocab_size: 32_000,
            context_length: 2048,
            rope_base: 10_000.0,
            rope_scaling: None,
            tied_embeddings: false,
        },
        Shape {
            name: "llama-3.2-1b",
            num_layers: 16,
            hidden_size: 2048,
            num_heads: 32,
            num_kv_heads: 8,
            intermediate_size: 8192,
            vocab_size: 128_256,
            context_length: 131_072,
            rope_base: 500_000.0,
            rope_scaling: Llama3Scaling::by(32.0),
            tied_embeddings: true,
        },
        Shape {
            name: "llama-3.2-3b",
            num_layers: 28,
            hidden_size: 3072,
            num_heads: 24,
            num_kv_heads: 8,
            intermediate_size: 8192,
            vocab_size: 128_256,
            context_length: 131_072,
            rope_base: 500_000.0,
            rope_scaling: Llama3Scaling::by(32.0),
            tied_embeddings: true,
        },
        Shape {
            name: "llama-3.1-8b",
            num_layers: 32,
            hidden_size: 4096,
            num_heads: 32,
            num_kv_heads: 8,
            intermediate_size: 14_336,
            vocab_size: 128_256,
            context_length: 131_072,
            rope_base: 500_000.0,
            rope_scaling: Llama3Scaling::by(8.0),
            tied_embeddings: false,
        },
    ];

    /// RMSNorm's epsilon, the same in all of them.
    pub const NORM_EPS: f32 = 1e-5;

    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_heads
    }

    /// Query heads that share a key and value head.
    pub fn heads_per_kv_head(&self) -> usize {
        self.num_heads / self.num_kv_heads
    }

    /// `rope_freqs.weight`: one divisor for each rotated pair, as the converter of llama.cpp computes them.
    pub fn rope_factors(&self) -> Option<Vec<f32>> {
        let scaling = self.rope_scaling?;
        let pairs = self.head_dim() / 2;
        let wavelength =
            |pair: usize| std::f64::consts::TAU * f64::from(self.rope_base).powf(pair as f64 / pairs as f64);
        Some((0..pairs).map(|pair| scaling.divisor(wavelength(pair)) as f32).collect())
    }
}
