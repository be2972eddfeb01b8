//! Rotation, the cache and attention, together: what is stored can only be seen through what attends to it.

use std::fmt;

use gguf::half::{f16_to_f32, f32_to_f16};
use gguf::random::Rng;
use model::{
    AttentionOp, Backend, Batch, BatchLimits, BufferRole, KvDtype, KvHeads, KvShape, QkvShape, Result,
    RopeOp, RopeStyle, Want,
};

use crate::{Subject, Tally, random, read};

/// Heads, a cache and a rotation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Case {
    /// Heads.
    pub shape: QkvShape,
    /// Scores are multiplied by it.
    pub scale: f32,
    /// Scores become `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// Positions that a row sees.
    pub window: Option<usize>,
    /// Whether heads have sinks.
    pub sinks: bool,
    /// Of the cache.
    pub dtype: KvDtype,
    /// Rotated dimensions and how they pair up; none are rotated when absent.
    pub rope: Option<(usize, RopeStyle)>,
    /// Tokens of a page.
    pub page_size: usize,
}

impl Case {
    pub(crate) fn new(
        [num_heads, num_kv_heads, head_dim]: [usize; 3],
        dtype: KvDtype,
        rope: Option<(usize, RopeStyle)>,
        page_size: usize,
    ) -> Self {
        let shape = QkvShape { num_heads, num_kv_heads, head_dim };
        let scale = 1.0 / (head_dim as f32).sqrt();
        Self { shape, scale, softcap: None, window: None, sinks: false, dtype, rope, page_size }
    }

    /// The attention of a model's layer.
    pub fn of_model(op: AttentionOp, dtype: KvDtype) -> Self {
        let AttentionOp { shape, scale, softcap, window, sinks, .. } = op;
        let rope = Some((shape.head_dim / 2 * 2, RopeStyle::Interleaved));
        Self { shape, scale, softcap, window, sinks, dtype, rope, page_size: 32 }
    }

    /// The operation, on the second layer of a cache.
    pub fn op(&self) -> AttentionOp {
        let Self { shape, scale, softcap, window, sinks, .. } = *self;
        AttentionOp { shape, kv_layer: 1, scale, softcap, window, sinks }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let QkvShape { num_heads, num_kv_heads, head_dim } = self.shape;
        let page_size = self.page_size;
        let dtype = match self.dtype {
            KvDtype::F16 => "f16",
            KvDtype::F32 => "f32",
        };
        write!(f, "{num_heads}/{num_kv_heads} heads of {head_dim}, ")?;
        match self.rope {
            Some((dim, RopeStyle::Interleaved)) => write!(f, "{dim} neighbours rotated")?,
            Some((dim, RopeStyle::Halves)) => write!(f, "{dim} halves rotated")?,
            None => write!(f, "not rotated")?,
        }
        if let Some(cap) = self.softcap {
            write!(f, ", capped at {cap}")?;
        }
        if let Some(window) = self.window {
            write!(f, ", a window of {window}")?;
        }
        if self.sinks {
            write!(f, ", with sinks")?;
        }
        write!(f, ", {dtype} in pages of {page_size}")
    }
}

/// Groups of one, of some, of 16 and of more heads; narrow, wide and odd ones; both rotations and none, both caches, another
/// scale, page sizes that divide nothing, a soft cap, windows shorter and longer than what kernels take at a time, and sinks.
pub fn cases() -> Vec<Case> {
    let (neighbours, halves) = (RopeStyle::Interleaved, RopeStyle::Halves);
    vec![
        Case::new([4, 2, 64], KvDtype::F16, Some((64, neighbours)), 32),
        Case::new([4, 2, 64], KvDtype::F32, Some((64, halves)), 16),
        Case::new([6, 1, 40], KvDtype::F16, Some((32, halves)), 7),
        Case::new([3, 3, 128], KvDtype::F16, Some((128, neighbours)), 1),
        Case { sinks: true, ..Case::new([20, 1, 20], KvDtype::F32, Some((20, neighbours)), 33) },
        Case::new([2, 1, 256], KvDtype::F16, Some((64, neighbours)), 64),
        Case::new([16, 1, 18], KvDtype::F16, Some((18, halves)), 32),
        Case::new([4, 1, 128], KvDtype::F32, Some((128, halves)), 64),
        Case::new([2, 2, 16], KvDtype::F16, Some((6, neighbours)), 33),
        Case { scale: 0.3, ..Case::new([4, 2, 64], KvDtype::F16, None, 32) },
        Case { window: Some(50), sinks: true, ..Case::new([4, 2, 64], KvDtype::F16, Some((64, halves)), 32) },
        Case { softcap: Some(1.5), window: Some(300), ..Case::new([6, 2, 32], KvDtype::F32, None, 7) },
        Case { softcap: Some(1.5), window: Some(300), ..Case::new([5, 1, 80], KvDtype::F16, None, 32) },
        Case { sinks: true, ..Case::new([20, 1, 64], KvDtype::F16, Some((64, halves)), 16) },
    ]
}

