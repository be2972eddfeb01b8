//! Random weights in any block format: every bit of the quants at random, with scales that keep them near zero.
//!
//! Random bits reach every quant, every sub-block scale, negative and subnormal block scales: more than a quantiser
//! would ever write. Only the minima follow their scales (with some play), as a quantiser's would, since weights far
//! from zero would make a model's activations grow without bounds.

use super::Rng;
use crate::format::Format;
use crate::half::{f32_to_bf16, f32_to_f16};

/// `n_weights` random weights, whole blocks of `format`, as a file stores them. About zero mean; standard deviation
/// `sigma`.
///
/// # Panics
/// When `n_weights` is not a whole number of blocks, or `sigma` is too small or too large for the format's scales.
pub fn random_blocks(format: Format, n_weights: usize, sigma: f32, rng: &mut Rng) -> Vec<u8> {
    match format {
        Format::F32 => rng.normals(n_weights, sigma).into_iter().flat_map(f32::to_le_bytes).collect(),
        Format::F16 => halves(rng.normals(n_weights, sigma), f32_to_f16),
        Format::BF16 => halves(rng.normals(n_weights, sigma), f32_to_bf16),
        Format::MXFP4 => mxfp4_blocks(n_weights, sigma, rng),
        _ => quantized_blocks(format, n_weights, sigma, rng),
    }
}

fn halves(values: Vec<f32>, narrow: fn(f32) -> u16) -> Vec<u8> {
    values.into_iter().flat_map(|value| narrow(value).to_le_bytes()).collect()
}

/// Blocks whose scales, powers of two, are mixed so that weights have the deviation `sigma`.
fn mxfp4_blocks(n_weights: usize, sigma: f32, rng: &mut Rng) -> Vec<u8> {
    let format = Format::MXFP4;
    let n_bytes = format.bytes_for(n_weights as u64).expect("whole blocks") as usize;
    let mut bytes = vec![0; n_bytes];
    rng.fill(&mut bytes);
    // The mean square of the levels: 2 (1 + 4 + 9 + 16 + 36 + 64 + 144) / 16.
    let scale = f64::from(sigma) / 34.25f64.sqrt();
    // The power of two below it, by its bits: no logarithm that a platform may round its own way.
    let power = f64::from_bits(scale.to_bits() & 0x7ff << 52);
    let exponent = f64::from((scale.to_bits() >> 52) as u32) - 1023.0;
    // A part of the blocks has twice the scale of the others.
    let (low, square) = (power * power, scale.powi(2));
    let share = (square - low) / (3.0 * low);
    let code = (exponent + 128.0) as u8;
    assert!((2..254).contains(&code), "{format}: scale {scale:e} is out of range");
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        block[0] = if f64::from(rng.uniform(0.0, 1.0)) < share { code + 1 } else { code };
    }
    bytes
}

/// Where a block's binary16 scales lie; layouts are drawn in `crate::blocks`.
struct Scales {
    d: usize,
    min: Option<Min>,
}

struct Min {
    at: usize,
    /// `min / d` that centres the weights.
    ratio: f32,
}

fn scales(format: Format) -> Scales {
    let (d, min) = match format {
        Format::Q4_1 => (0, Some((2, -7.5))),
        Format::Q5_1 => (0, Some((2, -15.5))),
        Format::Q2_K => (80, Some((82, 1.5))),
        Format::Q4_K => (0, Some((2, 7.5))),
        Format::Q5_K => (0, Some((2, 15.5))),
        Format::Q3_K => (108, None),
        Format::Q6_K => (208, None),
        Format::Q4_0
        | Format::Q5_0
        | Format::Q8_0
        | Format::IQ4_NL
        | Format::IQ4_XS
        | Format::IQ1_S
        | Format::IQ2_XXS
        | Format::IQ2_XS
        | Format::IQ2_S
        | Format::IQ3_XXS
        | Format::IQ3_S => (0, None),
        Format::TQ1_0 => (52, None),
        Format::TQ2_0 => (64, None),
        Format::F32 | Format::F16 | Format::BF16 | Format::MXFP4 | Format::IQ1_M => {
            panic!("{format} has no binary16 scales in a place of their own")
        }
    };
    Scales { d, min: min.map(|(at, ratio)| Min { at, ratio }) }
}

fn quantized_blocks(format: Format, n_weights: usize, sigma: f32, rng: &mut Rng) -> Vec<u8> {
    let n_bytes = format.bytes_for(n_weights as u64).expect("whole blocks") as usize;
    let mut bytes = vec![0; n_bytes];
    rng.fill(&mut bytes);
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        match format {
            Format::TQ1_0 => {
                block[..48].iter_mut().for_each(|byte| *byte = five_digits(*byte));
                // Four digits, which are the first of five.
                block[48..52].iter_mut().for_each(|byte| *byte = five_digits(*byte / 3 * 3));
            }
            Format::TQ2_0 => block[..64].iter_mut().for_each(|byte| *byte = ternary(*byte)),
            Format::Q2_K => centre_nibble_mins(&mut block[..16], rng),
            Format::Q4_K | Format::Q5_K => write_six_bit_scales(&mut block[4..16], rng),
            _ => {}
        }
    }
    // First with scales about 1, to see the spread that the bits have; then with those that make it `sigma`.
    let seed = rng.next_u64();
    write_scales(format, &mut bytes, 1.0, &mut Rng::new(seed));
    let mut values = vec![0.0; n_weights];
    format.dequantize(&bytes, &mut values);
    let mean_square = values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / n_weights as f64;
    write_scales(format, &mut bytes, sigma / mean_square.sqrt() as f32, &mut Rng::new(seed));
    bytes
}

