//! [`Backend`] on the CPU.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use gguf::TensorView;
use model::{
    Backend, Batch, BatchLimits, Error, KvShape, Linear, QkvShape, Result, Roofs, RopeShape, RopeStyle,
};

use crate::activations::{ActBlock, group_start};
use crate::attention::{Attention, CpuPlan, score_scale, scratch_len};
use crate::disjoint::Disjoint;
use crate::kernels::{Isa, Kernels, KvElement, KvRows, Reference, TileKernel, row_start};
use crate::kv_cache::{CpuKvCache, LayerPages, Pages};
use crate::matmul::{Input, multiply};
use crate::matrix::CpuMatrix;
use crate::peak;
use crate::pool::ThreadPool;
use crate::tile::{BLOCK, MAX_TOKENS};

/// What the CPU backend may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuOptions {
    /// Threads; the physical cores when `None`.
    pub threads: Option<NonZeroUsize>,
    /// Instruction set; the machine's best when `None`.
    pub isa: Option<Isa>,
}

/// More threads than any machine has cores. Tens of thousands exhaust the process's memory maps, which aborts it in the
/// middle of a thread's start instead of failing.
const MAX_THREADS: usize = 4096;

/// Blocks of 32 activations that a thread quantises at a time: a few microseconds.
const BLOCKS_PER_TASK: usize = 256;

/// The CPU as a device.
pub struct CpuBackend {
    pool: ThreadPool,
    kernels: Kernels,
    /// Quantised activations of the matmul under way; grown by `alloc`, never during a step.
    activations: Mutex<Vec<ActBlock>>,
}

/// f32 values, `[rows, cols]`.
pub struct CpuBuffer {
    cols: usize,
    values: Vec<f32>,
}

impl CpuBuffer {
    fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.cols..][..self.cols]
    }

    fn check_rows(&self, rows: usize) {
        assert!(rows * self.cols <= self.values.len(), "buffer holds fewer than {rows} rows");
    }
}

impl CpuBackend {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the machine lacks the instruction set asked for, the threads are too many or cannot be started.
    pub fn new(options: CpuOptions) -> Result<Self> {
        let isa = options.isa.unwrap_or_else(Isa::detect);
        let kernels = Kernels::new(isa).ok_or_else(|| {
            let available: Vec<_> =
                Isa::ALL.iter().filter(|isa| isa.is_available()).map(|isa| isa.name()).collect();
            Error::InvalidValue {
                what: "instruction set".to_owned(),
                expected: format!("one of this machine's: {}", available.join(", ")),
                found: isa.to_string(),
            }
        })?;
        let threads = options.threads.map_or_else(num_cpus::get_physical, NonZeroUsize::get);
        if threads > MAX_THREADS {
            return Err(Error::InvalidValue {
                what: "threads".to_owned(),
                expected: format!("at most {MAX_THREADS}"),
                found: threads.to_string(),
            });
        }
        let pool =
            ThreadPool::new(threads).map_err(|error| Error::Device(format!("starting threads: {error}")))?;
        Ok(Self { pool, kernels, activations: Mutex::new(Vec::new()) })
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.kernels.isa()
    }

    /// The number of threads in use.
    pub fn num_threads(&self) -> usize {
        self.pool.num_threads()
    }

    /// Calls `each(row, its values)` for the first `rows` rows, several at a time.
    fn for_rows(&self, rows: usize, out: &mut CpuBuffer, each: impl Fn(usize, &mut [f32]) + Sync) {
        out.check_rows(rows);
        let cols = out.cols;
        let values = Disjoint::new(&mut out.values);
        self.pool.run(rows, |row| {
            // SAFETY: each task takes the row of its own number, and a job runs each task once.
            each(row, unsafe { values.slice(row * cols, cols) });
        });
    }

