//! Rotation, the cache and attention, together: what is stored can only be seen through what attends to it.

use std::fmt;

use gguf::half::{f16_to_f32, f32_to_f16};
use gguf::random::Rng;
use model::{Backend, Batch, BatchLimits, KvDtype, KvShape, Logits, QkvShape, Result, RopeShape, RopeStyle};

use super::{Tally, random, read};
use crate::activations::GpuBuffer;
use crate::backend::GpuBackend;
use crate::kv_cache::GpuKvCache;

/// Heads, a cache and a rotation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    shape: QkvShape,
    dtype: KvDtype,
    rope: RopeShape,
    page_size: usize,
}

impl Case {
    /// Whether the device multiplies this case's queries, keys and values on its matrix units.
    pub fn is_on_matrix_units(self, backend: &GpuBackend) -> bool {
        backend.attention(self.shape, self.dtype).is_on_matrix_units()
    }

    const fn new(
        [num_heads, num_kv_heads, head_dim]: [usize; 3],
        dtype: KvDtype,
        (dim, style): (usize, RopeStyle),
        page_size: usize,
    ) -> Self {
        let shape = QkvShape { num_heads, num_kv_heads, head_dim };
        Self { shape, dtype, rope: RopeShape { dim, style }, page_size }
    }

    /// The heads of a model.
    pub fn of_model(shape: QkvShape, dtype: KvDtype) -> Self {
        let rope = RopeShape { dim: shape.head_dim / 2 * 2, style: RopeStyle::Interleaved };
        Self { shape, dtype, rope, page_size: 32 }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let QkvShape { num_heads, num_kv_heads, head_dim } = self.shape;
        let (dim, page_size) = (self.rope.dim, self.page_size);
        let dtype = match self.dtype {
            KvDtype::F16 => "f16",
            KvDtype::F32 => "f32",
        };
        let style = match self.rope.style {
            RopeStyle::Interleaved => "neighbours",
            RopeStyle::Halves => "halves",
        };
        write!(
            f,
            "{num_heads}/{num_kv_heads} heads of {head_dim}, {dim} {style} rotated, {dtype} in pages of {page_size}"
        )
    }
}

/// Groups of one, of some, of 16 and of more heads; narrow, wide and odd ones; both rotations, caches, and page sizes that
/// divide nothing.
pub(super) const CASES: [Case; 7] = [
    Case::new([4, 2, 64], KvDtype::F16, (64, RopeStyle::Interleaved), 32),
    Case::new([4, 2, 64], KvDtype::F32, (64, RopeStyle::Halves), 16),
    Case::new([6, 1, 40], KvDtype::F16, (32, RopeStyle::Halves), 7),
    Case::new([3, 3, 128], KvDtype::F16, (128, RopeStyle::Interleaved), 1),
    Case::new([20, 1, 20], KvDtype::F32, (20, RopeStyle::Interleaved), 33),
    Case::new([2, 1, 256], KvDtype::F16, (64, RopeStyle::Interleaved), 64),
    Case::new([16, 1, 18], KvDtype::F16, (18, RopeStyle::Halves), 32),
];

/// Positions that are cached of the longest sequence: more than any kernel takes in one piece.
const CONTEXT: usize = 600;
const MAX_TOKENS: usize = 700;
const NUM_SEQS: usize = 4;

/// First and last position (exclusive) of each sequence in the two steps.
type Step = [Option<(usize, usize)>; NUM_SEQS];
const STEPS: [Step; 2] = [
    [Some((0, 599)), Some((0, 3)), Some((0, 65)), None],
    [Some((599, 600)), Some((3, 23)), Some((65, 66)), Some((0, 1))],
];
/// As much of it as a self-test has the time for.
const SHORT_STEPS: [Step; 2] =
    [[Some((0, 33)), Some((0, 3)), None, None], [Some((33, 34)), Some((3, 10)), None, Some((0, 1))]];

/// A device with pages, and what the host knows of them.
struct Bench<'a> {
    backend: &'a GpuBackend,
    case: Case,
    limits: BatchLimits,
    table: Vec<f32>, // [CONTEXT, rope.dim / 2] of (cos, sin)
    table_on: GpuBuffer,
    cache: GpuKvCache,
    pages: Vec<Vec<u32>>,
    /// `[seq][position][qkv columns]` before rotation.
    qkv: Vec<Vec<Vec<f32>>>,
}

