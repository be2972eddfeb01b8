//! Matrix tiles on AVX2, with and without AVX-VNNI. Pseudo-code, order of sums, unpacking and scales: see `quant` and
//! `float`; tile layout: see `tile`.
//!
//! A group's 64 bytes are two registers of 8 rows. AVX-VNNI has the four-way byte dot product. Without it, `maddubs` adds
//! pairs of products of unsigned and signed bytes into 16 bits, which must not overflow: the sums of several groups of
//! weights of few bits fit before they widen to 32 bits; those of 8 bits are taken as signed, `|w| * (sign(w) x)`, so that
//! a pair is at most 2 * 128 * 127. The integers are exact either way, so both give the same bits.
//!
//! Activations of 16 bits: AVX-VNNI multiplies the weights with the high and with the low bytes. Without it, pairs of products of
//! 16 bits (`madd`) go into 32 bits at once: a group's even bytes times one pair of words, its odd bytes times another.
//! That is fewer instructions than two products of bytes, whose sums must be widened, and no sum can overflow: a pair is
//! at most 2 * 255 * 127 * 256.

use std::arch::x86_64::*;

use gguf::Format;

use super::float::{self, FloatWeight, with_float_weight};
use super::quant::Header;
use super::vector::{Vector, instructions};
use super::{ByteTile, FloatTile, Piece, TileOut, Tokens, WideTile, quant};
use crate::activations::ActBlock;
use crate::tile::{BLOCK, GROUPS, Planes, TILE_ROWS, TileFormat, with_tile_format};

/// 16 rows in two registers.
type Pair<T> = [T; 2];

/// The registers and instructions of AVX2, FMA and F16C.
#[derive(Clone, Copy)]
struct Avx2(());

impl Avx2 {
    /// # Safety
    /// The machine must have AVX2, FMA and F16C.
    #[inline(always)]
    unsafe fn new() -> Self {
        Self(())
    }
}

impl Vector for Avx2 {
    const ROWS: usize = 8;
    type Bytes = __m256i;
    type Ints = __m256i;
    type Floats = __m256;
    type Tile<T: Copy> = Pair<T>;

    #[inline(always)]
    fn tile<T: Copy>(self, value: T) -> Pair<T> {
        [value; 2]
    }

    instructions! {
        load_bytes(line: &[u8; 64], at: usize) -> __m256i = load_32(&line[at..at + 32]);
        splat_bytes(value: u8) -> __m256i = _mm256_set1_epi8(value.cast_signed());
        and(a: __m256i, b: __m256i) -> __m256i = _mm256_and_si256(a, b);
        or(a: __m256i, b: __m256i) -> __m256i = _mm256_or_si256(a, b);
        xor(a: __m256i, b: __m256i) -> __m256i = _mm256_xor_si256(a, b);
        shl(bytes: __m256i, by: usize) -> __m256i = _mm256_sll_epi16(bytes, _mm_cvtsi32_si128(by as i32));
        shr(bytes: __m256i, by: usize) -> __m256i = _mm256_srl_epi16(bytes, _mm_cvtsi32_si128(by as i32));
        look_up(table: &[u8; 16], indices: __m256i) -> __m256i =
            _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(load_16_bytes(table)), indices);

        load_u8(rows: &[u8; TILE_ROWS], register: usize) -> __m256i =
            _mm256_cvtepu8_epi32(load_8_bytes(&rows.as_chunks::<8>().0[register]));
        load_i8(rows: &[u8; TILE_ROWS], register: usize) -> __m256i =
            _mm256_cvtepi8_epi32(load_8_bytes(&rows.as_chunks::<8>().0[register]));
        low_nibble(values: __m256i) -> __m256i = _mm256_and_si256(values, _mm256_set1_epi32(15));
        high_nibble(values: __m256i) -> __m256i = _mm256_srli_epi32::<4>(values);
        to_floats(values: __m256i) -> __m256 = _mm256_cvtepi32_ps(values);

