//! Rotary position embedding in float64, from a file's metadata.
//!
//! Sources: RoFormer (arXiv 2104.09864), position interpolation (arXiv 2306.15595) and YaRN (arXiv 2309.00071). Where
//! YaRN leaves a choice, llama.cpp's reading of a file is followed (`rope_yarn` and `ggml_rope_yarn_corr_dims` in ggml,
//! the `yarn_attn_factor` of `llama-context.cpp`): the bounds of the ramp are rounded outwards and clamped to
//! `[0, dim - 1]`; pairs are counted from 0; divisors of `rope_freqs.weight` apply before the interpolation; and
//! `attn_factor` multiplies the temperature `1 + 0.1 ln(factor)` that YaRN puts on Q and K alike. LongRoPE (arXiv
//! 2402.13753) is two sets of divisors, one for contexts longer than the original one.

use gguf::Gguf;

use crate::traits::Keys;

/// The angle by which each pair of a head is rotated from one position to the next, and the factor on its length.
#[derive(Clone)]
pub(crate) struct Rope {
    /// `[dim / 2]` radians per position.
    frequencies: Vec<f64>,
    /// Factor on rotated queries and keys.
    magnitude: f64,
    /// Whether the halves of the rotated dimensions pair up, instead of neighbours.
    halves: bool,
}

impl Rope {
    /// The rotation of a model that is run for up to `context` tokens; of halves of a head, or of neighbours.
    pub(crate) fn from_gguf(
        gguf: &Gguf,
        keys: &Keys<'_>,
        head_dim: usize,
        halves: bool,
        context: usize,
    ) -> Self {
        let dim = keys.usize("rope.dimension_count").unwrap_or(head_dim);
        let base = keys.f64("rope.freq_base").unwrap_or(10000.0);
        let trained = || keys.need_usize("context_length");
        let original_context = keys.usize("rope.scaling.original_context_length").unwrap_or_else(trained);
        let length = if context > original_context { "long" } else { "short" };
        let divisors = gguf
            .find_tensor("rope_freqs.weight")
            .or(gguf.find_tensor(&format!("rope_factors_{length}.weight")))
            .map(|tensor| tensor.dequantize());
        let mut frequencies = frequencies(dim, base);
        for (frequency, divisor) in frequencies.iter_mut().zip(divisors.iter().flatten()) {
            *frequency /= f64::from(*divisor);
        }
        let mut magnitude = 1.0;
        let factor = keys.f64("rope.scaling.factor").or(keys.f64("rope.scale_linear")).unwrap_or(1.0);
        match keys.str("rope.scaling.type").unwrap_or("linear") {
            "none" => {}
            "longrope" => magnitude = keys.f64("rope.scaling.attn_factor").unwrap_or(1.0),
            "linear" => frequencies.iter_mut().for_each(|frequency| *frequency /= factor),
            "yarn" => {
                let yarn = Yarn::from_metadata(keys, factor, original_context);
                let (low, high) = yarn.ramp_bounds(dim, base);
                for (pair, frequency) in frequencies.iter_mut().enumerate() {
                    let kept = yarn.ext_factor * (1.0 - ramp(low, high, pair as f64));
                    *frequency = *frequency / factor * (1.0 - kept) + *frequency * kept;
                }
                magnitude = yarn.magnitude();
            }
            other => panic!("rope scaling {other}"),
        }
        Self { frequencies, magnitude, halves }
    }

    /// As many pairs, with another base and neither divisors nor scaling.
    pub(crate) fn unscaled(&self, base: f64) -> Self {
        Self {
            frequencies: frequencies(2 * self.frequencies.len(), base),
            magnitude: 1.0,
            halves: self.halves,
        }
    }

    /// Rotates one head at `position`. Dimensions `2i` and `2i + 1` are a pair, or `i` and `i + dim / 2`; those beyond the
    /// pairs stay.
    pub(crate) fn rotate(&self, head: &mut [f64], position: usize) {
        let half = self.frequencies.len();
        for (pair, frequency) in self.frequencies.iter().enumerate() {
            let (sin, cos) = (position as f64 * frequency).sin_cos();
            let (i, j) = if self.halves { (pair, pair + half) } else { (2 * pair, 2 * pair + 1) };
            let (x, y) = (head[i], head[j]);
            head[i] = self.magnitude * (x * cos - y * sin);
            head[j] = self.magnitude * (x * sin + y * cos);
        }
    }
}

/// `[dim / 2]` radians per position.
fn frequencies(dim: usize, base: f64) -> Vec<f64> {
    (0..dim / 2).map(|pair| base.powf(-2.0 * pair as f64 / dim as f64)).collect()
}

struct Yarn {
    factor: f64,
    original_context: f64,
    attn_factor: f64,
    ext_factor: f64,
    beta_fast: f64,
    beta_slow: f64,
    log_multiplier: f64,
}

impl Yarn {
    fn from_metadata(keys: &Keys<'_>, factor: f64, original_context: usize) -> Self {
        let number = |name: &str, default: f64| keys.f64(&format!("rope.scaling.{name}")).unwrap_or(default);
        Self {
            factor,
            original_context: original_context as f64,
            attn_factor: number("attn_factor", 1.0),
            ext_factor: number("yarn_ext_factor", 1.0),
            beta_fast: number("yarn_beta_fast", 32.0),
            beta_slow: number("yarn_beta_slow", 1.0),
            log_multiplier: number("yarn_log_multiplier", 0.0),
        }
    }

    /// The pairs between which interpolation sets in: those that rotate `beta_fast` and `beta_slow` times within the
    /// original context.
    fn ramp_bounds(&self, dim: usize, base: f64) -> (f64, f64) {
        let dim = dim as f64;
        let pair_of = |turns: f64| {
            let wavelength = self.original_context / turns;
            dim * (wavelength / std::f64::consts::TAU).ln() / (2.0 * base.ln())
        };
        (pair_of(self.beta_fast).floor().max(0.0), pair_of(self.beta_slow).ceil().min(dim - 1.0))
    }

    fn magnitude(&self) -> f64 {
        if self.ext_factor == 0.0 || self.factor <= 1.0 {
            return self.attn_factor;
        }
        let of_weight = |weight: f64| 1.0 + 0.1 * weight * self.factor.ln();
        // A weight of 0 divides by 1.
        self.attn_factor * of_weight(1.0) / of_weight(self.log_multiplier)
    }
}

/// 0 up to `low`, 1 from `high` on.
fn ramp(low: f64, high: f64, pair: f64) -> f64 {
    ((pair - low) / (high - low).max(0.001)).clamp(0.0, 1.0)
}
