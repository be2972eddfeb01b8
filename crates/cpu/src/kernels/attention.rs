//! Causal attention of a run of consecutive tokens over the cached positions of their sequence, for the query heads that
//! share a cached head.
//!
//! ```text
//! for each split of 1024 absolute positions, independently:
//!     for each block of 64 positions, in order:
//!         s[p] = scale * q . k[p]                     for the block's positions up to the token's own; then capped
//!         m'   = max(m, max s);  c = exp(m - m')
//!         l    = l * c + sum exp(s[p] - m')
//!         out  = out * c + sum exp(s[p] - m') * v[p]  positions in order
//! merge the splits' (m, l, out) in order;  out /= l
//! ```
//! The running softmax is that of arXiv 1805.02867. Threads may share the splits of a long context (arXiv 2311.01282).
//! A token with a window starts at the split and the block of the first position that it sees, whose earlier positions have
//! weight 0. Blocks and splits are cut at absolute positions, whatever the page size, the prompt's chunks, the batch or the number of
//! threads. K and V are read from the cache alone, as rounded there. So a token's result depends on its sequence alone.
//!
//! A block's keys are transposed once for all tokens and heads of the run, `[dimension][16 positions]`, so that a register
//! holds the scores of 16 positions and no sum runs across lanes.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::__m512;
use std::marker::PhantomData;

use model::QkvShape;
use model::math::{exp, tanh};

#[cfg(target_arch = "x86_64")]
use super::avx512::Avx512;
use super::fma::MulAdd;
use super::half::f16_to_f32;
use super::rows::{LANES, fold};
#[cfg(target_arch = "x86_64")]
use super::vector::Vector;
use super::{AttentionKernels, Kernels};
use crate::disjoint::Columns;

/// Absolute positions of a softmax block.
pub(super) const POSITIONS: usize = 64;
/// Absolute positions of a split, whose softmax is computed independently of the other splits; whole blocks.
pub(crate) const SPLIT: usize = 1024;
/// Most tokens that share a block's transposed keys.
pub(crate) const RUN: usize = 16;
/// Most query heads of one cached head that are served together.
pub(crate) const MAX_HEADS: usize = 16;
/// The widest head whose transposed keys fit their buffer.
pub(crate) const MAX_HEAD_DIM: usize = 256;
/// Query heads of one token whose scores, or sums, are in registers together.
const HEADS: usize = 8;

/// 16 positions of a block's keys: `[dimension][position]`.
pub(super) type TransposedKeys = [[f32; LANES]];

/// A cached element.
pub(crate) trait KvElement: Copy + Default + Send + Sync + 'static {
    fn widen(self) -> f32;
    fn narrow(value: f32) -> Self;
    /// Widens 16 elements.
    #[cfg(target_arch = "x86_64")]
    fn widen_16(v: Avx512, values: &[Self; LANES]) -> __m512;
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
    fn widen_16(v: Avx512, values: &[u16; LANES]) -> __m512 {
        // SAFETY: the reference is to 32 bytes, which need no alignment; x86 has the bytes in the file's order.
        v.load_f16(unsafe { &*values.as_ptr().cast() }, 0)
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
    fn widen_16(v: Avx512, values: &[f32; LANES]) -> __m512 {
        v.load(values, 0)
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
    pub layout: PageLayout,
    pub kv_head: usize,
}

/// How a layer's pages lie: `[pages, num_kv_heads, page_size, head_dim]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageLayout {
    pub num_kv_heads: usize,
    pub page_size: usize,
    pub head_dim: usize,
}

impl PageLayout {
    /// Where a cached row starts in its layer.
    #[inline(always)]
    pub fn row_start(&self, page: usize, kv_head: usize, offset: usize) -> usize {
        ((page * self.num_kv_heads + kv_head) * self.page_size + offset) * self.head_dim
    }

    /// Panics unless the heads of an operation are those of the cache.
    pub fn check(&self, shape: QkvShape) {
        let ours = (self.num_kv_heads, self.head_dim);
        assert_eq!((shape.num_kv_heads, shape.head_dim), ours, "the KV cache has heads of another shape");
    }
}

