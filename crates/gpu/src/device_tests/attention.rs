//! The attention kernels on a device, against float64 and against themselves.

use gguf::half::{f16_to_f32, f32_to_f16};
use model::{AttentionOp, Backend, Batch, BatchLimits, BufferRole, KvDtype, QkvShape, Want};

use super::{TestDevice, read};
use crate::kv_cache::LayerPages;
use crate::tiling::{Grid, SPLIT_LEN};

/// Largest error of an output, whose values are averages of values up to 1: sums of f32 over up to 1000 positions, and
/// weights by an `exp` that Vulkan allows `3 + 2 |x|` units of the last place.
const TOLERANCE: f64 = 2e-5;

/// Rows of one sequence in a step.
#[derive(Clone, Copy)]
struct Rows {
    /// Tells sequences apart.
    seed: u32,
    start: usize,
    tokens: usize,
}

impl Rows {
    const fn new(seed: u32, start: usize, tokens: usize) -> Self {
        Self { seed, start, tokens }
    }
}

/// A model's heads and its cache.
#[derive(Clone, Copy)]
struct Case {
    shape: QkvShape,
    dtype: KvDtype,
    page_size: usize,
}

impl Case {
    fn op(self) -> AttentionOp {
        AttentionOp::plain(self.shape, 0, 1.0 / (self.shape.head_dim as f32).sqrt())
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Fused(Grid),
    Reference,
}

const KINDS: [Kind; 3] = [Kind::Fused(Grid::Whole), Kind::Fused(Grid::Split), Kind::Reference];

fn shape(num_heads: usize, num_kv_heads: usize, head_dim: usize) -> QkvShape {
    QkvShape { num_heads, num_kv_heads, head_dim }
}

impl TestDevice {
    /// The outputs of a step, `[T, q_cols]`.
    fn attend(&self, case: Case, step: &[Rows], kind: Kind) -> Vec<f32> {
        let Case { shape, dtype, page_size } = case;
        let Self(backend) = self;
        let (gpu, recorder) = (&backend.gpu, &backend.recorder);
        let (batch, num_pages) = batch_of(step, page_size);
        let attention = backend.attention(case.op(), dtype);
        let mut plan = backend.alloc_plan(batch.limits(), &[shape]).unwrap();
        backend.plan(&batch, &mut plan).unwrap();
        let [k, v] = [1, 2].map(|part| self.upload(&cache(case, step, &batch, num_pages, part)));
        let pages = LayerPages { k, v };
        let rows = batch.num_tokens();
        let qkv: Vec<f32> = rows_of(step).flat_map(|(seed, p)| stacked_row(shape, seed, p)).collect();
        let qkv = backend.upload(rows, shape.cols(), &qkv).unwrap();
        let out = backend.alloc(rows, shape.q_cols(), BufferRole::MatmulInput).unwrap();
        let half = out.half().map(|half| (&half.values, half.stride));
        let (pages, output) = (pages.pages(), (&out.values, half));
        let context = plan.counts().max_context + 3;
        // What is recorded over a buffer must be submitted before the buffer goes.
        let scores = backend.alloc(rows, shape.num_heads * context, BufferRole::Values).unwrap();
        match kind {
            Kind::Fused(grid) => {
                attention.fused_on(grid, gpu, recorder, &plan, (&qkv.values, None), pages, output)
            }
            Kind::Reference => {
                attention.scores(gpu, recorder, &plan, &qkv.values, pages, &scores.values, context);
                attention.softmax(gpu, recorder, &plan, (&scores.values, context), None);
                attention.values(gpu, recorder, &plan, (&scores.values, context), pages, output);
            }
        }
        read(backend, &out, rows * shape.q_cols())
    }

