//! Matrix tiles on AVX-512, quantised ones with VNNI. Pseudo-code, order of sums, unpacking and scales: see `quant` and
//! `float`; tile layout: see `tile`.
//!
//! Activations of 16 bits are two dot products, of their high and of their low bytes, joined before anything else.
//!
//! A record is unpacked into eight registers once and multiplied with up to sixteen tokens: eight four-way byte dot
//! products, one conversion and one or two fused multiply-adds for each. A token's four activation bytes come as an
//! embedded broadcast.

use std::arch::x86_64::*;
use std::ops::Range;

use gguf::Format;

use super::float::{self, FloatWeight, with_float_weight};
use super::vector::{Vector, instructions, load_tile, store_tile};
use super::{ByteTile, FloatTile, Piece, TileOut, Tokens, WideTile, quant};
use crate::activations::ActBlock;
use crate::tile::{BLOCK, GROUPS, TILE_ROWS, TileFormat, with_tile_format};

/// The registers and instructions of AVX-512 F, BW, DQ, VL and VNNI.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// # Safety
    /// The machine must have AVX-512 F, BW, DQ, VL and VNNI.
    #[inline(always)]
    pub unsafe fn new() -> Self {
        Self(())
    }
}

impl Vector for Avx512 {
    const ROWS: usize = 16;
    type Bytes = __m512i;
    type Ints = __m512i;
    type Floats = __m512;
    type Tile<T: Copy> = [T; 1];

    #[inline(always)]
    fn tile<T: Copy>(self, value: T) -> [T; 1] {
        [value]
    }

    instructions! {
        load_bytes(line: &[u8; 64], at: usize) -> __m512i = load_64(&line[at..at + 64]);
        splat_bytes(value: u8) -> __m512i = _mm512_set1_epi8(value.cast_signed());
        and(a: __m512i, b: __m512i) -> __m512i = _mm512_and_si512(a, b);
        or(a: __m512i, b: __m512i) -> __m512i = _mm512_or_si512(a, b);
        xor(a: __m512i, b: __m512i) -> __m512i = _mm512_xor_si512(a, b);
        shl(bytes: __m512i, by: usize) -> __m512i = _mm512_sll_epi16(bytes, _mm_cvtsi32_si128(by as i32));
        shr(bytes: __m512i, by: usize) -> __m512i = _mm512_srl_epi16(bytes, _mm_cvtsi32_si128(by as i32));
        look_up(table: &[u8; 16], indices: __m512i) -> __m512i =
            _mm512_shuffle_epi8(_mm512_broadcast_i32x4(load_16(table)), indices);
        with_bit(q: __m512i, line: __m512i, from: usize, to: usize) -> __m512i = {
            let set = _mm512_test_epi8_mask(line, _mm512_set1_epi8((1u8 << from).cast_signed()));
            _mm512_mask_add_epi8(q, set, q, _mm512_set1_epi8(1 << to))
        };

        load_u8(rows: &[u8; TILE_ROWS], _register: usize) -> __m512i = _mm512_cvtepu8_epi32(load_16(rows));
        load_i8(rows: &[u8; TILE_ROWS], _register: usize) -> __m512i = _mm512_cvtepi8_epi32(load_16(rows));
        low_nibble(values: __m512i) -> __m512i = _mm512_and_si512(values, _mm512_set1_epi32(15));
        high_nibble(values: __m512i) -> __m512i = _mm512_srli_epi32::<4>(values);
        to_floats(values: __m512i) -> __m512 = _mm512_cvtepi32_ps(values);

        load(rows: &[f32; TILE_ROWS], _register: usize) -> __m512 = _mm512_loadu_ps(rows.as_ptr());
        load_f32(rows: &[u8; 4 * TILE_ROWS], _register: usize) -> __m512 = _mm512_castsi512_ps(load_64(rows));
        load_f16(rows: &[u8; 2 * TILE_ROWS], _register: usize) -> __m512 = _mm512_cvtph_ps(load_32(rows));
        load_bf16(rows: &[u8; 2 * TILE_ROWS], _register: usize) -> __m512 =
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(load_32(rows))));
        load_half_e8m0(rows: &[u8; TILE_ROWS], _register: usize) -> __m512 = {
            let e = _mm512_cvtepu8_epi32(load_16(rows));
            let normal = _mm512_slli_epi32::<23>(_mm512_sub_epi32(e, _mm512_set1_epi32(1)));
            // The two smallest are subnormal.
            let is_small = _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2));
            let power = _mm512_mask_sllv_epi32(normal, is_small, _mm512_set1_epi32(0x0020_0000), e);
            _mm512_castsi512_ps(power)
        };
        splat(value: f32) -> __m512 = _mm512_set1_ps(value);
        mul(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
        mul_add(a: __m512, b: __m512, sum: __m512) -> __m512 = _mm512_fmadd_ps(a, b, sum);
        neg_mul_add(a: __m512, b: __m512, sum: __m512) -> __m512 = _mm512_fnmadd_ps(a, b, sum);
        negate(value: __m512) -> __m512 = _mm512_sub_ps(_mm512_setzero_ps(), value);
    }

    #[inline(always)]
    fn store(self, rows: &mut [f32; TILE_ROWS], _register: usize, values: __m512) {
        // SAFETY: the reference is to 16 floats; the store needs no alignment; the instructions are as of `instructions!`.
        unsafe { _mm512_storeu_ps(rows.as_mut_ptr(), values) };
    }

    /// Of the piece or of the next.
    #[inline(always)]
    fn prefetch(self, piece: &Piece<'_>, at: usize, bytes: usize) {
        let at = at + AHEAD;
        let len = piece.bytes.len();
        let start = if at < len { piece.bytes.as_ptr() } else { piece.next.as_ptr().wrapping_sub(len) };
        for line in 0..bytes.div_ceil(64) {
            // SAFETY: a prefetch of any address is allowed; the instruction is as of `instructions!`.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(start.wrapping_add(at + 64 * line).cast()) };
        }
    }
}

