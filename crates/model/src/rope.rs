//! Rotary position embedding: the cosines and sines, in f64 on the host, once at load.
//!
//! Every device reads this table, so none computes an angle of its own and all rotate by the same bits. Sines, powers and
//! logarithms are those of the crate `libm`: the platform's may differ, even from one processor to another.
//! Sources: RoFormer (arXiv 2104.09864), position interpolation (arXiv 2306.15595), YaRN (arXiv 2309.00071),
//! and, for the Llama 3.1 factors, the `rope_freqs.weight` tensor of the file.

use crate::Result;
use crate::check::check;

/// Which two dimensions of a head are rotated together.
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
        /// Pairs that rotate more often than this within the original context are kept.
        beta_fast: f32,
        /// Pairs that rotate less often than this are divided by `factor`.
        beta_slow: f32,
        /// Weight of the logarithm by which the attention temperature is divided; 0 for one that is not.
        log_multiplier: f32,
    },
    /// LongRoPE (arXiv 2402.13753): the file has divisors of the frequencies for contexts longer than the original one, and
    /// others for the rest. The longest sequence that the model is loaded for decides.
    LongRope {
        /// Tokens of the context before stretching.
        original_context: u32,
        /// Factor on the length of rotated queries and keys.
        attn_factor: f32,
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

impl RopeConfig {
    /// Checks that every angle is finite.
    ///
    /// # Errors
    /// The first field that is out of range, with the permitted values and the one found.
    pub fn validate(&self) -> Result<()> {
        let base = self.base;
        check(base.is_finite() && base > 1.0, "rope.base", "a finite number above 1", base)?;
        let positive = |field: &str, value: f32| {
            let ok = value.is_finite() && value > 0.0;
            check(ok, &format!("rope.scaling.{field}"), "a finite number above 0", value)
        };
        match self.scaling {
            RopeScaling::None => Ok(()),
            RopeScaling::Linear { factor } => positive("factor", factor),
            RopeScaling::LongRope { attn_factor, .. } => positive("attn_factor", attn_factor),
            RopeScaling::Yarn {
                factor,
                original_context,
                attn_factor,
                ext_factor,
                beta_fast,
                beta_slow,
                log_multiplier,
            } => {
                positive("factor", factor)?;
                positive("attn_factor", attn_factor)?;
                positive("yarn_beta_fast", beta_fast)?;
                positive("yarn_beta_slow", beta_slow)?;
                let unit = (0.0..=1.0).contains(&ext_factor);
                check(unit, "rope.scaling.yarn_ext_factor", "0 to 1", ext_factor)?;
                let ok = log_multiplier.is_finite() && log_multiplier >= 0.0;
                let field = "rope.scaling.yarn_log_multiplier";
                check(ok, field, "a finite number, 0 or more", log_multiplier)?;
                let field = "rope.scaling.original_context_length";
                check(original_context > 0, field, "at least 1", original_context)
            }
        }
    }
}

/// `[max_seq_len, rope_dim / 2]` pairs `(cos, sin)`, interleaved: row `p` is `cos_0, sin_0, cos_1, sin_1, ..`.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeTable {
    /// Rows: positions.
    pub positions: usize,
    /// Columns: the rotated dimensions of a head.
    pub dim: usize,
    /// Row-major values.
    pub values: Vec<f32>,
}

impl RopeTable {
    /// Tabulates positions `0..positions`. `factors`, one per pair, divide the frequencies.
    ///
    /// # Panics
    /// When `factors` is given and is not `rope.dim / 2` long; the loader checks the tensor's shape.
    pub fn new(rope: &RopeConfig, factors: Option<&[f32]>, positions: usize) -> Self {
        let frequencies = frequencies(rope, factors);
        let magnitude = magnitude(rope);
        let mut values = Vec::with_capacity(positions * rope.dim);
        for position in 0..positions {
            for frequency in &frequencies {
                let (sin, cos) = libm::sincos(position as f64 * frequency);
                values.push((cos * magnitude) as f32);
                values.push((sin * magnitude) as f32);
            }
        }
        Self { positions, dim: rope.dim, values }
    }
}

