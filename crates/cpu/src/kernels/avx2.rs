//! Matrix tiles on AVX2. Pseudo-code and order of sums: see the portable twins `quant` and `float`; tile layout: see `tile`.
//!
//! A group's 64 bytes are two registers of 8 rows. Without a four-way byte dot product, `maddubs` adds pairs of products
//! of unsigned and signed bytes into 16 bits, which must not overflow: weights of few bits leave room for the sums of several
//! groups before they widen to 32 bits; those of 8 bits are taken as signed, `|w| * (sign(w) x)`, so that a pair is at
//! most 2 * 128 * 127.

use std::arch::x86_64::*;

use gguf::Format;

use super::float::{BF16, F16, F32, FloatWeight};
use super::{FloatTile, Piece, QuantTile, TileOut, Tokens};
use crate::activations::ActBlock;
use crate::tile::{GROUPS, Planes, Scales, TILE_ROWS, TileFormat, with_tile_format};

/// 16 rows in two registers.
type Pair<T> = [T; 2];

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

/// Groups whose pairwise sums fit 16 bits together; whole halves of a record.
const fn groups_per_sum<F: TileFormat>() -> usize {
    match (F::LOOKUP, F::PLANES) {
        (Some(_), _) | (None, Planes::B8) => 1,
        (None, Planes::B4B2) => 2,
        (None, Planes::B2 | Planes::B2B1 | Planes::B4 | Planes::B4B1) => 4,
    }
}

/// Whether the weights are taken as signed, raised by nothing.
const fn is_signed<F: TileFormat>() -> bool {
    F::LOOKUP.is_some() || matches!(F::PLANES, Planes::B8)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn tile<F: TileFormat>(piece: &Piece<'_>, x: Tokens<'_, ActBlock>, sums: &mut TileOut) {
    assert!(piece.bytes.len().is_multiple_of(F::BYTES), "quant tile: size");
    in_groups!([4 2 1], tokens::<F>, piece, x, 1, sums);
}

/// Adds the products of the piece with `N` tokens.
#[target_feature(enable = "avx2,fma,f16c")]
fn tokens<F: TileFormat, const N: usize>(
    piece: &Piece<'_>,
    x: &[ActBlock],
    stride: usize,
    out: &mut [[f32; TILE_ROWS]],
) {
    let out = &mut out[..N];
    for (super_idx, super_block) in piece.bytes.chunks_exact(F::BYTES).enumerate() {
        let (header, records) = super_block.split_at(F::SCALES.bytes());
        for (record_idx, record) in records.chunks_exact(F::PLANES.bytes()).enumerate() {
            let x = &x[(super_idx * F::RECORDS + record_idx) * stride..][..N];
            for half in 0..F::SCALES.halves() {
                let (scale, min) = record_scales::<F>(header, record_idx * F::SCALES.halves() + half);
                let integers = dot::<F, N>(record, x, half);
                for t in 0..N {
                    let scaled_sum =
                        if F::SCALES.halves() == 1 { x[t].scaled_sum } else { x[t].scaled_halves[half] };
                    accumulate::<F>(&mut out[t], integers[t], (scale, min), x[t].scale, scaled_sum);
                }
            }
        }
    }
}

/// Of half `half` of a record (of all, for formats with one scale): `-OFFSET * sum(x) + sum of q * x`, by token and row.
#[inline]
#[target_feature(enable = "avx2")]
fn dot<F: TileFormat, const N: usize>(record: &[u8], x: &[ActBlock], half: usize) -> [Pair<__m256i>; N] {
    let groups = GROUPS / F::SCALES.halves();
    let ones = _mm256_set1_epi16(1);
    let mut sums: [Pair<__m256i>; N] = [[_mm256_setzero_si256(); 2]; N];
    if !is_signed::<F>() && F::OFFSET != 0 {
        for t in 0..N {
            let neg_sum = if F::SCALES.halves() == 1 { x[t].neg_sum } else { x[t].neg_halves[half] };
            sums[t] = [_mm256_set1_epi32(F::OFFSET * neg_sum); 2];
        }
    }
    for first in (half * groups..(half + 1) * groups).step_by(groups_per_sum::<F>()) {
        let mut pairs: [Pair<__m256i>; N] = [[_mm256_setzero_si256(); 2]; N];
        for g in first..first + groups_per_sum::<F>() {
            let q = [unpack::<F>(record, g, 0), unpack::<F>(record, g, 32)];
            for t in 0..N {
                let four = [x[t].q[4 * g], x[t].q[4 * g + 1], x[t].q[4 * g + 2], x[t].q[4 * g + 3]];
                let x = _mm256_set1_epi32(i32::from_le_bytes(four.map(|q| q as u8)));
                for rows in 0..2 {
                    let products = if is_signed::<F>() {
                        _mm256_maddubs_epi16(_mm256_abs_epi8(q[rows]), _mm256_sign_epi8(x, q[rows]))
                    } else {
                        _mm256_maddubs_epi16(q[rows], x)
                    };
                    pairs[t][rows] = _mm256_add_epi16(pairs[t][rows], products);
                }
            }
        }
        for t in 0..N {
            for rows in 0..2 {
                let widened = _mm256_madd_epi16(pairs[t][rows], ones);
                sums[t][rows] = _mm256_add_epi32(sums[t][rows], widened);
            }
        }
    }
    sums
}

/// `out += integer * (scale * x_scale) - min * scaled_sum`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn accumulate<F: TileFormat>(
    out: &mut [f32; TILE_ROWS],
    integer: Pair<__m256i>,
    (scale, min): (Pair<__m256>, Pair<__m256>),
    x_scale: f32,
    scaled_sum: f32,
) {
    for (rows, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let scale = _mm256_mul_ps(scale[rows], _mm256_set1_ps(x_scale));
        let mut sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(integer[rows]), scale, load_8(out));
        if F::SCALES.has_min() {
            sum = _mm256_fnmadd_ps(min[rows], _mm256_set1_ps(scaled_sum), sum);
        }
        store_8(out, sum);
    }
}

