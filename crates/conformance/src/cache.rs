//! Rotation and the paged cache: what is stored, where, and how it is rounded.

use gguf::half::{f16_to_f32, f32_to_f16};
use gguf::random::Rng;
use model::{
    AttentionOp, Backend, Batch, BatchLimits, BufferRole, KvDtype, KvHeads, KvShape, QkvShape, Result,
    RopeOp, RopeStyle, Want,
};

use crate::{Subject, Tally, random, read};

/// Error of a rotated value, relative to 4, about the largest of the values: two products and a sum in f32.
pub(crate) const ROPE_LIMIT: f64 = 2e-7;
const LARGEST: f64 = 4.0;

const HEADS: QkvShape = QkvShape { num_heads: 4, num_kv_heads: 2, head_dim: 16 };
/// The heads of the cache's two layers; operations are those of the second.
const LAYERS: [KvHeads; 2] =
    [KvHeads { num_kv_heads: 3, head_dim: 8 }, KvHeads { num_kv_heads: 2, head_dim: 16 }];
const OP: AttentionOp = AttentionOp::plain(HEADS, 1, 1.0);
const KV_COLS: usize = 32;

/// A cache with pages of two sequences, in no order.
struct Bench<'a, B: Backend> {
    backend: &'a B,
    page_size: usize,
    num_pages: usize,
    pages: [Vec<u32>; 2],
    cache: B::KvCache,
}

/// Rows of a sequence: its index, its first position, its tokens.
type Chunk = (usize, usize, usize);

