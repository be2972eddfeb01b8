//! The inner loops of attention on AVX-512. Pseudo-code: see `attention`.

use std::arch::x86_64::*;

use super::attention::{Inner, KvElement, KvRows, POSITIONS, TransposedKeys, add_tail_values};
use super::avx512::Avx512;
use super::rows::LANES;
use super::vector::Vector;

/// The loops of attention; for the AVX-512 table alone, whose functions have the instructions.
pub(super) enum Loops {}

impl Inner for Loops {
    #[inline(always)]
    fn transpose<E: KvElement>(layer: &[E], starts: &[usize], keys: &mut TransposedKeys) {
        // SAFETY: the table that names `Loops` is made only where the machine has its instructions.
        unsafe { transpose(Avx512::new(), layer, starts, keys) }
    }

    #[inline(always)]
    fn scores<const N: usize>(queries: &[f32], keys: &TransposedKeys) -> [[f32; LANES]; N] {
        // SAFETY: as in `transpose`.
        unsafe { scores(Avx512::new(), queries, keys) }
    }

    #[inline(always)]
    fn add_values<E: KvElement, const N: usize>(
        out: &mut [f32],
        correction: &[f32; N],
        weights: &[[f32; POSITIONS]; N],
        starts: &[usize],
        v: KvRows<'_, E>,
    ) {
        // SAFETY: as in `transpose`.
        unsafe { add_whole_values(Avx512::new(), out, correction, weights, starts, v) };
        add_tail_values(out, correction, weights, starts, v);
    }
}

/// 16 positions by 16 dimensions at a time: four rounds that exchange ever larger squares of lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose<E: KvElement>(v: Avx512, layer: &[E], starts: &[usize], keys: &mut TransposedKeys) {
    let width = keys.len();
    // Rows beyond the last are that one again.
    let rows: [&[E]; LANES] = std::array::from_fn(|i| &layer[starts[i.min(starts.len() - 1)]..][..width]);
    let (squares, rest) = keys.as_chunks_mut::<LANES>();
    for (square, keys) in squares.iter_mut().enumerate() {
        let mut r = [_mm512_setzero_ps(); LANES];
        for i in 0..LANES {
            let row: &[E; LANES] = rows[i][square * LANES..][..LANES].try_into().expect("16 elements");
            r[i] = E::widen_16(v, row);
        }
        for (keys, transposed) in keys.iter_mut().zip(transpose_square(r)) {
            v.store(keys, 0, transposed);
        }
    }
    for (d, keys) in rest.iter_mut().enumerate() {
        for i in 0..LANES {
            keys[i] = rows[i][width / LANES * LANES + d].widen();
        }
    }
}

/// The transpose of 16 x 16.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose_square(rows: [__m512; LANES]) -> [__m512; LANES] {
    let mut a = rows;
    for i in 0..8 {
        a[2 * i] = _mm512_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
        a[2 * i + 1] = _mm512_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
    }
    // Of four rows: pairs of pairs, `b[4 q + c]` being column `c` of each 128-bit lane.
    let mut b = a;
    for q in 0..4 {
        let pair = |x: __m512, y: __m512, high: bool| {
            let (x, y) = (_mm512_castps_pd(x), _mm512_castps_pd(y));
            _mm512_castpd_ps(if high { _mm512_unpackhi_pd(x, y) } else { _mm512_unpacklo_pd(x, y) })
        };
        for c in 0..4 {
            b[4 * q + c] = pair(a[4 * q + c / 2], a[4 * q + 2 + c / 2], c % 2 == 1);
        }
    }
    // Then lanes of 128 bits among the four quadruples of rows.
    let mut out = b;
    for c in 0..4 {
        let low = _mm512_shuffle_f32x4::<0x88>(b[c], b[4 + c]);
        let high = _mm512_shuffle_f32x4::<0xdd>(b[c], b[4 + c]);
        let low_2 = _mm512_shuffle_f32x4::<0x88>(b[8 + c], b[12 + c]);
        let high_2 = _mm512_shuffle_f32x4::<0xdd>(b[8 + c], b[12 + c]);
        out[c] = _mm512_shuffle_f32x4::<0x88>(low, low_2);
        out[4 + c] = _mm512_shuffle_f32x4::<0x88>(high, high_2);
        out[8 + c] = _mm512_shuffle_f32x4::<0xdd>(low, low_2);
        out[12 + c] = _mm512_shuffle_f32x4::<0xdd>(high, high_2);
    }
    out
}

#[inline]
#[target_feature(enable = "avx512f")]
fn scores<const N: usize>(v: Avx512, queries: &[f32], keys: &TransposedKeys) -> [[f32; LANES]; N] {
    let width = keys.len();
    let queries: [&[f32]; N] = std::array::from_fn(|n| &queries[n * width..][..width]);
    let mut sums = [[_mm512_setzero_ps(); 2]; N];
    let (pairs, last) = keys.as_chunks::<2>();
    for (pair, keys) in pairs.iter().enumerate() {
        let keys = [v.load(&keys[0], 0), v.load(&keys[1], 0)];
        for n in 0..N {
            for d in 0..2 {
                let q = _mm512_set1_ps(queries[n][2 * pair + d]);
                sums[n][d] = _mm512_fmadd_ps(q, keys[d], sums[n][d]);
            }
        }
    }
    if let [keys] = last {
        for n in 0..N {
            let q = _mm512_set1_ps(queries[n][width - 1]);
            sums[n][0] = _mm512_fmadd_ps(q, v.load(keys, 0), sums[n][0]);
        }
    }
    let mut out = [[0f32; LANES]; N];
    for n in 0..N {
        v.store(&mut out[n], 0, _mm512_add_ps(sums[n][0], sums[n][1]));
    }
    out
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add_whole_values<E: KvElement, const N: usize>(
    v: Avx512,
    out: &mut [f32],
    correction: &[f32; N],
    weights: &[[f32; POSITIONS]; N],
    starts: &[usize],
    values: KvRows<'_, E>,
) {
    let width = values.head_dim();
    for c in (0..width / LANES * LANES).step_by(LANES) {
        let mut sums = [_mm512_setzero_ps(); N];
        for n in 0..N {
            let out: &[f32; LANES] = out[n * width + c..][..LANES].try_into().expect("16 floats");
            sums[n] = _mm512_mul_ps(v.load(out, 0), _mm512_set1_ps(correction[n]));
        }
        for (p, &start) in starts.iter().enumerate() {
            let row: &[E; LANES] = values.layer[start + c..][..LANES].try_into().expect("16 elements");
            let row = E::widen_16(v, row);
            for n in 0..N {
                sums[n] = _mm512_fmadd_ps(_mm512_set1_ps(weights[n][p]), row, sums[n]);
            }
        }
        for n in 0..N {
            let out: &mut [f32; LANES] = (&mut out[n * width + c..][..LANES]).try_into().expect("16 floats");
            v.store(out, 0, sums[n]);
        }
    }
}