        load(rows: &[f32; TILE_ROWS], register: usize) -> __m256 = load_8(&rows.as_chunks::<8>().0[register]);
        load_f32(rows: &[u8; 4 * TILE_ROWS], register: usize) -> __m256 =
            _mm256_castsi256_ps(load_32(&rows.as_chunks::<32>().0[register]));
        load_f16(rows: &[u8; 2 * TILE_ROWS], register: usize) -> __m256 =
            _mm256_cvtph_ps(load_16_bytes(&rows.as_chunks::<16>().0[register]));
        load_bf16(rows: &[u8; 2 * TILE_ROWS], register: usize) -> __m256 = {
            let bits = _mm256_cvtepu16_epi32(load_16_bytes(&rows.as_chunks::<16>().0[register]));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
        };
        load_half_e8m0(rows: &[u8; TILE_ROWS], register: usize) -> __m256 = {
            let e = _mm256_cvtepu8_epi32(load_8_bytes(&rows.as_chunks::<8>().0[register]));
            let normal = _mm256_slli_epi32::<23>(_mm256_sub_epi32(e, _mm256_set1_epi32(1)));
            // The two smallest are subnormal.
            let small = _mm256_sllv_epi32(_mm256_set1_epi32(0x0020_0000), e);
            let is_small = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e);
            _mm256_castsi256_ps(_mm256_blendv_epi8(normal, small, is_small))
        };
        splat(value: f32) -> __m256 = _mm256_set1_ps(value);
        mul(a: __m256, b: __m256) -> __m256 = _mm256_mul_ps(a, b);
        mul_add(a: __m256, b: __m256, sum: __m256) -> __m256 = _mm256_fmadd_ps(a, b, sum);
        neg_mul_add(a: __m256, b: __m256, sum: __m256) -> __m256 = _mm256_fnmadd_ps(a, b, sum);
        negate(value: __m256) -> __m256 = _mm256_sub_ps(_mm256_setzero_ps(), value);
    }

    #[inline(always)]
    fn store(self, rows: &mut [f32; TILE_ROWS], register: usize, values: __m256) {
        let rows = &mut rows.as_chunks_mut::<8>().0[register];
        // SAFETY: the reference is to 8 floats; the store needs no alignment; the instructions are as of `instructions!`.
        unsafe { _mm256_storeu_ps(rows.as_mut_ptr(), values) };
    }
}

/// The kernel of a quantised format, for activations of 8 bits.
pub(super) fn byte_tile(format: Format) -> Option<ByteTile> {
    Some(with_tile_format!(format, F => pairs::tile::<F, _> as ByteTile, _ => return None))
}

/// As `byte_tile`, of 16 bits.
pub(super) fn wide_tile(format: Format) -> Option<WideTile> {
    Some(with_tile_format!(format, F => pairs::tile::<F, _> as WideTile, _ => return None))
}

/// The kernels with AVX-VNNI.
pub(super) mod vnni_tiles {
    use super::*;

    pub(in super::super) use super::float_tile;

    /// The kernel of a quantised format, for activations of 8 bits.
    pub(in super::super) fn byte_tile(format: Format) -> Option<ByteTile> {
        Some(with_tile_format!(format, F => vnni::tile::<F, _> as ByteTile, _ => return None))
    }

    /// As `byte_tile`, of 16 bits.
    pub(in super::super) fn wide_tile(format: Format) -> Option<WideTile> {
        Some(with_tile_format!(format, F => vnni::tile::<F, _> as WideTile, _ => return None))
    }
}

/// The kernel of a float format.
pub(super) fn float_tile(format: Format) -> Option<FloatTile> {
    Some(with_float_weight!(format, W => float_tile_of::<W> as FloatTile, _ => return None))
}