/// Positions that are cached of the longest sequence: more than any kernel takes in one piece.
const CONTEXT: usize = 600;
const NUM_SEQS: usize = 4;

/// Most tokens of a step in which the three-step reference runs as well.
const MAX_REFERENCE_TOKENS: usize = 64;

/// First and last position (exclusive) of each sequence in the two steps.
pub(crate) type Step = [Option<(usize, usize)>; NUM_SEQS];
const STEPS: [Step; 2] = [
    [Some((0, 599)), Some((0, 3)), Some((0, 65)), None],
    [Some((599, 600)), Some((3, 23)), Some((65, 66)), Some((0, 1))],
];
/// As much of it as a self-test has the time for.
const SHORT_STEPS: [Step; 2] =
    [[Some((0, 33)), Some((0, 3)), None, None], [Some((33, 34)), Some((3, 10)), None, Some((0, 1))]];

/// A device with pages, and what the host knows of them.
pub(crate) struct Bench<'a, B: Backend> {
    backend: &'a B,
    case: Case,
    context: usize,
    limits: BatchLimits,
    table: Vec<f32>, // [context, rope dimensions / 2] of (cos, sin)
    table_on: B::Buffer,
    /// `[num_heads]`, from far below all scores to far above them.
    sinks: Option<Vec<f32>>,
    sinks_on: Option<B::Buffer>,
    cache: B::KvCache,
    pages: Vec<Vec<u32>>,
    /// `[seq][position][qkv columns]` before rotation.
    pub qkv: Vec<Vec<Vec<f32>>>,
}

/// The outputs of a step, `[T, q_cols]`.
pub(crate) struct Attended {
    pub fused: Vec<f32>,
    /// By three steps, of a step with few tokens.
    pub reference: Option<Vec<f32>>,
}

impl<'a, B: Backend> Bench<'a, B> {
    /// Sequences of up to `context` positions.
    pub fn new(backend: &'a B, case: Case, context: usize) -> Result<Self> {
        let max_blocks = context.div_ceil(case.page_size);
        let limits = BatchLimits {
            max_tokens: context + 100,
            max_seqs: NUM_SEQS,
            max_logit_rows: 1,
            max_blocks,
            num_pages: NUM_SEQS * max_blocks,
        };
        let dim = case.rope.map_or(2, |(dim, _)| dim);
        let angles = (0..context * dim / 2).map(|i| i as f64 * 0.37);
        let table: Vec<f32> = angles.flat_map(|angle| [angle.cos() as f32, angle.sin() as f32]).collect();
        let QkvShape { num_heads, num_kv_heads, head_dim } = case.shape;
        let mut all: Vec<u32> = (0..(NUM_SEQS * max_blocks) as u32).collect();
        Rng::new(1).shuffle(&mut all);
        // The first layer is another's.
        let cache = backend.alloc_kv_cache(&KvShape {
            num_pages: all.len(),
            page_size: case.page_size,
            dtype: case.dtype,
            layers: vec![
                KvHeads { num_kv_heads: num_kv_heads + 1, head_dim: 2 * head_dim.min(32) },
                KvHeads { num_kv_heads, head_dim },
            ],
        })?;
        let cols = case.shape.cols();
        let size = |head: usize| [1.0, 4.0, 0.0, 12.0, -100.0][head % 5];
        let sinks = random(3, num_heads).into_iter().enumerate().map(|(head, x)| size(head) + x);
        let sinks: Option<Vec<f32>> = case.sinks.then(|| sinks.collect());
        let rows = |seq| random(10 + seq, context * cols).chunks_exact(cols).map(<[f32]>::to_vec).collect();
        Ok(Self {
            backend,
            case,
            context,
            limits,
            table_on: backend.upload(context, dim, &table)?,
            table,
            sinks_on: sinks.as_ref().map(|sinks| backend.upload(1, num_heads, sinks)).transpose()?,
            sinks,
            cache,
            pages: all.chunks_exact(max_blocks).map(<[u32]>::to_vec).collect(),
            qkv: (0..NUM_SEQS).map(rows).collect(),
        })
    }

