//! Matrix tiles of F32, F16 and BF16 weights: f32 activations, f32 sums.
//!
//! ```text
//! tile = [column][16 rows]
//! for each column k, row r, token t:  sums[t][r] += w[k][r] * x[t][k]        columns in order
//! ```

use super::vector::{Scalar, Vector, load_tile, store_tile};
use super::{Piece, TileOut, Tokens};
use crate::tile::TILE_ROWS;

/// A weight format that widens to f32 exactly.
pub(super) trait FloatWeight {
    const BYTES: usize;
    /// Widens the weights of register `register`'s rows in a column, `[16 rows]`.
    fn widen<V: Vector>(v: V, column: &[u8], register: usize) -> V::Floats;
}

pub(super) struct F32;
pub(super) struct F16;
pub(super) struct BF16;

impl FloatWeight for F32 {
    const BYTES: usize = 4;
    #[inline(always)]
    fn widen<V: Vector>(v: V, column: &[u8], register: usize) -> V::Floats {
        v.load_f32(column.try_into().expect("16 weights"), register)
    }
}

impl FloatWeight for F16 {
    const BYTES: usize = 2;
    #[inline(always)]
    fn widen<V: Vector>(v: V, column: &[u8], register: usize) -> V::Floats {
        v.load_f16(column.try_into().expect("16 weights"), register)
    }
}

impl FloatWeight for BF16 {
    const BYTES: usize = 2;
    #[inline(always)]
    fn widen<V: Vector>(v: V, column: &[u8], register: usize) -> V::Floats {
        v.load_bf16(column.try_into().expect("16 weights"), register)
    }
}

/// Evaluates an expression with `$W` bound to the [`FloatWeight`] of a [`Format`](gguf::Format); `$other` for formats of
/// blocks.
macro_rules! with_float_weight {
    ($format:expr, $W:ident => $body:expr, _ => $other:expr) => {
        $crate::kernels::float::with_float_weight!(@match $format, $W => $body, $other, F32 F16 BF16)
    };
    (@match $format:expr, $W:ident => $body:expr, $other:expr, $($name:ident)*) => {
        match $format {
            $(gguf::Format::$name => {
                type $W = $crate::kernels::float::$name;
                $body
            })*
            _ => $other,
        }
    };
}
pub(super) use with_float_weight;

/// Checks that a piece is whole columns.
#[inline(always)]
pub(super) fn check_piece<W: FloatWeight>(piece: &Piece<'_>) {
    assert!(piece.bytes.len().is_multiple_of(TILE_ROWS * W::BYTES), "float tile: size");
}

/// Adds the products of a piece of a tile (whole columns) with each token, portable.
#[inline(always)]
pub(super) fn tile<W: FloatWeight>(piece: &Piece<'_>, x: Tokens<'_, f32>, sums: &mut TileOut) {
    check_piece::<W>(piece);
    in_groups!([4 1], scalar_tokens::<W>, piece, x, x.stride, sums);
}

#[inline(always)]
fn scalar_tokens<W: FloatWeight, const N: usize>(
    piece: &Piece<'_>,
    x: &[f32],
    stride: usize,
    out: &mut [[f32; TILE_ROWS]],
) {
    tokens::<_, W, N>(Scalar, piece, x, stride, out);
}

/// Adds the products of the piece with `N` tokens.
#[inline(always)]
pub(super) fn tokens<V: Vector, W: FloatWeight, const N: usize>(
    v: V,
    piece: &Piece<'_>,
    x: &[f32],
    stride: usize,
    out: &mut [[f32; TILE_ROWS]],
) {
    let cols = piece.bytes.len() / (TILE_ROWS * W::BYTES);
    let x: [&[f32]; N] = std::array::from_fn(|t| &x[t * stride..][..cols]);
    let out = &mut out[..N];
    let zero = v.tile(v.splat(0.0));
    let mut sums = [zero; N];
    for t in 0..N {
        sums[t] = load_tile(v, &out[t]);
    }
    for (k, column) in piece.bytes.chunks_exact(TILE_ROWS * W::BYTES).enumerate() {
        v.prefetch(piece, k * column.len(), column.len());
        let mut w = zero;
        for register in 0..V::REGISTERS {
            w[register] = W::widen(v, column, register);
        }
        for t in 0..N {
            let x = v.splat(x[t][k]);
            for register in 0..V::REGISTERS {
                sums[t][register] = v.mul_add(w[register], x, sums[t][register]);
            }
        }
    }
    for t in 0..N {
        store_tile(v, &mut out[t], sums[t]);
    }
}