/// Gives each block a scale of `d` times 0.5 to 1.5, of either sign.
fn write_scales(format: Format, bytes: &mut [u8], d: f32, rng: &mut Rng) {
    if format == Format::IQ1_M {
        return write_iq1_m_scales(bytes, d, rng);
    }
    let scales = scales(format);
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        let sign = if rng.below(2) == 0 { 1.0 } else { -1.0 };
        let d = sign * d * rng.uniform(0.5, 1.5);
        let mut put = |at: usize, value: f32| {
            let half = f32_to_f16(value);
            let is_finite = half & 0x7c00 != 0x7c00;
            assert!(is_finite && half & 0x7fff != 0, "{format}: scale {value:e} does not fit binary16");
            block[at..at + 2].copy_from_slice(&half.to_le_bytes());
        };
        put(scales.d, d);
        if let Some(Min { at, ratio }) = scales.min {
            put(at, ratio * d * rng.uniform(0.9, 1.1));
        }
    }
}

/// TQ1_0's byte of the five base-3 digits of a number below 243: a quantiser writes no other bytes.
fn five_digits(number: u8) -> u8 {
    let number = u16::from(number % 243);
    (number * 256).div_ceil(243) as u8
}

/// Four numbers of two bits, of which none is 3: a quantiser writes 0, 1 and 2.
fn ternary(byte: u8) -> u8 {
    (0..4).fold(0, |out, k| out | (byte >> (2 * k) & 3).min(2) << (2 * k))
}

/// As [`write_scales`], in the top four bits of the four words of scales.
fn write_iq1_m_scales(bytes: &mut [u8], d: f32, rng: &mut Rng) {
    for block in bytes.chunks_exact_mut(Format::IQ1_M.block_bytes()) {
        let sign = if rng.below(2) == 0 { 1.0 } else { -1.0 };
        let half = f32_to_f16(sign * d * rng.uniform(0.5, 1.5));
        let is_finite = half & 0x7c00 != 0x7c00;
        assert!(is_finite && half & 0x7fff != 0, "IQ1_M: scale {d:e} does not fit binary16");
        for k in 0..4 {
            let high = &mut block[48 + 2 * k + 1];
            *high = *high & 15 | ((half >> (4 * k)) as u8) << 4;
        }
    }
}

/// Q2_K's bytes of scale (low half) and minimum (high half): each minimum within 2 of its scale.
fn centre_nibble_mins(bytes: &mut [u8], rng: &mut Rng) {
    for byte in bytes {
        let scale = u32::from(*byte & 15);
        let min = (scale + rng.below(5)).saturating_sub(2).min(15) as u8;
        *byte = scale as u8 | min << 4;
    }
}

/// Q4_K's and Q5_K's eight 6-bit scales and minima in 12 bytes: each minimum within 8 of its scale.
fn write_six_bit_scales(bytes: &mut [u8], rng: &mut Rng) {
    for group in 0..4 {
        let (low, high) = (six_bit_pair(rng), six_bit_pair(rng));
        bytes[group] = low.0 | (high.0 >> 4) << 6;
        bytes[group + 4] = low.1 | (high.1 >> 4) << 6;
        bytes[group + 8] = high.0 & 15 | (high.1 & 15) << 4;
    }
}

fn six_bit_pair(rng: &mut Rng) -> (u8, u8) {
    let scale = rng.below(64);
    let min = (scale + rng.below(17)).saturating_sub(8).min(63);
    (scale as u8, min as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_have_the_spread_asked_for_and_no_mean() {
        for format in Format::ALL {
            for sigma in [0.02, 0.08] {
                let mut rng = Rng::new(1);
                let n = 256 * 400;
                let bytes = random_blocks(format, n, sigma, &mut rng);
                let mut values = vec![0.0; n];
                format.dequantize(&bytes, &mut values);
                let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n as f64;
                let deviation = (values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / n as f64).sqrt();
                let sigma = f64::from(sigma);
                assert!((deviation / sigma - 1.0).abs() < 0.02, "{format}: {deviation} for {sigma}");
                assert!((mean / sigma).abs() < 0.05, "{format}: mean {mean}");
            }
        }
    }

    #[test]
    fn six_bit_scales_and_minima_reach_their_whole_range() {
        let mut rng = Rng::new(2);
        let mut seen = [[false; 64]; 2];
        for _ in 0..1000 {
            let mut bytes = [0; 12];
            write_six_bit_scales(&mut bytes, &mut rng);
            for group in 0..8 {
                let (scale, min) = crate::blocks::q45_k_scale_min(&bytes, group);
                assert!(scale.abs_diff(min) <= 8);
                seen[0][usize::from(scale)] = true;
                seen[1][usize::from(min)] = true;
            }
        }
        assert_eq!(seen, [[true; 64]; 2]);
    }
}