    /// Rotates and stores what a step brings, and attends; by three steps too, where scores have room.
    pub fn run(&mut self, step: Step) -> Result<Attended> {
        let (backend, shape) = (self.backend, self.case.shape);
        let mut batch = Batch::new(self.limits, self.case.page_size);
        let mut rows = Vec::new();
        for (seq, range) in step.into_iter().enumerate() {
            let Some((start, end)) = range else { continue };
            batch.push(&vec![0; end - start], start, &self.pages[seq], Want::None);
            rows.extend(self.qkv[seq][start..end].iter().flatten());
        }
        let tokens = batch.num_tokens();
        let mut plan = backend.alloc_plan(self.limits, &[shape])?;
        backend.plan(&batch, &mut plan)?;
        let mut qkv = backend.upload(tokens, shape.cols(), &rows)?;
        let op = self.case.op();
        let rope = self.case.rope.map(|(dim, style)| RopeOp { dim, style, table: &self.table_on });
        backend.rope_store_kv(&plan, op, rope, &mut qkv, &mut self.cache);
        let len = tokens * shape.q_cols();
        let mut out = backend.alloc(tokens, shape.q_cols(), BufferRole::MatmulInput)?;
        let sinks = self.sinks_on.as_ref();
        backend.paged_attention(&plan, op, (&qkv, sinks), &self.cache, &mut out);
        let fused = read(backend, &out, len)?;
        if tokens > MAX_REFERENCE_TOKENS {
            return Ok(Attended { fused, reference: None });
        }
        // What lies beyond a row's own positions is not looked at.
        let cols = shape.num_heads * (self.context + 5);
        let mut scores = backend.upload(tokens, cols, &vec![f32::NAN; tokens * cols])?;
        let mut out = backend.alloc(tokens, shape.q_cols(), BufferRole::MatmulInput)?;
        backend.attention_scores(&plan, op, &qkv, &self.cache, &mut scores);
        backend.attention_softmax(&plan, op, sinks, &mut scores);
        backend.attention_values(&plan, op, &scores, &self.cache, &mut out);
        Ok(Attended { fused, reference: Some(read(backend, &out, len)?) })
    }

    /// Positions of one sequence alone, `chunk` of them a step; the outputs of all.
    pub fn alone(&mut self, seq: usize, (first, end): (usize, usize), chunk: usize) -> Result<Attended> {
        let mut all = Attended { fused: Vec::new(), reference: Some(Vec::new()) };
        for start in (first..end).step_by(chunk) {
            let mut step = [None; NUM_SEQS];
            step[seq] = Some((start, end.min(start + chunk)));
            let Attended { fused, reference } = self.run(step)?;
            all.fused.extend(fused);
            all.reference = all.reference.zip(reference).map(|(all, own)| [all, own].concat());
        }
        Ok(all)
    }

    /// A head's columns at a position, rotated by `rotate` if it is one of q or k.
    fn head(
        &self,
        (seq, position, head): (usize, usize, usize),
        rotate: impl Fn([f32; 2], [f32; 2]) -> [f64; 2],
    ) -> Vec<f64> {
        let QkvShape { num_heads, num_kv_heads, head_dim } = self.case.shape;
        let row = &self.qkv[seq][position][head * head_dim..][..head_dim];
        let mut values: Vec<f64> = row.iter().map(|&value| f64::from(value)).collect();
        if head >= num_heads + num_kv_heads {
            return values;
        }
        let Some((dim, style)) = self.case.rope else { return values };
        for pair in 0..dim / 2 {
            let (i, j) = match style {
                RopeStyle::Interleaved => (2 * pair, 2 * pair + 1),
                RopeStyle::Halves => (pair, pair + dim / 2),
            };
            let angle = &self.table[position * dim + 2 * pair..][..2];
            [values[i], values[j]] = rotate([row[i], row[j]], [angle[0], angle[1]]);
        }
        values
    }

    /// A query.
    fn query(&self, seq: usize, position: usize, head: usize) -> Vec<f64> {
        self.head((seq, position, head), |pair, angle| {
            let ([a, b], [cos, sin]) = (pair.map(f64::from), angle.map(f64::from));
            [a * cos - b * sin, a * sin + b * cos]
        })
    }

    /// A key or a value as it comes out of the cache. Rotated in f32, since a rounding to f16 hinges on the last digit.
    fn cached(&self, seq: usize, position: usize, head: usize) -> Vec<f64> {
        let rotated = self.head((seq, position, head), |[a, b], [cos, sin]| {
            [a * cos - b * sin, a * sin + b * cos].map(f64::from)
        });
        match self.case.dtype {
            KvDtype::F32 => rotated,
            KvDtype::F16 => {
                rotated.into_iter().map(|value| f64::from(f16_to_f32(f32_to_f16(value as f32)))).collect()
            }
        }
    }

