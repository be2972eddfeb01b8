//! [`Backend`] on the CPU.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use gguf::TensorView;
use model::math::exp;
use model::{
    Activation, AttentionOp, Backend, Batch, BatchLimits, BufferRole, BufferShape, Error, ExpertOp, KvShape,
    Layout, Linear, ModelSpec, NO_INDEX, Peaks, QkvShape, Rank, Read, Result, RopeOp, RopeStyle, RoutesShape,
    Routing, Shards, SharedOutput,
};

use crate::activations::{ActBlock, Activations, ByteBlock, Quantized, WideBlock};
use crate::attention::{Attention, CpuPlan, scratch_len};
use crate::disjoint::Disjoint;
use crate::experts::{CpuExperts, CpuRoutes};
use crate::group::Place;
use crate::kernels::{Isa, Kernels, KvElement, KvRows, MAX_HEAD_DIM, PageLayout, Reference};
use crate::kv_cache::{CpuKvCache, LayerPages, Pages};
use crate::matmul::{Input, Order, multiply, multiply_experts};
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
    /// Precision of the activations that quantised weights are multiplied with.
    pub activations: Activations,
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
    activations: Activations,
    /// Quantised activations of the matmul under way; grown by `alloc`, never during a step.
    quantized: Mutex<Quantized>,
    /// The place in a group, if there is one.
    place: Option<Place>,
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
        Ok(Self { pool, kernels, activations: options.activations, quantized: Mutex::default(), place: None })
    }

    /// A group of ranks, each with threads of its own, that run a model together.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn group(ranks: &[CpuOptions]) -> Result<Vec<Self>> {
        let in_place = |(&options, place)| Ok(Self { place: Some(place), ..Self::new(options)? });
        ranks.iter().zip(Place::all(ranks.len())).map(in_place).collect()
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.kernels.isa()
    }

    /// The precision of activations in use.
    pub fn activations(&self) -> Activations {
        self.activations
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

    /// Quantises the first `rows` rows of `x`.
    fn quantize(&self, rows: usize, x: &CpuBuffer, out: &mut Quantized) {
        let (kernels, wide) = (&self.kernels, &mut out.wide);
        match self.activations {
            Activations::Bits8 => self.quantize_as(rows, x, &mut out.bytes, |x, stride, count, out| {
                kernels.quantize_group(x, stride, count, out);
            }),
            Activations::Bits16 => self.quantize_as(rows, x, wide, |x, stride, count, out| {
                kernels.quantize_group_wide(x, stride, count, out);
            }),
        }
    }

    /// Quantises the first `rows` rows of `x` by groups, with `quantize(x, stride, count, blocks)`.
    fn quantize_as<const B: usize>(
        &self,
        rows: usize,
        x: &CpuBuffer,
        out: &mut Vec<ActBlock<B>>,
        quantize: impl Fn(&[f32], usize, usize, &mut [ActBlock<B>]) + Sync,
    ) {
        let group = |group: usize| group * MAX_TOKENS..rows.min((group + 1) * MAX_TOKENS);
        let num_groups = rows.div_ceil(MAX_TOKENS);
        self.quantize_groups((rows, num_groups), x.cols, out, group, |rows, block, out| {
            let first = &x.values[rows.start * x.cols + block * BLOCK..];
            quantize(first, x.cols, rows.len(), out);
        });
    }

    /// Quantises the rows of `x` that `order` takes, in its order, in these groups of places.
    fn quantize_in_order(
        &self,
        order: &Order<'_>,
        groups: &[Range<usize>],
        x: &CpuBuffer,
        out: &mut Quantized,
    ) {
        let (kernels, wide, order) = (&self.kernels, &mut out.wide, (order, groups));
        match self.activations {
            Activations::Bits8 => {
                self.quantize_in_order_as(order, x, &mut out.bytes, |x, stride, count, out| {
                    kernels.quantize_group(x, stride, count, out);
                })
            }
            Activations::Bits16 => self.quantize_in_order_as(order, x, wide, |x, stride, count, out| {
                kernels.quantize_group_wide(x, stride, count, out);
            }),
        }
    }

    /// As `quantize_in_order`, with `quantize(x, stride, count, blocks)`.
    fn quantize_in_order_as<const B: usize>(
        &self,
        (order, groups): (&Order<'_>, &[Range<usize>]),
        x: &CpuBuffer,
        out: &mut Vec<ActBlock<B>>,
        quantize: impl Fn(&[f32], usize, usize, &mut [ActBlock<B>]) + Sync,
    ) {
        let num_rows = order.pairs.len();
        let group = |group: usize| groups[group].clone();
        self.quantize_groups((num_rows, groups.len()), x.cols, out, group, |places, block, out| {
            let (count, cols) = (places.len(), out.len() / places.len() * BLOCK);
            // The rows lie anywhere: their pieces are brought together.
            let mut rows = [0.0; BLOCKS_PER_TASK * BLOCK];
            for (place, row) in places.zip(rows.chunks_exact_mut(cols)) {
                row.copy_from_slice(&x.row(order.source(place))[block * BLOCK..][..cols]);
            }
            quantize(&rows, cols, count, out);
        });
    }

    /// Calls `quantize(rows, first block, their blocks of the result)` for every piece of every group of rows of `cols`
    /// columns.
    fn quantize_groups<const B: usize>(
        &self,
        (rows, num_groups): (usize, usize),
        cols: usize,
        out: &mut Vec<ActBlock<B>>,
        group: impl Fn(usize) -> Range<usize> + Sync,
        quantize: impl Fn(Range<usize>, usize, &mut [ActBlock<B>]) + Sync,
    ) {
        let blocks = cols / BLOCK;
        // `alloc` made it large enough for a step's buffers; an uploaded one, as tests have, may be larger.
        if out.len() < rows * blocks {
            out.resize(rows * blocks, ActBlock::default());
        }
        let out = Disjoint::new(out);
        // A task takes a piece of a group's columns: large enough to be worth a draw.
        let piece = (BLOCKS_PER_TASK / rows.clamp(1, MAX_TOKENS)).clamp(1, blocks);
        let pieces = blocks.div_ceil(piece);
        self.pool.run(num_groups * pieces, |task| {
            let (rows, block) = (group(task / pieces), task % pieces * piece);
            let (count, len) = (rows.len(), piece.min(blocks - block));
            // SAFETY: each task takes the blocks of its own piece of its own group, and a job runs each task once.
            let out = unsafe { out.slice(rows.start * blocks + block * count, len * count) };
            quantize(rows, block, out);
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
        op: AttentionOp,
        (qkv, sinks): (&CpuBuffer, Option<&CpuBuffer>),
        (cache, pages): (&CpuKvCache, &LayerPages<E>),
        out: &mut CpuBuffer,
    ) {
        out.check_rows(plan.batch.num_tokens());
        let (k, v) = (&pages.k[op.kv_layer], &pages.v[op.kv_layer]);
        let layout = cache.layout(op.kv_layer);
        layout.check(op.shape);
        check_sinks(op, sinks);
        let (qkv, sinks) = (qkv.values.as_slice(), sinks.map(|sinks| sinks.values.as_slice()));
        let attention = Attention { kernels: &self.kernels, plan, op, qkv, sinks, layout, k, v };
        attention.run(&self.pool, &cache.partials, &mut out.values);
    }

    fn scores<E: KvElement>(
        &self,
        plan: &Batch,
        op: AttentionOp,
        qkv: &CpuBuffer,
        (cache, pages): (&CpuKvCache, &LayerPages<E>),
        scores: &mut CpuBuffer,
    ) {
        let AttentionOp { shape, kv_layer, .. } = op;
        let stride = scores.cols / shape.num_heads;
        let input = (qkv, shape.q_cols() / shape.num_kv_heads, stride);
        let k = (cache.layout(kv_layer), pages.k[kv_layer].as_slice());
        self.reference_step(plan, op, input, k, scores, |rows, k, out| self.kernels.scores(rows, k, out));
    }

    fn values<E: KvElement>(
        &self,
        plan: &Batch,
        op: AttentionOp,
        scores: &CpuBuffer,
        (cache, pages): (&CpuKvCache, &LayerPages<E>),
        out: &mut CpuBuffer,
    ) {
        let AttentionOp { shape, kv_layer, .. } = op;
        let stride = scores.cols / shape.num_heads;
        let input = (scores, scores.cols / shape.num_kv_heads, stride);
        let v = (cache.layout(kv_layer), pages.v[kv_layer].as_slice());
        self.reference_step(plan, op, input, v, out, |rows, v, out| self.kernels.values(rows, v, out));
    }

    /// Calls `step(input, cached rows, its slice of out)` for every row of the plan and cached head. The input of a row and
    /// cached head is `group_cols` columns of a buffer.
    fn reference_step<E: KvElement>(
        &self,
        plan: &Batch,
        op: AttentionOp,
        (input, group_cols, stride): (&CpuBuffer, usize, usize),
        (layout, layer): (PageLayout, &[E]),
        out: &mut CpuBuffer,
        step: impl Fn(&Reference<'_>, KvRows<'_, E>, &mut [f32]) + Sync,
    ) {
        let AttentionOp { scale, softcap, .. } = op;
        self.for_heads(plan, op.shape.num_kv_heads, out, |row, kv_head, out| {
            let block_table = plan.block_table(plan.seq_of_row()[row] as usize);
            let position = plan.positions()[row] as usize;
            let (first, context) = (op.first_seen(position), position + 1);
            let rows = &input.row(row)[kv_head * group_cols..][..group_cols];
            let rows = Reference { rows, first, context, stride, scale, softcap };
            step(&rows, KvRows { layer, block_table, layout, kv_head }, out);
        });
    }
}

impl Backend for CpuBackend {
    type Buffer = CpuBuffer;
    type Matrix = CpuMatrix;
    type KvCache = CpuKvCache;
    type Plan = CpuPlan;
    type Experts = CpuExperts;
    type Routes = CpuRoutes;

    fn rank(&self) -> Rank {
        self.place.as_ref().map_or(Rank::ONLY, Place::rank)
    }

    fn check_spec(&self, spec: &ModelSpec) -> Result<()> {
        spec.layers.iter().try_for_each(|layer| check_head_dim(layer.attn.head_dim))
    }

    fn load(&self, tensor: TensorView<'_>) -> Result<CpuMatrix> {
        CpuMatrix::load(&self.pool, &self.kernels, self.activations, tensor)
    }

    fn load_experts(&self, experts: &[Vec<TensorView<'_>>]) -> Result<CpuExperts> {
        CpuExperts::load(&self.pool, &self.kernels, self.activations, experts)
    }

    fn experts_bytes(&self, experts: &CpuExperts) -> u64 {
        experts.bytes() as u64
    }

    fn matrix_bytes(&self, matrix: &CpuMatrix) -> u64 {
        matrix.bytes() as u64
    }

    fn peaks(&self) -> Result<Option<Peaks>> {
        peak::measure(&self.pool, self.isa()).map(Some)
    }

    fn alloc(&self, rows: usize, cols: usize, role: BufferRole) -> Result<CpuBuffer> {
        if role == BufferRole::MatmulInput {
            self.grow_activations(rows, cols)?;
        }
        if role == BufferRole::Part
            && let Some(place) = &self.place
        {
            place.reserve(rows * cols)?;
        }
        self.upload_with(rows, cols, |_| {})
    }

    fn upload(&self, rows: usize, cols: usize, values: &[f32]) -> Result<CpuBuffer> {
        self.upload_with(rows, cols, |out| out.copy_from_slice(values))
    }

    fn alloc_kv_cache(&self, shape: &KvShape) -> Result<CpuKvCache> {
        shape.layers.iter().try_for_each(|heads| check_head_dim(heads.head_dim))?;
        CpuKvCache::new(shape, scratch_len(self.pool.num_threads(), shape))
    }

    fn alloc_plan(&self, limits: BatchLimits, _: &[QkvShape]) -> Result<CpuPlan> {
        Ok(CpuPlan::new(Batch::new(limits, 1)))
    }

    fn alloc_routes(&self, shape: RoutesShape) -> Result<CpuRoutes> {
        self.grow_activations(shape.max_pairs(), shape.max_cols)?;
        CpuRoutes::new(shape)
    }

    fn footprint(&self, layout: &Layout) -> u64 {
        let values = |shape: BufferShape| (shape.rows * shape.cols * size_of::<f32>()) as u64;
        let inputs = layout.buffers().filter(|shape| shape.role == BufferRole::MatmulInput);
        let blocks = inputs.map(|shape| shape.rows * (shape.cols / BLOCK)).max().unwrap_or(0);
        let routes = layout.experts.as_ref().map(|experts| experts.routes);
        let blocks = routes.map_or(0, |routes| routes.max_pairs() * (routes.max_cols / BLOCK)).max(blocks);
        let routes = routes.map_or(0, CpuRoutes::bytes);
        let scratch = scratch_len(self.pool.num_threads(), &layout.kv);
        let limits = layout.limits;
        // Two copies of the largest part for other ranks to read.
        let parts = layout.buffers().filter(|shape| shape.role == BufferRole::Part);
        let parts = 2 * parts.map(values).max().unwrap_or(0);
        // A row's four words, a sequence's block table.
        let plan = 4 * (5 * limits.max_tokens + limits.max_seqs * (limits.max_blocks + 2) + limits.num_pages);
        layout.buffers().map(values).sum::<u64>()
            + (blocks * self.block_bytes() + scratch * size_of::<f32>() + plan + routes) as u64
            + parts
            + layout.kv.bytes()
    }

    fn plan(&self, batch: &Batch, plan: &mut CpuPlan) -> Result<()> {
        plan.copy_from(batch);
        self.check_group()
    }

    fn embed(&self, plan: &CpuPlan, table: &CpuMatrix, out: &mut CpuBuffer) {
        self.for_rows(plan.batch.num_tokens(), out, |row, out| {
            table.row(plan.batch.token_ids()[row] as usize, out)
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

    fn scale(&self, rows: usize, x: &mut CpuBuffer, factor: f32) {
        self.for_rows(rows, x, |_, x| x.iter_mut().for_each(|x| *x *= factor));
    }

    fn softcap(&self, rows: usize, x: &mut CpuBuffer, cap: f32) {
        self.for_rows(rows, x, |_, x| self.kernels.softcap(x, cap));
    }

    fn matmul(&self, rows: usize, x: &CpuBuffer, weight: &Linear<Self>, out: &mut CpuBuffer) {
        out.check_rows(rows);
        assert_eq!(out.cols, weight.parts.iter().map(|p| p.rows).sum::<usize>(), "matmul: output columns");
        let mut scratch = self.quantized.lock().unwrap_or_else(PoisonError::into_inner);
        if weight.parts.iter().any(|part| part.kernel.is_quantized()) {
            self.quantize(rows, x, &mut scratch);
        }
        let bias = weight.bias.as_ref().map(|bias| bias.values.as_slice());
        let input = Input { rows, cols: x.cols, values: &x.values, quantized: &scratch };
        multiply(&self.pool, &self.kernels, &weight.parts, bias, &input, &mut out.values);
    }

    fn norm_heads(
        &self,
        plan: &CpuPlan,
        shape: QkvShape,
        (q_weight, k_weight): (&CpuBuffer, &CpuBuffer),
        eps: f32,
        qkv: &mut CpuBuffer,
    ) {
        self.for_rows(plan.batch.num_tokens(), qkv, |_, qkv| {
            let mut head = [0.0; MAX_HEAD_DIM];
            let head = &mut head[..shape.head_dim];
            let heads = qkv.chunks_exact_mut(shape.head_dim).take(shape.num_heads + shape.num_kv_heads);
            for (head_idx, values) in heads.enumerate() {
                let weight = if head_idx < shape.num_heads { q_weight } else { k_weight };
                head.copy_from_slice(values);
                self.kernels.rms_norm(head, &weight.values, eps, values);
            }
        });
    }

    fn rope_store_kv(
        &self,
        plan: &CpuPlan,
        op: AttentionOp,
        rope: Option<RopeOp<'_, Self>>,
        qkv: &mut CpuBuffer,
        cache: &mut CpuKvCache,
    ) {
        let layout = cache.layout(op.kv_layer);
        match &mut cache.pages {
            Pages::F16(pages) => self.rope_store(&plan.batch, op, rope, qkv, layout, pages),
            Pages::F32(pages) => self.rope_store(&plan.batch, op, rope, qkv, layout, pages),
        }
    }

    fn scale_queries(&self, plan: &CpuPlan, shape: QkvShape, factors: &CpuBuffer, qkv: &mut CpuBuffer) {
        self.for_rows(plan.batch.num_tokens(), qkv, |row, qkv| {
            let factor = factors.row(plan.batch.positions()[row] as usize)[0];
            qkv[..shape.q_cols()].iter_mut().for_each(|q| *q *= factor);
        });
    }

    fn paged_attention(
        &self,
        plan: &CpuPlan,
        op: AttentionOp,
        inputs: (&CpuBuffer, Option<&CpuBuffer>),
        cache: &CpuKvCache,
        out: &mut CpuBuffer,
    ) {
        match &cache.pages {
            Pages::F16(pages) => self.attend(plan, op, inputs, (cache, pages), out),
            Pages::F32(pages) => self.attend(plan, op, inputs, (cache, pages), out),
        }
    }

    fn attention_scores(
        &self,
        plan: &CpuPlan,
        op: AttentionOp,
        qkv: &CpuBuffer,
        cache: &CpuKvCache,
        scores: &mut CpuBuffer,
    ) {
        match &cache.pages {
            Pages::F16(pages) => self.scores(&plan.batch, op, qkv, (cache, pages), scores),
            Pages::F32(pages) => self.scores(&plan.batch, op, qkv, (cache, pages), scores),
        }
    }

    fn attention_softmax(
        &self,
        plan: &CpuPlan,
        op: AttentionOp,
        sinks: Option<&CpuBuffer>,
        scores: &mut CpuBuffer,
    ) {
        check_sinks(op, sinks);
        self.for_heads(&plan.batch, op.shape.num_heads, scores, |row, head, scores| {
            let scores = &mut scores[..plan.batch.positions()[row] as usize + 1];
            let max = scores.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
            self.kernels.softmax(scores);
            if let Some(sinks) = sinks {
                // The sum of the exponentials is that of what the highest one became.
                let highest = scores.iter().fold(0.0, |a: f32, &b| a.max(b));
                let factor = 1.0 / (1.0 + exp(sinks.values[head] - max) * highest);
                scores.iter_mut().for_each(|score| *score *= factor);
            }
        });
    }

    fn attention_values(
        &self,
        plan: &CpuPlan,
        op: AttentionOp,
        scores: &CpuBuffer,
        cache: &CpuKvCache,
        out: &mut CpuBuffer,
    ) {
        match &cache.pages {
            Pages::F16(pages) => self.values(&plan.batch, op, scores, (cache, pages), out),
            Pages::F32(pages) => self.values(&plan.batch, op, scores, (cache, pages), out),
        }
    }

    fn gated(&self, rows: usize, act: Activation, gate_up: &CpuBuffer, out: &mut CpuBuffer) {
        let inner = out.cols;
        self.for_rows(rows, out, |row, out| {
            let (gate, up) = gate_up.row(row).split_at(inner);
            match act {
                Activation::Silu => self.kernels.swiglu(gate, up, out),
                Activation::GeluTanh => self.kernels.geglu(gate, &up[..inner], out),
                Activation::ClampedSwiglu => self.kernels.clamped_swiglu(gate, &up[..inner], out),
            }
        });
    }

    fn route(&self, rows: usize, logits: &CpuBuffer, routing: Routing, routes: &mut CpuRoutes) {
        logits.check_rows(rows);
        assert_eq!(logits.cols, routes.num_experts(), "route: columns");
        routes.route(&self.pool, &self.kernels, &logits.values[..rows * logits.cols], routing);
    }

    fn matmul_experts(&self, x: &CpuBuffer, op: ExpertOp<'_, Self>, routes: &CpuRoutes, out: &mut CpuBuffer) {
        let parts = &op.weights.parts;
        out.check_rows(routes.num_pairs());
        assert_eq!(
            out.cols,
            parts.iter().map(|p| p.rows).sum::<usize>(),
            "matmul of experts: output columns"
        );
        let order = routes.order(op.input);
        let mut scratch = self.quantized.lock().unwrap_or_else(PoisonError::into_inner);
        if parts.iter().any(|part| part.kernel.is_quantized()) {
            self.quantize_in_order(&order, routes.groups(), x, &mut scratch);
        }
        let bias = op.bias.map(|bias| bias.values.as_slice());
        let input = Input { rows: order.pairs.len(), cols: x.cols, values: &x.values, quantized: &scratch };
        multiply_experts(&self.pool, &self.kernels, parts, bias, (&input, &order), &mut out.values);
    }

    fn combine_experts(
        &self,
        x: &CpuBuffer,
        routes: &CpuRoutes,
        shared: Option<SharedOutput<'_, Self>>,
        out: &mut CpuBuffer,
    ) {
        assert_eq!(x.cols, out.cols, "combine_experts: columns");
        self.for_rows(routes.tokens(), out, |token, out| {
            let weights = routes.weights(token);
            out.fill(0.0);
            for (rank, weight) in weights.iter().enumerate() {
                let x = x.row(token * weights.len() + rank);
                out.iter_mut().zip(x).for_each(|(out, x)| *out += weight * x);
            }
            if let Some(SharedOutput { values, gate }) = &shared {
                let weight = gate.map_or(1.0, |gate| 1.0 / (1.0 + exp(-gate.row(token)[0])));
                out.iter_mut().zip(values.row(token)).for_each(|(out, x)| *out += weight * x);
            }
        });
    }

    fn gather_rows(&self, plan: &CpuPlan, x: &CpuBuffer, out: &mut CpuBuffer) {
        let wanted_rows = plan.batch.wanted_rows();
        self.for_rows(wanted_rows.len(), out, |row, out| {
            out.copy_from_slice(x.row(wanted_rows[row] as usize));
        });
    }

    fn argmax(&self, rows: Range<usize>, x: &CpuBuffer, out: &mut CpuBuffer) {
        assert_eq!(out.cols, 1, "argmax: a row has one index");
        self.for_rows(rows.len(), out, |row, out| {
            out[0] = f32::from_bits(highest(x.row(rows.start + row)));
        });
    }

    fn all_gather(&self, rows: usize, part: &CpuBuffer, shards: &Shards, out: &mut CpuBuffer) {
        let place = self.place.as_ref().expect("a gather in a group");
        assert_eq!(
            (part.cols, out.cols),
            (shards.of(place.rank().idx()).len(), shards.cols()),
            "gather: columns"
        );
        part.check_rows(rows);
        place.gather(&part.values[..rows * part.cols], shards, |columns, part| {
            let width = columns.len();
            self.for_rows(rows, out, |row, out| {
                out[columns.clone()].copy_from_slice(&part[row * width..][..width]);
            });
        });
    }

    fn leave_group(&self, reason: &str) {
        if let Some(place) = &self.place {
            place.leave(reason);
        }
    }

    fn read_into(&self, reads: &mut [Read<'_, Self>]) -> Result<()> {
        self.check_group()?;
        for Read { buffer, first_row, out } in reads {
            let first = *first_row * buffer.cols;
            out.copy_from_slice(&buffer.values[first..first + out.len()]);
        }
        Ok(())
    }
}

/// The index of the highest value, of equal ones the first; NaN counts as minus infinity, and plus infinity as the greatest
/// number.
fn highest(values: &[f32]) -> u32 {
    let (chunks, rest) = values.as_chunks::<16>();
    // In lanes that the compiler can keep in a register.
    let mut lanes = [f32::NEG_INFINITY; 16];
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = if value > *lane { value } else { *lane };
        }
    }
    let highest = lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    if highest == f32::NEG_INFINITY {
        return NO_INDEX;
    }
    let first = values.iter().position(|&value| value >= highest.min(f32::MAX));
    first.map_or(NO_INDEX, |index| index as u32)
}

/// # Panics
/// When there are not as many sinks as the operation has.
fn check_sinks(op: AttentionOp, sinks: Option<&CpuBuffer>) {
    let expected = if op.sinks { op.shape.num_heads } else { 0 };
    assert_eq!(sinks.map_or(0, |sinks| sinks.values.len()), expected, "attention: sinks");
}

fn check_head_dim(head_dim: usize) -> Result<()> {
    if head_dim <= MAX_HEAD_DIM {
        return Ok(());
    }
    Err(Error::InvalidValue {
        what: "head dimension".to_owned(),
        expected: format!("at most {MAX_HEAD_DIM} on the CPU"),
        found: head_dim.to_string(),
    })
}

impl CpuBackend {
    /// Makes the quantised activations large enough for products of `[rows, cols]`.
    fn grow_activations(&self, rows: usize, cols: usize) -> Result<()> {
        fn grow<const B: usize>(out: &mut Vec<ActBlock<B>>, blocks: usize) -> Result<()> {
            let len = out.len();
            if blocks > len {
                let bytes = size_of::<ActBlock<B>>() as u64;
                out.try_reserve_exact(blocks - len)
                    .map_err(|_| out_of_memory("activations", blocks, bytes))?;
                out.resize(blocks, ActBlock::default());
            }
            Ok(())
        }
        let mut scratch = self.quantized.lock().unwrap_or_else(PoisonError::into_inner);
        let blocks = rows * (cols / BLOCK);
        match self.activations {
            Activations::Bits8 => grow(&mut scratch.bytes, blocks),
            Activations::Bits16 => grow(&mut scratch.wide, blocks),
        }
    }

    /// Whether all ranks of the group are still there.
    fn check_group(&self) -> Result<()> {
        self.place.as_ref().map_or(Ok(()), Place::check)
    }

    /// Bytes of a block of quantised activations.
    fn block_bytes(&self) -> usize {
        match self.activations {
            Activations::Bits8 => size_of::<ByteBlock>(),
            Activations::Bits16 => size_of::<WideBlock>(),
        }
    }

    fn upload_with(&self, rows: usize, cols: usize, fill: impl FnOnce(&mut [f32])) -> Result<CpuBuffer> {
        let len = rows * cols;
        // Asks first, since `vec!` aborts on failure; `vec!` then has the system zero the memory on first touch.
        Vec::<f32>::new().try_reserve_exact(len).map_err(|_| out_of_memory("a buffer", len, 4))?;
        let mut values = vec![0.0; len];
        fill(&mut values);
        Ok(CpuBuffer { cols, values })
    }

    fn rope_store<E: KvElement>(
        &self,
        plan: &Batch,
        op: AttentionOp,
        rope: Option<RopeOp<'_, Self>>,
        qkv: &mut CpuBuffer,
        layout: PageLayout,
        pages: &mut LayerPages<E>,
    ) {
        let QkvShape { num_kv_heads, head_dim, .. } = op.shape;
        // Else the rows of neighbouring slots would overlap.
        layout.check(op.shape);
        let k_pages = Disjoint::new(&mut pages.k[op.kv_layer]);
        let v_pages = Disjoint::new(&mut pages.v[op.kv_layer]);
        let (q_cols, kv_cols) = (op.shape.q_cols(), num_kv_heads * head_dim);
        self.for_rows(plan.num_tokens(), qkv, |row, qkv| {
            let (queries_and_keys, values) = qkv.split_at_mut(q_cols + kv_cols);
            if let Some(rope) = &rope {
                let rotations = &rope.table.row(plan.positions()[row] as usize)[..rope.dim];
                for head in queries_and_keys.chunks_exact_mut(head_dim) {
                    rotate(head, rotations, rope.style);
                }
            }
            let keys = &queries_and_keys[q_cols..];
            let slot = plan.slot_mapping()[row] as usize;
            let (page, offset) = (slot / layout.page_size, slot % layout.page_size);
            for head in 0..num_kv_heads {
                let at = layout.row_start(page, head, offset);
                let source = head * head_dim..(head + 1) * head_dim;
                for (pages, source) in [(&k_pages, &keys[source.clone()]), (&v_pages, &values[source])] {
                    // SAFETY: a task writes the heads of its own row's slot; `Batch::push` refuses two rows with the same
                    // slot, and `layout.check` makes the heads of different slots disjoint.
                    for (out, &value) in unsafe { pages.slice(at, head_dim) }.iter_mut().zip(source) {
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
