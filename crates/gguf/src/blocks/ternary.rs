//! TQ1_0 and TQ2_0: weights of -1, 0 and 1 times a scale of 256.
//!
//! ```text
//! TQ1_0  54 bytes: q:48 | tail:4 | d:f16    a byte has five weights (of the tail four) as digits to the base 3, scaled to 256:
//!        byte i of 32 has weights i, 32 + i, .. 128 + i; byte i of the next 16 weights 160 + i, 176 + i, ..; byte i of the tail
//!        240 + i, 244 + i, ..
//! TQ2_0  66 bytes: q:64 | d:f16             as Q2_K: byte i of each 32 has weights i, 32 + i, 64 + i, 96 + i of 128, low bits first
//! weight i = d * (q_i - 1)
//! ```

use super::{BlockFormat, block_array, f16_at};

/// Ternary, five weights a byte; 1.6875 bits per weight.
#[allow(non_camel_case_types)]
pub enum TQ1_0 {}

impl BlockFormat for TQ1_0 {
    const NAME: &'static str = "TQ1_0";
    const GGML_TYPE: u32 = 34;
    const BLOCK_LEN: usize = 256;
    const BLOCK_BYTES: usize = 54;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let block: &[u8; Self::BLOCK_BYTES] = block_array(block);
        let d = f16_at(block, 52);
        for (out, q) in out.iter_mut().zip(tq1_0_digits(block)) {
            *out = d * (f32::from(q) - 1.0);
        }
    }
}

/// The 256 digits of a TQ1_0 block: weights raised by 1.
pub fn tq1_0_digits(block: &[u8; TQ1_0::BLOCK_BYTES]) -> [u8; 256] {
    let mut digits = [0; 256];
    // First weight, first byte and number of bytes of each part.
    for (first, at, len) in [(0, 0, 32), (160, 32, 16), (240, 48, 4)] {
        let last = if len == 4 { 4 } else { 5 };
        for n in 0..last {
            for i in 0..len {
                let rest = block[at + i].wrapping_mul(3u8.pow(n as u32));
                digits[first + n * len + i] = ((u16::from(rest) * 3) >> 8) as u8;
            }
        }
    }
    digits
}

/// Ternary, two bits a weight; 2.0625 bits per weight.
#[allow(non_camel_case_types)]
pub enum TQ2_0 {}

impl BlockFormat for TQ2_0 {
    const NAME: &'static str = "TQ2_0";
    const GGML_TYPE: u32 = 35;
    const BLOCK_LEN: usize = 256;
    const BLOCK_BYTES: usize = 66;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        assert_eq!(out.len(), Self::BLOCK_LEN);
        let block: &[u8; Self::BLOCK_BYTES] = block_array(block);
        let d = f16_at(block, 64);
        for (i, out) in out.iter_mut().enumerate() {
            let q = block[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
            *out = d * (f32::from(q) - 1.0);
        }
    }
}