/// Scale and minimum of sub-block `sub` by row; the minimum is meaningless for formats without one.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn record_scales<F: TileFormat>(header: &[u8], sub: usize) -> (Pair<__m256>, Pair<__m256>) {
    let d = [load_halves(header, 0), load_halves(header, 16)];
    let d_min = if F::SCALES.has_min() { [load_halves(header, 32), load_halves(header, 48)] } else { d };
    let lanes = |at: usize| {
        let bytes = &header[at + sub * TILE_ROWS..][..TILE_ROWS];
        [load_8_bytes(&bytes[..8]), load_8_bytes(&bytes[8..])]
    };
    let unsigned = |bytes: __m128i| _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
    let times = |d: Pair<__m256>, by: Pair<__m256>| [_mm256_mul_ps(d[0], by[0]), _mm256_mul_ps(d[1], by[1])];
    match F::SCALES {
        Scales::D => (d, d),
        Scales::DM => (d, d_min.map(|m| _mm256_sub_ps(_mm256_setzero_ps(), m))),
        Scales::DMinBytes => {
            let (scale, min) = (lanes(64), lanes(64 + 8 * TILE_ROWS));
            (times(d, scale.map(unsigned)), times(d_min, min.map(unsigned)))
        }
        Scales::DMinNibbles => {
            let low = _mm_set1_epi8(15);
            let scale = lanes(64).map(|both| unsigned(_mm_and_si128(both, low)));
            let min = lanes(64).map(|both| unsigned(_mm_and_si128(_mm_srli_epi16::<4>(both), low)));
            (times(d, scale), times(d_min, min))
        }
        Scales::DSigned32 | Scales::DSigned16 => {
            let signed = |bytes: __m128i| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
            (times(d, lanes(32).map(signed)), d)
        }
    }
}