#[target_feature(enable = "avx2,fma,f16c")]
fn float_tile_of<W: FloatWeight>(piece: &Piece<'_>, x: Tokens<'_, f32>, sums: &mut TileOut) {
    float::check_piece::<W>(piece);
    in_groups!([4 2 1], float_tokens::<W>, piece, x, x.stride, sums);
}

/// Adds the products of the piece with `N` tokens.
#[target_feature(enable = "avx2,fma,f16c")]
fn float_tokens<W: FloatWeight, const N: usize>(
    piece: &Piece<'_>,
    x: &[f32],
    stride: usize,
    out: &mut [[f32; TILE_ROWS]],
) {
    // SAFETY: this function's own features are those of `Avx2`.
    float::tokens::<_, W, N>(unsafe { Avx2::new() }, piece, x, stride, out);
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

/// A module with the tile kernel of every quantised format over one way to multiply integers. Of 16 bits it serves `$wide` tokens
/// at a time.
macro_rules! quant_tiles {
    ($module:ident, $features:literal, $dot:ident, $wide:tt) => {
        mod $module {
            use super::*;

            #[target_feature(enable = $features)]
            pub(super) fn tile<F: TileFormat, const B: usize>(
                piece: &Piece<'_>,
                x: Tokens<'_, ActBlock<B>>,
                sums: &mut TileOut,
            ) {
                quant::check_piece::<F>(piece);
                if B == BLOCK {
                    in_groups!([4 2 1], tokens::<F, B>, piece, x, 1, sums);
                } else {
                    in_groups!($wide, tokens::<F, B>, piece, x, 1, sums);
                }
            }

            /// Adds the products of the piece with `N` tokens. Their sums stay in memory: the sixteen registers are for the
            /// integers.
            #[target_feature(enable = $features)]
            fn tokens<F: TileFormat, const N: usize, const B: usize>(
                piece: &Piece<'_>,
                x: &[ActBlock<B>],
                stride: usize,
                out: &mut [[f32; TILE_ROWS]],
            ) {
                // SAFETY: this function's own features are those of `Avx2`.
                let v = unsafe { Avx2::new() };
                let out = &mut out[..N];
                quant::for_each_record::<_, F, B>(v, piece, (x, stride, N), |header, record_idx, lines, x| {
                    if F::SCALES.halves() == 1 {
                        let integers = $dot::<F, N, B>(v, lines, x, 0);
                        let (scale, min) = (header.scales::<F>(v, record_idx), header.mins::<F>(v, record_idx));
                        for t in 0..N {
                            for register in 0..2 {
                                let sum = v.load(&out[t], register);
                                let (integer, scale) = (integers[t][register], scale[register]);
                                let mut sum = quant::accumulate(v, sum, integer, scale, x[t].scale);
                                if F::SCALES.has_min() {
                                    sum = quant::subtract(v, sum, min[register], x[t].scaled_sum);
                                }
                                v.store(&mut out[t], register, sum);
                            }
                        }
                    } else {
                        let low = $dot::<F, N, B>(v, lines, x, 0);
                        let high = $dot::<F, N, B>(v, lines, x, 1);
                        add_halves::<F, N, B>(v, out, header, record_idx, &low, &high, x);
                    }
                });
            }
        }
    };
}

quant_tiles!(pairs, "avx2,fma,f16c", dot, [4 2 1]);
// Two sums for each token and register; more of them would not fit the registers.
quant_tiles!(vnni, "avx2,fma,f16c,avxvnni", dot_vnni, [2 1]);

/// Adds the integers of a record's halves, which have a scale each. No closures here: they would not have the features, and each
/// instruction would be a call.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_halves<F: TileFormat, const N: usize, const B: usize>(
    v: Avx2,
    out: &mut [[f32; TILE_ROWS]],
    header: &Header<'_, Avx2>,
    record_idx: usize,
    low: &[Pair<__m256i>; N],
    high: &[Pair<__m256i>; N],
    x: &[ActBlock<B>],
) {
    let sub = 2 * record_idx;
    let scales = match B == BLOCK {
        true => [header.float_scales::<F>(v, sub), header.float_scales::<F>(v, sub + 1)],
        false => [header.scales::<F>(v, sub), header.scales::<F>(v, sub + 1)],
    };
    let mins = [header.mins::<F>(v, sub), header.mins::<F>(v, sub + 1)];
    for t in 0..N {
        for register in 0..2 {
            let mut sum = v.load(&out[t], register);
            let integers = [low[t][register], high[t][register]];
            let scales = [scales[0][register], scales[1][register]];
            if B == BLOCK {
                sum = quant::accumulate_halves(v, sum, integers, scales, header.d[register], x[t].scale);
            } else {
                sum = quant::accumulate(v, sum, integers[0], scales[0], x[t].scale);
                sum = quant::accumulate(v, sum, integers[1], scales[1], x[t].scale);
            }
            if F::SCALES.has_min() {
                sum = quant::subtract(v, sum, mins[0][register], x[t].scaled_halves[0]);
                sum = quant::subtract(v, sum, mins[1][register], x[t].scaled_halves[1]);
            }
            v.store(&mut out[t], register, sum);
        }
    }
}