/// How far ahead of the weights at hand memory is asked for more: as far as it is late, and further than the hardware
/// looks, which stops at the end of a page. Into the second-level cache, which can wait for more lines at once than the
/// first.
const AHEAD: usize = 8192;

/// The kernel of a quantised format, for activations of 8 bits.
pub(super) fn byte_tile(format: Format) -> Option<ByteTile> {
    Some(with_tile_format!(format, F => tile::<F, _> as ByteTile, _ => return None))
}

/// As `byte_tile`, of 16 bits.
pub(super) fn wide_tile(format: Format) -> Option<WideTile> {
    Some(with_tile_format!(format, F => tile::<F, _> as WideTile, _ => return None))
}

/// The kernel of a float format.
pub(super) fn float_tile(format: Format) -> Option<FloatTile> {
    Some(with_float_weight!(format, W => float_tile_of::<W> as FloatTile, _ => return None))
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c")]
fn tile<F: TileFormat, const B: usize>(piece: &Piece<'_>, x: Tokens<'_, ActBlock<B>>, sums: &mut TileOut) {
    quant::check_piece::<F>(piece);
    if B == BLOCK {
        in_groups!([16 12 8 6 4 3 2 1], tokens::<F, B>, piece, x, 1, sums);
    } else {
        // Twice the products for each unpacked record: fewer sizes do, for less code.
        in_groups!([8 4 2 1], tokens::<F, B>, piece, x, 1, sums);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c")]
fn float_tile_of<W: FloatWeight>(piece: &Piece<'_>, x: Tokens<'_, f32>, sums: &mut TileOut) {
    float::check_piece::<W>(piece);
    // More tokens' columns are more addresses than there are registers, and here each is used for one operation only.
    in_groups!([8 6 4 3 2 1], float_tokens::<W>, piece, x, x.stride, sums);
}

/// Adds the products of the piece with `N` tokens.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c")]
fn float_tokens<W: FloatWeight, const N: usize>(
    piece: &Piece<'_>,
    x: &[f32],
    stride: usize,
    out: &mut [[f32; TILE_ROWS]],
) {
    // SAFETY: this function's own features are those of `Avx512`.
    float::tokens::<_, W, N>(unsafe { Avx512::new() }, piece, x, stride, out);
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
fn tokens<F: TileFormat, const N: usize, const B: usize>(
    piece: &Piece<'_>,
    x: &[ActBlock<B>],
    stride: usize,
    out: &mut [[f32; TILE_ROWS]],
) {
    // SAFETY: this function's own features are those of `Avx512`.
    let v = unsafe { Avx512::new() };
    let out = &mut out[..N];
    let mut sums = [_mm512_setzero_ps(); N];
    for_tokens!(t < N, {
        [sums[t]] = load_tile(v, &out[t]);
    });
    quant::for_each_record::<_, F, B>(v, piece, (x, stride, N), |header, record_idx, lines, x| {
        let mut q = [_mm512_setzero_si512(); GROUPS];
        for g in 0..GROUPS {
            q[g] = quant::unpack::<_, F, false>(v, lines, g, 0);
        }
        if F::SCALES.halves() == 1 {
            let ([scale], [min]) = (header.scales::<F>(v, record_idx), header.mins::<F>(v, record_idx));
            for_tokens!(t < N, {
                let x = &x[t];
                let integer = dot::<F, B>(&q, x, 0..GROUPS, x.neg_sum);
                sums[t] = quant::accumulate(v, sums[t], integer, scale, x.scale);
                if F::SCALES.has_min() {
                    sums[t] = quant::subtract(v, sums[t], min, x.scaled_sum);
                }
            });
        } else {
            let sub = 2 * record_idx;
            if B == BLOCK {
                // The halves' integers are added while they are exact: at most 2 * 16 * 63 * 127 * 128, which 32 bits hold.
                let ([scale_low], [scale_high]) =
                    (header.int_scales::<F>(v, sub), header.int_scales::<F>(v, sub + 1));
                for_tokens!(t < N, {
                    let x = &x[t];
                    let low = dot::<F, B>(&q, x, 0..GROUPS / 2, x.neg_halves[0]);
                    let high = dot::<F, B>(&q, x, GROUPS / 2..GROUPS, x.neg_halves[1]);
                    let (low, high) =
                        (_mm512_mullo_epi32(low, scale_low), _mm512_mullo_epi32(high, scale_high));
                    let integer = _mm512_add_epi32(low, high);
                    sums[t] = quant::accumulate(v, sums[t], integer, header.d[0], x.scale);
                });
            } else {
                // 32 bits do not hold 2 * 16 * 32 * 127 * 256 times a scale of 128.
                let ([scale_low], [scale_high]) =
                    (header.scales::<F>(v, sub), header.scales::<F>(v, sub + 1));
                for_tokens!(t < N, {
                    let x = &x[t];
                    let low = dot::<F, B>(&q, x, 0..GROUPS / 2, x.neg_halves[0]);
                    let high = dot::<F, B>(&q, x, GROUPS / 2..GROUPS, x.neg_halves[1]);
                    sums[t] = quant::accumulate(v, sums[t], low, scale_low, x.scale);
                    sums[t] = quant::accumulate(v, sums[t], high, scale_high, x.scale);
                });
            }
            if F::SCALES.has_min() {
                let ([low], [high]) = (header.mins::<F>(v, sub), header.mins::<F>(v, sub + 1));
                for_tokens!(t < N, {
                    let x = &x[t];
                    sums[t] = quant::subtract(v, sums[t], low, x.scaled_halves[0]);
                    sums[t] = quant::subtract(v, sums[t], high, x.scaled_halves[1]);
                });
            }
        }
    });
    for_tokens!(t < N, {
        store_tile(v, &mut out[t], [sums[t]]);
    });
}

/// `-OFFSET * sum(x) + sum over the groups' columns of q * x`, by row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn dot<F: TileFormat, const B: usize>(
    q: &[__m512i; GROUPS],
    x: &ActBlock<B>,
    groups: Range<usize>,
    neg_sum: i32,
) -> __m512i {
    let mut sum = match F::OFFSET_LOG2 {
        Some(log2) => _mm512_sll_epi32(_mm512_set1_epi32(neg_sum), _mm_cvtsi32_si128(log2 as i32)),
        None => _mm512_setzero_si512(),
    };
    // Of the high bytes, if there are low ones.
    let mut high = _mm512_setzero_si512();
    for g in groups {
        if B != BLOCK {
            high = _mm512_dpbusd_epi32(high, q[g], splat_four(&x.q, g));
        }
        // The last bytes are the low ones, or all.
        sum = _mm512_dpbusd_epi32(sum, q[g], splat_four(&x.q[B - BLOCK..], g));
    }
    if B == BLOCK { sum } else { _mm512_add_epi32(sum, _mm512_slli_epi32::<8>(high)) }
}

/// Bytes `4 at..4 at + 4`, for every row.
#[inline]
#[target_feature(enable = "avx512f")]
fn splat_four(q: &[i8], at: usize) -> __m512i {
    let four = [q[4 * at], q[4 * at + 1], q[4 * at + 2], q[4 * at + 3]].map(i8::cast_unsigned);
    _mm512_set1_epi32(i32::from_le_bytes(four))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_64(bytes: &[u8]) -> __m512i {
    let bytes: &[u8; 64] = bytes.try_into().expect("64 bytes");
    // SAFETY: the reference is to 64 bytes; the load needs no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_32(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: the reference is to 32 bytes; the load needs no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "sse2")]
fn load_16(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: the reference is to 16 bytes; the load needs no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}