impl<'a> Bench<'a> {
    fn new(backend: &'a GpuBackend, case: Case) -> Result<Self> {
        let max_blocks = CONTEXT.div_ceil(case.page_size);
        let limits =
            BatchLimits { max_tokens: MAX_TOKENS, max_seqs: NUM_SEQS, max_logit_rows: 1, max_blocks };
        let angles = (0..CONTEXT * case.rope.dim / 2).map(|i| i as f64 * 0.37);
        let table: Vec<f32> = angles.flat_map(|angle| [angle.cos() as f32, angle.sin() as f32]).collect();
        let QkvShape { num_kv_heads, head_dim, .. } = case.shape;
        let mut all: Vec<u32> = (0..(NUM_SEQS * max_blocks) as u32).collect();
        Rng::new(1).shuffle(&mut all);
        let cache = backend.alloc_kv_cache(KvShape {
            num_layers: 1,
            num_pages: all.len(),
            page_size: case.page_size,
            num_kv_heads,
            head_dim,
            dtype: case.dtype,
        })?;
        let cols = case.shape.cols();
        let rows = |seq| random(10 + seq, CONTEXT * cols).chunks_exact(cols).map(<[f32]>::to_vec).collect();
        Ok(Self {
            backend,
            case,
            limits,
            table_on: backend.upload(CONTEXT, case.rope.dim, &table)?,
            table,
            cache,
            pages: all.chunks_exact(max_blocks).map(<[u32]>::to_vec).collect(),
            qkv: (0..NUM_SEQS).map(rows).collect(),
        })
    }

    /// Rotates and stores what a step brings, and attends; by three steps too, where scores have room.
    fn run(&mut self, step: Step) -> Result<(Vec<f32>, Option<Vec<f32>>)> {
        let (backend, shape) = (self.backend, self.case.shape);
        let mut batch = Batch::new(self.limits, self.case.page_size);
        let mut rows = Vec::new();
        for (seq, range) in step.into_iter().enumerate() {
            let Some((start, end)) = range else { continue };
            batch.push(&vec![0; end - start], start, &self.pages[seq], Logits::Skip);
            rows.extend(self.qkv[seq][start..end].iter().flatten());
        }
        let tokens = batch.num_tokens();
        let mut plan = backend.alloc_plan(self.limits, shape)?;
        backend.plan(&batch, &mut plan)?;
        let mut qkv = backend.upload(tokens, shape.cols(), &rows)?;
        backend.rope_store_kv(&plan, shape, self.case.rope, &self.table_on, &mut qkv, &mut self.cache, 0);
        let len = tokens * shape.q_cols();
        let mut out = backend.alloc(tokens, shape.q_cols())?;
        backend.paged_attention(&plan, shape, &qkv, &self.cache, 0, &mut out);
        let fused = read(backend, &out, len)?;
        if tokens > 64 {
            return Ok((fused, None));
        }
        let mut scores = backend.alloc(tokens, shape.num_heads * CONTEXT)?;
        let mut out = backend.alloc(tokens, shape.q_cols())?;
        backend.attention_scores(&plan, shape, &qkv, &self.cache, 0, &mut scores);
        backend.attention_softmax(&plan, shape, &mut scores);
        backend.attention_values(&plan, shape, &scores, &self.cache, 0, &mut out);
        Ok((fused, Some(read(backend, &out, len)?)))
    }

    /// A head's columns at a position, rotated if it is one of q or k.
    fn head(&self, seq: usize, position: usize, head: usize) -> Vec<f64> {
        let QkvShape { num_heads, num_kv_heads, head_dim } = self.case.shape;
        let row = &self.qkv[seq][position][head * head_dim..][..head_dim];
        let mut values: Vec<f64> = row.iter().map(|&value| f64::from(value)).collect();
        if head >= num_heads + num_kv_heads {
            return values;
        }
        let RopeShape { dim, style } = self.case.rope;
        for pair in 0..dim / 2 {
            let (i, j) = match style {
                RopeStyle::Interleaved => (2 * pair, 2 * pair + 1),
                RopeStyle::Halves => (pair, pair + dim / 2),
            };
            let turn = &self.table[position * dim + 2 * pair..][..2];
            let (cos, sin) = (f64::from(turn[0]), f64::from(turn[1]));
            (values[i], values[j]) = (values[i] * cos - values[j] * sin, values[i] * sin + values[j] * cos);
        }
        values
    }

