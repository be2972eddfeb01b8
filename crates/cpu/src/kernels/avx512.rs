//! Matrix tiles on AVX-512, quantised ones with VNNI. Pseudo-code and order of sums: see the portable twins `quant` and
//! `float`; tile layout: see `tile`.
//!
//! Formats with scales for 16 columns multiply the halves' integers by their integer scales and add them before anything is
//! rounded, which their twin does after: one conversion and one fused multiply-add less.
//!
//! A record is unpacked into eight registers once and multiplied with up to sixteen tokens: eight four-way byte dot
//! products, one conversion and one or two fused multiply-adds for each. A token's four activation bytes come as an
//! embedded broadcast.

use std::arch::x86_64::*;
use std::ops::Range;

use gguf::Format;

use super::float::{BF16, F16, F32, FloatWeight};
use super::{FloatTile, Piece, QuantTile, TileOut, Tokens};
use crate::activations::ActBlock;
use crate::tile::{GROUPS, Planes, Scales, TILE_ROWS, TileFormat, with_tile_format};

/// The kernel of a quantised format.
pub(super) fn quant_tile(format: Format) -> Option<QuantTile> {
    Some(with_tile_format!(format, F => tile::<F> as QuantTile, _ => return None))
}

/// The kernel of a float format.
pub(super) fn float_tile(format: Format) -> Option<FloatTile> {
    match format {
        Format::F32 => Some(float_tile_of::<F32>),
        Format::F16 => Some(float_tile_of::<F16>),
        Format::BF16 => Some(float_tile_of::<BF16>),
        _ => None,
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c")]
fn tile<F: TileFormat>(piece: &Piece<'_>, x: Tokens<'_, ActBlock>, sums: &mut TileOut) {
    assert!(piece.bytes.len().is_multiple_of(F::BYTES), "quant tile: size");
    in_groups!([16 12 8 6 4 3 2 1], tokens::<F>, piece, x, 1, sums);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c")]
fn float_tile_of<W: Wide>(piece: &Piece<'_>, x: Tokens<'_, f32>, sums: &mut TileOut) {
    assert!(piece.bytes.len().is_multiple_of(TILE_ROWS * W::BYTES), "float tile: size");
    // More tokens' columns are more addresses than there are registers, and here each is used for one operation only.
    in_groups!([8 6 4 3 2 1], float_tokens::<W>, piece, x, x.stride, sums);
}

/// A float format whose 16 weights of a column widen to a register.
trait Wide: FloatWeight {
    /// # Safety
    /// The machine must have AVX-512 F.
    unsafe fn widen_16(column: &[u8]) -> __m512;
}

impl Wide for F32 {
    #[inline(always)]
    unsafe fn widen_16(column: &[u8]) -> __m512 {
        let column: &[u8; 64] = column.try_into().expect("16 weights");
        // SAFETY: 64 bytes are read, without alignment; the caller guarantees the instructions.
        unsafe { _mm512_loadu_ps(column.as_ptr().cast()) }
    }
}

impl Wide for F16 {
    #[inline(always)]
    unsafe fn widen_16(column: &[u8]) -> __m512 {
        // SAFETY: the caller guarantees the instructions.
        unsafe { load_halves(column) }
    }
}

impl Wide for BF16 {
    #[inline(always)]
    unsafe fn widen_16(column: &[u8]) -> __m512 {
        let column: &[u8; 32] = column.try_into().expect("16 weights");
        // SAFETY: 32 bytes are read, without alignment; the caller guarantees the instructions.
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(column.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        }
    }
}

/// Adds the products of the piece with `N` tokens.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c")]
fn float_tokens<W: Wide, const N: usize>(
    piece: &Piece<'_>,
    x: &[f32],
    stride: usize,
    out: &mut [[f32; TILE_ROWS]],
) {
    let cols = piece.bytes.len() / (TILE_ROWS * W::BYTES);
    let x: [&[f32]; N] = std::array::from_fn(|t| &x[t * stride..][..cols]);
    let out = &mut out[..N];
    let mut sums = [_mm512_setzero_ps(); N];
    for t in 0..N {
        sums[t] = load_sums(&out[t]);
    }
    for (k, column) in piece.bytes.chunks_exact(TILE_ROWS * W::BYTES).enumerate() {
        prefetch(piece, k * column.len(), column.len());
        // SAFETY: this function's own features include AVX-512 F.
        let w = unsafe { W::widen_16(column) };
        for t in 0..N {
            sums[t] = _mm512_fmadd_ps(w, _mm512_set1_ps(x[t][k]), sums[t]);
        }
    }
    for t in 0..N {
        store_sums(&mut out[t], sums[t]);
    }
}

/// The body once for each token index below `N`, written out: the compiler keeps a long body over many tokens as a loop,
/// and their sums then live in memory instead of registers.
macro_rules! for_tokens {
    ($t:ident < $N:ident, $body:block) => {
        for_tokens!(@each $t, $N, $body, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@each $t:ident, $N:ident, $body:block, $($index:literal)*) => {
        $(if $index < $N {
            let $t = $index;
            $body
        })*
    };
}

/// Adds the products of the piece with `N` tokens.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c")]
fn tokens<F: TileFormat, const N: usize>(
    piece: &Piece<'_>,
    x: &[ActBlock],
    stride: usize,
    out: &mut [[f32; TILE_ROWS]],
) {
    let out = &mut out[..N];
    // A record's share of its super-block.
    let bytes = F::BYTES / F::RECORDS;
    let mut sums = [_mm512_setzero_ps(); N];
    for_tokens!(t < N, {
        sums[t] = load_sums(&out[t]);
    });
    for (super_idx, super_block) in piece.bytes.chunks_exact(F::BYTES).enumerate() {
        let (header, records) = super_block.split_at(F::SCALES.bytes());
        let d = load_halves(&header[..32]);
        let d_min = if F::SCALES.has_min() { load_halves(&header[32..64]) } else { d };
        for (record_idx, record) in records.chunks_exact(F::PLANES.bytes()).enumerate() {
            prefetch(piece, super_idx * F::BYTES + record_idx * bytes, bytes);
            let q = unpack::<F>(record);
            let x = &x[(super_idx * F::RECORDS + record_idx) * stride..][..N];
            if F::SCALES.halves() == 1 {
                let (scale, min) = record_scales::<F>(header, d, d_min, record_idx);
                for_tokens!(t < N, {
                    let x = &x[t];
                    let integer = dot::<F>(&q, x, 0..GROUPS, x.neg_sum);
                    sums[t] = accumulate(sums[t], integer, scale, x.scale);
                    if F::SCALES.has_min() {
                        sums[t] = subtract(sums[t], min, x.scaled_sum);
                    }
                });
            } else {
                // The halves' integers join while they are exact: at most 2 * 16 * 63 * 127 * 128, which 32 bits hold.
                let scale = [0, 1].map(|half| half_scales::<F>(header, 2 * record_idx + half));
                for_tokens!(t < N, {
                    let x = &x[t];
                    let low = dot::<F>(&q, x, 0..GROUPS / 2, x.neg_halves[0]);
                    let high = dot::<F>(&q, x, GROUPS / 2..GROUPS, x.neg_halves[1]);
                    let (low, high) = (_mm512_mullo_epi32(low, scale[0]), _mm512_mullo_epi32(high, scale[1]));
                    sums[t] = accumulate(sums[t], _mm512_add_epi32(low, high), d, x.scale);
                });
                if F::SCALES.has_min() {
                    let min = [0, 1].map(|half| half_mins(header, d_min, 2 * record_idx + half));
                    for_tokens!(t < N, {
                        let x = &x[t];
                        sums[t] = subtract(sums[t], min[0], x.scaled_halves[0]);
                        sums[t] = subtract(sums[t], min[1], x.scaled_halves[1]);
                    });
                }
            }
        }
    }
    for_tokens!(t < N, {
        store_sums(&mut out[t], sums[t]);
    });
}

/// How far ahead of the weights at hand memory is asked for more: as far as it is late, and further than the hardware
/// looks, which stops at the end of a page. Into the second-level cache, which can wait for more lines at once than the
/// first.
const AHEAD: usize = 8192;

/// Asks for `bytes` bytes of the weights that come `AHEAD` of byte `at` of the piece, be they of the piece or of the next.
#[inline]
#[target_feature(enable = "sse")]
fn prefetch(piece: &Piece<'_>, at: usize, bytes: usize) {
    let at = at + AHEAD;
    let len = piece.bytes.len();
    let start = if at < len { piece.bytes.as_ptr() } else { piece.next.as_ptr().wrapping_sub(len) };
    for line in 0..bytes.div_ceil(64) {
        _mm_prefetch::<_MM_HINT_T1>(start.wrapping_add(at + 64 * line).cast());
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_sums(out: &mut [f32; TILE_ROWS], sums: __m512) {
    // SAFETY: the reference is to 16 floats; the store needs no alignment.
    unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sums) };
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_sums(sums: &[f32; TILE_ROWS]) -> __m512 {
    // SAFETY: the reference is to 16 floats; the load needs no alignment.
    unsafe { _mm512_loadu_ps(sums.as_ptr()) }
}

/// `-OFFSET * sum(x) + sum over the groups' columns of q * x`, by row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn dot<F: TileFormat>(q: &[__m512i; GROUPS], x: &ActBlock, groups: Range<usize>, neg_sum: i32) -> __m512i {
    let mut sum = match F::OFFSET_LOG2 {
        Some(log2) => _mm512_sll_epi32(_mm512_set1_epi32(neg_sum), _mm_cvtsi32_si128(log2 as i32)),
        None => _mm512_setzero_si512(),
    };
    for g in groups {
        let four = [x.q[4 * g], x.q[4 * g + 1], x.q[4 * g + 2], x.q[4 * g + 3]].map(|q| q as u8);
        sum = _mm512_dpbusd_epi32(sum, q[g], _mm512_set1_epi32(i32::from_le_bytes(four)));
    }
    sum
}

/// `sum + integer * (scale * x_scale)`.
#[inline]
#[target_feature(enable = "avx512f")]
fn accumulate(sum: __m512, integer: __m512i, scale: __m512, x_scale: f32) -> __m512 {
    let scale = _mm512_mul_ps(scale, _mm512_set1_ps(x_scale));
    _mm512_fmadd_ps(_mm512_cvtepi32_ps(integer), scale, sum)
}

/// `sum - min * scaled_sum`.
#[inline]
#[target_feature(enable = "avx512f")]
fn subtract(sum: __m512, min: __m512, scaled_sum: f32) -> __m512 {
    _mm512_fnmadd_ps(min, _mm512_set1_ps(scaled_sum), sum)
}

/// Of formats with one scale for 32 columns: scale and minimum of sub-block `sub` by row; the minimum is meaningless for
/// formats without one.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,f16c")]
fn record_scales<F: TileFormat>(header: &[u8], d: __m512, d_min: __m512, sub: usize) -> (__m512, __m512) {
    let lanes = |at: usize| load_16(&header[at + sub * TILE_ROWS..][..TILE_ROWS]);
    let unsigned = |bytes: __m128i| _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
    match F::SCALES {
        Scales::DM => (d, _mm512_sub_ps(_mm512_setzero_ps(), d_min)),
        Scales::DMinBytes => {
            let (scale, min) = (unsigned(lanes(64)), unsigned(lanes(64 + 8 * TILE_ROWS)));
            (_mm512_mul_ps(d, scale), _mm512_mul_ps(d_min, min))
        }
        Scales::DSigned32 => (_mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(lanes(32)))), d),
        Scales::D | Scales::DMinNibbles | Scales::DSigned16 => (d, d),
    }
}

/// Of formats with a scale for 16 columns: the integer scale of sub-block `sub` by row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn half_scales<F: TileFormat>(header: &[u8], sub: usize) -> __m512i {
    let lanes = |at: usize| load_16(&header[at + sub * TILE_ROWS..][..TILE_ROWS]);
    match F::SCALES {
        Scales::DMinNibbles => _mm512_cvtepu8_epi32(_mm_and_si128(lanes(64), _mm_set1_epi8(15))),
        _ => _mm512_cvtepi8_epi32(lanes(32)),
    }
}

/// Of `DMinNibbles`: the minimum of sub-block `sub` by row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn half_mins(header: &[u8], d_min: __m512, sub: usize) -> __m512 {
    let both = load_16(&header[64 + sub * TILE_ROWS..][..TILE_ROWS]);
    let min = _mm_and_si128(_mm_srli_epi16::<4>(both), _mm_set1_epi8(15));
    _mm512_mul_ps(d_min, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(min)))
}