/// All slots of a layer, `[slot, kv columns]`.
#[derive(Debug, PartialEq)]
struct Contents {
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl<'a, B: Backend> Bench<'a, B> {
    fn new(backend: &'a B, dtype: KvDtype, page_size: usize) -> Result<Self> {
        let blocks = [12usize, 8].map(|len| len.div_ceil(page_size));
        let num_pages = blocks[0] + blocks[1] + 2;
        let mut ids: Vec<u32> = (0..num_pages as u32).collect();
        Rng::new(page_size as u64).shuffle(&mut ids);
        let pages = [ids[..blocks[0]].to_vec(), ids[blocks[0]..][..blocks[1]].to_vec()];
        let cache =
            backend.alloc_kv_cache(&KvShape { num_pages, page_size, dtype, layers: LAYERS.to_vec() })?;
        Ok(Self { backend, page_size, num_pages, pages, cache })
    }

    fn batch(&self, max_tokens: usize, max_seqs: usize) -> Batch {
        let num_pages = self.num_pages;
        let limits =
            BatchLimits { max_tokens, max_seqs, max_logit_rows: 1, max_blocks: num_pages, num_pages };
        Batch::new(limits, self.page_size)
    }

    fn plan(&self, batch: &Batch, shape: QkvShape) -> Result<B::Plan> {
        let mut plan = self.backend.alloc_plan(batch.limits(), &[shape])?;
        self.backend.plan(batch, &mut plan)?;
        Ok(plan)
    }

    /// Rotates and stores the rows of a step, `qkv` and one row more; returns the slots of its rows, and what `qkv` has
    /// become.
    fn store(
        &mut self,
        chunks: &[Chunk],
        rope: Option<RopeOp<'_, B>>,
        qkv: &[f32],
    ) -> Result<(Vec<u32>, Vec<f32>)> {
        let mut batch = self.batch(32, 2);
        for &(seq, start, len) in chunks {
            batch.push(&vec![0; len], start, &self.pages[seq], Want::None);
        }
        let plan = self.plan(&batch, HEADS)?;
        let mut on_device = self.backend.upload(qkv.len() / HEADS.cols(), HEADS.cols(), qkv)?;
        self.backend.rope_store_kv(&plan, OP, rope, &mut on_device, &mut self.cache);
        let qkv = read(self.backend, &on_device, qkv.len())?;
        Ok((batch.slot_mapping().to_vec(), qkv))
    }

    /// All slots of a layer, through the reference attention of a sequence that has every page: unit queries pick the
    /// dimensions of K, a weight of 1 picks V.
    fn contents(&self, kv_layer: usize) -> Result<Contents> {
        let KvHeads { num_kv_heads, head_dim } = LAYERS[kv_layer];
        let (slots, all_pages) =
            (self.num_pages * self.page_size, (0..self.num_pages as u32).collect::<Vec<_>>());
        let shape = QkvShape { num_heads: num_kv_heads * head_dim, num_kv_heads, head_dim };
        let mut batch = self.batch(slots, 1);
        batch.push(&[0], slots - 1, &all_pages, Want::None);
        let plan = self.plan(&batch, shape)?;
        let mut queries = vec![0.0; shape.cols()];
        for head in 0..shape.num_heads {
            queries[head * head_dim + head % head_dim] = 1.0;
        }
        let queries = self.backend.upload(1, shape.cols(), &queries)?;
        let mut scores = self.backend.alloc(1, shape.num_heads * slots, BufferRole::Values)?;
        let op = AttentionOp::plain(shape, kv_layer, 1.0);
        self.backend.attention_scores(&plan, op, &queries, &self.cache, &mut scores);
        let scores = read(self.backend, &scores, shape.num_heads * slots)?;
        let keys = (0..slots).flat_map(|slot| scores.iter().skip(slot).step_by(slots).copied()).collect();

        // Row by row of a chunk of as many tokens as there are slots.
        let shape = QkvShape { num_heads: num_kv_heads, ..shape };
        batch.clear();
        batch.push(&vec![0; slots], 0, &all_pages, Want::None);
        let plan = self.plan(&batch, shape)?;
        let mut weights = vec![0.0; slots * num_kv_heads * slots];
        for (row, weights) in weights.chunks_exact_mut(num_kv_heads * slots).enumerate() {
            weights.iter_mut().skip(row).step_by(slots).for_each(|weight| *weight = 1.0);
        }
        let weights = self.backend.upload(slots, num_kv_heads * slots, &weights)?;
        let mut values = self.backend.alloc(slots, shape.q_cols(), BufferRole::MatmulInput)?;
        let op = AttentionOp { shape, ..op };
        self.backend.attention_values(&plan, op, &weights, &self.cache, &mut values);
        let values = read(self.backend, &values, slots * shape.q_cols())?;
        Ok(Contents { keys, values })
    }
}

fn rounded(dtype: KvDtype, value: f32) -> f32 {
    match dtype {
        KvDtype::F16 => f16_to_f32(f32_to_f16(value)),
        KvDtype::F32 => value,
    }
}

/// Two steps' keys and values, unrotated, are in the slots of their rows, rounded to the cache's type; every other slot
/// and the other layer are as they were.
pub(crate) fn stored<S: Subject>(backend: &S, tally: &mut Tally) -> Result<()> {
    let steps: [&[Chunk]; 2] = [&[(0, 2, 9), (1, 0, 5)], &[(1, 5, 2), (0, 11, 1)]];
    for (dtype, page_size) in [
        (KvDtype::F16, 4),
        (KvDtype::F16, 1),
        (KvDtype::F16, 7),
        (KvDtype::F32, 4),
        (KvDtype::F32, 1),
        (KvDtype::F32, 16),
    ] {
        let mut bench = Bench::new(backend, dtype, page_size)?;
        let slots = bench.num_pages * page_size;
        let mut want = Contents { keys: vec![0.0; slots * KV_COLS], values: vec![0.0; slots * KV_COLS] };
        for (number, chunks) in steps.into_iter().enumerate() {
            let tokens: usize = chunks.iter().map(|(.., len)| len).sum();
            let qkv = random(20 + number, (tokens + 1) * HEADS.cols());
            let what = |part: &str| format!("{dtype:?} in pages of {page_size}, step {number}: {part}");
            let (slot_mapping, after) = bench.store(chunks, None, &qkv)?;
            let queries = |qkv: &[f32]| -> Vec<f32> {
                qkv.chunks_exact(HEADS.cols()).flat_map(|row| row[..HEADS.q_cols()].to_vec()).collect()
            };
            tally.same(|| what("queries"), &queries(&after), &queries(&qkv));
            for (slot, row) in slot_mapping.into_iter().zip(qkv.chunks_exact(HEADS.cols())) {
                let (k, v) = row[HEADS.q_cols()..].split_at(KV_COLS);
                for (out, values) in [(&mut want.keys, k), (&mut want.values, v)] {
                    let out = &mut out[slot as usize * KV_COLS..][..KV_COLS];
                    out.iter_mut().zip(values).for_each(|(out, &value)| *out = rounded(dtype, value));
                }
            }
            let got = bench.contents(1)?;
            tally.same(|| what("keys"), &got.keys, &want.keys);
            tally.same(|| what("values"), &got.values, &want.values);
        }
        let other = bench.contents(0)?;
        let zeros = vec![0.0; other.keys.len()];
        tally.same(|| format!("pages of {page_size}, the other layer's keys"), &other.keys, &zeros);
        tally.same(|| format!("pages of {page_size}, the other layer's values"), &other.values, &zeros);
    }
    Ok(())
}

/// Queries and keys are rotated by the table, values are not; the row beyond stays.
pub(crate) fn rope<S: Subject>(backend: &S, tally: &mut Tally) -> Result<()> {
    const TOKENS: usize = 10;
    let qkv = random(2, (TOKENS + 1) * HEADS.cols());
    let angle = |position: usize, pair: usize| position as f64 * 0.7f64.powi(pair as i32);
    for (style, dim) in [
        (RopeStyle::Interleaved, 16),
        (RopeStyle::Interleaved, 6),
        (RopeStyle::Halves, 16),
        (RopeStyle::Halves, 6),
    ] {
        let cells = (0..TOKENS).flat_map(|position| (0..dim / 2).map(move |pair| (position, pair)));
        let table: Vec<f32> = cells
            .flat_map(|(position, pair)| {
                let (sin, cos) = angle(position, pair).sin_cos();
                [cos as f32, sin as f32]
            })
            .collect();
        let table = backend.upload(TOKENS, dim, &table)?;
        let mut bench = Bench::new(backend, KvDtype::F32, 4)?;
        let (slot_mapping, after) =
            bench.store(&[(0, 0, TOKENS)], Some(RopeOp { dim, style, table: &table }), &qkv)?;
        let contents = bench.contents(1)?;
        let rows = qkv.chunks_exact(HEADS.cols()).zip(after.chunks_exact(HEADS.cols())).enumerate();
        for (position, (before, after)) in rows {
            let what = |part: &str| format!("{style:?} {dim}, position {position}: {part}");
            let Some(&slot) = slot_mapping.get(position) else {
                tally.same(|| what("the row beyond"), after, before);
                continue;
            };
            let mut want: Vec<f64> = before.iter().map(|&value| f64::from(value)).collect();
            rotate(&mut want, (dim, style), |pair| angle(position, pair));
            let of_slot = |values: &[f32]| values[slot as usize * KV_COLS..][..KV_COLS].to_vec();
            let (q, kv) = want.split_at(HEADS.q_cols());
            let (k, v) = kv.split_at(KV_COLS);
            tally.each(|| what("queries"), &after[..q.len()], q, |_| LARGEST);
            tally.each(|| what("keys"), &of_slot(&contents.keys), k, |_| LARGEST);
            tally.each(|| what("values"), &of_slot(&contents.values), v, |_| LARGEST);
        }
    }
    Ok(())
}

/// Rotates the queries and keys of a row in float64.
fn rotate(row: &mut [f64], (dim, style): (usize, RopeStyle), angle: impl Fn(usize) -> f64) {
    let rotated_cols = (HEADS.num_heads + HEADS.num_kv_heads) * HEADS.head_dim;
    for head in row[..rotated_cols].chunks_mut(HEADS.head_dim) {
        for pair in 0..dim / 2 {
            let (a, b) = match style {
                RopeStyle::Interleaved => (2 * pair, 2 * pair + 1),
                RopeStyle::Halves => (pair, pair + dim / 2),
            };
            let (sin, cos) = angle(pair).sin_cos();
            (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[a] * sin + head[b] * cos);
        }
    }
}
