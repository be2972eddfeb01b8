//! Matrix tiles of F32, F16 and BF16 weights: f32 activations, f32 sums.
//!
//! ```text
//! tile = [column][16 rows]
//! for each column k, row r, token t:  sums[t][r] += w[k][r] * x[t][k]        columns in order
//! ```

use super::{Piece, TileOut, Tokens};
use crate::tile::TILE_ROWS;

/// A weight format that widens to f32 exactly.
pub(crate) trait FloatWeight {
    const BYTES: usize;
    /// Widens one weight of `BYTES` bytes.
    fn widen(bytes: &[u8]) -> f32;
}

pub(crate) struct F32;
pub(crate) struct F16;
pub(crate) struct BF16;

impl FloatWeight for F32 {
    const BYTES: usize = 4;
    #[inline(always)]
    fn widen(bytes: &[u8]) -> f32 {
        f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }
}

impl FloatWeight for F16 {
    const BYTES: usize = 2;
    #[inline(always)]
    fn widen(bytes: &[u8]) -> f32 {
        f16_to_f32(u16::from_le_bytes([bytes[0], bytes[1]]))
    }
}

impl FloatWeight for BF16 {
    const BYTES: usize = 2;
    #[inline(always)]
    fn widen(bytes: &[u8]) -> f32 {
        f32::from_bits(u32::from(u16::from_le_bytes([bytes[0], bytes[1]])) << 16)
    }
}

/// f16 to f32 without branches or tables, so that it vectorises. Exact for every value, subnormals included.
#[inline(always)]
pub(super) fn f16_to_f32(bits: u16) -> f32 {
    const TWO_TO_112: f32 = f32::from_bits((127 + 112) << 23); // the difference of the exponents' biases
    let magnitude = u32::from(bits & 0x7fff) << 13;
    let finite = (f32::from_bits(magnitude) * TWO_TO_112).to_bits();
    let magnitude = if magnitude >= 0x1f << 23 { magnitude | 0xff << 23 } else { finite };
    f32::from_bits(magnitude | u32::from(bits & 0x8000) << 16)
}

/// Adds the products of a piece of a tile (whole columns) with each token.
#[inline(always)]
pub(super) fn tile<W: FloatWeight>(piece: &Piece<'_>, x: Tokens<'_, f32>, sums: &mut TileOut) {
    assert!(piece.bytes.len().is_multiple_of(TILE_ROWS * W::BYTES), "float tile: size");
    let mut t = 0;
    while t + 4 <= x.count {
        tokens::<W, 4>(piece, &x.values[t * x.stride..], x.stride, &mut sums[t..]);
        t += 4;
    }
    while t < x.count {
        tokens::<W, 1>(piece, &x.values[t * x.stride..], x.stride, &mut sums[t..]);
        t += 1;
    }
}

#[inline(always)]
fn tokens<W: FloatWeight, const N: usize>(
    piece: &Piece<'_>,
    x: &[f32],
    stride: usize,
    out: &mut [[f32; TILE_ROWS]],
) {
    let cols = piece.bytes.len() / (TILE_ROWS * W::BYTES);
    let x: [&[f32]; N] = std::array::from_fn(|t| &x[t * stride..][..cols]);
    let mut sums: [[f32; TILE_ROWS]; N] = std::array::from_fn(|t| out[t]);
    for (k, column) in piece.bytes.chunks_exact(TILE_ROWS * W::BYTES).enumerate() {
        let mut w = [0f32; TILE_ROWS];
        for r in 0..TILE_ROWS {
            w[r] = W::widen(&column[r * W::BYTES..][..W::BYTES]);
        }
        for t in 0..N {
            let x = x[t][k];
            for r in 0..TILE_ROWS {
                sums[t][r] += w[r] * x;
            }
        }
    }
    out[..N].copy_from_slice(&sums);
}

#[cfg(test)]
mod tests {
    #[test]
    fn f16_widens_exactly() {
        for bits in 0..=u16::MAX {
            let (got, want) = (super::f16_to_f32(bits), gguf::half::f16_to_f32(bits));
            assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{bits:#06x}");
        }
    }
}