    /// What a step's rows should come to.
    pub fn want(&self, step: Step) -> Vec<f64> {
        let QkvShape { num_heads, num_kv_heads, .. } = self.case.shape;
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
                    let q = self.query(seq, position, head);
                    let first = self.case.window.map_or(0, |window| (position + 1).saturating_sub(window));
                    let seen = first..position + 1;
                    let sink = self.sinks.as_ref().map(|sinks| f64::from(sinks[head]));
                    out.extend(attended(&q, &keys[kv][seen.clone()], &values[kv][seen], sink, self.case));
                }
            }
        }
        out
    }
}

fn attended(q: &[f64], keys: &[Vec<f64>], values: &[Vec<f64>], sink: Option<f64>, case: Case) -> Vec<f64> {
    let score = |key: &Vec<f64>| {
        let score = q.iter().zip(key).map(|(q, k)| q * k).sum::<f64>() * f64::from(case.scale);
        case.softcap.map(f64::from).map_or(score, |cap| cap * (score / cap).tanh())
    };
    let scores: Vec<f64> = keys.iter().map(score).collect();
    let most = scores.iter().copied().chain(sink).fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
    let sum = weights.iter().sum::<f64>() + sink.map_or(0.0, |sink| (sink - most).exp());
    let mut out = vec![0.0; q.len()];
    for (weight, value) in weights.iter().zip(values) {
        out.iter_mut().zip(value).for_each(|(out, value)| *out += weight / sum * value);
    }
    out
}

/// Fused and three-step attention against float64, in a step of prompts and one of decodes and chunks.
pub(crate) fn right<S: Subject>(backend: &S, tally: &mut Tally, case: Case) -> Result<()> {
    right_in(backend, tally, case, STEPS)
}

/// As [`right`], over a few positions.
pub(crate) fn right_in_short<S: Subject>(backend: &S, tally: &mut Tally, case: Case) -> Result<()> {
    right_in(backend, tally, case, SHORT_STEPS)
}

fn right_in<S: Subject>(backend: &S, tally: &mut Tally, case: Case, steps: [Step; 2]) -> Result<()> {
    let mut bench = Bench::new(backend, case, CONTEXT)?;
    for (number, step) in steps.into_iter().enumerate() {
        let Attended { fused, reference } = bench.run(step)?;
        let want = bench.want(step);
        near(tally, || format!("step {number}, fused"), &fused, &want);
        if let Some(reference) = reference {
            near(tally, || format!("step {number}, by three steps"), &reference, &want);
        }
    }
    Ok(())
}

/// Compares outputs together, and each.
pub(crate) fn near(tally: &mut Tally, case: impl Fn() -> String, got: &[f32], want: &[f64]) {
    tally.near(&case, got, want);
    tally.each(case, got, want, |_| TWICE_DEVIATION);
}

/// Twice the deviation of the values that are averaged.
pub(crate) const TWICE_DEVIATION: f64 = 2.0;

/// The sequences of both steps together, and each alone in other chunks.
pub(crate) fn invariant<S: Subject>(backend: &S, tally: &mut Tally, case: Case) -> Result<()> {
    let mut bench = Bench::new(backend, case, CONTEXT)?;
    let q_cols = case.shape.q_cols();
    let mut together: Vec<Vec<f32>> = vec![Vec::new(); NUM_SEQS];
    let mut by_three_steps: Vec<f32> = Vec::new();
    for step in STEPS {
        let Attended { fused, reference } = bench.run(step)?;
        append(&mut together, step, &fused);
        by_three_steps.extend(reference.into_iter().flatten());
    }
    for chunk in [600, 117] {
        for (seq, together) in together.iter().enumerate() {
            let len = together.len() / q_cols;
            let alone = bench.alone(seq, (0, len), chunk)?;
            tally.same(|| format!("{len} positions in chunks of {chunk}"), together, &alone.fused);
        }
    }
    let mut together: Vec<Vec<f32>> = vec![Vec::new(); NUM_SEQS];
    append(&mut together, STEPS[1], &by_three_steps);
    for (seq, range) in STEPS[1].into_iter().enumerate() {
        let Some(range) = range else { continue };
        for chunk in [MAX_REFERENCE_TOKENS, 7] {
            let alone = bench.alone(seq, range, chunk)?;
            let case = || format!("positions {range:?} by three steps in chunks of {chunk}");
            tally.same(case, &together[seq], &alone.reference.unwrap_or_default());
        }
    }
    Ok(())
}

/// Appends a step's outputs to those of its sequences.
fn append(of_sequences: &mut [Vec<f32>], step: Step, outputs: &[f32]) {
    let rows: usize = step.iter().flatten().map(|(start, end)| end - start).sum();
    let q_cols = outputs.len() / rows;
    let mut rest = outputs;
    for (of_sequence, range) in of_sequences.iter_mut().zip(step) {
        let Some((start, end)) = range else { continue };
        let (own, others) = rest.split_at((end - start) * q_cols);
        of_sequence.extend_from_slice(own);
        rest = others;
    }
}