/// `[rope_dim / 2]` radians per position of each pair.
fn frequencies(rope: &RopeConfig, factors: Option<&[f32]>) -> Vec<f64> {
    let half = rope.dim / 2;
    assert!(factors.is_none_or(|f| f.len() == half), "one RoPE factor per rotated pair");
    let base = f64::from(rope.base);
    (0..half)
        .map(|pair| {
            let plain = libm::pow(base, -2.0 * pair as f64 / rope.dim as f64)
                / factors.map_or(1.0, |f| f64::from(f[pair]));
            match rope.scaling {
                RopeScaling::None | RopeScaling::LongRope { .. } => plain,
                RopeScaling::Linear { factor } => plain / f64::from(factor),
                RopeScaling::Yarn { factor, original_context, ext_factor, beta_fast, beta_slow, .. } => {
                    let low = correction_dim(rope.dim, original_context, f64::from(beta_fast), base)
                        .floor()
                        .max(0.0);
                    let high = correction_dim(rope.dim, original_context, f64::from(beta_slow), base)
                        .ceil()
                        .min(rope.dim as f64 - 1.0);
                    let ramp = 1.0 - ((pair as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
                    let mix = ramp * f64::from(ext_factor);
                    plain / f64::from(factor) * (1.0 - mix) + plain * mix
                }
            }
        })
        .collect()
}

/// The pair index whose wavelength turns `rotations` times within the original context (YaRN, section 3.2).
fn correction_dim(dim: usize, original_context: u32, rotations: f64, base: f64) -> f64 {
    let turns = f64::from(original_context) / (rotations * 2.0 * std::f64::consts::PI);
    dim as f64 * libm::log(turns) / (2.0 * libm::log(base))
}

/// YaRN's attention temperature, folded into the rotation of both Q and K.
fn magnitude(rope: &RopeConfig) -> f64 {
    match rope.scaling {
        RopeScaling::Yarn { factor, attn_factor, ext_factor, log_multiplier, .. } => {
            let stretch = |weight: f64| 1.0 + 0.1 * weight * libm::log(f64::from(factor).max(1.0));
            let temperature = match ext_factor {
                0.0 => 1.0,
                _ if log_multiplier == 0.0 => stretch(1.0),
                _ => stretch(1.0) / stretch(f64::from(log_multiplier)),
            };
            f64::from(attn_factor) * temperature
        }
        RopeScaling::LongRope { attn_factor, .. } => f64::from(attn_factor),
        RopeScaling::None | RopeScaling::Linear { .. } => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(scaling: RopeScaling) -> RopeConfig {
        RopeConfig { base: 10000.0, dim: 8, style: RopeStyle::Interleaved, scaling }
    }

    #[test]
    fn scaling_must_give_finite_angles() {
        let check = |scaling, expect: Option<&str>| {
            let error = rope(scaling).validate().err().map(|error| error.to_string());
            assert_eq!(error.as_deref(), expect);
        };
        let yarn = |attn_factor, original_context, ext_factor| RopeScaling::Yarn {
            factor: 4.0,
            original_context,
            attn_factor,
            ext_factor,
            beta_fast: 32.0,
            beta_slow: 1.0,
            log_multiplier: 0.0,
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

    #[test]
    fn position_zero_does_not_rotate_and_one_turns_by_the_frequency() {
        let table = RopeTable::new(&rope(RopeScaling::None), None, 2);
        assert_eq!(table.values[..8], [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0]);
        for (pair, angle) in [1.0f64, 0.1, 0.01, 0.001].into_iter().enumerate() {
            assert_eq!(table.values[8 + 2 * pair], angle.cos() as f32);
            assert_eq!(table.values[8 + 2 * pair + 1], angle.sin() as f32);
        }
    }

    #[test]
    fn linear_scaling_and_factors_divide_the_angle() {
        let scaled = RopeTable::new(&rope(RopeScaling::Linear { factor: 2.0 }), None, 5);
        let plain = RopeTable::new(&rope(RopeScaling::None), None, 5);
        assert_eq!(scaled.values[4 * 8..], plain.values[2 * 8..3 * 8]);
        let factored = RopeTable::new(&rope(RopeScaling::None), Some(&[2.0; 4]), 5);
        assert_eq!(factored, scaled);
    }

    #[test]
    fn yarn_keeps_fast_pairs_and_interpolates_slow_ones() {
        let config = RopeConfig {
            base: 10000.0,
            dim: 64,
            style: RopeStyle::Interleaved,
            scaling: RopeScaling::Yarn {
                factor: 4.0,
                original_context: 2048,
                attn_factor: 1.0,
                ext_factor: 1.0,
                beta_fast: 32.0,
                beta_slow: 1.0,
                log_multiplier: 0.0,
            },
        };
        let plain = RopeConfig { scaling: RopeScaling::None, ..config };
        let (with, without) = (frequencies(&config, None), frequencies(&plain, None));
        assert_eq!(with[0], without[0]);
        assert!((with[31] * 4.0 - without[31]).abs() < 1e-12);
        assert!(with[15] < without[15] && with[15] > without[15] / 4.0);
        assert!((magnitude(&config) - 1.138_629_436).abs() < 1e-9);
    }
}
