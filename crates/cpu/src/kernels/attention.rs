//! Causal attention of one token over the cached positions of its sequence, for the query heads that share a cached head.
//!
//! ```text
//! for each block of 64 absolute positions, in order:
//!     s[p] = scale * q . k[p]                     for the block's positions up to the token's own
//!     m'   = max(m, max s);  c = exp(m - m')
//!     l    = l * c + sum exp(s[p] - m')
//!     out  = out * c + sum exp(s[p] - m') * v[p]  positions in order
//! out /= l
//! ```
//! The running softmax is that of arXiv 1805.02867. The blocks are those of absolute positions, whatever the page size,
//! the prompt's chunks or the batch, and K and V come from the cache alone, as rounded there: so a token's result
//! depends on nothing but its sequence.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m512, _mm256_loadu_si256, _mm512_cvtph_ps, _mm512_loadu_ps};

use model::KvShape;

use super::exp::exp;
use super::float::f16_to_f32;
use super::rows::{LANES, fold};
use super::{AttentionKernels, Kernels};

/// Absolute positions of a softmax block.
pub(super) const POSITIONS: usize = 64;

/// A cached element.
pub(crate) trait KvElement: Copy + Default + Send + Sync + 'static {
    fn widen(self) -> f32;
    fn narrow(value: f32) -> Self;
    /// 16 elements in a register.
    ///
    /// # Safety
    /// The machine must have AVX-512 F.
    #[cfg(target_arch = "x86_64")]
    unsafe fn widen_16(values: &[Self; 16]) -> __m512;
    /// The kernels over a cache of this type.
    fn kernels(table: &Kernels) -> &AttentionKernels<Self>;
}

impl KvElement for u16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f16_to_f32(self)
    }
    #[inline(always)]
    fn narrow(value: f32) -> u16 {
        gguf::half::f32_to_f16(value)
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn widen_16(values: &[u16; 16]) -> __m512 {
        // SAFETY: 32 bytes are read, without alignment; the caller guarantees the instructions.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(values.as_ptr().cast())) }
    }
    #[inline(always)]
    fn kernels(table: &Kernels) -> &AttentionKernels<u16> {
        &table.f16
    }
}

impl KvElement for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    #[inline(always)]
    fn narrow(value: f32) -> f32 {
        value
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn widen_16(values: &[f32; 16]) -> __m512 {
        // SAFETY: 64 bytes are read, without alignment; the caller guarantees the instructions.
        unsafe { _mm512_loadu_ps(values.as_ptr()) }
    }
    #[inline(always)]
    fn kernels(table: &Kernels) -> &AttentionKernels<f32> {
        &table.f32
    }
}

/// The cached rows (K or V) of one head of one sequence in one layer, found through its block table.
#[derive(Clone, Copy)]
pub(crate) struct KvRows<'a, E> {
    /// `[pages, num_kv_heads, page_size, head_dim]`
    pub layer: &'a [E],
    pub block_table: &'a [u32],
    pub shape: KvShape,
    pub kv_head: usize,
}

/// Where a cached row starts in its layer, `[pages, num_kv_heads, page_size, head_dim]`.
#[inline(always)]
pub(crate) fn row_start(shape: &KvShape, page: usize, kv_head: usize, offset: usize) -> usize {
    ((page * shape.num_kv_heads + kv_head) * shape.page_size + offset) * shape.head_dim
}

impl<'a, E> KvRows<'a, E> {
    /// Where the rows of the positions from `first` on start in `layer`.
    #[inline(always)]
    fn find_rows(&self, first: usize, starts: &mut [usize]) {
        let (mut block, mut offset) = (first / self.shape.page_size, first % self.shape.page_size);
        for start in starts {
            *start = row_start(&self.shape, self.block_table[block] as usize, self.kv_head, offset);
            offset += 1;
            if offset == self.shape.page_size {
                (block, offset) = (block + 1, 0);
            }
        }
    }

    #[inline(always)]
    fn row(&self, position: usize) -> &'a [E] {
        let mut start = [0];
        self.find_rows(position, &mut start);
        &self.layer[start[0]..][..self.head_dim()]
    }

    #[inline(always)]
    pub fn head_dim(&self) -> usize {
        self.shape.head_dim
    }
}