/// Group `g` of a record.
#[inline(always)]
fn unpack<F: TileFormat, const SIGNED: bool>(v: Avx2, lines: &[[u8; 64]], g: usize) -> Pair<__m256i> {
    [quant::unpack::<_, F, SIGNED>(v, lines, g, 0), quant::unpack::<_, F, SIGNED>(v, lines, g, 32)]
}

/// Bytes `4 at..4 at + 4`, for every row.
#[inline]
#[target_feature(enable = "avx2")]
fn splat_four(q: &[i8], at: usize) -> __m256i {
    let four = [q[4 * at], q[4 * at + 1], q[4 * at + 2], q[4 * at + 3]];
    _mm256_set1_epi32(i32::from_le_bytes(four.map(i8::cast_unsigned)))
}

/// `-OFFSET * sum(x)` of half `half` of a record, for every row: where a token's sums start.
#[inline]
#[target_feature(enable = "avx2")]
fn starts<F: TileFormat, const N: usize, const B: usize>(
    x: &[ActBlock<B>],
    half: usize,
) -> [Pair<__m256i>; N] {
    let mut sums: [Pair<__m256i>; N] = [[_mm256_setzero_si256(); 2]; N];
    if F::OFFSET != 0 {
        for t in 0..N {
            sums[t] = [_mm256_set1_epi32(F::OFFSET * quant::neg_sum_of::<F, B>(&x[t], half)); 2];
        }
    }
    sums
}

/// The body once for each group of half `$half` of a record, written out: the compiler keeps a long body as a loop, whose
/// shifts are by a variable then.
macro_rules! for_groups {
    ($g:ident of $half:ident, $F:ident, $body:block) => {
        for_groups!(@each $g, $half, $F, $body, 0 1 2 3 4 5 6 7)
    };
    (@each $g:ident, $half:ident, $F:ident, $body:block, $($index:literal)*) => {
        $(if $index / (GROUPS / $F::SCALES.halves()) == $half {
            let $g = $index;
            $body
        })*
    };
}