    fn check(&self, case: Case, step: &[Rows]) {
        let want = oracle(case, step);
        for kind in KINDS {
            let got = self.attend(case, step, kind);
            for (idx, (&got, &want)) in got.iter().zip(&want).enumerate() {
                let (row, col) = (idx / case.shape.q_cols(), idx % case.shape.q_cols());
                assert!(
                    (f64::from(got) - want).abs() <= TOLERANCE,
                    "{kind:?}, {:?}, pages of {}: row {row}, column {col}: expected {want}, found {got}",
                    case.shape,
                    case.page_size
                );
            }
        }
    }
}

/// A number from -1 to 1 that depends on nothing but its arguments.
fn noise(keys: [u32; 4]) -> f32 {
    let mixed = keys.iter().fold(0x9e37_79b9_u32, |hash, &key| {
        let hash = (hash ^ key).wrapping_mul(0x85eb_ca6b);
        (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35) ^ (hash >> 16)
    });
    (mixed >> 8) as f32 / (1 << 23) as f32 - 1.0
}

/// Elements of q (part 0), k (1) and v (2).
fn element(part: u32, seed: u32, position: usize, col: usize) -> f32 {
    // Queries of some size, so that some weights are large and some vanish.
    let size = if part == 0 { 4.0 } else { 1.0 };
    size * noise([part, seed, position as u32, col as u32])
}

fn stored(dtype: KvDtype, value: f32) -> f32 {
    match dtype {
        KvDtype::F16 => f16_to_f32(f32_to_f16(value)),
        KvDtype::F32 => value,
    }
}

fn rows_of(step: &[Rows]) -> impl Iterator<Item = (u32, usize)> {
    step.iter().flat_map(|rows| (rows.start..rows.start + rows.tokens).map(|p| (rows.seed, p)))
}

/// Keys and values have been stored: attention must not look at theirs.
fn stacked_row(shape: QkvShape, seed: u32, position: usize) -> Vec<f32> {
    let mut row: Vec<f32> = (0..shape.q_cols()).map(|col| element(0, seed, position, col)).collect();
    row.resize(shape.cols(), f32::NAN);
    row
}

/// Pages in no order, and one more than are used.
fn batch_of(step: &[Rows], page_size: usize) -> (Batch, usize) {
    let blocks: Vec<usize> = step.iter().map(|rows| (rows.start + rows.tokens).div_ceil(page_size)).collect();
    let used: usize = blocks.iter().sum();
    let limits = BatchLimits {
        max_tokens: step.iter().map(|rows| rows.tokens).sum(),
        max_seqs: step.len(),
        max_logit_rows: 1,
        // A split more than is needed, so that there are partials of the shortest context too.
        max_blocks: blocks.iter().copied().max().unwrap() + SPLIT_LEN.div_ceil(page_size),
        num_pages: used,
    };
    let mut batch = Batch::new(limits, page_size);
    let mut pages: Vec<u32> = (0..used as u32).rev().collect();
    let half = used / 2;
    pages[..half].reverse();
    let mut pages = &pages[..];
    for (rows, num_blocks) in step.iter().zip(blocks) {
        let (own, rest) = pages.split_at(num_blocks);
        batch.push(&vec![0; rows.tokens], rows.start, own, Want::None);
        pages = rest;
    }
    (batch, used + 1)
}

/// The bytes of all pages of K (part 1) or V (2); NaN where nothing was stored.
fn cache(case: Case, step: &[Rows], batch: &Batch, num_pages: usize, part: u32) -> Vec<u8> {
    let Case { shape, dtype, page_size } = case;
    let QkvShape { num_kv_heads, head_dim, .. } = shape;
    let mut values = vec![f32::NAN; num_pages * num_kv_heads * page_size * head_dim];
    for (seq_idx, rows) in step.iter().enumerate() {
        for position in 0..rows.start + rows.tokens {
            let page = batch.block_table(seq_idx)[position / page_size] as usize;
            for head in 0..num_kv_heads {
                let row = (page * num_kv_heads + head) * page_size + position % page_size;
                for (col, value) in values[row * head_dim..][..head_dim].iter_mut().enumerate() {
                    *value = element(part, rows.seed, position, head * head_dim + col);
                }
            }
        }
    }
    match dtype {
        KvDtype::F32 => bytemuck::cast_slice(&values).to_vec(),
        KvDtype::F16 => values.iter().flat_map(|&value| f32_to_f16(value).to_le_bytes()).collect(),
    }
}

/// Attention in float64.
fn oracle(case: Case, step: &[Rows]) -> Vec<f64> {
    let QkvShape { num_heads, num_kv_heads, head_dim } = case.shape;
    let mut out = Vec::new();
    for rows in step {
        let context = rows.start + rows.tokens;
        let part = |part: u32| -> Vec<f64> {
            let cols = num_kv_heads * head_dim;
            let value = |i: usize| stored(case.dtype, element(part, rows.seed, i / cols, i % cols));
            (0..context * cols).map(|i| f64::from(value(i))).collect()
        };
        let (k, v) = (part(1), part(2));
        for (position, head) in
            (rows.start..context).flat_map(|position| (0..num_heads).map(move |head| (position, head)))
        {
            let q: Vec<f64> = (0..head_dim)
                .map(|col| f64::from(element(0, rows.seed, position, head * head_dim + col)))
                .collect();
            let kv_head = head / (num_heads / num_kv_heads);
            let of_position = |values: &'_ [f64], p: usize| -> Vec<f64> {
                values[(p * num_kv_heads + kv_head) * head_dim..][..head_dim].to_vec()
            };
            let scores: Vec<f64> = (0..=position)
                .map(|p| {
                    let products = q.iter().zip(of_position(&k, p)).map(|(q, k)| q * k);
                    products.sum::<f64>() / (head_dim as f64).sqrt()
                })
                .collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let sum: f64 = weights.iter().sum();
            let mut values = vec![0f64; head_dim];
            for (p, weight) in weights.iter().enumerate() {
                for (value, v) in values.iter_mut().zip(of_position(&v, p)) {
                    *value += weight / sum * v;
                }
            }
            out.extend(values);
        }
    }
    out
}

