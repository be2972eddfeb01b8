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

use super::exp::exp;
use super::float::f16_to_f32;
use super::rows::{LANES, fold};
use super::{AttentionKernels, Kernels};

/// Absolute positions of a softmax block.
const POSITIONS: usize = 64;

/// A cached element.
pub(crate) trait KvElement: Copy + Send + Sync + 'static {
    fn widen(self) -> f32;
    fn narrow(value: f32) -> Self;
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
    pub page_size: usize,
    pub num_kv_heads: usize,
    pub kv_head: usize,
    pub head_dim: usize,
}

impl<'a, E> KvRows<'a, E> {
    #[inline(always)]
    fn row(&self, position: usize) -> &'a [E] {
        let page = self.block_table[position / self.page_size] as usize;
        let row = (page * self.num_kv_heads + self.kv_head) * self.page_size + position % self.page_size;
        &self.layer[row * self.head_dim..][..self.head_dim]
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

/// Fused attention; `out: [group, head_dim]`.
#[inline(always)]
pub(super) fn attend<E: KvElement>(rows: &HeadRows<'_>, k: KvRows<'_, E>, v: KvRows<'_, E>, out: &mut [f32]) {
    assert!(rows.queries.len() == out.len() && rows.context > 0, "attention: shapes");
    for (q, out) in rows.queries.chunks_exact(k.head_dim).zip(out.chunks_exact_mut(k.head_dim)) {
        out.fill(0.0);
        let (mut max, mut sum) = (f32::NEG_INFINITY, 0f32);
        let mut first = 0;
        while first < rows.context {
            let len = POSITIONS.min(rows.context - first);
            let mut weights = [f32::NEG_INFINITY; POSITIONS];
            for (i, weight) in weights[..len].iter_mut().enumerate() {
                *weight = rows.scale * dot(q, k.row(first + i));
            }
            let block_max = weights.iter().fold(max, |a, &b| a.max(b));
            let correction = exp(max - block_max);
            let mut lanes = [0f32; LANES];
            for chunk in weights.as_chunks_mut::<LANES>().0 {
                for (lane, weight) in lanes.iter_mut().zip(chunk) {
                    *weight = exp(*weight - block_max);
                    *lane += *weight;
                }
            }
            sum = sum * correction + fold(lanes);
            max = block_max;
            for out in out.iter_mut() {
                *out *= correction;
            }
            for (i, &weight) in weights[..len].iter().enumerate() {
                add_scaled(out, weight, v.row(first + i));
            }
            first += len;
        }
        for out in out.iter_mut() {
            *out /= sum;
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
    for (q, out) in rows.rows.chunks_exact(k.head_dim).zip(out.chunks_exact_mut(rows.stride)) {
        for (position, score) in out[..rows.context].iter_mut().enumerate() {
            *score = rows.scale * dot(q, k.row(position));
        }
    }
}

/// Step 3; `out: [group, head_dim]`.
#[inline(always)]
pub(super) fn values<E: KvElement>(rows: &Reference<'_>, v: KvRows<'_, E>, out: &mut [f32]) {
    for (weights, out) in rows.rows.chunks_exact(rows.stride).zip(out.chunks_exact_mut(v.head_dim)) {
        out.fill(0.0);
        for (position, &weight) in weights[..rows.context].iter().enumerate() {
            add_scaled(out, weight, v.row(position));
        }
    }
}

/// `q . k` in 16 lanes.
#[inline(always)]
fn dot<E: KvElement>(q: &[f32], k: &[E]) -> f32 {
    let mut lanes = [0f32; LANES];
    let ((q, q_tail), (k, k_tail)) = (q.as_chunks::<LANES>(), k.as_chunks::<LANES>());
    for (q, k) in q.iter().zip(k) {
        for i in 0..LANES {
            lanes[i] += q[i] * k[i].widen();
        }
    }
    for (i, (q, k)) in q_tail.iter().zip(k_tail).enumerate() {
        lanes[i] += q * k.widen();
    }
    fold(lanes)
}

/// `out += weight * v`.
#[inline(always)]
fn add_scaled<E: KvElement>(out: &mut [f32], weight: f32, v: &[E]) {
    for (out, v) in out.iter_mut().zip(v) {
        *out += weight * v.widen();
    }
}
