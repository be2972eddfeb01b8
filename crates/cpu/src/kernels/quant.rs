//! Matrix tiles of quantised weights: quantised activations, exact integer sums over 32 columns.
//!
//! ```text
//! for each record (16 rows x 32 columns), token t, row r:
//!     i = -OFFSET * sum(x) + sum over 32 columns of q[r][k] * x[t][k]          exact
//!     sums[t][r] += i * (scale[r] * x[t].scale)                                 records in order
//!     sums[t][r] -= min[r] * (x[t].scale * sum(x))                              formats with a minimum
//! ```
//! Products are added with one rounding, on every instruction set: sums are the same bits on all.
//!
//! Formats with scales for 16 columns have two integers in a record, of its halves, whose scales are `d` times an integer. They
//! are multiplied by these and added before anything is rounded; minima follow:
//!
//! ```text
//!     sums[t][r] += (i[0] * s[0][r] + i[1] * s[1][r]) * (d[r] * x[t].scale)     the first factor is exact
//!     sums[t][r] -= min[h][r] * (x[t].scale * sum of half h of x)               h = 0, 1
//! ```
//! Activations of 16 bits make the same integers; `i` stays below 2^28 (32 * 255 * 127 * 256), so that 32 bits hold it. Times an
//! integer scale they would not, so that there each half is added by itself, times `d * s[h]`; minima follow here too.
//!
//! The walk over a piece, the unpacking, the scales and the sums stand here once, over [`Vector`]. How a record's integers
//! are multiplied is each instruction set's own, since it follows from what its registers hold: the portable kernel
//! unpacks a record into memory for any number of tokens; `avx2` unpacks one group of columns at a time, for up to four
//! tokens; `avx512` keeps a whole record in registers, for up to sixteen tokens one after the other.

use super::vector::{Scalar, Vector};
use super::{Piece, TileOut, Tokens};
use crate::activations::ActBlock;
use crate::tile::{BLOCK, GROUPS, Groups, Planes, Scales, TILE_ROWS, TileFormat};

/// Checks that a piece is whole super-blocks.
#[inline(always)]
pub(super) fn check_piece<F: TileFormat>(piece: &Piece<'_>) {
    assert!(piece.bytes.len().is_multiple_of(F::BYTES), "quant tile: size");
}

/// Calls `each(header, index of the record in its super-block, the record's lines, the tokens' blocks)` for every record of
/// a piece, in order. `x` is `[record][stride]`, of which the first `count` are the tokens'.
#[inline(always)]
pub(super) fn for_each_record<V: Vector, F: TileFormat, const B: usize>(
    v: V,
    piece: &Piece<'_>,
    (x, stride, count): (&[ActBlock<B>], usize, usize),
    mut each: impl FnMut(&Header<'_, V>, usize, &[[u8; 64]], &[ActBlock<B>]),
) {
    // A record's share of its super-block.
    let share = F::BYTES / F::RECORDS;
    for (super_idx, super_block) in piece.bytes.chunks_exact(F::BYTES).enumerate() {
        let (header, records) = super_block.split_at(F::SCALES.bytes());
        let header = Header::new::<F>(v, header);
        for (record_idx, record) in records.chunks_exact(F::PLANES.bytes()).enumerate() {
            v.prefetch(piece, super_idx * F::BYTES + record_idx * share, share);
            let x = &x[(super_idx * F::RECORDS + record_idx) * stride..][..count];
            each(&header, record_idx, record.as_chunks::<64>().0, x);
        }
    }
}

/// The header of a super-block: `weight = scale * (q - OFFSET) - min`, by sub-block and row of the tile.
pub(super) struct Header<'a, V: Vector> {
    bytes: &'a [u8],
    pub d: V::Tile<V::Floats>,
    /// `dmin` or `m`; without meaning for formats that have neither.
    d_min: V::Tile<V::Floats>,
}

impl<'a, V: Vector> Header<'a, V> {
    #[inline(always)]
    fn new<F: TileFormat>(v: V, bytes: &'a [u8]) -> Self {
        let d = match F::SCALES {
            Scales::E8M0 => load_powers(v, bytes),
            Scales::EighthBytes => eighths(v, load_halves(v, &bytes[..32])),
            _ => load_halves(v, &bytes[..32]),
        };
        let d_min = if F::SCALES.has_min() { load_halves(v, &bytes[32..64]) } else { d };
        Self { bytes, d, d_min }
    }

    /// The bytes of line `line` after the f16 values, a byte a row.
    #[inline(always)]
    fn line<F: TileFormat>(&self, line: usize) -> &[u8; TILE_ROWS] {
        let first = if F::SCALES.has_min() { 64 } else { 32 };
        self.bytes[first + line * TILE_ROWS..][..TILE_ROWS].try_into().expect("a byte a row")
    }

