//! What a device must be able to do for the graph to run on it.
//!
//! One implementation for each kind of device, each in a crate of its own. Every operation works over a ragged batch; a
//! single sequence is a batch of one. Every implementation is batch-invariant: the order in which one output element is
//! summed depends on the weights and the position, never on the other rows of the batch.

use std::ops::Range;

use gguf::TensorView;

use crate::{
    Activation, AttentionSpec, Batch, BatchLimits, BufferRole, ExpertOp, KvShape, Layout, ModelSpec,
    QkvShape, Rank, Result, RopeStyle, RoutesShape, Routing, Shards, SharedOutput,
};

/// The attention of one layer, as operations take it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionOp {
    /// The row of queries, keys and values.
    pub shape: QkvShape,
    /// The layer's index among [`KvShape::layers`].
    pub kv_layer: usize,
    /// Scores are multiplied by it.
    pub scale: f32,
    /// Scores then become `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// A row sees this many positions, its own included; all before it when `None`.
    pub window: Option<usize>,
    /// Whether each head has a sink: a logit that takes part in the softmax and has no value.
    pub sinks: bool,
}

impl AttentionOp {
    /// The attention that a layer describes, whose keys and values are those of `kv_layer`.
    pub fn new(spec: &AttentionSpec, kv_layer: usize) -> Self {
        let AttentionSpec { scale, softcap, window, sinks, .. } = *spec;
        Self { shape: spec.qkv(), kv_layer, scale, softcap, window, sinks }
    }

    /// Attention over all positions, without a soft cap or sinks.
    pub const fn plain(shape: QkvShape, kv_layer: usize, scale: f32) -> Self {
        Self { shape, kv_layer, scale, softcap: None, window: None, sinks: false }
    }

    /// The first position that a row at `position` sees.
    pub fn first_seen(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }
}

/// The rotation of queries and keys.
pub struct RopeOp<'a, B: Backend> {
    /// Rotated dimensions of a head: the columns of the table.
    pub dim: usize,
    /// Which of them pair up.
    pub style: RopeStyle,
    /// `[max_seq_len, dim]` of `(cos, sin)` pairs.
    pub table: &'a B::Buffer,
}

/// The peak rates of a device, measured: the bounds that a benchmark compares with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peaks {
    /// Bytes a second that are read from memory.
    pub read_bytes_per_s: f64,
    /// Multiply-adds a second of the instructions that products with quantised weights use.
    pub quantized_macs_per_s: f64,
    /// Multiply-adds a second of the instructions that products with float weights, and attention, use.
    pub float_macs_per_s: f64,
}

/// `y = weight * x + bias`, the weight being a stack of matrices with the same number of columns.
///
/// A stack rather than one matrix, because files mix block formats inside one (attn_v is often wider than attn_k).
pub struct Linear<B: Backend> {
    /// The stacked matrices, in the order of their rows.
    pub parts: Vec<B::Matrix>,
    /// One value per stacked row, zero for parts that have none; absent when no part has one.
    pub bias: Option<B::Buffer>,
}

/// Rows of a buffer that the host wants, and where they go.
pub struct Read<'a, B: Backend> {
    /// The buffer.
    pub buffer: &'a B::Buffer,
    /// The first row.
    pub first_row: usize,
    /// As many values as are wanted, from the first row's first on.
    pub out: &'a mut [f32],
}

