//! IQ4_NL and IQ4_XS: 4-bit indices into a fixed table of 16 unevenly spaced levels.
//!
//! ```text
//! IQ4_NL  32 weights, 18 bytes:   d:f16 | q:16
//!         weight i = d * LEVELS[q_i]
//!
//! IQ4_XS  256 weights, 136 bytes: d:f16 | sh:2 | sl:4 | q:128
//!         8 sub-blocks of 32 weights; sub-block s has q bytes 16 s .. 16 s + 16 and the 6-bit scale
//!           scale_s = (half s of sl, low half first) | (bits 2 s, 2 s + 1 of the word sh) << 4
//!         weight i = d * (scale_s - 32) * LEVELS[q_i]
//! ```
//!
//! Within 32 weights the nibbles lie as in Q4_0: weight `i` low, weight `i + 16` high.

use super::simple::for_each_nibble;
use super::{BlockFormat, block_array, f16_at, nibbles};

/// The 16 levels (`kvalues_iq4nl` in ggml).
pub const IQ4_LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Non-linear 4-bit; 4.5 bits per weight.
#[allow(non_camel_case_types)]
pub enum IQ4_NL {}

impl BlockFormat for IQ4_NL {
    const NAME: &'static str = "IQ4_NL";
    const GGML_TYPE: u32 = 20;
    const BLOCK_LEN: usize = 32;
    const BLOCK_BYTES: usize = 18;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let block: &[u8; Self::BLOCK_BYTES] = block_array(block);
        let d = f16_at(block, 0);
        for_each_nibble(&block[2..], out, |_, q| d * level(q));
    }
}

/// Non-linear 4-bit in super-blocks; 4.25 bits per weight.
#[allow(non_camel_case_types)]
pub enum IQ4_XS {}

impl BlockFormat for IQ4_XS {
    const NAME: &'static str = "IQ4_XS";
    const GGML_TYPE: u32 = 23;
    const BLOCK_LEN: usize = 256;
    const BLOCK_BYTES: usize = 136;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        assert_eq!(out.len(), Self::BLOCK_LEN);
        let block: &[u8; Self::BLOCK_BYTES] = block_array(block);
        let d = f16_at(block, 0);
        let scales_high = u16::from_le_bytes([block[2], block[3]]);
        let (scales_low, q) = block[4..].split_at(4);
        for (s, values) in out.chunks_exact_mut(32).enumerate() {
            let (even, odd) = nibbles(scales_low[s / 2]);
            let low = if s.is_multiple_of(2) { even } else { odd };
            let scale = low | ((scales_high >> (2 * s)) as u8 & 3) << 4;
            let d = d * (f32::from(scale) - 32.0);
            for_each_nibble(&q[16 * s..][..16], values, |_, q| d * level(q));
        }
    }
}

fn level(q: u8) -> f32 {
    f32::from(IQ4_LEVELS[usize::from(q)])
}