    /// The integers that `d` is multiplied by, of sub-block `sub`; for formats that have sub-blocks.
    #[inline(always)]
    pub fn int_scales<F: TileFormat>(&self, v: V, sub: usize) -> V::Tile<V::Ints> {
        let rows = self.line::<F>(sub);
        let mut scales = v.tile(v.load_u8(rows, 0));
        for register in 0..V::REGISTERS {
            scales[register] = match F::SCALES {
                Scales::DSigned32 | Scales::DSigned16 => v.load_i8(rows, register),
                Scales::DMinNibbles => v.low_nibble(v.load_u8(rows, register)),
                Scales::E8M0 | Scales::D | Scales::DM | Scales::DMinBytes | Scales::EighthBytes => {
                    v.load_u8(rows, register)
                }
            };
        }
        scales
    }

    /// `int_scales` as floats.
    #[inline(always)]
    pub fn float_scales<F: TileFormat>(&self, v: V, sub: usize) -> V::Tile<V::Floats> {
        let mut scales = self.d;
        let integers = self.int_scales::<F>(v, sub);
        for register in 0..V::REGISTERS {
            scales[register] = v.to_floats(integers[register]);
        }
        scales
    }

    /// The scales of sub-block `sub`.
    #[inline(always)]
    pub fn scales<F: TileFormat>(&self, v: V, sub: usize) -> V::Tile<V::Floats> {
        match F::SCALES {
            Scales::E8M0 | Scales::D | Scales::DM => self.d,
            _ => times(v, self.d, self.int_scales::<F>(v, sub)),
        }
    }

    /// The minima of sub-block `sub`; without meaning for formats that have none.
    #[inline(always)]
    pub fn mins<F: TileFormat>(&self, v: V, sub: usize) -> V::Tile<V::Floats> {
        let mut mins = self.d_min;
        match F::SCALES {
            Scales::E8M0 | Scales::D | Scales::DSigned32 | Scales::DSigned16 | Scales::EighthBytes => mins,
            Scales::DM => {
                for register in 0..V::REGISTERS {
                    mins[register] = v.negate(mins[register]);
                }
                mins
            }
            Scales::DMinBytes | Scales::DMinNibbles => {
                let bytes = F::SCALES == Scales::DMinBytes;
                let rows = self.line::<F>(if bytes { 8 + sub } else { sub });
                let mut integers = v.tile(v.load_u8(rows, 0));
                for register in 0..V::REGISTERS {
                    let integer = v.load_u8(rows, register);
                    integers[register] = if bytes { integer } else { v.high_nibble(integer) };
                }
                times(v, mins, integers)
            }
        }
    }
}

#[inline(always)]
fn times<V: Vector>(v: V, mut floats: V::Tile<V::Floats>, integers: V::Tile<V::Ints>) -> V::Tile<V::Floats> {
    for register in 0..V::REGISTERS {
        floats[register] = v.mul(floats[register], v.to_floats(integers[register]));
    }
    floats
}

/// An eighth of each.
#[inline(always)]
fn eighths<V: Vector>(v: V, mut floats: V::Tile<V::Floats>) -> V::Tile<V::Floats> {
    for register in 0..V::REGISTERS {
        floats[register] = v.mul(floats[register], v.splat(0.125));
    }
    floats
}

/// 16 powers of two.
#[inline(always)]
fn load_powers<V: Vector>(v: V, bytes: &[u8]) -> V::Tile<V::Floats> {
    let mut tile = v.tile(v.splat(0.0));
    for register in 0..V::REGISTERS {
        tile[register] = v.load_half_e8m0(bytes.try_into().expect("16 bytes"), register);
    }
    tile
}

/// 16 f16 values, widened.
#[inline(always)]
fn load_halves<V: Vector>(v: V, bytes: &[u8]) -> V::Tile<V::Floats> {
    let mut tile = v.tile(v.splat(0.0));
    for register in 0..V::REGISTERS {
        tile[register] = v.load_f16(bytes.try_into().expect("16 halves"), register);
    }
    tile
}

/// `-sum(x)` of what half `half` of a record multiplies (all, for formats with one scale).
#[inline(always)]
pub(super) fn neg_sum_of<F: TileFormat, const B: usize>(x: &ActBlock<B>, half: usize) -> i32 {
    match F::SCALES.halves() {
        1 => x.neg_sum,
        _ => x.neg_halves[half],
    }
}

/// `sum + integer * (scale * x_scale)`.
#[inline(always)]
pub(super) fn accumulate<V: Vector>(
    v: V,
    sum: V::Floats,
    integer: V::Ints,
    scale: V::Floats,
    x_scale: f32,
) -> V::Floats {
    v.mul_add(v.to_floats(integer), v.mul(scale, v.splat(x_scale)), sum)
}

