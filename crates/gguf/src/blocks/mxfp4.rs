//! MXFP4: four-bit floats whose scale is a power of two (OCP Microscaling Formats, 1.0).
//!
//! ```text
//! 32 weights, 17 bytes: e:u8 | q:16
//! weight i = 2^(e - 128) * LEVELS[q_i]
//! ```
//!
//! Levels are twice the floats E2M1, which makes them integers and halves the scale. The nibbles lie as in Q4_0: weight `i` low,
//! weight `i + 16` high.

use super::simple::for_each_nibble;
use super::{BlockFormat, block_array};

/// Twice the 16 values of E2M1 (`kvalues_mxfp4` in ggml).
pub const MXFP4_LEVELS: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// `2^(e - 128)`: half of what E8M0 says.
pub const fn half_e8m0(e: u8) -> f32 {
    // The two smallest are subnormal.
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (e as u32 - 1) << 23 })
}

/// Four-bit floats; 4.25 bits per weight.
pub enum MXFP4 {}

impl BlockFormat for MXFP4 {
    const NAME: &'static str = "MXFP4";
    const GGML_TYPE: u32 = 39;
    const BLOCK_LEN: usize = 32;
    const BLOCK_BYTES: usize = 17;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let block: &[u8; Self::BLOCK_BYTES] = block_array(block);
        let d = half_e8m0(block[0]);
        for_each_nibble(&block[1..], out, |_, q| d * f32::from(MXFP4_LEVELS[usize::from(q)]));
    }
}