impl<'a, E> KvRows<'a, E> {
    /// Where the rows of the positions from `first` on start in `layer`.
    #[inline(always)]
    fn find_rows(&self, first: usize, starts: &mut [usize]) {
        let (mut block, mut offset) = (first / self.layout.page_size, first % self.layout.page_size);
        for start in starts {
            *start = self.layout.row_start(self.block_table[block] as usize, self.kv_head, offset);
            offset += 1;
            if offset == self.layout.page_size {
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
        self.layout.head_dim
    }
}

/// The queries of a run of consecutive tokens for one cached head: up to [`MAX_HEADS`] heads of up to [`RUN`] tokens.
#[derive(Clone, Copy)]
pub(crate) struct Queries<'a> {
    /// From the first token's first head on: `[heads, head_dim]`, the next token's at `stride`.
    pub values: &'a [f32],
    pub stride: usize,
    pub heads: usize,
    pub tokens: usize,
    /// Positions that the first token attends to, its own included; each next one attends to one more.
    pub context: usize,
    pub scale: f32,
    /// Scores become `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// Positions that a token sees, its own included.
    pub window: usize,
}

impl Queries<'_> {
    /// The first position that a token of the run sees.
    #[inline(always)]
    pub fn first_seen(&self, token: usize) -> usize {
        (self.context + token).saturating_sub(self.window)
    }
}

/// The running softmax of a run's queries: `[token][head]`.
pub(crate) struct Running {
    pub max: [[f32; MAX_HEADS]; RUN],
    pub sum: [[f32; MAX_HEADS]; RUN],
}

impl Running {
    pub fn new() -> Self {
        Self { max: [[f32::NEG_INFINITY; MAX_HEADS]; RUN], sum: [[0.0; MAX_HEADS]; RUN] }
    }
}

/// The loops over K and V that an instruction set may write by hand.
pub(super) trait Inner {
    /// Widens and transposes the keys of up to 16 positions, whose rows begin at `starts`; lanes beyond have no meaning.
    fn transpose<E: KvElement>(layer: &[E], starts: &[usize], keys: &mut TransposedKeys);

    /// `q . k` of `N` heads' queries with 16 positions, even dimensions and odd ones each in order.
    fn scores<const N: usize>(queries: &[f32], keys: &TransposedKeys) -> [[f32; LANES]; N];

    /// `out = out * correction + sum over positions of weight * v`, by head; `starts` are the positions' rows.
    fn add_values<E: KvElement, const N: usize>(
        out: &mut [f32],
        correction: &[f32; N],
        weights: &[[f32; POSITIONS]; N],
        starts: &[usize],
        v: KvRows<'_, E>,
    );
}

impl Kernels {
    /// Fused attention of a run of tokens over the positions of the splits from `splits.0` to before `splits.1`;
    /// `out: [tokens][heads, head_dim]`, the weighted sum of values that is still to be divided by the running sum.
    pub fn attend<E: KvElement>(
        &self,
        queries: &Queries<'_>,
        splits: (usize, usize),
        rows: (KvRows<'_, E>, KvRows<'_, E>),
        running: &mut Running,
        out: &mut Columns<'_, f32>,
    ) {
        assert!(queries.heads <= MAX_HEADS && queries.tokens <= RUN, "attention: a run's size");
        // Common widths need a smaller buffer than the widest.
        match rows.0.head_dim() {
            ..=64 => self.attend_splits::<E, { 4 * 64 }>(queries, splits, rows, running, out),
            65..=128 => self.attend_splits::<E, { 4 * 128 }>(queries, splits, rows, running, out),
            129..=MAX_HEAD_DIM => {
                self.attend_splits::<E, { 4 * MAX_HEAD_DIM }>(queries, splits, rows, running, out)
            }
            width => panic!("attention: a head of {width} dimensions"),
        }
    }