/// `sum + (low * scale_low + high * scale_high) * (d * x_scale)`, the first factor being exact: with activations of 8 bits it is
/// at most 2 * 16 * 32 * 127 * 128 (Q6_K; 2 * 16 * 62 * 127 * 62 of IQ3_XXS), which f32 holds as 32 bits do.
#[inline(always)]
pub(super) fn accumulate_halves<V: Vector>(
    v: V,
    sum: V::Floats,
    [low, high]: [V::Ints; 2],
    [scale_low, scale_high]: [V::Floats; 2],
    d: V::Floats,
    x_scale: f32,
) -> V::Floats {
    let high = v.mul(v.to_floats(high), scale_high);
    let both = v.mul_add(v.to_floats(low), scale_low, high);
    v.mul_add(both, v.mul(d, v.splat(x_scale)), sum)
}

/// `sum - min * scaled_sum`.
#[inline(always)]
pub(super) fn subtract<V: Vector>(v: V, sum: V::Floats, min: V::Floats, scaled_sum: f32) -> V::Floats {
    v.neg_mul_add(min, v.splat(scaled_sum), sum)
}

/// Some bytes of group `g` of a record, from byte `at` on: the inverse of `pack::pack_planes`, then the format's table.
/// Unsigned quants, or with `SIGNED` (formats whose quants have 8 bits) the integers that they are raised from.
#[inline(always)]
pub(super) fn unpack<V: Vector, F: TileFormat, const SIGNED: bool>(
    v: V,
    lines: &[[u8; 64]],
    g: usize,
    at: usize,
) -> V::Bytes {
    match F::PLANES {
        Planes::B2 => two_bits(v, lines, 0, g, at),
        Planes::B2B1 => v.with_bit(two_bits(v, lines, 0, g, at), v.load_bytes(&lines[2], at), g, 2),
        Planes::B4 => match F::LOOKUP {
            None => four_bits(v, lines, g, at),
            Some(_) => v.look_up(&const { code::<F, SIGNED>() }, four_bits(v, lines, g, at)),
        },
        Planes::B4B1 => v.with_bit(four_bits(v, lines, g, at), v.load_bytes(&lines[4], at), g, 4),
        Planes::B4B2 => v.or(four_bits(v, lines, g, at), v.shl(two_bits(v, lines, 4, g, at), 4)),
        Planes::B8 => {
            let line = v.load_bytes(&lines[g], at);
            if SIGNED { v.xor(line, v.splat_bytes(0x80)) } else { line }
        }
    }
}

/// Group `g` of the 2-bit plane whose first line is `first`.
#[inline(always)]
fn two_bits<V: Vector>(v: V, lines: &[[u8; 64]], first: usize, g: usize, at: usize) -> V::Bytes {
    v.and(v.shr(v.load_bytes(&lines[first + g % 2], at), g / 2 * 2), v.splat_bytes(3))
}

/// Group `g` of the 4-bit plane.
#[inline(always)]
fn four_bits<V: Vector>(v: V, lines: &[[u8; 64]], g: usize, at: usize) -> V::Bytes {
    v.and(v.shr(v.load_bytes(&lines[g % 4], at), g / 4 * 4), v.splat_bytes(15))
}

/// A format's table of quants, lowered by its offset if `SIGNED`.
const fn code<F: TileFormat, const SIGNED: bool>() -> [u8; 16] {
    let mut code = match F::LOOKUP {
        Some(code) => *code,
        None => [0; 16],
    };
    let mut i = 0;
    while SIGNED && i < 16 {
        code[i] = code[i].wrapping_sub(F::OFFSET as u8);
        i += 1;
    }
    code
}

/// Adds the products of a piece of a tile (whole super-blocks) with each token, portable.
#[inline(always)]
pub(super) fn tile<F: TileFormat, const B: usize>(
    piece: &Piece<'_>,
    x: Tokens<'_, ActBlock<B>>,
    sums: &mut TileOut,
) {
    check_piece::<F>(piece);
    for_each_record::<_, F, B>(
        Scalar,
        piece,
        (x.values, x.stride, x.count),
        |header, record_idx, lines, x| {
            let q = unpack_record::<F>(lines);
            let scales = RecordScales::new::<F>(header, record_idx);
            // By itself, since the compiler hoists the widening of the quants out of the loop, which does not pay for one token.
            // With activations of 16 bits it does not cost enough to be worth the code.
            if B == BLOCK
                && let [x] = x
            {
                return record_times_block::<F, B>(&q, &scales, x, &mut sums[0]);
            }
            for (x, sums) in x.iter().zip(sums.iter_mut()) {
                record_times_block::<F, B>(&q, &scales, x, sums);
            }
        },
    );
}