/// A record's quants, a register a group.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn unpack<F: TileFormat>(record: &[u8]) -> [__m512i; GROUPS] {
    let (lines, _) = record.as_chunks::<64>();
    let two_bits = |first: usize| -> [__m512i; GROUPS] {
        let mask = _mm512_set1_epi8(3);
        std::array::from_fn(|g| {
            let line = load_64(&lines[first + g % 2]);
            _mm512_and_si512(_mm512_srl_epi16(line, _mm_cvtsi32_si128((g / 2 * 2) as i32)), mask)
        })
    };
    let four_bits = || -> [__m512i; GROUPS] {
        let mask = _mm512_set1_epi8(15);
        std::array::from_fn(|g| {
            let line = load_64(&lines[g % 4]);
            let line = if g < 4 { line } else { _mm512_srli_epi16::<4>(line) };
            _mm512_and_si512(line, mask)
        })
    };
    // Adds `value` where bit `g` of the line is set.
    let with_bit = |q: [__m512i; GROUPS], line: usize, value: i8| -> [__m512i; GROUPS] {
        let bits = load_64(&lines[line]);
        std::array::from_fn(|g| {
            let set = _mm512_test_epi8_mask(bits, _mm512_set1_epi8((1u8 << g) as i8));
            _mm512_mask_add_epi8(q[g], set, q[g], _mm512_set1_epi8(value))
        })
    };
    let q = match F::PLANES {
        Planes::B2 => two_bits(0),
        Planes::B2B1 => with_bit(two_bits(0), 2, 4),
        Planes::B4 => four_bits(),
        Planes::B4B1 => with_bit(four_bits(), 4, 16),
        Planes::B4B2 => {
            let (low, high) = (four_bits(), two_bits(4));
            std::array::from_fn(|g| _mm512_or_si512(low[g], _mm512_slli_epi16::<4>(high[g])))
        }
        Planes::B8 => std::array::from_fn(|g| load_64(&lines[g])),
    };
    match F::LOOKUP {
        None => q,
        Some(code) => {
            let code = _mm512_broadcast_i32x4(load_16(code));
            q.map(|q| _mm512_shuffle_epi8(code, q))
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_64(line: &[u8; 64]) -> __m512i {
    // SAFETY: the reference is to 64 bytes; the load needs no alignment.
    unsafe { _mm512_loadu_si512(line.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "sse2")]
fn load_16(bytes: &[u8]) -> __m128i {
    let bytes: &[u8; 16] = bytes.try_into().expect("16 bytes");
    // SAFETY: the reference is to 16 bytes; the load needs no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// 16 f16 values, widened.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_halves(bytes: &[u8]) -> __m512 {
    let bytes: &[u8; 32] = bytes.try_into().expect("32 bytes");
    // SAFETY: the reference is to 32 bytes; the load needs no alignment.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) })
}
