//! Matrix tiles of quantised weights, portable: quantised activations, exact integer sums over 32 columns.
//!
//! ```text
//! for each record (16 rows x 32 columns), token t, row r:
//!     i = -OFFSET * sum(x) + sum over 32 columns of q[r][k] * x[t][k]          exact
//!     sums[t][r] += i * (scale[r] * x[t].scale)                                 records in order
//!     sums[t][r] -= min[r] * (x[t].scale * sum(x))                              formats with a minimum
//! ```
//! Formats with scales for 16 columns do this for each half of the record.

use super::float::f16_to_f32;
use super::{Piece, TileOut, Tokens};
use crate::activations::ActBlock;
use crate::tile::{BLOCK, GROUPS, Groups, Planes, Scales, TILE_ROWS, TileFormat};

/// Adds the products of a piece of a tile (whole super-blocks) with each token.
#[inline(always)]
pub(super) fn tile<F: TileFormat>(piece: &Piece<'_>, x: Tokens<'_, ActBlock>, sums: &mut TileOut) {
    assert!(piece.bytes.len().is_multiple_of(F::BYTES), "quant tile: size");
    for (super_idx, super_block) in piece.bytes.chunks_exact(F::BYTES).enumerate() {
        let (header, records) = super_block.split_at(F::SCALES.bytes());
        for (record_idx, record) in records.chunks_exact(F::PLANES.bytes()).enumerate() {
            let q = unpack::<F>(record);
            let halves =
                [record_scales::<F>(header, record_idx, 0), record_scales::<F>(header, record_idx, 1)];
            let x_blocks = &x.values[(super_idx * F::RECORDS + record_idx) * x.stride..][..x.count];
            for (x, sums) in x_blocks.iter().zip(sums.iter_mut()) {
                record_times_block::<F>(&q, &halves, x, sums);
            }
        }
    }
}

#[inline(always)]
fn record_times_block<F: TileFormat>(
    q: &Groups,
    halves: &[RowScales; 2],
    x: &ActBlock,
    out: &mut [f32; TILE_ROWS],
) {
    let groups_per_half = GROUPS / F::SCALES.halves();
    for half in 0..F::SCALES.halves() {
        let (neg_sum, scaled_sum) = match F::SCALES.halves() {
            1 => (x.neg_sum, x.scaled_sum),
            _ => (x.neg_halves[half], x.scaled_halves[half]),
        };
        let mut sums = [F::OFFSET * neg_sum; TILE_ROWS];
        for g in half * groups_per_half..(half + 1) * groups_per_half {
            for r in 0..TILE_ROWS {
                for c in 0..4 {
                    sums[r] += i32::from(q[g][4 * r + c]) * i32::from(x.q[4 * g + c]);
                }
            }
        }
        let RowScales { scale, min } = &halves[half];
        for r in 0..TILE_ROWS {
            out[r] += sums[r] as f32 * (scale[r] * x.scale);
            if F::SCALES.has_min() {
                out[r] -= min[r] * scaled_sum;
            }
        }
    }
}

/// `weight = scale * (q - OFFSET) - min`, by row of the tile.
struct RowScales {
    scale: [f32; TILE_ROWS],
    min: [f32; TILE_ROWS],
}

/// The scales of one record (of its half `half`, for formats that have two).
#[inline(always)]
fn record_scales<F: TileFormat>(header: &[u8], record: usize, half: usize) -> RowScales {
    let halves =
        |at: usize, r: usize| f16_to_f32(u16::from_le_bytes([header[at + 2 * r], header[at + 2 * r + 1]]));
    let lane = |at: usize, sub: usize, r: usize| header[at + sub * TILE_ROWS + r];
    let sub = record * F::SCALES.halves() + half % F::SCALES.halves();
    let mut out = RowScales { scale: [0.0; TILE_ROWS], min: [0.0; TILE_ROWS] };
    for r in 0..TILE_ROWS {
        let d = halves(0, r);
        (out.scale[r], out.min[r]) = match F::SCALES {
            Scales::D => (d, 0.0),
            Scales::DM => (d, -halves(32, r)),
            Scales::DMinBytes => {
                let (scale, min) = (lane(64, sub, r), lane(64 + 8 * TILE_ROWS, sub, r));
                (d * f32::from(scale), halves(32, r) * f32::from(min))
            }
            Scales::DMinNibbles => {
                let both = lane(64, sub, r);
                (d * f32::from(both & 15), halves(32, r) * f32::from(both >> 4))
            }
            Scales::DSigned32 | Scales::DSigned16 => (d * f32::from(lane(32, sub, r) as i8), 0.0),
        };
    }
    out
}

/// The quants of one record: the inverse of `pack::pack_planes`, then the format's table.
#[inline(always)]
fn unpack<F: TileFormat>(record: &[u8]) -> Groups {
    let (lines, _) = record.as_chunks::<64>();
    let mut q: Groups = [[0; 64]; GROUPS];
    for g in 0..GROUPS {
        for i in 0..64 {
            let two_bits = |first: usize| (lines[first + g % 2][i] >> (g / 2 * 2)) & 3;
            let four_bits = || (lines[g % 4][i] >> (g / 4 * 4)) & 15;
            let one_bit = |line: usize| (lines[line][i] >> g) & 1;
            q[g][i] = match F::PLANES {
                Planes::B2 => two_bits(0),
                Planes::B2B1 => two_bits(0) | one_bit(2) << 2,
                Planes::B4 => four_bits(),
                Planes::B4B1 => four_bits() | one_bit(4) << 4,
                Planes::B4B2 => four_bits() | two_bits(4) << 4,
                Planes::B8 => lines[g][i],
            };
            if let Some(code) = F::LOOKUP {
                q[g][i] = code[usize::from(q[g][i])];
            }
        }
    }
    q
}

/// Dequantises row `row` of a tile: how embedding rows are had from the packed weights.
pub(crate) fn unpack_row<F: TileFormat>(tile: &[u8], row: usize, out: &mut [f32]) {
    let blocks = out.len() / BLOCK;
    assert_eq!(tile.len(), blocks / F::RECORDS * F::BYTES, "quant tile: size");
    for (super_block, out) in tile.chunks_exact(F::BYTES).zip(out.chunks_exact_mut(BLOCK * F::RECORDS)) {
        let (header, records) = super_block.split_at(F::SCALES.bytes());
        for (record_idx, record) in records.chunks_exact(F::PLANES.bytes()).enumerate() {
            let q = unpack::<F>(record);
            for (col, out) in out[record_idx * BLOCK..][..BLOCK].iter_mut().enumerate() {
                let RowScales { scale, min } = record_scales::<F>(header, record_idx, col / (BLOCK / 2));
                let integer = i32::from(q[col / 4][4 * row + col % 4]) - F::OFFSET;
                *out = scale[row] * integer as f32 - min[row];
            }
        }
    }
}