/// One token's queries for one cached head.
pub(crate) struct HeadRows<'a> {
    /// `[group, head_dim]`
    pub queries: &'a [f32],
    /// Positions attended to: the token's own and all before it.
    pub context: usize,
    pub scale: f32,
}

/// The two loops over K and V that an instruction set may write by hand.
pub(super) trait Inner {
    /// `q . k` of `G` heads' queries, each in 16 lanes.
    fn dots<E: KvElement, const G: usize>(queries: &[f32], k: &[E]) -> [f32; G];

    /// `out = out * correction + sum over positions of weight * v`, by head; `starts` are the positions' rows.
    fn add_values<E: KvElement, const G: usize>(
        out: &mut [f32],
        correction: &[f32; G],
        weights: &[[f32; POSITIONS]; G],
        starts: &[usize],
        v: KvRows<'_, E>,
    );
}

/// Fused attention; `out: [group, head_dim]`. Up to four heads share each widened element of K and V.
#[inline(always)]
pub(super) fn attend<E: KvElement, I: Inner>(
    rows: &HeadRows<'_>,
    k: KvRows<'_, E>,
    v: KvRows<'_, E>,
    out: &mut [f32],
) {
    assert!(rows.queries.len() == out.len() && rows.context > 0, "attention: shapes");
    let mut at = 0;
    while at < out.len() {
        let (queries, out) = (&rows.queries[at..], &mut out[at..]);
        at += k.head_dim()
            * match out.len() / k.head_dim() {
                1 => attend_heads::<E, I, 1>(rows, queries, k, v, out),
                2 | 3 => attend_heads::<E, I, 2>(rows, queries, k, v, out),
                _ => attend_heads::<E, I, 4>(rows, queries, k, v, out),
            };
    }
}

/// Attention of the first `G` heads of `queries`; returns `G`.
#[inline(always)]
fn attend_heads<E: KvElement, I: Inner, const G: usize>(
    rows: &HeadRows<'_>,
    queries: &[f32],
    k: KvRows<'_, E>,
    v: KvRows<'_, E>,
    out: &mut [f32],
) -> usize {
    let queries = &queries[..G * k.head_dim()];
    let out = &mut out[..G * k.head_dim()];
    out.fill(0.0);
    let (mut max, mut sum) = ([f32::NEG_INFINITY; G], [0f32; G]);
    let mut starts = [0; POSITIONS];
    for first in (0..rows.context).step_by(POSITIONS) {
        let starts = &mut starts[..POSITIONS.min(rows.context - first)];
        k.find_rows(first, starts);
        let mut weights = [[f32::NEG_INFINITY; POSITIONS]; G];
        for (i, &start) in starts.iter().enumerate() {
            let dots = I::dots::<E, G>(queries, &k.layer[start..][..k.head_dim()]);
            for g in 0..G {
                weights[g][i] = rows.scale * dots[g];
            }
        }
        let mut correction = [0f32; G];
        for g in 0..G {
            let block_max = weights[g].iter().fold(max[g], |a, &b| a.max(b));
            correction[g] = exp(max[g] - block_max);
            let mut lanes = [0f32; LANES];
            for chunk in weights[g].as_chunks_mut::<LANES>().0 {
                for (lane, weight) in lanes.iter_mut().zip(chunk) {
                    *weight = exp(*weight - block_max);
                    *lane += *weight;
                }
            }
            sum[g] = sum[g] * correction[g] + fold(lanes);
            max[g] = block_max;
        }
        I::add_values(out, &correction, &weights, starts, v);
    }
    for (out, sum) in out.chunks_exact_mut(k.head_dim()).zip(sum) {
        for out in out {
            *out /= sum;
        }
    }
    G
}

/// Plain Rust, for the compiler to vectorise.
pub(super) struct Portable;