    fn attend_splits<E: KvElement, const KEYS: usize>(
        &self,
        queries: &Queries<'_>,
        (first, end): (usize, usize),
        rows: (KvRows<'_, E>, KvRows<'_, E>),
        running: &mut Running,
        out: &mut Columns<'_, f32>,
    ) {
        let mut keys = [[0f32; LANES]; KEYS];
        self.attend_split(queries, first, rows, running, out, &mut keys);
        if first + 1 == end {
            return;
        }
        let head_dim = rows.0.head_dim();
        let width = queries.heads * head_dim;
        let mut values = [0f32; RUN * MAX_HEADS * MAX_HEAD_DIM];
        for split in first + 1..end {
            let mut partial = Running::new();
            let mut partial_out = Columns::of(&mut values[..queries.tokens * width], width);
            self.attend_split(queries, split, rows, &mut partial, &mut partial_out, &mut keys);
            for t in 0..queries.tokens {
                let first_split = queries.first_seen(t) / SPLIT;
                // Tokens before the split, or with a window after it, attend to none of its positions.
                if queries.context + t > split * SPLIT && first_split <= split {
                    if first_split == split {
                        out.row(t).copy_from_slice(partial_out.row(t));
                        (running.max[t], running.sum[t]) = (partial.max[t], partial.sum[t]);
                        continue;
                    }
                    for head in 0..queries.heads {
                        let of_head = head * head_dim..(head + 1) * head_dim;
                        let (max, sum) = (partial.max[t][head], partial.sum[t][head]);
                        let partial = Partial { max, sum, values: &partial_out.row(t)[of_head.clone()] };
                        let (max, sum) = (&mut running.max[t][head], &mut running.sum[t][head]);
                        self.merge_partial(max, sum, &mut out.row(t)[of_head], &partial);
                    }
                }
            }
        }
    }
}

/// One head's attention over a split: `values` are weighted by `exp(score - max)`, whose sum is `sum`.
pub(crate) struct Partial<'a> {
    pub max: f32,
    pub sum: f32,
    pub values: &'a [f32],
}

/// Merges a split's partial result into the running softmax of the splits before it.
#[inline(always)]
pub(super) fn merge(max: &mut f32, sum: &mut f32, out: &mut [f32], partial: &Partial<'_>) {
    let both = max.max(partial.max);
    let (mine, other) = (exp(*max - both), exp(partial.max - both));
    *max = both;
    *sum = *sum * mine + partial.sum * other;
    for (out, value) in out.iter_mut().zip(partial.values) {
        *out = *out * mine + value * other;
    }
}

/// Fused attention over the positions of one split, from an empty softmax; `keys` is scratch for the transposed keys of a
/// block.
#[inline(always)]
pub(super) fn attend_split<E: KvElement, I: Inner>(
    queries: &Queries<'_>,
    split: usize,
    (k, v): (KvRows<'_, E>, KvRows<'_, E>),
    running: &mut Running,
    out: &mut Columns<'_, f32>,
    keys: &mut TransposedKeys,
) {
    for t in 0..queries.tokens {
        out.row(t).fill(0.0);
    }
    let width = k.head_dim();
    let end = (queries.context + queries.tokens - 1).min((split + 1) * SPLIT);
    let mut starts = [0; POSITIONS];
    let begin = (queries.first_seen(0) / POSITIONS * POSITIONS).max(split * SPLIT);
    for first in (begin..end).step_by(POSITIONS) {
        let starts = &mut starts[..POSITIONS.min(end - first)];
        k.find_rows(first, starts);
        for (starts, keys) in starts.chunks(LANES).zip(keys.chunks_exact_mut(width)) {
            I::transpose(k.layer, starts, keys);
        }
        for t in 0..queries.tokens {
            let Some(positions @ 1..) = (queries.context + t).checked_sub(first) else { continue };
            let unseen = queries.first_seen(t).saturating_sub(first);
            if unseen >= POSITIONS {
                continue;
            }
            let Queries { scale, softcap, .. } = *queries;
            let starts = &starts[..positions.min(starts.len())];
            let block = Block { keys, starts, unseen, scale, softcap, v };
            let of_token = &queries.values[t * queries.stride..][..queries.heads * width];
            let (max, sum) = (&mut running.max[t], &mut running.sum[t]);
            let out = out.row(t);
            let mut head = 0;
            while head < queries.heads {
                let (queries, out) = (&of_token[head * width..], &mut out[head * width..]);
                let (max, sum) = (&mut max[head..], &mut sum[head..]);
                head += match queries.len() / width {
                    1 => block.attend::<I, 1>(queries, max, sum, out),
                    2 | 3 => block.attend::<I, 2>(queries, max, sum, out),
                    4..HEADS => block.attend::<I, 4>(queries, max, sum, out),
                    _ => block.attend::<I, HEADS>(queries, max, sum, out),
                };
            }
        }
    }
}