    /// Quantises the first `rows` rows of `x` into the scratch buffer.
    fn quantize(&self, rows: usize, x: &CpuBuffer, scratch: &mut Vec<ActBlock>) {
        let blocks = x.cols / BLOCK;
        // `alloc` made the scratch large enough for a step's buffers; an uploaded one, as tests have, may be larger.
        if scratch.len() < rows * blocks {
            scratch.resize(rows * blocks, ActBlock::default());
        }
        let out = Disjoint::new(scratch);
        // A task takes a piece of a group's columns: large enough to be worth a draw.
        let piece = (BLOCKS_PER_TASK / rows.min(MAX_TOKENS)).clamp(1, blocks);
        let pieces = blocks.div_ceil(piece);
        self.pool.run(rows.div_ceil(MAX_TOKENS) * pieces, |task| {
            let (first, block) = (task / pieces * MAX_TOKENS, task % pieces * piece);
            let (count, len) = (MAX_TOKENS.min(rows - first), piece.min(blocks - block));
            // SAFETY: each task takes the blocks of its own piece of its own group, and a job runs each task once.
            let out = unsafe { out.slice(group_start(first, blocks) + block * count, len * count) };
            self.kernels.quantize_group(&x.values[first * x.cols + block * BLOCK..], x.cols, count, out);
        });
    }

    /// Calls `each(token, kv head, its slice of out)` for every row of the plan, several at a time.
    /// `out` is `[T, num_kv_heads * width]`.
    fn for_heads(
        &self,
        plan: &Batch,
        num_kv_heads: usize,
        out: &mut CpuBuffer,
        each: impl Fn(usize, usize, &mut [f32]) + Sync,
    ) {
        out.check_rows(plan.num_tokens());
        assert!(out.cols.is_multiple_of(num_kv_heads), "attention: columns of the heads");
        let width = out.cols / num_kv_heads;
        let values = Disjoint::new(&mut out.values);
        self.pool.run(plan.num_tokens() * num_kv_heads, |task| {
            // SAFETY: each task takes the columns of its own head in its own row, and a job runs each task once.
            each(task / num_kv_heads, task % num_kv_heads, unsafe { values.slice(task * width, width) });
        });
    }

    fn attend<E: KvElement>(
        &self,
        plan: &CpuPlan,
        shape: QkvShape,
        qkv: &CpuBuffer,
        (cache, pages, layer): (&CpuKvCache, &LayerPages<E>, usize),
        out: &mut CpuBuffer,
    ) {
        out.check_rows(plan.batch.num_tokens());
        let (k, v) = (&pages.k[layer], &pages.v[layer]);
        let attention = Attention { kernels: &self.kernels, plan, shape, qkv: &qkv.values, cache, k, v };
        attention.run(&self.pool, &cache.partials, &mut out.values);
    }

    fn scores<E: KvElement>(
        &self,
        plan: &Batch,
        shape: QkvShape,
        qkv: &CpuBuffer,
        (cache, pages, layer): (&CpuKvCache, &LayerPages<E>, usize),
        scores: &mut CpuBuffer,
    ) {
        let stride = scores.cols / shape.num_heads;
        let input = (qkv, shape.q_cols() / shape.num_kv_heads, stride, score_scale(shape));
        let k = (cache, pages.k[layer].as_slice());
        self.reference_step(plan, shape, input, k, scores, |rows, k, out| self.kernels.scores(rows, k, out));
    }

    fn values<E: KvElement>(
        &self,
        plan: &Batch,
        shape: QkvShape,
        scores: &CpuBuffer,
        (cache, pages, layer): (&CpuKvCache, &LayerPages<E>, usize),
        out: &mut CpuBuffer,
    ) {
        let stride = scores.cols / shape.num_heads;
        let input = (scores, scores.cols / shape.num_kv_heads, stride, 1.0);
        let v = (cache, pages.v[layer].as_slice());
        self.reference_step(plan, shape, input, v, out, |rows, v, out| self.kernels.values(rows, v, out));
    }

