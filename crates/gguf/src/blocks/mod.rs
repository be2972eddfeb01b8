//! The block formats, each as one [`BlockFormat`]: the byte layout and the scalar dequantisation.
//!
//! Every format cuts a row into blocks of [`BLOCK_LEN`](BlockFormat::BLOCK_LEN) weights, each block stored in
//! [`BLOCK_BYTES`](BlockFormat::BLOCK_BYTES) bytes; blocks depend on nothing outside themselves. Numbers of
//! more than one byte are little-endian and a block has no alignment, so it is read byte by byte.
//!
//! All arithmetic is `f32` in the order ggml uses (`dequantize_row_*` in `ggml-quants.c`), one rounding per
//! written operation, never fused. Dequantised values are therefore reproducible to the bit.
//!
//! | module | formats |
//! | --- | --- |
//! | `float` | F32, F16, BF16: a block is one number |
//! | `simple` | Q4_0, Q4_1, Q5_0, Q5_1, Q8_0: 32 weights that share a scale, and a minimum |
//! | `k_quants` | Q2_K to Q6_K: 256 weights in sub-blocks, whose scales are themselves quantised |
//! | `iq4` | IQ4_NL, IQ4_XS: four-bit indices into a table of 16 levels |
//! | `mxfp4` | MXFP4: four-bit floats whose scale is a power of two |
//! | `grid` | IQ1, IQ2 and IQ3: points of lattices |
//! | `ternary` | TQ1_0, TQ2_0: -1, 0 and 1 |

mod float;
mod grid;
mod grids;
mod iq4;
mod k_quants;
mod mxfp4;
mod simple;
mod ternary;

pub use float::{BF16, F16, F32};
pub use grid::{
    GridBlock, GridFormat, IQ1_M, IQ1_S, IQ2_LEVELS, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS, IQ3_XXS_LEVELS,
    ODD_LEVELS, level_indices,
};
pub use iq4::{IQ4_LEVELS, IQ4_NL, IQ4_XS};
pub use k_quants::{Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, q3_k_scales, q45_k_scale_min};
pub use mxfp4::{MXFP4, MXFP4_LEVELS, half_e8m0};
pub use simple::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
pub use ternary::{TQ1_0, TQ2_0, tq1_0_digits};

use crate::half::f16_to_f32;

/// One block format: its size, its name in files, and what its bytes mean.
pub trait BlockFormat {
    /// ggml's name.
    const NAME: &'static str;
    /// The number in a file (`enum ggml_type`).
    const GGML_TYPE: u32;
    /// Weights in a block.
    const BLOCK_LEN: usize;
    /// Bytes of a block.
    const BLOCK_BYTES: usize;

    /// Writes the `BLOCK_LEN` values of one block of `BLOCK_BYTES` bytes.
    ///
    /// # Panics
    /// If `block` or `out` has another length.
    fn dequantize(block: &[u8], out: &mut [f32]);
}

/// A block as an array, so that its fields are taken at constant offsets without a second look at the length.
fn block_array<const N: usize>(block: &[u8]) -> &[u8; N] {
    block.try_into().expect("a block has the length its format states")
}

/// The binary16 at byte `at`.
fn f16_at(block: &[u8], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// A byte of two 4-bit numbers: (low, high).
fn nibbles(byte: u8) -> (u8, u8) {
    (byte & 0x0f, byte >> 4)
}