/// Bytes `at..at + 32` of group `g`: unsigned quants, or signed ones of formats that are taken so.
#[inline]
#[target_feature(enable = "avx2")]
fn unpack<F: TileFormat>(record: &[u8], g: usize, at: usize) -> __m256i {
    let line = |line: usize| load_32(&record[64 * line + at..][..32]);
    // Bits that cross into the next byte are masked away.
    let bits = |bytes: __m256i, shift: usize, mask: i8| {
        _mm256_and_si256(_mm256_srl_epi16(bytes, _mm_cvtsi32_si128(shift as i32)), _mm256_set1_epi8(mask))
    };
    let two_bits = |first: usize| bits(line(first + g % 2), g / 2 * 2, 3);
    let four_bits = || bits(line(g % 4), g / 4 * 4, 15);
    let one_bit = |of: usize| bits(line(of), g, 1);
    match F::PLANES {
        Planes::B2 => two_bits(0),
        Planes::B2B1 => _mm256_or_si256(two_bits(0), _mm256_slli_epi16::<2>(one_bit(2))),
        Planes::B4 => match F::LOOKUP {
            None => four_bits(),
            Some(code) => {
                let code = _mm256_broadcastsi128_si256(load_16_bytes(code));
                let signed = _mm256_xor_si256(code, _mm256_set1_epi8(-128));
                _mm256_shuffle_epi8(signed, four_bits())
            }
        },
        Planes::B4B1 => _mm256_or_si256(four_bits(), _mm256_slli_epi16::<4>(one_bit(4))),
        Planes::B4B2 => _mm256_or_si256(four_bits(), _mm256_slli_epi16::<4>(two_bits(4))),
        Planes::B8 => _mm256_xor_si256(line(g), _mm256_set1_epi8(-128)),
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn float_tile_of<W: Wide>(piece: &Piece<'_>, x: Tokens<'_, f32>, sums: &mut TileOut) {
    assert!(piece.bytes.len().is_multiple_of(TILE_ROWS * W::BYTES), "float tile: size");
    in_groups!([4 2 1], float_tokens::<W>, piece, x, x.stride, sums);
}

/// Adds the products of the piece with `N` tokens.
#[target_feature(enable = "avx2,fma,f16c")]
fn float_tokens<W: Wide, const N: usize>(
    piece: &Piece<'_>,
    x: &[f32],
    stride: usize,
    out: &mut [[f32; TILE_ROWS]],
) {
    let cols = piece.bytes.len() / (TILE_ROWS * W::BYTES);
    let x: [&[f32]; N] = std::array::from_fn(|t| &x[t * stride..][..cols]);
    let out = &mut out[..N];
    let mut sums: [Pair<__m256>; N] = [[_mm256_setzero_ps(); 2]; N];
    for t in 0..N {
        let (halves, _) = out[t].as_chunks::<8>();
        sums[t] = [load_8(&halves[0]), load_8(&halves[1])];
    }
    for (k, column) in piece.bytes.chunks_exact(TILE_ROWS * W::BYTES).enumerate() {
        let (low, high) = column.split_at(8 * W::BYTES);
        // SAFETY: this function's own features are the ones that the methods need.
        let w = unsafe { [W::widen_8(low), W::widen_8(high)] };
        for t in 0..N {
            let x = _mm256_set1_ps(x[t][k]);
            sums[t] = [_mm256_fmadd_ps(w[0], x, sums[t][0]), _mm256_fmadd_ps(w[1], x, sums[t][1])];
        }
    }
    for t in 0..N {
        let (halves, _) = out[t].as_chunks_mut::<8>();
        store_8(&mut halves[0], sums[t][0]);
        store_8(&mut halves[1], sums[t][1]);
    }
}

/// A float format of which 8 weights widen to a register.
trait Wide: FloatWeight {
    /// # Safety
    /// The machine must have AVX2 and F16C.
    unsafe fn widen_8(weights: &[u8]) -> __m256;
}

impl Wide for F32 {
    #[inline(always)]
    unsafe fn widen_8(weights: &[u8]) -> __m256 {
        let weights: &[u8; 32] = weights.try_into().expect("8 weights");
        // SAFETY: 32 bytes are read, without alignment; the caller guarantees the instructions.
        unsafe { _mm256_loadu_ps(weights.as_ptr().cast()) }
    }
}

impl Wide for F16 {
    #[inline(always)]
    unsafe fn widen_8(weights: &[u8]) -> __m256 {
        // SAFETY: the caller guarantees the instructions.
        unsafe { _mm256_cvtph_ps(load_16_bytes(weights.try_into().expect("8 weights"))) }
    }
}

impl Wide for BF16 {
    #[inline(always)]
    unsafe fn widen_8(weights: &[u8]) -> __m256 {
        // SAFETY: the caller guarantees the instructions.
        unsafe {
            let bits = _mm256_cvtepu16_epi32(load_16_bytes(weights.try_into().expect("8 weights")));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
        }
    }
}

#[inline]
#[target_feature(enable = "avx")]
fn load_8(values: &[f32; 8]) -> __m256 {
    // SAFETY: the reference is to 8 floats; the load needs no alignment.
    unsafe { _mm256_loadu_ps(values.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx")]
fn store_8(out: &mut [f32; 8], values: __m256) {
    // SAFETY: the reference is to 8 floats; the store needs no alignment.
    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), values) };
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_32(bytes: &[u8]) -> __m256i {
    let bytes: &[u8; 32] = bytes.try_into().expect("32 bytes");
    // SAFETY: the reference is to 32 bytes; the load needs no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "sse2")]
fn load_16_bytes(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: the reference is to 16 bytes; the load needs no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// 8 bytes in the low half.
#[inline]
#[target_feature(enable = "sse2")]
fn load_8_bytes(bytes: &[u8]) -> __m128i {
    let bytes: [u8; 8] = bytes.try_into().expect("8 bytes");
    _mm_cvtsi64_si128(i64::from_le_bytes(bytes))
}

/// 8 f16 values from byte `at` on, widened.
#[inline]
#[target_feature(enable = "avx,f16c")]
fn load_halves(header: &[u8], at: usize) -> __m256 {
    _mm256_cvtph_ps(load_16_bytes(header[at..at + 16].try_into().expect("16 bytes")))
}
