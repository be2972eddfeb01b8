//! Matrix tiles on AVX2, with and without AVX-VNNI. Pseudo-code and order of sums: see the portable twins `quant` and
//! `float`; tile layout: see `tile`.
//!
//! A group's 64 bytes are two registers of 8 rows. AVX-VNNI has the four-way byte dot product. Without it, `maddubs` adds
//! pairs of products of unsigned and signed bytes into 16 bits, which must not overflow: weights of few bits leave room for
//! the sums of several groups before they widen to 32 bits; those of 8 bits are taken as signed, `|w| * (sign(w) x)`, so that
//! a pair is at most 2 * 128 * 127. The integers are exact either way, so both give the same bits.

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
    Some(with_tile_format!(format, F => pairs::tile::<F> as QuantTile, _ => return None))
}

/// The kernel of a quantised format, with AVX-VNNI.
pub(super) fn vnni_quant_tile(format: Format) -> Option<QuantTile> {
    Some(with_tile_format!(format, F => vnni::tile::<F> as QuantTile, _ => return None))
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

/// A module with the tile kernel of every quantised format over one way to multiply bytes.
macro_rules! quant_tiles {
    ($module:ident, $features:literal, $dot:ident) => {
        mod $module {
            use super::*;

            #[target_feature(enable = $features)]
            pub(super) fn tile<F: TileFormat>(piece: &Piece<'_>, x: Tokens<'_, ActBlock>, sums: &mut TileOut) {
                assert!(piece.bytes.len().is_multiple_of(F::BYTES), "quant tile: size");
                in_groups!([4 2 1], tokens::<F>, piece, x, 1, sums);
            }

            /// Adds the products of the piece with `N` tokens.
            #[target_feature(enable = $features)]
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
                            let sub = record_idx * F::SCALES.halves() + half;
                            let (scale, min) = record_scales::<F>(header, sub);
                            let integers = $dot::<F, N>(record, x, half);
                            for t in 0..N {
                                let (_, scaled_sum) = sums_of::<F>(&x[t], half);
                                accumulate::<F>(&mut out[t], integers[t], (scale, min), x[t].scale, scaled_sum);
                            }
                        }
                    }
                }
            }
        }
    };
}

quant_tiles!(pairs, "avx2,fma,f16c", dot);
quant_tiles!(vnni, "avx2,fma,f16c,avxvnni", dot_vnni);

/// `-sum(x)` and `scale * sum(x)` of what half `half` of a record multiplies (all, for formats with one scale).
#[inline]
fn sums_of<F: TileFormat>(x: &ActBlock, half: usize) -> (i32, f32) {
    match F::SCALES.halves() {
        1 => (x.neg_sum, x.scaled_sum),
        _ => (x.neg_halves[half], x.scaled_halves[half]),
    }
}

/// Columns `4 g..4 g + 4` of a token, for every row.
#[inline]
#[target_feature(enable = "avx2")]
fn columns(x: &ActBlock, g: usize) -> __m256i {
    let four = [x.q[4 * g], x.q[4 * g + 1], x.q[4 * g + 2], x.q[4 * g + 3]];
    _mm256_set1_epi32(i32::from_le_bytes(four.map(|q| q as u8)))
}