impl Inner for Portable {
    #[inline(always)]
    fn dots<E: KvElement, const G: usize>(queries: &[f32], k: &[E]) -> [f32; G] {
        let width = k.len();
        let mut lanes = [[0f32; LANES]; G];
        let (chunks, tail) = k.as_chunks::<LANES>();
        for (c, k) in chunks.iter().enumerate() {
            let wide = k.map(E::widen);
            for g in 0..G {
                let q = &queries[g * width + c * LANES..][..LANES];
                for i in 0..LANES {
                    lanes[g][i] += q[i] * wide[i];
                }
            }
        }
        for g in 0..G {
            let q = &queries[(g + 1) * width - tail.len()..];
            for (i, k) in tail.iter().enumerate() {
                lanes[g][i] += q[i] * k.widen();
            }
        }
        lanes.map(fold)
    }

    #[inline(always)]
    fn add_values<E: KvElement, const G: usize>(
        out: &mut [f32],
        correction: &[f32; G],
        weights: &[[f32; POSITIONS]; G],
        starts: &[usize],
        v: KvRows<'_, E>,
    ) {
        let whole = v.head_dim() / LANES * LANES;
        for c in (0..whole).step_by(LANES) {
            let mut sums = [[0f32; LANES]; G];
            for g in 0..G {
                let out = &out[g * v.head_dim() + c..][..LANES];
                for i in 0..LANES {
                    sums[g][i] = out[i] * correction[g];
                }
            }
            for (p, &start) in starts.iter().enumerate() {
                let v = &v.layer[start + c..][..LANES];
                for g in 0..G {
                    for i in 0..LANES {
                        sums[g][i] += weights[g][p] * v[i].widen();
                    }
                }
            }
            for g in 0..G {
                out[g * v.head_dim() + c..][..LANES].copy_from_slice(&sums[g]);
            }
        }
        add_tail_values(out, correction, weights, starts, v);
    }
}

/// [`Inner::add_values`] of the columns beyond the last whole 16.
#[inline(always)]
pub(super) fn add_tail_values<E: KvElement, const G: usize>(
    out: &mut [f32],
    correction: &[f32; G],
    weights: &[[f32; POSITIONS]; G],
    starts: &[usize],
    v: KvRows<'_, E>,
) {
    let whole = v.head_dim() / LANES * LANES;
    for g in 0..G {
        for c in whole..v.head_dim() {
            let out = &mut out[g * v.head_dim() + c];
            *out *= correction[g];
            for (p, &start) in starts.iter().enumerate() {
                *out += weights[g][p] * v.layer[start + c].widen();
            }
        }
    }
}

/// One token's rows in the three-step reference.
pub(crate) struct Reference<'a> {
    /// `[group, head_dim]` queries for the scores; `[group, stride]` weights for the values.
    pub rows: &'a [f32],
    pub context: usize,
    /// Columns between the scores of one head and the next.
    pub stride: usize,
    pub scale: f32,
}

/// Step 1; `out: [group, stride]`, of which the first `context` columns are written.
#[inline(always)]
pub(super) fn scores<E: KvElement>(rows: &Reference<'_>, k: KvRows<'_, E>, out: &mut [f32]) {
    for (q, out) in rows.rows.chunks_exact(k.head_dim()).zip(out.chunks_exact_mut(rows.stride)) {
        for (position, score) in out[..rows.context].iter_mut().enumerate() {
            *score = rows.scale * Portable::dots::<E, 1>(q, k.row(position))[0];
        }
    }
}

/// Step 3; `out: [group, head_dim]`.
#[inline(always)]
pub(super) fn values<E: KvElement>(rows: &Reference<'_>, v: KvRows<'_, E>, out: &mut [f32]) {
    for (weights, out) in rows.rows.chunks_exact(rows.stride).zip(out.chunks_exact_mut(v.head_dim())) {
        out.fill(0.0);
        for (position, &weight) in weights[..rows.context].iter().enumerate() {
            add_scaled(out, weight, v.row(position));
        }
    }
}

/// `out += weight * v`.
#[inline(always)]
fn add_scaled<E: KvElement>(out: &mut [f32], weight: f32, v: &[E]) {
    for (out, v) in out.iter_mut().zip(v) {
        *out += weight * v.widen();
    }
}