    /// As `head`, as it comes out of the cache. Rotated in f32, since a rounding to f16 hinges on the last digit.
    fn cached(&self, seq: usize, position: usize, head: usize) -> Vec<f64> {
        let values = self.head(seq, position, head).into_iter();
        match self.case.dtype {
            KvDtype::F32 => values.collect(),
            KvDtype::F16 => values.map(|value| f64::from(f16_to_f32(f32_to_f16(value as f32)))).collect(),
        }
    }

    /// What a step's rows should come to.
    fn want(&self, step: Step) -> Vec<f64> {
        let QkvShape { num_heads, num_kv_heads, head_dim } = self.case.shape;
        let mut out = Vec::new();
        for (seq, range) in step.into_iter().enumerate() {
            let Some((start, end)) = range else { continue };
            let all = |head: usize| (0..end).map(|position| self.cached(seq, position, head)).collect();
            let keys: Vec<Vec<Vec<f64>>> = (0..num_kv_heads).map(|kv| all(num_heads + kv)).collect();
            let values: Vec<Vec<Vec<f64>>> =
                (0..num_kv_heads).map(|kv| all(num_heads + num_kv_heads + kv)).collect();
            for position in start..end {
                for head in 0..num_heads {
                    let kv = head / (num_heads / num_kv_heads);
                    let q = self.head(seq, position, head);
                    let upto = position + 1;
                    out.extend(attended(&q, &keys[kv][..upto], &values[kv][..upto], head_dim));
                }
            }
        }
        out
    }
}

fn attended(q: &[f64], keys: &[Vec<f64>], values: &[Vec<f64>], head_dim: usize) -> Vec<f64> {
    let dot = |key: &Vec<f64>| q.iter().zip(key).map(|(q, k)| q * k).sum::<f64>() / (head_dim as f64).sqrt();
    let scores: Vec<f64> = keys.iter().map(dot).collect();
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let mut out = vec![0.0; head_dim];
    for (weight, value) in weights.iter().zip(values) {
        out.iter_mut().zip(value).for_each(|(out, value)| *out += weight / sum * value);
    }
    out
}

/// Fused and three-step attention against float64, in a step of prompts and one of decodes and chunks.
pub(super) fn right(backend: &GpuBackend, tally: &mut Tally, case: Case) -> Result<()> {
    right_in(backend, tally, case, STEPS)
}

/// As [`right`], over a few positions.
pub(super) fn right_in_short(backend: &GpuBackend, tally: &mut Tally, case: Case) -> Result<()> {
    right_in(backend, tally, case, SHORT_STEPS)
}

fn right_in(backend: &GpuBackend, tally: &mut Tally, case: Case, steps: [Step; 2]) -> Result<()> {
    let mut bench = Bench::new(backend, case)?;
    for (number, step) in steps.into_iter().enumerate() {
        let (fused, reference) = bench.run(step)?;
        let want = bench.want(step);
        tally.near(|| format!("step {number}, fused"), &fused, &want);
        if let Some(reference) = reference {
            tally.near(|| format!("step {number}, by three steps"), &reference, &want);
        }
    }
    Ok(())
}

/// The sequences of both steps together, and each alone in other chunks.
pub(super) fn lawful(backend: &GpuBackend, tally: &mut Tally, case: Case) -> Result<()> {
    let mut bench = Bench::new(backend, case)?;
    let q_cols = case.shape.q_cols();
    let mut together: Vec<Vec<f32>> = vec![Vec::new(); NUM_SEQS];
    for step in STEPS {
        let (fused, _) = bench.run(step)?;
        let mut rest = fused.as_slice();
        for (seq, range) in step.into_iter().enumerate() {
            let Some((start, end)) = range else { continue };
            let (own, others) = rest.split_at((end - start) * q_cols);
            together[seq].extend_from_slice(own);
            rest = others;
        }
    }
    for chunk in [600, 117] {
        for seq in 0..NUM_SEQS {
            let len = together[seq].len() / q_cols;
            let mut alone = Vec::new();
            for start in (0..len).step_by(chunk) {
                let mut step = [None; NUM_SEQS];
                step[seq] = Some((start, len.min(start + chunk)));
                alone.extend(bench.run(step)?.0);
            }
            tally.same(|| format!("{len} positions in chunks of {chunk}"), &together[seq], &alone);
        }
    }
    Ok(())
}
