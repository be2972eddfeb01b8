//! The inner loops of attention on AVX-512. Pseudo-code: see `attention`.

use std::arch::x86_64::*;

use super::attention::{Inner, KvElement, KvRows, POSITIONS, add_tail_values};

const LANES: usize = 16;

/// To be named by the AVX-512 table alone, whose functions have the instructions.
pub(super) struct Avx512;

impl Inner for Avx512 {
    #[inline(always)]
    fn dots<E: KvElement, const G: usize>(queries: &[f32], k: &[E]) -> [f32; G] {
        // SAFETY: the table that names `Avx512` is made only where the machine has its instructions.
        unsafe { dots::<E, G>(queries, k) }
    }

    #[inline(always)]
    fn add_values<E: KvElement, const G: usize>(
        out: &mut [f32],
        correction: &[f32; G],
        weights: &[[f32; POSITIONS]; G],
        starts: &[usize],
        v: KvRows<'_, E>,
    ) {
        // SAFETY: as in `dots`.
        unsafe { add_whole_values(out, correction, weights, starts, v) };
        add_tail_values(out, correction, weights, starts, v);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn dots<E: KvElement, const G: usize>(queries: &[f32], k: &[E]) -> [f32; G] {
    let width = k.len();
    let mut sums = [_mm512_setzero_ps(); G];
    let (chunks, tail) = k.as_chunks::<LANES>();
    for (c, k) in chunks.iter().enumerate() {
        // SAFETY: this function's own features are the ones that the method needs.
        let k = unsafe { E::widen_16(k) };
        for g in 0..G {
            sums[g] = _mm512_fmadd_ps(load(&queries[g * width + c * LANES..][..LANES]), k, sums[g]);
        }
    }
    if !tail.is_empty() {
        let mut padded = [E::default(); LANES];
        padded[..tail.len()].copy_from_slice(tail);
        // SAFETY: as above.
        let k = unsafe { E::widen_16(&padded) };
        for g in 0..G {
            let mut q = [0f32; LANES];
            q[..tail.len()].copy_from_slice(&queries[(g + 1) * width - tail.len()..][..tail.len()]);
            sums[g] = _mm512_fmadd_ps(load(&q), k, sums[g]);
        }
    }
    sums.map(|sum| _mm512_reduce_add_ps(sum))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add_whole_values<E: KvElement, const G: usize>(
    out: &mut [f32],
    correction: &[f32; G],
    weights: &[[f32; POSITIONS]; G],
    starts: &[usize],
    v: KvRows<'_, E>,
) {
    for c in (0..v.head_dim() / LANES * LANES).step_by(LANES) {
        let mut sums = [_mm512_setzero_ps(); G];
        for g in 0..G {
            sums[g] =
                _mm512_mul_ps(load(&out[g * v.head_dim() + c..][..LANES]), _mm512_set1_ps(correction[g]));
        }
        for (p, &start) in starts.iter().enumerate() {
            let row: &[E; LANES] = v.layer[start + c..][..LANES].try_into().expect("16 elements");
            // SAFETY: this function's own features are the ones that the method needs.
            let row = unsafe { E::widen_16(row) };
            for g in 0..G {
                sums[g] = _mm512_fmadd_ps(_mm512_set1_ps(weights[g][p]), row, sums[g]);
            }
        }
        for g in 0..G {
            let out: &mut [f32; LANES] =
                (&mut out[g * v.head_dim() + c..][..LANES]).try_into().expect("16 floats");
            // SAFETY: the reference is to 16 floats; the store needs no alignment.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sums[g]) };
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
