//! Attention, fused and in three steps, over ragged batches, page sizes, cache types and head shapes.

use cpu::{CpuBackend, CpuKvCache};
use gguf::half::{f16_to_f32, f32_to_f16};
use model::{Backend, KvDtype, KvShape, Logits, QkvShape, RopeShape, RopeStyle};
use testkit::Rng;

use super::{Chunk, backend, backends, check_close, check_same, isas, plan, read};

/// Lengths around the softmax's blocks of 64 positions.
const LENGTHS: [usize; 5] = [1, 63, 64, 65, 130];
const PAGE_SIZES: [usize; 4] = [1, 16, 32, 64];
/// Widths of a head, and query heads for each cached head.
const SHAPES: [(usize, usize); 6] = [(16, 1), (40, 2), (64, 1), (64, 2), (64, 4), (128, 4)];
const KV_HEADS: usize = 2;

/// Scores of size 3 or so are off by a few units in the last place, and so are, relatively, the weights; an output is a
/// mean of values of size 3 by these weights.
const TOLERANCE: f64 = 2e-6;

/// How attention is asked for.
#[derive(Clone, Copy, Debug)]
enum Mode {
    Fused,
    ThreeSteps,
}

/// The sequences of a test: rows of Q, K and V, sequence after sequence. K and V are exact in binary16, so that both
/// cache types hold the same.
struct Sequences {
    shape: QkvShape,
    lengths: &'static [usize],
    qkv: Vec<f32>, // [sum of lengths, shape.cols()]
}

impl Sequences {
    fn new(head_dim: usize, group: usize) -> Self {
        Self::of_lengths(head_dim, group, &LENGTHS)
    }

    fn of_lengths(head_dim: usize, group: usize, lengths: &'static [usize]) -> Self {
        let shape = QkvShape { num_heads: KV_HEADS * group, num_kv_heads: KV_HEADS, head_dim };
        let mut rng = Rng::new((head_dim * 10 + group) as u64);
        let rows = lengths.iter().sum::<usize>();
        let qkv = rng.normals(rows * shape.cols(), 1.0).into_iter();
        Self { shape, lengths, qkv: qkv.map(|value| f16_to_f32(f32_to_f16(value))).collect() }
    }

    /// The rows of one sequence.
    fn rows(&self, seq: usize) -> &[f32] {
        let first = self.lengths[..seq].iter().sum::<usize>();
        &self.qkv[first * self.shape.cols()..][..self.lengths[seq] * self.shape.cols()]
    }

    /// `[sum of lengths, q_cols]` in float64.
    fn attention(&self) -> Vec<f64> {
        (0..self.lengths.len()).flat_map(|seq| attention(self.rows(seq), self.shape)).collect()
    }
}

/// Causal attention of one sequence in float64: `qkv` rows to `[len, q_cols]`.
fn attention(qkv: &[f32], shape: QkvShape) -> Vec<f64> {
    let QkvShape { num_heads, num_kv_heads, head_dim } = shape;
    let qkv: Vec<f64> = qkv.iter().map(|&value| value.into()).collect();
    let rows: Vec<&[f64]> = qkv.chunks(shape.cols()).collect();
    let mut out = Vec::new();
    for (position, row) in rows.iter().enumerate() {
        for head in 0..num_heads {
            let kv_head = head / (num_heads / num_kv_heads);
            let q = &row[head * head_dim..][..head_dim];
            let k_at = shape.q_cols() + kv_head * head_dim;
            let v_at = k_at + num_kv_heads * head_dim;
            let dot = |k: &[f64]| q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>();
            let weights: Vec<f64> = rows[..=position]
                .iter()
                .map(|row| (dot(&row[k_at..][..head_dim]) / (head_dim as f64).sqrt()).exp())
                .collect();
            let sum: f64 = weights.iter().sum();
            let mut mean = vec![0.0; head_dim];
            for (weight, row) in weights.iter().zip(&rows) {
                for (mean, v) in mean.iter_mut().zip(&row[v_at..]) {
                    *mean += weight / sum * v;
                }
            }
            out.extend(mean);
        }
    }
    out
}

/// A cache that holds all sequences, each in shuffled pages of its own.
struct Cached<'a> {
    backend: &'a CpuBackend,
    sequences: &'a Sequences,
    page_size: usize,
    pages: Vec<Vec<u32>>,
    cache: CpuKvCache,
}

impl<'a> Cached<'a> {
    fn new(backend: &'a CpuBackend, sequences: &'a Sequences, dtype: KvDtype, page_size: usize) -> Self {
        let counts: Vec<usize> = sequences.lengths.iter().map(|len| len.div_ceil(page_size)).collect();
        let num_pages = counts.iter().sum::<usize>() + 3;
        let mut free: Vec<u32> = (0..num_pages as u32).collect();
        Rng::new(page_size as u64).shuffle(&mut free);
        let pages: Vec<Vec<u32>> = counts.iter().map(|&n| free.drain(..n).collect()).collect();

        let QkvShape { num_kv_heads, head_dim, .. } = sequences.shape;
        let shape = KvShape { num_layers: 1, num_pages, page_size, num_kv_heads, head_dim, dtype };
        let cache = backend.alloc_kv_cache(shape).unwrap();
        let mut cached = Self { backend, sequences, page_size, pages, cache };
        cached.store();
        cached
    }