    /// Calls `step(input, cached rows, its slice of out)` for every row of the plan and cached head. The input of a row and
    /// cached head is `group_cols` columns of a buffer.
    fn reference_step<E: KvElement>(
        &self,
        plan: &Batch,
        shape: QkvShape,
        (input, group_cols, stride, scale): (&CpuBuffer, usize, usize, f32),
        (cache, layer): (&CpuKvCache, &[E]),
        out: &mut CpuBuffer,
        step: impl Fn(&Reference<'_>, KvRows<'_, E>, &mut [f32]) + Sync,
    ) {
        self.for_heads(plan, shape.num_kv_heads, out, |row, kv_head, out| {
            let block_table = plan.block_table(plan.seq_of_row[row] as usize);
            let context = plan.positions[row] as usize + 1;
            let rows = &input.row(row)[kv_head * group_cols..][..group_cols];
            let rows = Reference { rows, context, stride, scale };
            step(&rows, cache.rows(layer, block_table, kv_head), out);
        });
    }
}

impl Backend for CpuBackend {
    type Buffer = CpuBuffer;
    type Matrix = CpuMatrix;
    type KvCache = CpuKvCache;
    type Plan = CpuPlan;

    fn load(&self, tensor: TensorView<'_>) -> Result<CpuMatrix> {
        CpuMatrix::load(&self.pool, &self.kernels, tensor)
    }

    fn matrix_bytes(&self, matrix: &CpuMatrix) -> u64 {
        matrix.bytes() as u64
    }

    fn roofs(&self) -> Result<Option<Roofs>> {
        peak::measure(&self.pool, self.isa()).map(Some)
    }

    fn alloc(&self, rows: usize, cols: usize) -> Result<CpuBuffer> {
        self.grow_activations(rows, cols)?;
        self.upload_with(rows, cols, |_| {})
    }

    fn upload(&self, rows: usize, cols: usize, values: &[f32]) -> Result<CpuBuffer> {
        self.upload_with(rows, cols, |out| out.copy_from_slice(values))
    }

    fn alloc_kv_cache(&self, shape: KvShape) -> Result<CpuKvCache> {
        let positions = shape.num_pages * shape.page_size;
        CpuKvCache::new(shape, scratch_len(self.pool.num_threads(), positions, shape.head_dim))
    }

    fn alloc_plan(&self, limits: BatchLimits, _: QkvShape) -> Result<CpuPlan> {
        Ok(CpuPlan::new(Batch::new(limits, 1)))
    }

    fn plan(&self, batch: &Batch, plan: &mut CpuPlan) -> Result<()> {
        plan.copy_from(batch);
        Ok(())
    }

    fn embed(&self, plan: &CpuPlan, table: &CpuMatrix, out: &mut CpuBuffer) {
        self.for_rows(plan.batch.num_tokens(), out, |row, out| {
            table.row(plan.batch.token_ids[row] as usize, out)
        });
    }

    fn rms_norm(&self, rows: usize, x: &CpuBuffer, weight: &CpuBuffer, eps: f32, out: &mut CpuBuffer) {
        self.for_rows(rows, out, |row, out| self.kernels.rms_norm(x.row(row), &weight.values, eps, out));
    }

    fn add_rms_norm(
        &self,
        rows: usize,
        x: &mut CpuBuffer,
        delta: &CpuBuffer,
        weight: &CpuBuffer,
        eps: f32,
        out: &mut CpuBuffer,
    ) {
        x.check_rows(rows);
        let cols = x.cols;
        let x = Disjoint::new(&mut x.values);
        self.for_rows(rows, out, |row, out| {
            // SAFETY: as in `for_rows`.
            let x = unsafe { x.slice(row * cols, cols) };
            self.kernels.add(x, delta.row(row));
            self.kernels.rms_norm(x, &weight.values, eps, out);
        });
    }

    fn add(&self, rows: usize, x: &mut CpuBuffer, delta: &CpuBuffer) {
        self.for_rows(rows, x, |row, x| self.kernels.add(x, delta.row(row)));
    }