/// As `dot`, by four-way byte dot products: quants are unsigned in every format, sums of 32 bits.
macro_rules! vnni_dot {
    ($name:ident, $features:literal, $dpbusd:ident) => {
        #[inline]
        #[target_feature(enable = $features)]
        fn $name<F: TileFormat, const N: usize>(
            record: &[u8],
            x: &[ActBlock],
            half: usize,
        ) -> [Pair<__m256i>; N] {
            let groups = GROUPS / F::SCALES.halves();
            let mut sums: [Pair<__m256i>; N] = [[_mm256_setzero_si256(); 2]; N];
            for t in 0..N {
                sums[t] = [_mm256_set1_epi32(F::OFFSET * sums_of::<F>(&x[t], half).0); 2];
            }
            for g in half * groups..(half + 1) * groups {
                let q = [unpack::<F, false>(record, g, 0), unpack::<F, false>(record, g, 32)];
                for t in 0..N {
                    let x = columns(&x[t], g);
                    sums[t] = [$dpbusd(sums[t][0], q[0], x), $dpbusd(sums[t][1], q[1], x)];
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
fn dot<F: TileFormat, const N: usize>(record: &[u8], x: &[ActBlock], half: usize) -> [Pair<__m256i>; N] {
    let groups = GROUPS / F::SCALES.halves();
    let ones = _mm256_set1_epi16(1);
    let mut sums: [Pair<__m256i>; N] = [[_mm256_setzero_si256(); 2]; N];
    if !is_signed::<F>() && F::OFFSET != 0 {
        for t in 0..N {
            sums[t] = [_mm256_set1_epi32(F::OFFSET * sums_of::<F>(&x[t], half).0); 2];
        }
    }
    for first in (half * groups..(half + 1) * groups).step_by(groups_per_sum::<F>()) {
        let mut pairs: [Pair<__m256i>; N] = [[_mm256_setzero_si256(); 2]; N];
        for g in first..first + groups_per_sum::<F>() {
            let q = [0, 32].map(|at| match is_signed::<F>() {
                true => unpack::<F, true>(record, g, at),
                false => unpack::<F, false>(record, g, at),
            });
            for t in 0..N {
                let x = columns(&x[t], g);
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

/// Bytes `at..at + 32` of group `g`: unsigned quants, or with `SIGNED` what they are raised from (formats of 8 bits).
#[inline]
#[target_feature(enable = "avx2")]
fn unpack<F: TileFormat, const SIGNED: bool>(record: &[u8], g: usize, at: usize) -> __m256i {
    let raised = if SIGNED { _mm256_set1_epi8(-128) } else { _mm256_setzero_si256() };
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
                _mm256_shuffle_epi8(_mm256_xor_si256(code, raised), four_bits())
            }
        },
        Planes::B4B1 => _mm256_or_si256(four_bits(), _mm256_slli_epi16::<4>(one_bit(4))),
        Planes::B4B2 => _mm256_or_si256(four_bits(), _mm256_slli_epi16::<4>(two_bits(4))),
        Planes::B8 => _mm256_xor_si256(line(g), raised),
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

#[cfg(test)]
mod tests {
    use super::super::Isa;
    use super::*;
    use crate::activations::quantize_group;

    // AVX-512's form of the same instruction on the same registers, for machines that have only that one.
    quant_tiles!(vnni_twin, "avx2,fma,f16c,avx512vl,avx512vnni", dot_vnni_twin);
    vnni_dot!(dot_vnni_twin, "avx2,avx512vl,avx512vnni", _mm256_dpbusd_epi32);

    /// Sums of a tile of arbitrary bits with seven tokens.
    fn sums(kernel: QuantTile, bytes: &[u8], cols: usize) -> TileOut {
        const TOKENS: usize = 7;
        let x: Vec<f32> = (0..TOKENS * cols).map(|i| ((i * 7919 % 2003) as f32 - 1001.0) * 1e-3).collect();
        let mut values = vec![ActBlock::default(); TOKENS * cols / 32];
        quantize_group(&x, cols, TOKENS, &mut values);
        let mut sums = TileOut::default();
        let x = Tokens { values: &values, stride: TOKENS, count: TOKENS };
        // SAFETY: the caller checked that the machine has the kernel's instructions.
        unsafe { kernel(&Piece { bytes, next: bytes }, x, &mut sums) };
        sums
    }

    fn check<F: TileFormat>() {
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
        let expect = sums(pairs::tile::<F>, &bytes, cols);
        assert!(expect.as_flattened().iter().any(|&sum| sum != 0.0), "{}", F::FORMAT);
        let mut kernels: Vec<(&str, QuantTile)> = Vec::new();
        if is_x86_feature_detected!("avxvnni") {
            kernels.push(("AVX-VNNI", vnni::tile::<F>));
        }
        if is_x86_feature_detected!("avx512vl") && is_x86_feature_detected!("avx512vnni") {
            kernels.push(("its AVX-512 twin", vnni_twin::tile::<F>));
        }
        for (name, kernel) in kernels {
            assert_eq!(sums(kernel, &bytes, cols), expect, "{} with {name}", F::FORMAT);
        }
    }

    #[test]
    fn both_byte_products_give_the_same_bits() {
        if Isa::Avx2.is_available() {
            for format in Format::ALL {
                with_tile_format!(format, F => check::<F>(), _ => ());
            }
        }
    }
}