    /// Stores K and V of every position, unrotated.
    fn store(&mut self) {
        let Self { backend, sequences, .. } = *self;
        let (shape, longest) = (sequences.shape, sequences.lengths[sequences.lengths.len() - 1]);
        let rotations = [1.0, 0.0].repeat(longest * shape.head_dim / 2);
        let table = backend.upload(longest, shape.head_dim, &rotations).unwrap();
        let rope = RopeShape { dim: shape.head_dim, style: RopeStyle::Interleaved };
        let rows = sequences.lengths.iter().sum();
        let mut qkv = backend.upload(rows, shape.cols(), &sequences.qkv).unwrap();
        let plan = plan(backend, &self.whole_sequences(), self.page_size, Logits::Skip);
        backend.rope_store_kv(&plan, shape, rope, &table, &mut qkv, &mut self.cache, 0);
    }

    /// Rows `start..start + len` of a sequence as a chunk of a step.
    fn chunk(&self, seq: usize, start: usize, len: usize) -> Chunk<'_> {
        Chunk { start, len, pages: &self.pages[seq] }
    }

    fn whole_sequences(&self) -> Vec<Chunk<'_>> {
        self.sequences.lengths.iter().enumerate().map(|(seq, &len)| self.chunk(seq, 0, len)).collect()
    }

    /// Attention of the chunks' rows, `[T, q_cols]`.
    fn attend(&self, mode: Mode, chunks: &[Chunk<'_>]) -> Vec<f32> {
        let Self { backend, sequences: Sequences { shape, .. }, cache, .. } = self;
        let plan = plan(backend, chunks, self.page_size, Logits::Skip);
        let seq_of = |chunk: &Chunk<'_>| self.pages.iter().position(|pages| pages == chunk.pages).unwrap();
        let rows: Vec<f32> = chunks
            .iter()
            .flat_map(|chunk| {
                let rows = self.sequences.rows(seq_of(chunk));
                &rows[chunk.start * shape.cols()..][..chunk.len * shape.cols()]
            })
            .copied()
            .collect();
        let tokens = rows.len() / shape.cols();
        let qkv = backend.upload(tokens, shape.cols(), &rows).unwrap();
        let mut out = backend.alloc(tokens, shape.q_cols()).unwrap();
        match mode {
            Mode::Fused => backend.paged_attention(&plan, *shape, &qkv, cache, 0, &mut out),
            Mode::ThreeSteps => {
                // A context longer than any sequence: what lies beyond a row's own positions is not looked at.
                let context = self.sequences.lengths[self.sequences.lengths.len() - 1] + 5;
                let garbage = vec![f32::NAN; tokens * shape.num_heads * context];
                let mut scores = backend.upload(tokens, shape.num_heads * context, &garbage).unwrap();
                backend.attention_scores(&plan, *shape, &qkv, cache, 0, &mut scores);
                backend.attention_softmax(&plan, *shape, &mut scores);
                backend.attention_values(&plan, *shape, &scores, cache, 0, &mut out);
            }
        }
        read(backend, &out, tokens * shape.q_cols())
    }
}

/// Calls `each` for every width and every group of heads.
fn for_each_shape(mut each: impl FnMut(&Sequences)) {
    SHAPES.iter().map(|&(head_dim, group)| Sequences::new(head_dim, group)).for_each(|s| each(&s));
}

#[test]
fn both_modes_agree_with_float64_whatever_the_page_size() {
    for_each_shape(|sequences| {
        let want = sequences.attention();
        for backend in backends() {
            for dtype in [KvDtype::F16, KvDtype::F32] {
                for mode in [Mode::Fused, Mode::ThreeSteps] {
                    let what = format!("{} {:?} {dtype:?} {mode:?}", backend.isa(), sequences.shape);
                    let mut first: Option<Vec<f32>> = None;
                    for page_size in PAGE_SIZES {
                        let cached = Cached::new(&backend, sequences, dtype, page_size);
                        let got = cached.attend(mode, &cached.whole_sequences());
                        match &first {
                            Some(first) => check_same(&format!("{what} page size {page_size}"), &got, first),
                            None => {
                                check_close(&what, &got, TOLERANCE, |i| want[i], |_| 1.0);
                                first = Some(got);
                            }
                        }
                    }
                }
            }
        }
    });
}