/// As `dot`, by four-way byte dot products: quants are unsigned in every format, sums of 32 bits.
macro_rules! vnni_dot {
    ($name:ident, $features:literal, $dpbusd:ident) => {
        #[inline]
        #[target_feature(enable = $features)]
        fn $name<F: TileFormat, const N: usize, const B: usize>(
            v: Avx2,
            lines: &[[u8; 64]],
            x: &[ActBlock<B>],
            half: usize,
        ) -> [Pair<__m256i>; N] {
            let mut sums = starts::<F, N, B>(x, half);
            // Of the high bytes, if activations have 16 bits; `sums` are of the low ones then.
            let mut high: [Pair<__m256i>; N] = [[_mm256_setzero_si256(); 2]; N];
            for_groups!(g of half, F, {
                let q = unpack::<F, false>(v, lines, g);
                for t in 0..N {
                    if B != BLOCK {
                        let x = splat_four(&x[t].q, g);
                        high[t] = [$dpbusd(high[t][0], q[0], x), $dpbusd(high[t][1], q[1], x)];
                    }
                    // The last bytes are the low ones, or all.
                    let low = splat_four(&x[t].q[B - BLOCK..], g);
                    sums[t] = [$dpbusd(sums[t][0], q[0], low), $dpbusd(sums[t][1], q[1], low)];
                }
            });
            if B != BLOCK {
                for t in 0..N {
                    for rows in 0..2 {
                        sums[t][rows] =
                            _mm256_add_epi32(sums[t][rows], _mm256_slli_epi32::<8>(high[t][rows]));
                    }
                }
            }
            sums
        }
    };
}

vnni_dot!(dot_vnni, "avx2,avxvnni", _mm256_dpbusd_avx_epi32);

/// Of half `half` of a record (of all, for formats with one scale): `-OFFSET * sum(x) + sum of q * x`, by token and row.
#[inline]
#[target_feature(enable = "avx2")]
fn dot<F: TileFormat, const N: usize, const B: usize>(
    v: Avx2,
    lines: &[[u8; 64]],
    x: &[ActBlock<B>],
    half: usize,
) -> [Pair<__m256i>; N] {
    match B == BLOCK {
        true => byte_dot::<F, N, B>(v, lines, x, half),
        false => word_dot::<F, N, B>(v, lines, x, half),
    }
}