    fn matmul(&self, rows: usize, x: &CpuBuffer, weight: &Linear<Self>, out: &mut CpuBuffer) {
        out.check_rows(rows);
        assert_eq!(out.cols, weight.parts.iter().map(|p| p.rows).sum::<usize>(), "matmul: output columns");
        let mut scratch = self.activations.lock().unwrap_or_else(PoisonError::into_inner);
        if weight.parts.iter().any(|part| matches!(part.kernel, TileKernel::Quant(_))) {
            self.quantize(rows, x, &mut scratch);
        }
        let bias = weight.bias.as_ref().map(|bias| bias.values.as_slice());
        let input = Input { rows, cols: x.cols, values: &x.values, quantized: &scratch };
        multiply(&self.pool, &self.kernels, &weight.parts, bias, &input, &mut out.values);
    }

    fn rope_store_kv(
        &self,
        plan: &CpuPlan,
        shape: QkvShape,
        rope: RopeShape,
        table: &CpuBuffer,
        qkv: &mut CpuBuffer,
        cache: &mut CpuKvCache,
        layer: usize,
    ) {
        let kv_shape = cache.shape;
        match &mut cache.pages {
            Pages::F16(pages) => {
                self.rope_store(&plan.batch, shape, rope, table, qkv, kv_shape, pages, layer)
            }
            Pages::F32(pages) => {
                self.rope_store(&plan.batch, shape, rope, table, qkv, kv_shape, pages, layer)
            }
        }
    }

    fn paged_attention(
        &self,
        plan: &CpuPlan,
        shape: QkvShape,
        qkv: &CpuBuffer,
        cache: &CpuKvCache,
        layer: usize,
        out: &mut CpuBuffer,
    ) {
        match &cache.pages {
            Pages::F16(pages) => self.attend(plan, shape, qkv, (cache, pages, layer), out),
            Pages::F32(pages) => self.attend(plan, shape, qkv, (cache, pages, layer), out),
        }
    }

    fn attention_scores(
        &self,
        plan: &CpuPlan,
        shape: QkvShape,
        qkv: &CpuBuffer,
        cache: &CpuKvCache,
        layer: usize,
        scores: &mut CpuBuffer,
    ) {
        match &cache.pages {
            Pages::F16(pages) => self.scores(&plan.batch, shape, qkv, (cache, pages, layer), scores),
            Pages::F32(pages) => self.scores(&plan.batch, shape, qkv, (cache, pages, layer), scores),
        }
    }

    fn attention_softmax(&self, plan: &CpuPlan, shape: QkvShape, scores: &mut CpuBuffer) {
        self.for_heads(&plan.batch, shape.num_heads, scores, |row, _, scores| {
            self.kernels.softmax(&mut scores[..plan.batch.positions[row] as usize + 1]);
        });
    }

    fn attention_values(
        &self,
        plan: &CpuPlan,
        shape: QkvShape,
        scores: &CpuBuffer,
        cache: &CpuKvCache,
        layer: usize,
        out: &mut CpuBuffer,
    ) {
        match &cache.pages {
            Pages::F16(pages) => self.values(&plan.batch, shape, scores, (cache, pages, layer), out),
            Pages::F32(pages) => self.values(&plan.batch, shape, scores, (cache, pages, layer), out),
        }
    }

    fn swiglu(&self, rows: usize, gate_up: &CpuBuffer, out: &mut CpuBuffer) {
        let inner = out.cols;
        self.for_rows(rows, out, |row, out| {
            let (gate, up) = gate_up.row(row).split_at(inner);
            self.kernels.swiglu(gate, up, out);
        });
    }

    fn gather_rows(&self, plan: &CpuPlan, x: &CpuBuffer, out: &mut CpuBuffer) {
        self.for_rows(plan.batch.wanted_rows.len(), out, |row, out| {
            out.copy_from_slice(x.row(plan.batch.wanted_rows[row] as usize));
        });
    }

    fn read_into(&self, buffer: &CpuBuffer, out: &mut [f32]) -> Result<()> {
        out.copy_from_slice(&buffer.values[..out.len()]);
        Ok(())
    }
}

