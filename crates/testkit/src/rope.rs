//! Rotary position embedding in float64, from a file's metadata.
//!
//! Sources: RoFormer (arXiv 2104.09864), position interpolation (arXiv 2306.15595) and YaRN (arXiv 2309.00071). Where
//! YaRN leaves a choice, llama.cpp's reading of a file is followed (`rope_yarn` and `ggml_rope_yarn_corr_dims` in ggml,
//! the `yarn_attn_factor` of `llama-context.cpp`): the bounds of the ramp are rounded outwards and clamped to
//! `[0, dim - 1]`; pairs are counted from 0; divisors of `rope_freqs.weight` apply before the interpolation; and
//! `attn_factor` multiplies the temperature `1 + 0.1 ln(factor)` that YaRN puts on Q and K alike.

use gguf::{Gguf, Metadata};

/// The angle by which each pair of a head is rotated from one position to the next, and the factor on its length.
pub(crate) struct Rope {
    /// `[dim / 2]` radians per position.
    frequencies: Vec<f64>,
    /// Factor on rotated queries and keys.
    magnitude: f64,
}

impl Rope {
    pub(crate) fn from_gguf(gguf: &Gguf, head_dim: usize) -> Self {
        let keys = Keys(gguf.metadata());
        let dim = keys.u32("dimension_count").map_or(head_dim, |dim| dim as usize);
        let base = keys.f32("freq_base").unwrap_or(10000.0);
        let divisors = gguf.find_tensor("rope_freqs.weight").map(|tensor| tensor.dequantize());
        let mut frequencies: Vec<f64> = (0..dim / 2)
            .map(|pair| {
                let divisor = divisors.as_ref().map_or(1.0, |divisors| f64::from(divisors[pair]));
                base.powf(-2.0 * pair as f64 / dim as f64) / divisor
            })
            .collect();
        let mut magnitude = 1.0;
        let factor = keys.f32("scaling.factor").or(keys.f32("scale_linear")).unwrap_or(1.0);
        match gguf.metadata().str("llama.rope.scaling.type").unwrap().unwrap_or("linear") {
            "none" => {}
            "linear" => frequencies.iter_mut().for_each(|frequency| *frequency /= factor),
            "yarn" => {
                let yarn = Yarn::from_metadata(&keys, factor);
                let (low, high) = yarn.ramp_bounds(dim, base);
                for (pair, frequency) in frequencies.iter_mut().enumerate() {
                    let kept = yarn.ext_factor * (1.0 - ramp(low, high, pair as f64));
                    *frequency = *frequency / factor * (1.0 - kept) + *frequency * kept;
                }
                magnitude = yarn.magnitude();
            }
            other => panic!("rope scaling {other}"),
        }
        Self { frequencies, magnitude }
    }

    /// Rotates one head at `position`: dimensions `2i` and `2i + 1` are a pair; those beyond the pairs stay.
    pub(crate) fn rotate(&self, head: &mut [f64], position: usize) {
        for (pair, frequency) in head.chunks_exact_mut(2).zip(&self.frequencies) {
            let (sin, cos) = (position as f64 * frequency).sin_cos();
            let (x, y) = (pair[0], pair[1]);
            pair[0] = self.magnitude * (x * cos - y * sin);
            pair[1] = self.magnitude * (x * sin + y * cos);
        }
    }
}

struct Yarn {
    factor: f64,
    original_context: f64,
    attn_factor: f64,
    ext_factor: f64,
    beta_fast: f64,
    beta_slow: f64,
}

impl Yarn {
    fn from_metadata(keys: &Keys<'_>, factor: f64) -> Self {
        let context = || keys.0.u32("llama.context_length").unwrap().expect("llama.context_length");
        Self {
            factor,
            original_context: f64::from(keys.u32("scaling.original_context_length").unwrap_or_else(context)),
            attn_factor: keys.f32("scaling.attn_factor").unwrap_or(1.0),
            ext_factor: keys.f32("scaling.yarn_ext_factor").unwrap_or(1.0),
            beta_fast: keys.f32("scaling.yarn_beta_fast").unwrap_or(32.0),
            beta_slow: keys.f32("scaling.yarn_beta_slow").unwrap_or(1.0),
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
        let temperature =
            if self.ext_factor == 0.0 || self.factor <= 1.0 { 1.0 } else { 1.0 + 0.1 * self.factor.ln() };
        self.attn_factor * temperature
    }
}

/// 0 up to `low`, 1 from `high` on.
fn ramp(low: f64, high: f64, pair: f64) -> f64 {
    ((pair - low) / (high - low).max(0.001)).clamp(0.0, 1.0)
}

/// The keys under `llama.rope.`.
struct Keys<'a>(&'a Metadata);

impl Keys<'_> {
    fn u32(&self, name: &str) -> Option<u32> {
        self.0.u32(&format!("llama.rope.{name}")).unwrap()
    }

    fn f32(&self, name: &str) -> Option<f64> {
        self.0.f32(&format!("llama.rope.{name}")).unwrap().map(f64::from)
    }
}
