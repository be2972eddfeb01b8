//! The inner loops of attention on AVX-512. Pseudo-code: see `attention`.

use std::arch::x86_64::*;

use super::attention::{Inner, KvElement, KvRows, POSITIONS, TurnedKeys, add_tail_values};
use super::rows::LANES;

/// To be named by the AVX-512 table alone, whose functions have the instructions.
pub(super) struct Avx512;

impl Inner for Avx512 {
    #[inline(always)]
    fn turn<E: KvElement>(layer: &[E], starts: &[usize], keys: &mut TurnedKeys) {
        // SAFETY: the table that names `Avx512` is made only where the machine has its instructions.
        unsafe { turn(layer, starts, keys) }
    }

    #[inline(always)]
    fn scores<const N: usize>(queries: &[f32], keys: &TurnedKeys) -> [[f32; LANES]; N] {
        // SAFETY: as in `turn`.
        unsafe { scores(queries, keys) }
    }

    #[inline(always)]
    fn add_values<E: KvElement, const N: usize>(
        out: &mut [f32],
        correction: &[f32; N],
        weights: &[[f32; POSITIONS]; N],
        starts: &[usize],
        v: KvRows<'_, E>,
    ) {
        // SAFETY: as in `turn`.
        unsafe { add_whole_values(out, correction, weights, starts, v) };
        add_tail_values(out, correction, weights, starts, v);
    }
}

/// 16 positions by 16 dimensions at a time: four rounds that exchange ever larger squares of lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn turn<E: KvElement>(layer: &[E], starts: &[usize], keys: &mut TurnedKeys) {
    let width = keys.len();
    // Rows beyond the last are that one again.
    let rows: [&[E]; LANES] = std::array::from_fn(|i| &layer[starts[i.min(starts.len() - 1)]..][..width]);
    let (squares, rest) = keys.as_chunks_mut::<LANES>();
    for (square, keys) in squares.iter_mut().enumerate() {
        let mut r = [_mm512_setzero_ps(); LANES];
        for i in 0..LANES {
            let row: &[E; LANES] = rows[i][square * LANES..][..LANES].try_into().expect("16 elements");
            // SAFETY: this function's own features are the ones that the method needs.
            r[i] = unsafe { E::widen_16(row) };
        }
        for (keys, turned) in keys.iter_mut().zip(turn_square(r)) {
            // SAFETY: the reference is to 16 floats; the store needs no alignment.
            unsafe { _mm512_storeu_ps(keys.as_mut_ptr(), turned) };
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
fn turn_square(rows: [__m512; LANES]) -> [__m512; LANES] {
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
fn scores<const N: usize>(queries: &[f32], keys: &TurnedKeys) -> [[f32; LANES]; N] {
    let width = keys.len();
    let queries: [&[f32]; N] = std::array::from_fn(|n| &queries[n * width..][..width]);
    let mut sums = [[_mm512_setzero_ps(); 2]; N];
    let (pairs, last) = keys.as_chunks::<2>();
    for (pair, keys) in pairs.iter().enumerate() {
        let keys = [load(&keys[0]), load(&keys[1])];
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
            sums[n][0] = _mm512_fmadd_ps(q, load(keys), sums[n][0]);
        }
    }
    let mut out = [[0f32; LANES]; N];
    for n in 0..N {
        // SAFETY: the reference is to 16 floats; the store needs no alignment.
        unsafe { _mm512_storeu_ps(out[n].as_mut_ptr(), _mm512_add_ps(sums[n][0], sums[n][1])) };
    }
    out
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add_whole_values<E: KvElement, const N: usize>(
    out: &mut [f32],
    correction: &[f32; N],
    weights: &[[f32; POSITIONS]; N],
    starts: &[usize],
    v: KvRows<'_, E>,
) {
    for c in (0..v.head_dim() / LANES * LANES).step_by(LANES) {
        let mut sums = [_mm512_setzero_ps(); N];
        for n in 0..N {
            sums[n] =
                _mm512_mul_ps(load(&out[n * v.head_dim() + c..][..LANES]), _mm512_set1_ps(correction[n]));
        }
        for (p, &start) in starts.iter().enumerate() {
            let row: &[E; LANES] = v.layer[start + c..][..LANES].try_into().expect("16 elements");
            // SAFETY: this function's own features are the ones that the method needs.
            let row = unsafe { E::widen_16(row) };
            for n in 0..N {
                sums[n] = _mm512_fmadd_ps(_mm512_set1_ps(weights[n][p]), row, sums[n]);
            }
        }
        for n in 0..N {
            let out: &mut [f32; LANES] =
                (&mut out[n * v.head_dim() + c..][..LANES]).try_into().expect("16 floats");
            // SAFETY: the reference is to 16 floats; the store needs no alignment.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sums[n]) };
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(values: &[f32]) -> __m512 {
    let values: &[f32; LANES] = values.try_into().expect("16 floats");
    // SAFETY: the reference is to 16 floats; the load needs no alignment.
    unsafe { _mm512_loadu_ps(values.as_ptr()) }
}