/// A block of positions as a token sees it.
struct Block<'a, E> {
    keys: &'a TransposedKeys,
    /// The rows of the positions up to the token's own.
    starts: &'a [usize],
    /// How many of them are before its window.
    unseen: usize,
    scale: f32,
    softcap: Option<f32>,
    v: KvRows<'a, E>,
}

impl<E: KvElement> Block<'_, E> {
    /// Brings the first `N` heads of a token past the block; returns `N`.
    #[inline(always)]
    fn attend<I: Inner, const N: usize>(
        &self,
        queries: &[f32],
        max: &mut [f32],
        sum: &mut [f32],
        out: &mut [f32],
    ) -> usize {
        let width = self.v.head_dim();
        let (queries, out) = (&queries[..N * width], &mut out[..N * width]);
        let mut weights = [[f32::NEG_INFINITY; POSITIONS]; N];
        for first in (0..self.starts.len()).step_by(LANES) {
            let scores = I::scores::<N>(queries, &self.keys[first / LANES * width..][..width]);
            let positions = LANES.min(self.starts.len() - first);
            for n in 0..N {
                let mut scores = scores[n].map(|score| self.scale * score);
                if let Some(cap) = self.softcap {
                    scores = scores.map(|score| cap * tanh(score / cap));
                }
                for i in 0..LANES {
                    weights[n][first + i] = if i < positions { scores[i] } else { f32::NEG_INFINITY };
                }
            }
        }
        weights.iter_mut().for_each(|weights| weights[..self.unseen].fill(f32::NEG_INFINITY));
        let mut correction = [0f32; N];
        for n in 0..N {
            let mut lanes = [f32::NEG_INFINITY; LANES];
            for chunk in weights[n].as_chunks::<LANES>().0 {
                for (lane, score) in lanes.iter_mut().zip(chunk) {
                    *lane = lane.max(*score);
                }
            }
            let block_max = lanes.iter().fold(max[n], |a, &b| a.max(b));
            correction[n] = exp(max[n] - block_max);
            let mut lanes = [0f32; LANES];
            for chunk in weights[n].as_chunks_mut::<LANES>().0 {
                for (lane, weight) in lanes.iter_mut().zip(chunk) {
                    *weight = exp(*weight - block_max);
                    *lane += *weight;
                }
            }
            sum[n] = sum[n] * correction[n] + fold(lanes);
            max[n] = block_max;
        }
        I::add_values(out, &correction, &weights, self.starts, self.v);
        N
    }
}

/// Plain Rust, for the compiler to vectorise.
pub(super) struct Plain<M>(PhantomData<M>);

impl<M: MulAdd> Inner for Plain<M> {
    #[inline(always)]
    fn transpose<E: KvElement>(layer: &[E], starts: &[usize], keys: &mut TransposedKeys) {
        for (i, &start) in starts.iter().enumerate() {
            for (keys, k) in keys.iter_mut().zip(&layer[start..]) {
                keys[i] = k.widen();
            }
        }
    }

    #[inline(always)]
    fn scores<const N: usize>(queries: &[f32], keys: &TransposedKeys) -> [[f32; LANES]; N] {
        let width = keys.len();
        let mut sums = [[[0f32; LANES]; 2]; N];
        for (d, keys) in keys.iter().enumerate() {
            for n in 0..N {
                let q = queries[n * width + d];
                for i in 0..LANES {
                    sums[n][d % 2][i] = M::mul_add(q, keys[i], sums[n][d % 2][i]);
                }
            }
        }
        sums.map(|[even, odd]| std::array::from_fn(|i| even[i] + odd[i]))
    }

