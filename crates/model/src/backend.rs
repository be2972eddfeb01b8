//! What a device must be able to do for the graph to run on it.
//!
//! One implementation per kind of device, each in a crate of its own. The operations are those of the Llama family,
//! each over a ragged batch; a single sequence is a batch of one. Law that every implementation keeps: the order in
//! which one output element is summed depends on the weights and the position, never on the other rows of the batch.

use gguf::TensorView;

use crate::{Batch, BatchLimits, KvDtype, Linear, Result, RopeStyle};

/// Which attention runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AttentionMode {
    /// One pass over the cached keys and values with a running softmax.
    #[default]
    Fused,
    /// Scores, softmax and values as three operations over whole rows: the readable twin that `Fused` is tested
    /// against. Its buffer grows with the batch's tokens times the context, which is therefore limited to
    /// [`AttentionMode::MAX_REFERENCE_CONTEXT`].
    Reference,
}

impl AttentionMode {
    /// Most tokens of a sequence with reference attention.
    pub const MAX_REFERENCE_CONTEXT: usize = 8192;
}

/// The paged KV cache of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvShape {
    /// Layers, each with pages of its own.
    pub num_layers: usize,
    /// Pages of a layer.
    pub num_pages: usize,
    /// Tokens of a page.
    pub page_size: usize,
    /// Key and value heads.
    pub num_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Element type.
    pub dtype: KvDtype,
}

impl KvShape {
    /// Elements of K (as many of V) in one layer.
    pub fn elements_per_layer(&self) -> usize {
        self.num_pages * self.page_size * self.num_kv_heads * self.head_dim
    }

    /// Bytes of K and V over all layers.
    pub fn bytes(&self) -> u64 {
        2 * self.num_layers as u64 * self.elements_per_layer() as u64 * self.dtype.bytes() as u64
    }
}

/// The stacked row that the QKV projection writes: `[q: num_heads * head_dim | k: num_kv_heads * head_dim | v: ..]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QkvShape {
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads.
    pub num_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

impl QkvShape {
    /// Width of the stacked row.
    pub fn cols(&self) -> usize {
        (self.num_heads + 2 * self.num_kv_heads) * self.head_dim
    }

    /// Width of the queries, and of the attention's output.
    pub fn q_cols(&self) -> usize {
        self.num_heads * self.head_dim
    }
}

/// How the rotation pairs the dimensions of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RopeShape {
    /// Rotated dimensions of a head.
    pub dim: usize,
    /// Which of them pair up.
    pub style: RopeStyle,
}

/// What a device can do at most, measured: the bounds that a benchmark compares with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Roofs {
    /// Bytes a second that are read from memory.
    pub read_bytes_per_s: f64,
    /// Multiply-adds a second of the instructions that products with quantised weights use.
    pub quantized_macs_per_s: f64,
    /// Multiply-adds a second of the instructions that products with float weights, and attention, use.
    pub float_macs_per_s: f64,
}

/// A device that runs the graph's operations.
///
/// `T`, `S`, `R` and `H` are the tokens, sequences, logit rows and hidden rows of the planned batch. Operations may be queued: only
/// [`plan`](Backend::plan) and [`read_into`](Backend::read_into) wait for the device and report its failures.
/// Operations panic when a buffer is too small for the plan or shapes do not fit: the graph guarantees both.
pub trait Backend: Send + Sync + Sized + 'static {
    /// Row-major f32 activations, or a constant vector, on the device.
    type Buffer: Send + Sync;
    /// A weight matrix, laid out for the device.
    type Matrix: Send + Sync;
    /// The paged K and V of all layers.
    type KvCache: Send;
    /// A batch on the device.
    type Plan: Send;

    /// Lays out a weight matrix for the device. The source's bytes are not needed afterwards.
    fn load(&self, tensor: TensorView<'_>) -> Result<Self::Matrix>;
    /// Bytes that a loaded matrix occupies on the device.
    fn matrix_bytes(&self, matrix: &Self::Matrix) -> u64;
    /// Measures the device, for about a second; `None` of one that has no measure of itself.
    fn roofs(&self) -> Result<Option<Roofs>> {
        Ok(None)
    }
    /// A buffer of `rows x cols` zeros.
    fn alloc(&self, rows: usize, cols: usize) -> Result<Self::Buffer>;
    /// A buffer of `rows x cols` with these values.
    fn upload(&self, rows: usize, cols: usize, values: &[f32]) -> Result<Self::Buffer>;
    /// An empty KV cache.
    fn alloc_kv_cache(&self, shape: KvShape) -> Result<Self::KvCache>;
    /// Room for the largest batch.
    fn alloc_plan(&self, limits: BatchLimits) -> Result<Self::Plan>;
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
    /// `out[i] = weight * x[i] + bias` for the first `rows` rows; `out`'s columns are the weight's stacked rows.
    fn matmul(&self, rows: usize, x: &Self::Buffer, weight: &Linear<Self>, out: &mut Self::Buffer);
    /// Rotates the queries in place and stores the rotated keys and the values at `slot_mapping`.
    /// `qkv: [T, shape.cols()]`; `table: [max_seq_len, rope.dim]` of `(cos, sin)` pairs.
    #[allow(clippy::too_many_arguments)] // One fused operation: its operands are what it fuses.
    fn rope_store_kv(
        &self,
        plan: &Self::Plan,
        shape: QkvShape,
        rope: RopeShape,
        table: &Self::Buffer,
        qkv: &mut Self::Buffer,
        cache: &mut Self::KvCache,
        layer: usize,
    );
    /// Causal softmax attention of every row over its sequence's cached positions up to its own, scores scaled by
    /// `1 / sqrt(head_dim)`. `out: [T, shape.q_cols()]`.
    fn paged_attention(
        &self,
        plan: &Self::Plan,
        shape: QkvShape,
        qkv: &Self::Buffer,
        cache: &Self::KvCache,
        layer: usize,
        out: &mut Self::Buffer,
    );
    /// Reference attention, step 1: `scores[t, h, p] = q[t, h] . k[p] / sqrt(head_dim)` for positions `p` up to the
    /// row's own. `scores: [T, num_heads * context]`, `context` being its columns over `num_heads`.
    fn attention_scores(
        &self,
        plan: &Self::Plan,
        shape: QkvShape,
        qkv: &Self::Buffer,
        cache: &Self::KvCache,
        layer: usize,
        scores: &mut Self::Buffer,
    );
    /// Reference attention, step 2: each row of `scores` becomes its softmax (maximum, sum of exponentials, quotient).
    fn attention_softmax(&self, plan: &Self::Plan, shape: QkvShape, scores: &mut Self::Buffer);
    /// Reference attention, step 3: `out[t, h] = sum over p of scores[t, h, p] * v[p]`.
    fn attention_values(
        &self,
        plan: &Self::Plan,
        shape: QkvShape,
        scores: &Self::Buffer,
        cache: &Self::KvCache,
        layer: usize,
        out: &mut Self::Buffer,
    );
    /// `out[i, j] = silu(gate_up[i, j]) * gate_up[i, n + j]` for the first `rows` rows, `n` being `out`'s columns
    /// (arXiv 2002.05202).
    fn swiglu(&self, rows: usize, gate_up: &Self::Buffer, out: &mut Self::Buffer);
    /// `out[i] = x[wanted_rows[i]]`. `out: [R + H, cols]`.
    fn gather_rows(&self, plan: &Self::Plan, x: &Self::Buffer, out: &mut Self::Buffer);
    /// Waits for the queue and copies the first `out.len()` values.
    fn read_into(&self, buffer: &Self::Buffer, out: &mut [f32]) -> Result<()>;
}