/// The scales of a record, unpacked for any number of tokens; of its first half, for formats with one scale, else of both.
struct RecordScales {
    d: [f32; TILE_ROWS],
    /// What `d` is multiplied by, for formats with two scales.
    integers: [[i32; TILE_ROWS]; 2],
    scales: [[f32; TILE_ROWS]; 2],
    mins: [[f32; TILE_ROWS]; 2],
}

impl RecordScales {
    #[inline(always)]
    fn new<F: TileFormat>(header: &Header<'_, Scalar>, record_idx: usize) -> Self {
        let halves = F::SCALES.halves();
        let (zero, zeros) = ([[0; TILE_ROWS]; 2], [[0.0; TILE_ROWS]; 2]);
        let mut all = Self { d: header.d, integers: zero, scales: zeros, mins: zeros };
        for half in 0..halves {
            let sub = record_idx * halves + half;
            if halves == 2 {
                all.integers[half] = header.int_scales::<F>(Scalar, sub);
            }
            all.scales[half] = header.scales::<F>(Scalar, sub);
            all.mins[half] = header.mins::<F>(Scalar, sub);
        }
        all
    }
}

#[inline(always)]
fn record_times_block<F: TileFormat, const B: usize>(
    q: &Groups,
    RecordScales { d, integers, scales, mins }: &RecordScales,
    x: &ActBlock<B>,
    out: &mut [f32; TILE_ROWS],
) {
    let halves = F::SCALES.halves();
    let groups_per_half = GROUPS / halves;
    let mut sums = [[0; TILE_ROWS]; 2];
    for half in 0..halves {
        sums[half] = [F::OFFSET * neg_sum_of::<F, B>(x, half); TILE_ROWS];
        for g in half * groups_per_half..(half + 1) * groups_per_half {
            for r in 0..TILE_ROWS {
                for c in 0..4 {
                    sums[half][r] += i32::from(q[g][4 * r + c]) * x.column(g, c);
                }
            }
        }
    }
    for r in 0..TILE_ROWS {
        if halves == 2 && B == BLOCK {
            let integer = sums[0][r] * integers[0][r] + sums[1][r] * integers[1][r];
            out[r] = accumulate(Scalar, out[r], integer, d[r], x.scale);
        } else {
            for half in 0..halves {
                out[r] = accumulate(Scalar, out[r], sums[half][r], scales[half][r], x.scale);
            }
        }
        if F::SCALES.has_min() {
            for half in 0..halves {
                let scaled_sum = if halves == 1 { x.scaled_sum } else { x.scaled_halves[half] };
                out[r] = subtract(Scalar, out[r], mins[half][r], scaled_sum);
            }
        }
    }
}

/// The quants of a record. A function of its own, which either precision of activations calls.
#[inline(never)]
fn unpack_record<F: TileFormat>(lines: &[[u8; 64]]) -> Groups {
    let mut q: Groups = [[0; 64]; GROUPS];
    for g in 0..GROUPS {
        for i in 0..64 {
            q[g][i] = unpack::<_, F, false>(Scalar, lines, g, i);
        }
    }
    q
}

/// Dequantises row `row` of a tile: how embedding rows are had from the packed weights.
pub(crate) fn unpack_row<F: TileFormat>(tile: &[u8], row: usize, out: &mut [f32]) {
    let blocks = out.len() / BLOCK;
    assert_eq!(tile.len(), blocks / F::RECORDS * F::BYTES, "quant tile: size");
    let halves = F::SCALES.halves();
    for (super_block, out) in tile.chunks_exact(F::BYTES).zip(out.chunks_exact_mut(BLOCK * F::RECORDS)) {
        let (header, records) = super_block.split_at(F::SCALES.bytes());
        let header = Header::new::<F>(Scalar, header);
        for (record_idx, record) in records.chunks_exact(F::PLANES.bytes()).enumerate() {
            let lines = record.as_chunks::<64>().0;
            let out = &mut out[record_idx * BLOCK..][..BLOCK];
            for (half, out) in out.chunks_exact_mut(BLOCK / halves).enumerate() {
                let sub = record_idx * halves + half;
                let scale = header.scales::<F>(Scalar, sub)[row];
                let min = if F::SCALES.has_min() { header.mins::<F>(Scalar, sub)[row] } else { 0.0 };
                for (col, out) in out.iter_mut().enumerate() {
                    let col = half * (BLOCK / halves) + col;
                    let q = unpack::<_, F, false>(Scalar, lines, col / 4, 4 * row + col % 4);
                    *out = scale * (i32::from(q) - F::OFFSET) as f32 - min;
                }
            }
        }
    }
}
