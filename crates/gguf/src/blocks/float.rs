//! F32, F16 and BF16: no blocks, each weight is a number of its own.

use super::{BlockFormat, block_array};
use crate::half::{bf16_to_f32, f16_to_f32};

/// IEEE 754 binary32.
pub enum F32 {}

impl BlockFormat for F32 {
    const NAME: &'static str = "F32";
    const GGML_TYPE: u32 = 0;
    const BLOCK_LEN: usize = 1;
    const BLOCK_BYTES: usize = 4;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        assert_eq!(out.len(), Self::BLOCK_LEN);
        out[0] = f32::from_le_bytes(*block_array(block));
    }
}

/// IEEE 754 binary16.
pub enum F16 {}

impl BlockFormat for F16 {
    const NAME: &'static str = "F16";
    const GGML_TYPE: u32 = 1;
    const BLOCK_LEN: usize = 1;
    const BLOCK_BYTES: usize = 2;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        assert_eq!(out.len(), Self::BLOCK_LEN);
        out[0] = f16_to_f32(u16::from_le_bytes(*block_array(block)));
    }
}

/// bfloat16: the upper half of a binary32.
pub enum BF16 {}

impl BlockFormat for BF16 {
    const NAME: &'static str = "BF16";
    const GGML_TYPE: u32 = 30;
    const BLOCK_LEN: usize = 1;
    const BLOCK_BYTES: usize = 2;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        assert_eq!(out.len(), Self::BLOCK_LEN);
        out[0] = bf16_to_f32(u16::from_le_bytes(*block_array(block)));
    }
}