    #[inline(always)]
    fn add_values<E: KvElement, const N: usize>(
        out: &mut [f32],
        correction: &[f32; N],
        weights: &[[f32; POSITIONS]; N],
        starts: &[usize],
        v: KvRows<'_, E>,
    ) {
        let whole = v.head_dim() / LANES * LANES;
        for c in (0..whole).step_by(LANES) {
            let mut sums = [[0f32; LANES]; N];
            for n in 0..N {
                let out = &out[n * v.head_dim() + c..][..LANES];
                for i in 0..LANES {
                    sums[n][i] = out[i] * correction[n];
                }
            }
            for (p, &start) in starts.iter().enumerate() {
                let v = &v.layer[start + c..][..LANES];
                for n in 0..N {
                    for i in 0..LANES {
                        sums[n][i] = M::mul_add(weights[n][p], v[i].widen(), sums[n][i]);
                    }
                }
            }
            for n in 0..N {
                out[n * v.head_dim() + c..][..LANES].copy_from_slice(&sums[n]);
            }
        }
        add_tail_values(out, correction, weights, starts, v);
    }
}

/// [`Inner::add_values`] of the columns beyond the last whole 16.
#[inline(always)]
pub(super) fn add_tail_values<E: KvElement, const N: usize>(
    out: &mut [f32],
    correction: &[f32; N],
    weights: &[[f32; POSITIONS]; N],
    starts: &[usize],
    v: KvRows<'_, E>,
) {
    let whole = v.head_dim() / LANES * LANES;
    for n in 0..N {
        for c in whole..v.head_dim() {
            let out = &mut out[n * v.head_dim() + c];
            *out *= correction[n];
            for (p, &start) in starts.iter().enumerate() {
                *out += weights[n][p] * v.layer[start + c].widen();
            }
        }
    }
}

/// One token's rows in the three-step reference.
pub(crate) struct Reference<'a> {
    /// `[group, head_dim]` queries for the scores; `[group, stride]` weights for the values.
    pub rows: &'a [f32],
    /// The first position that the token sees.
    pub first: usize,
    pub context: usize,
    /// Columns between the scores of one head and the next.
    pub stride: usize,
    pub scale: f32,
    /// As of [`Queries`].
    pub softcap: Option<f32>,
}

/// Step 1; `out: [group, stride]`, of which the first `context` columns are written.
#[inline(always)]
pub(super) fn scores<E: KvElement>(rows: &Reference<'_>, k: KvRows<'_, E>, out: &mut [f32]) {
    for (q, out) in rows.rows.chunks_exact(k.head_dim()).zip(out.chunks_exact_mut(rows.stride)) {
        out[..rows.first].fill(f32::NEG_INFINITY);
        for (position, score) in out[..rows.context].iter_mut().enumerate().skip(rows.first) {
            *score = rows.scale * dot(q, k.row(position));
            if let Some(cap) = rows.softcap {
                *score = cap * tanh(*score / cap);
            }
        }
    }
}

/// `q . k` in 16 lanes.
#[inline(always)]
fn dot<E: KvElement>(q: &[f32], k: &[E]) -> f32 {
    let mut lanes = [0f32; LANES];
    for (q, k) in q.chunks(LANES).zip(k.chunks(LANES)) {
        for (lane, (q, k)) in lanes.iter_mut().zip(q.iter().zip(k)) {
            *lane += q * k.widen();
        }
    }
    fold(lanes)
}

/// Step 3; `out: [group, head_dim]`.
#[inline(always)]
pub(super) fn values<E: KvElement>(rows: &Reference<'_>, v: KvRows<'_, E>, out: &mut [f32]) {
    for (weights, out) in rows.rows.chunks_exact(rows.stride).zip(out.chunks_exact_mut(v.head_dim())) {
        out.fill(0.0);
        for (position, &weight) in weights[..rows.context].iter().enumerate().skip(rows.first) {
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