impl CpuBackend {
    /// Makes the quantised activations large enough for products of `[rows, cols]`.
    fn grow_activations(&self, rows: usize, cols: usize) -> Result<()> {
        let mut scratch = self.activations.lock().unwrap_or_else(PoisonError::into_inner);
        let (blocks, len) = (rows * (cols / BLOCK), scratch.len());
        if blocks > len {
            scratch.try_reserve_exact(blocks - len).map_err(|_| out_of_memory("activations", blocks, 64))?;
            scratch.resize(blocks, ActBlock::default());
        }
        Ok(())
    }

    fn upload_with(&self, rows: usize, cols: usize, fill: impl FnOnce(&mut [f32])) -> Result<CpuBuffer> {
        let len = rows * cols;
        // Asks first, since `vec!` aborts on failure; `vec!` then has the system zero the memory on first touch.
        Vec::<f32>::new().try_reserve_exact(len).map_err(|_| out_of_memory("a buffer", len, 4))?;
        let mut values = vec![0.0; len];
        fill(&mut values);
        Ok(CpuBuffer { cols, values })
    }

    #[allow(clippy::too_many_arguments)] // The operation's operands, with the cache's element type resolved.
    fn rope_store<E: KvElement>(
        &self,
        plan: &Batch,
        shape: QkvShape,
        rope: RopeShape,
        table: &CpuBuffer,
        qkv: &mut CpuBuffer,
        cache: KvShape,
        pages: &mut LayerPages<E>,
        layer: usize,
    ) {
        // Else the rows of neighbouring slots would overlap.
        assert_eq!(
            (shape.num_kv_heads, shape.head_dim),
            (cache.num_kv_heads, cache.head_dim),
            "keys and values have the cache's shape"
        );
        let k_pages = Disjoint::new(&mut pages.k[layer]);
        let v_pages = Disjoint::new(&mut pages.v[layer]);
        let (q_cols, kv_cols) = (shape.q_cols(), shape.num_kv_heads * shape.head_dim);
        self.for_rows(plan.num_tokens(), qkv, |row, qkv| {
            let rotations = &table.row(plan.positions[row] as usize)[..rope.dim];
            let (queries_and_keys, values) = qkv.split_at_mut(q_cols + kv_cols);
            for head in queries_and_keys.chunks_exact_mut(shape.head_dim) {
                rotate(head, rotations, rope.style);
            }
            let keys = &queries_and_keys[q_cols..];
            let slot = plan.slot_mapping[row] as usize;
            let (page, offset) = (slot / cache.page_size, slot % cache.page_size);
            for head in 0..shape.num_kv_heads {
                let at = row_start(&cache, page, head, offset);
                let source = head * shape.head_dim..(head + 1) * shape.head_dim;
                for (pages, source) in [(&k_pages, &keys[source.clone()]), (&v_pages, &values[source])] {
                    // SAFETY: a task writes the heads of its own row's slot; `Batch::push` refuses two rows with the same
                    // slot, and the assertion above makes the heads of different slots disjoint.
                    for (out, &value) in unsafe { pages.slice(at, shape.head_dim) }.iter_mut().zip(source) {
                        *out = E::narrow(value);
                    }
                }
            }
        });
    }
}

/// Rotates the leading `rotations.len()` dimensions of a head; `rotations` holds `(cos, sin)` pairs.
fn rotate(head: &mut [f32], rotations: &[f32], style: RopeStyle) {
    let half = rotations.len() / 2;
    for (pair, [cos, sin]) in rotations.as_chunks::<2>().0.iter().enumerate() {
        let (a, b) = match style {
            RopeStyle::Interleaved => (2 * pair, 2 * pair + 1),
            RopeStyle::Halves => (pair, pair + half),
        };
        let (x, y) = (head[a], head[b]);
        head[a] = x * cos - y * sin;
        head[b] = x * sin + y * cos;
    }
}

fn out_of_memory(what: &str, elements: usize, bytes: u64) -> Error {
    Error::OutOfMemory { what: what.to_owned(), needed: elements as u64 * bytes }
}