/// As `dot`, of activations of 8 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn byte_dot<F: TileFormat, const N: usize, const B: usize>(
    v: Avx2,
    lines: &[[u8; 64]],
    x: &[ActBlock<B>],
    half: usize,
) -> [Pair<__m256i>; N] {
    let groups = GROUPS / F::SCALES.halves();
    let ones = _mm256_set1_epi16(1);
    let mut sums = match is_signed::<F>() {
        true => [[_mm256_setzero_si256(); 2]; N],
        false => starts::<F, N, B>(x, half),
    };
    for first in (half * groups..(half + 1) * groups).step_by(groups_per_sum::<F>()) {
        let mut pairs: [Pair<__m256i>; N] = [[_mm256_setzero_si256(); 2]; N];
        for g in first..first + groups_per_sum::<F>() {
            let q = match is_signed::<F>() {
                true => unpack::<F, true>(v, lines, g),
                false => unpack::<F, false>(v, lines, g),
            };
            for t in 0..N {
                let x = splat_four(&x[t].q, g);
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

/// As `dot`, of activations of 16 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn word_dot<F: TileFormat, const N: usize, const B: usize>(
    v: Avx2,
    lines: &[[u8; 64]],
    x: &[ActBlock<B>],
    half: usize,
) -> [Pair<__m256i>; N] {
    let even_bytes = _mm256_set1_epi16(0xff);
    let mut sums = starts::<F, N, B>(x, half);
    for_groups!(g of half, F, {
        let q = unpack::<F, false>(v, lines, g);
        let even = [_mm256_and_si256(q[0], even_bytes), _mm256_and_si256(q[1], even_bytes)];
        let odd = [_mm256_srli_epi16::<8>(q[0]), _mm256_srli_epi16::<8>(q[1])];
        for t in 0..N {
            for (words, q) in [even, odd].into_iter().enumerate() {
                let x = splat_four(&x[t].q, 2 * g + words);
                for rows in 0..2 {
                    sums[t][rows] = _mm256_add_epi32(sums[t][rows], _mm256_madd_epi16(q[rows], x));
                }
            }
        }
    });
    sums
}

#[inline]
#[target_feature(enable = "avx")]
fn load_8(values: &[f32; 8]) -> __m256 {
    // SAFETY: the reference is to 8 floats; the load needs no alignment.
    unsafe { _mm256_loadu_ps(values.as_ptr()) }
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
fn load_8_bytes(bytes: &[u8; 8]) -> __m128i {
    _mm_cvtsi64_si128(i64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::super::{Isa, QuantTile};
    use super::*;
    use crate::activations::{ByteBlock, WideBlock, WideOrder, quantize_group, quantize_group_wide};

    // AVX-512's form of the same instruction on the same registers, for machines that have only that one.
    quant_tiles!(vnni_twin, "avx2,fma,f16c,avx512vl,avx512vnni", dot_vnni_twin, [2 1]);
    vnni_dot!(dot_vnni_twin, "avx2,avx512vl,avx512vnni", _mm256_dpbusd_epi32);

    const TOKENS: usize = 7;

    fn activations(cols: usize) -> Vec<f32> {
        (0..TOKENS * cols).map(|i| ((i * 7919 % 2003) as f32 - 1001.0) * 1e-3).collect()
    }

    /// Sums of a tile of arbitrary bits with seven tokens.
    fn sums<const B: usize>(kernel: QuantTile<B>, bytes: &[u8], values: &[ActBlock<B>]) -> TileOut {
        let mut sums = TileOut::default();
        let x = Tokens { values, stride: TOKENS, count: TOKENS };
        // SAFETY: the caller checked that the machine has the kernel's instructions.
        unsafe { kernel(&Piece { bytes, next: bytes }, x, &mut sums) };
        sums
    }

    fn check<F: TileFormat>(format: Format) {
        let cols = 2 * 32 * F::RECORDS;
        let mut bytes: Vec<u8> = (0..2 * F::BYTES).map(|i| (i * i * 31 + i * 17) as u8).collect();
        for header in bytes.chunks_exact_mut(F::BYTES) {
            // Scales that are finite.
            header[..64.min(F::SCALES.bytes())]
                .as_chunks_mut::<2>()
                .0
                .iter_mut()
                .for_each(|half| half[1] = 0x2c);
        }
        let x = activations(cols);
        let mut narrow = vec![ByteBlock::default(); TOKENS * cols / 32];
        quantize_group(&x, cols, TOKENS, &mut narrow);
        let [words, split] = [WideOrder::Words, WideOrder::Bytes].map(|order| {
            let mut wide = vec![WideBlock::default(); TOKENS * cols / 32];
            quantize_group_wide(order, &x, cols, TOKENS, &mut wide);
            wide
        });
        let expect = (sums(pairs::tile::<F, _>, &bytes, &narrow), sums(pairs::tile::<F, _>, &bytes, &words));
        assert!(expect.0.as_flattened().iter().any(|&sum| sum != 0.0), "{format}");
        assert_ne!(expect.0, expect.1, "{format}: 16 bits are others than 8");
        let mut kernels: Vec<(&str, ByteTile, WideTile)> = Vec::new();
        if is_x86_feature_detected!("avxvnni") {
            kernels.push(("AVX-VNNI", vnni::tile::<F, _>, vnni::tile::<F, _>));
        }
        if is_x86_feature_detected!("avx512vl") && is_x86_feature_detected!("avx512vnni") {
            kernels.push(("its AVX-512 twin", vnni_twin::tile::<F, _>, vnni_twin::tile::<F, _>));
        }
        for (name, byte_tile, wide_tile) in kernels {
            assert_eq!(sums(byte_tile, &bytes, &narrow), expect.0, "{format} with {name}");
            assert_eq!(sums(wide_tile, &bytes, &split), expect.1, "{format}, 16 bits, with {name}");
        }
    }

    #[test]
    fn both_byte_products_give_the_same_bits() {
        if Isa::Avx2.is_available() {
            for format in Format::ALL {
                with_tile_format!(format, F => check::<F>(format), _ => ());
            }
        }
    }
}