/// A device that runs the graph's operations.
///
/// `T` and `S` are the tokens and sequences of the planned batch, `W` its wanted rows. Operations may be queued: only
/// [`plan`](Backend::plan) and [`read_into`](Backend::read_into) wait for the device and report its failures.
/// Operations panic when a buffer is too small for the plan or shapes do not fit: the graph guarantees both.
pub trait Backend: Send + Sync + Sized + 'static {
    /// Row-major words on the device: f32 activations, a constant vector, or the tokens that
    /// [`argmax`](Backend::argmax) and [`draw`](Backend::draw) choose.
    type Buffer: Send + Sync;
    /// A weight matrix, laid out for the device.
    type Matrix: Send + Sync;
    /// The paged K and V of all layers.
    type KvCache: Send;
    /// A batch on the device.
    type Plan: Send;
    /// The weights of all experts of a layer, of one product.
    type Experts: Send + Sync;
    /// Which experts the tokens of a step take in a layer, and their weights.
    type Routes: Send;

    /// The device's place in its group, in which each runs a part of the same model.
    fn rank(&self) -> Rank {
        Rank::ONLY
    }
    /// Refuses a model that the device cannot run.
    ///
    /// # Errors
    /// Names what is not supported, and what is.
    fn check_spec(&self, spec: &ModelSpec) -> Result<()>;
    /// Lays out a weight matrix for the device. The source's bytes are not needed afterwards.
    fn load(&self, tensor: TensorView<'_>) -> Result<Self::Matrix>;
    /// Lays out matrices of as many columns that are stacked, in the order of their rows. A device may join neighbours
    /// into one.
    fn load_stack(&self, tensors: &[TensorView<'_>]) -> Result<Vec<Self::Matrix>> {
        tensors.iter().map(|&tensor| self.load(tensor)).collect()
    }
    /// Lays out the matrices of experts: for each expert those that are stacked. Those of different experts have the same
    /// shapes.
    fn load_experts(&self, experts: &[Vec<TensorView<'_>>]) -> Result<Self::Experts>;
    /// Bytes that a loaded matrix occupies on the device.
    fn matrix_bytes(&self, matrix: &Self::Matrix) -> u64;
    /// Bytes that the matrices of experts occupy on the device.
    fn experts_bytes(&self, experts: &Self::Experts) -> u64;
    /// Measures the device, for about a second; `None` of one that has no measure of itself.
    fn peaks(&self) -> Result<Option<Peaks>> {
        Ok(None)
    }
    /// A buffer of `rows x cols` zeros.
    fn alloc(&self, rows: usize, cols: usize, role: BufferRole) -> Result<Self::Buffer>;
    /// A buffer of `rows x cols` with these values.
    fn upload(&self, rows: usize, cols: usize, values: &[f32]) -> Result<Self::Buffer>;
    /// An empty KV cache.
    fn alloc_kv_cache(&self, shape: &KvShape) -> Result<Self::KvCache>;
    /// Room for the largest batch of a model whose layers' attention has these shapes.
    fn alloc_plan(&self, limits: BatchLimits, shapes: &[QkvShape]) -> Result<Self::Plan>;
    /// Room for the routes of a step.
    fn alloc_routes(&self, shape: RoutesShape) -> Result<Self::Routes>;
    /// Bytes on the device of all that [`RunState`](crate::RunState), the KV cache and the plan of a layout take.
    fn footprint(&self, layout: &Layout) -> u64;
    /// Brings a batch to the device: the one upload of a step.
    fn plan(&self, batch: &Batch, plan: &mut Self::Plan) -> Result<()>;

    /// `out[t] = table[token_ids[t]]`, dequantised. `out: [T, hidden]`.
    fn embed(&self, plan: &Self::Plan, table: &Self::Matrix, out: &mut Self::Buffer);
    /// `out[i] = x[i] / sqrt(mean(x[i]^2) + eps) * weight` for the first `rows` rows (arXiv 1910.07467).
    fn rms_norm(
        &self,
        rows: usize,
        x: &Self::Buffer,
        weight: &Self::Buffer,
        eps: f32,
        out: &mut Self::Buffer,
    );
    /// `x += delta`, then `out = rms_norm(x)`, for the first `rows` rows.
    fn add_rms_norm(
        &self,
        rows: usize,
        x: &mut Self::Buffer,
        delta: &Self::Buffer,
        weight: &Self::Buffer,
        eps: f32,
        out: &mut Self::Buffer,
    );
    /// `x += delta` for the first `rows` rows.
    fn add(&self, rows: usize, x: &mut Self::Buffer, delta: &Self::Buffer);
    /// `x *= factor` for the first `rows` rows.
    fn scale(&self, rows: usize, x: &mut Self::Buffer, factor: f32);
    /// `x = cap * tanh(x / cap)` for the first `rows` rows.
    fn softcap(&self, rows: usize, x: &mut Self::Buffer, cap: f32);
    /// `out[i] = weight * x[i] + bias` for the first `rows` rows; `out`'s columns are the weight's stacked rows.
    fn matmul(&self, rows: usize, x: &Self::Buffer, weight: &Linear<Self>, out: &mut Self::Buffer);
    /// Norms each head of the queries with `q_weight` and of the keys with `k_weight`, both `[head_dim]`, in place.
    /// `qkv: [T, op.shape.cols()]`.
    fn norm_heads(
        &self,
        plan: &Self::Plan,
        shape: QkvShape,
        weights: (&Self::Buffer, &Self::Buffer),
        eps: f32,
        qkv: &mut Self::Buffer,
    );
    /// Rotates the queries in place and stores the rotated keys and the values at `slot_mapping`; rotates neither without
    /// `rope`. `qkv: [T, op.shape.cols()]`.
    fn rope_store_kv(
        &self,
        plan: &Self::Plan,
        op: AttentionOp,
        rope: Option<RopeOp<'_, Self>>,
        qkv: &mut Self::Buffer,
        cache: &mut Self::KvCache,
    );
    /// Multiplies the queries of each row by the factor of its position. `factors: [max_seq_len, 1]`,
    /// `qkv: [T, shape.cols()]`.
    fn scale_queries(
        &self,
        plan: &Self::Plan,
        shape: QkvShape,
        factors: &Self::Buffer,
        qkv: &mut Self::Buffer,
    );
    /// Causal softmax attention of every row over its sequence's cached positions from [`AttentionOp::first_seen`] up to its
    /// own, scores scaled and capped as `op` says. `inputs` are queries, keys and values, and sinks, `[num_heads]`, iff `op` has some.
    /// `out: [T, op.shape.q_cols()]`.
    fn paged_attention(
        &self,
        plan: &Self::Plan,
        op: AttentionOp,
        inputs: (&Self::Buffer, Option<&Self::Buffer>),
        cache: &Self::KvCache,
        out: &mut Self::Buffer,
    );
    /// Reference attention, step 1: `scores[t, h, p] = q[t, h] . k[p] * op.scale`, then capped, for positions `p` up to the
    /// row's own; so low that their weight is 0 for those before the first that the row sees.
    /// `scores: [T, num_heads * context]`, `context` being its columns over `num_heads`.
    fn attention_scores(
        &self,
        plan: &Self::Plan,
        op: AttentionOp,
        qkv: &Self::Buffer,
        cache: &Self::KvCache,
        scores: &mut Self::Buffer,
    );
    /// Reference attention, step 2: each row of `scores` becomes its part of the softmax (maximum, sum of exponentials,
    /// quotient) over it and, if there are `sinks`, its head's.
    fn attention_softmax(
        &self,
        plan: &Self::Plan,
        op: AttentionOp,
        sinks: Option<&Self::Buffer>,
        scores: &mut Self::Buffer,
    );
    /// Reference attention, step 3: `out[t, h] = sum over p of scores[t, h, p] * v[p]`.
    fn attention_values(
        &self,
        plan: &Self::Plan,
        op: AttentionOp,
        scores: &Self::Buffer,
        cache: &Self::KvCache,
        out: &mut Self::Buffer,
    );
    /// `out[i, j] = act(gate_up[i, j], gate_up[i, n + j])` for the first `rows` rows, `n` being `out`'s columns (arXiv
    /// 2002.05202).
    fn gated(&self, rows: usize, act: Activation, gate_up: &Self::Buffer, out: &mut Self::Buffer);
    /// Chooses the experts of the first `rows` rows and their weights, as `routing` says. `logits: [T, num_experts]`; NaN counts
    /// as minus infinity.
    fn route(&self, rows: usize, logits: &Self::Buffer, routing: Routing, routes: &mut Self::Routes);
    /// `out[pair] = weight[expert of pair] * x + bias[expert of pair]` for every pair of the routes' tokens, `x` being the row of
    /// the pair or of its token. The weights of an expert are read once for all its tokens. `out: [T * top_k, rows]`.
    fn matmul_experts(
        &self,
        x: &Self::Buffer,
        op: ExpertOp<'_, Self>,
        routes: &Self::Routes,
        out: &mut Self::Buffer,
    );
    /// `out[t]` is the sum over the ranks `r`, in order, of `weight[t, r] * x[t * top_k + r]`, and then of the shared expert's
    /// output, for every token of the routes. `x: [T * top_k, cols]`, `out: [T, cols]`.
    fn combine_experts(
        &self,
        x: &Self::Buffer,
        routes: &Self::Routes,
        shared: Option<SharedOutput<'_, Self>>,
        out: &mut Self::Buffer,
    );
    /// `out[i] = x[wanted_rows[i]]`. `out: [W, cols]`.
    fn gather_rows(&self, plan: &Self::Plan, x: &Self::Buffer, out: &mut Self::Buffer);
    /// The index of the highest value in each of these rows, of equal ones the first: word `i` of `out` is the one of row
    /// `rows.start + i`, as the bits of a `u32`. [`NO_INDEX`] of a row without any value above minus infinity. NaN counts
    /// as minus infinity, and plus infinity as the greatest number.
    fn argmax(&self, rows: Range<usize>, x: &Self::Buffer, out: &mut Self::Buffer);
    /// Whether [`draw`](Backend::draw) is there. Where the host draws as fast from rows that need not travel, it is not.
    fn draws(&self) -> bool {
        false
    }
    /// The tokens that the plan's rows of that kind yield, of the first rows of `x`, as [`draw`](fn@crate::draw) says: word `i` of
    /// `out` is the one of row `i`, as the bits of a `u32`. `x: [A + L, vocab_size]`, `out: [A, 1]`.
    fn draw(&self, _plan: &Self::Plan, _x: &Self::Buffer, _out: &mut Self::Buffer) {
        unreachable!("a draw on a device that has none");
    }
    /// `out[i] = [part of rank 0 | part of rank 1 | ..]` for the first `rows` rows, whose columns each rank has computed in a buffer
    /// of the role [`Part`](crate::BufferRole::Part) by itself: those of rank `r` are [`Shards::of`]`(r)`. `out` may be the input of products.
    ///
    /// All ranks of a group allocate parts, and call this, in the same order, with the same rows and shards. They allocate one after
    /// the other, so an allocation cannot wait for another rank; they gather at the same time, each in a thread of its own. Between two
    /// gathers of one part there is always a gather of another. Never called by a device without a group.
    ///
    /// A gather ends, with whatever in `out`, when a rank has [left](Backend::leave_group) the group; [`plan`](Backend::plan) and
    /// [`read_into`](Backend::read_into) then fail with its reason.
    fn all_gather(&self, _rows: usize, _part: &Self::Buffer, _shards: &Shards, _out: &mut Self::Buffer) {
        unreachable!("a gather on a device without a group");
    }
    /// Tells the group that this rank has failed, and why: it comes to no further gather. The first reason counts. A group that was left
    /// stays so.
    fn leave_group(&self, _reason: &str) {}
    /// Waits for the queue, even if nothing is wanted, and copies what is: the one wait of a step.
    fn read_into(&self, reads: &mut [Read<'_, Self>]) -> Result<()>;
}

/// Stands for the index that a row without a finite value does not have.
pub const NO_INDEX: u32 = u32::MAX;