#[test]
fn a_rows_attention_is_the_same_bits_in_any_chunk_and_batch() {
    for_each_shape(|sequences| {
        let q_cols = sequences.shape.q_cols();
        for backend in backends() {
            for mode in [Mode::Fused, Mode::ThreeSteps] {
                let cached = Cached::new(&backend, sequences, KvDtype::F16, 16);
                let whole = cached.attend(mode, &cached.whole_sequences());
                let row_of = |seq: usize, position: usize| {
                    let row = LENGTHS[..seq].iter().sum::<usize>() + position;
                    &whole[row * q_cols..][..q_cols]
                };
                // A decode of each, in another order; then a chunk from the middle beside a decode.
                let decodes: Vec<_> = [4, 0, 3, 1, 2].map(|seq| (seq, LENGTHS[seq] - 1, 1)).into();
                for step in [decodes, vec![(4, 60, 9), (1, 62, 1)], vec![(4, 129, 1)], vec![(2, 1, 2)]] {
                    let chunks: Vec<_> =
                        step.iter().map(|&(seq, start, len)| cached.chunk(seq, start, len)).collect();
                    let want: Vec<f32> = step
                        .iter()
                        .flat_map(|&(seq, start, len)| (start..start + len).map(move |row| (seq, row)))
                        .flat_map(|(seq, row)| row_of(seq, row).to_vec())
                        .collect();
                    let what = format!("{} {:?} {mode:?} {step:?}", backend.isa(), sequences.shape);
                    check_same(&what, &cached.attend(mode, &chunks), &want);
                }
            }
        }
    });
}

/// Positions around the ends of splits of 1024, which many threads share when a step is a few decodes.
#[test]
fn a_long_context_is_the_same_bits_however_many_threads_share_it() {
    const LENGTH: usize = 2100;
    const ROWS: [usize; 6] = [1022, 1023, 1024, 2047, 2048, 2099];
    let sequences = Sequences::of_lengths(16, 2, &[LENGTH]);
    let want = sequences.attention();
    let q_cols = sequences.shape.q_cols();
    for isa in isas() {
        for dtype in [KvDtype::F16, KvDtype::F32] {
            let on = |threads: usize| {
                let backend = backend(isa, threads);
                let cached = Cached::new(&backend, &sequences, dtype, 32);
                // Splits are shared in steps of decodes alone, and only when these are fewer than the threads want.
                let decodes = ROWS.map(|row| cached.attend(Mode::Fused, &[cached.chunk(0, row, 1)]));
                let chunk = cached.attend(Mode::Fused, &[cached.chunk(0, ROWS[0], LENGTH - ROWS[0])]);
                let rows = ROWS.map(|row| chunk[(row - ROWS[0]) * q_cols..][..q_cols].to_vec());
                check_same(
                    &format!("{isa} {dtype:?} {threads} threads, a chunk"),
                    &rows.concat(),
                    &decodes.concat(),
                );
                decodes.concat()
            };
            let one = on(1);
            let what = format!("{isa} {dtype:?}");
            check_close(&what, &one, TOLERANCE, |i| want[ROWS[i / q_cols] * q_cols + i % q_cols], |_| 1.0);
            for threads in [2, 5] {
                check_same(&format!("{what} on {threads} threads"), &on(threads), &one);
            }
        }
    }
}

#[test]
fn attention_is_the_same_bits_on_any_number_of_threads() {
    let sequences = Sequences::new(40, 2);
    for isa in isas() {
        for mode in [Mode::Fused, Mode::ThreeSteps] {
            let on = |threads: usize| {
                let backend = backend(isa, threads);
                let cached = Cached::new(&backend, &sequences, KvDtype::F16, 32);
                cached.attend(mode, &cached.whole_sequences())
            };
            let one = on(1);
            for threads in [2, 3] {
                check_same(&format!("{isa} {mode:?} on {threads} threads"), &on(threads), &one);
            }
        }
    }
}

#[test]
fn scores_far_apart_leave_one_value() {
    // Every query points along one key, so far that all other weights vanish in f32, and early ones in a later block's
    // correction.
    let shape = QkvShape { num_heads: 1, num_kv_heads: 1, head_dim: 16 };
    let sequences = {
        let rows: usize = LENGTHS.iter().sum();
        let mut qkv = Rng::new(5).normals(rows * shape.cols(), 1.0);
        for row in qkv.chunks_mut(shape.cols()) {
            row[..16].fill(6e4);
        }
        Sequences {
            shape,
            lengths: &LENGTHS,
            qkv: qkv.into_iter().map(|value| f16_to_f32(f32_to_f16(value))).collect(),
        }
    };
    for backend in backends() {
        for mode in [Mode::Fused, Mode::ThreeSteps] {
            let cached = Cached::new(&backend, &sequences, KvDtype::F32, 16);
            let got = cached.attend(mode, &[cached.chunk(4, 0, 130)]);
            let rows: Vec<&[f32]> = sequences.rows(4).chunks(shape.cols()).collect();
            for (position, got) in got.chunks(16).enumerate() {
                let along = |row: &&&[f32]| row[16..32].iter().map(|&k| f64::from(k)).sum::<f64>();
                let best = rows[..=position].iter().max_by(|a, b| along(a).total_cmp(&along(b))).unwrap();
                check_same(&format!("{} {mode:?} position {position}", backend.isa()), got, &best[32..]);
            }
        }
    }
}