/// Prompts, chunks and decodes at the edges of blocks and splits.
const RAGGED: [Rows; 11] = [
    Rows::new(1, 0, 1),
    Rows::new(2, 62, 1),
    Rows::new(3, 0, 21),
    Rows::new(4, 63, 1),
    Rows::new(5, 64, 1),
    Rows::new(6, 50, 17),
    Rows::new(7, 254, 1),
    Rows::new(8, 255, 1),
    Rows::new(9, 256, 1),
    Rows::new(10, 250, 9),
    Rows::new(11, 999, 1),
];

#[test]
fn ragged_batches_match_float64() {
    let device = TestDevice::open();
    let cases = [
        (shape(4, 4, 24), KvDtype::F16, 1),
        (shape(8, 2, 64), KvDtype::F32, 7),
        (shape(6, 2, 80), KvDtype::F16, 16),
        (shape(8, 2, 128), KvDtype::F16, 32),
        (shape(32, 1, 64), KvDtype::F16, 16),
        (shape(2, 1, 256), KvDtype::F32, 7),
    ];
    for (shape, dtype, page_size) in cases {
        device.check(Case { shape, dtype, page_size }, &RAGGED);
    }
}

/// Law 1: bits depend on the sequence alone, not on what else is in the step, nor on chunks, pages or grids.
#[test]
fn bits_depend_on_the_sequence_alone() {
    let device = TestDevice::open();
    // Rows on both sides of the edge of a split, and of a block.
    let (start, tokens) = (240, 50);
    let rows = [Rows::new(77, start, tokens)];
    for shape in [shape(6, 2, 24), shape(8, 2, 128), shape(32, 1, 64)] {
        let attend = |page_size, step: &[Rows], kind| {
            device.attend(Case { shape, dtype: KvDtype::F16, page_size }, step, kind)
        };
        let whole = attend(16, &rows, Kind::Fused(Grid::Whole));
        for kind in KINDS {
            let alone = attend(7, &rows, kind);
            if kind != Kind::Reference {
                assert!(alone == whole, "{kind:?}, {shape:?}: the grid or the pages");
            }
            assert!(attend(1, &rows, kind) == alone, "{kind:?}, {shape:?}: pages of 1");
            let step: Vec<Rows> = RAGGED.into_iter().chain(rows).collect();
            let batched = attend(32, &step, kind);
            let of_last = &batched[batched.len() - alone.len()..];
            assert!(of_last == alone, "{kind:?}, {shape:?}: in a batch");
            for chunks in [&[1, 2, 12, 1, 30, 4][..], &[16, 34], &[49, 1]] {
                let mut values = Vec::new();
                let mut first = start;
                for &count in chunks {
                    values.extend(attend(16, &[Rows::new(77, first, count)], kind));
                    first += count;
                }
                assert!(values == alone, "{kind:?}, {shape:?}: in chunks of {chunks:?}");
            }
        }
    }
}
