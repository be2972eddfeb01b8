//! Attention on the device: the fused kernels, and the three-step reference.
//!
//! A workgroup takes a run of rows and a cached head. A step of few of those over long contexts is cut into spans of
//! positions, which a second kernel joins in order; spans are computed for themselves in any case, so that both give
//! the same bits.

use std::sync::Arc;

use model::{AttentionOp, KvDtype, QkvShape};

use crate::buffer::DeviceBuffer;
use crate::device::Gpu;
use crate::kernel::{Kernel, KernelSpec, Kernels};
use crate::plan::{GpuPlan, TILE_ROWS};
use crate::product::has_vectors;
use crate::recorder::Recorder;

#[cfg(all(test, feature = "device-tests"))]
mod tests;

/// Positions of a span.
pub(crate) const SPAN: usize = 256;

/// Most bytes of the parts of spans: those of 16 sequences of 8192 tokens with 32 heads of 128 columns, or of one of
/// 131072, take 8.5 MB.
pub(crate) const SCRATCH_BYTES: u64 = 32 << 20;

/// Workgroups that keep a large device busy.
const WORKGROUPS_WANTED: usize = 512;

/// Memory of the workgroups that use matrix units, for heads of 128 columns.
const MATRIX_WORKGROUP_BYTES: u32 = 44 << 10;

/// Columns that the fused kernel stages at a time.
const PIECE_COLS: usize = 32;

/// Widest head.
pub(crate) const MAX_HEAD_DIM: usize = 256;

/// The attention of one shape of heads over one kind of cache.
pub(crate) struct Attention {
    shape: QkvShape,
    /// Whether outputs are written as f16 too.
    has_half: bool,
    on_matrix_units: bool,
    whole: Arc<Kernel>,
    split: Arc<Kernel>,
    join: Arc<Kernel>,
    scores: Arc<Kernel>,
    softmax: Arc<Kernel>,
    values: Arc<Kernel>,
}

/// Whether contexts are cut into spans of workgroups of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grid {
    /// A workgroup walks all spans of its rows.
    Whole,
    /// A workgroup takes a span.
    Split,
}

/// An output, and its f16 copy with the copy's stride in words, where the device has matrix units.
pub(crate) type Output<'a> = (&'a DeviceBuffer, Option<(&'a DeviceBuffer, usize)>);

/// K and V of a layer.
pub(crate) type Pages<'a> = (&'a DeviceBuffer, &'a DeviceBuffer);

impl Attention {
    /// Compiles the kernels.
    ///
    /// # Panics
    /// When heads are wider than 256 or of an odd width.
    pub fn new(gpu: &Gpu, kernels: &Kernels, op: AttentionOp, dtype: KvDtype) -> Self {
        let specs = Specs::new(gpu, op, dtype);
        let kernel = |spec| kernels.get(gpu, &spec);
        Self {
            shape: op.shape,
            has_half: specs.has_half,
            on_matrix_units: specs.on_matrix_units,
            whole: kernel(specs.fused(Grid::Whole)),
            split: kernel(specs.fused(Grid::Split)),
            join: kernel(specs.join()),
            scores: kernel(specs.scores()),
            softmax: kernel(KernelSpec::new("attention_softmax")),
            values: kernel(specs.values()),
        }
    }

    /// Whether the fused kernel multiplies on matrix units.
    pub fn is_on_matrix_units(&self) -> bool {
        self.on_matrix_units
    }

    /// `out[t, h]`: causal softmax attention of every row. `qkv: [T, shape.cols()]`, `out: [T, shape.q_cols()]`.
    pub fn fused(
        &self,
        gpu: &Gpu,
        recorder: &Recorder,
        plan: &GpuPlan,
        qkv: &DeviceBuffer,
        pages: Pages<'_>,
        out: Output<'_>,
    ) {
        self.fused_on(self.grid(plan), gpu, recorder, plan, qkv, pages, out);
    }

    /// As [`fused`](Self::fused), over the given grid.
    #[allow(clippy::too_many_arguments)] // Those of `fused`.
    pub fn fused_on(
        &self,
        grid: Grid,
        gpu: &Gpu,
        recorder: &Recorder,
        plan: &GpuPlan,
        qkv: &DeviceBuffer,
        (k, v): Pages<'_>,
        (out, half): Output<'_>,
    ) {
        assert_eq!(half.is_some(), self.has_half, "attention: an output's f16 copy");
        let counts = plan.counts();
        let spans = counts.max_context.div_ceil(SPAN) as u32;
        let (runs, tiles) = (counts.num_runs as u32, self.tiles_of_run() as u32);
        let half_stride = half.map_or(0, |(_, stride)| stride as u32);
        let values = [spans, half_stride];
        match grid {
            Grid::Whole => {
                let mut buffers = vec![&plan.buffer, qkv, k, v, out];
                buffers.extend(half.map(|(half, _)| half));
                recorder.dispatch(gpu, &self.whole, &buffers, &values, [runs, tiles, 1]);
            }
            Grid::Split => {
                assert!(self.parts_bytes(plan) <= SCRATCH_BYTES, "attention: too many parts");
                let buffers = [&plan.buffer, qkv, k, v, &plan.scratch];
                recorder.dispatch(gpu, &self.split, &buffers, &values, [runs, tiles, spans]);
                let mut buffers = vec![&plan.buffer, &plan.scratch, out];
                buffers.extend(half.map(|(half, _)| half));
                let grid = [self.shape.num_heads as u32, counts.num_tokens as u32, 1];
                recorder.dispatch(gpu, &self.join, &buffers, &values, grid);
            }
        }
    }

    /// Reference attention, step 1. `scores: [T, num_heads * context]`.
    #[allow(clippy::too_many_arguments)] // The device, the plan, and the operands.
    pub fn scores(
        &self,
        gpu: &Gpu,
        recorder: &Recorder,
        plan: &GpuPlan,
        qkv: &DeviceBuffer,
        (k, _): Pages<'_>,
        scores: &DeviceBuffer,
        context: usize,
    ) {
        let counts = plan.counts();
        let groups = [counts.max_context.div_ceil(64), counts.num_tokens, self.shape.num_kv_heads];
        let buffers = [&plan.buffer, qkv, k, scores];
        recorder.dispatch(gpu, &self.scores, &buffers, &[context as u32], groups.map(|size| size as u32));
    }

    /// Reference attention, step 2.
    pub fn softmax(
        &self,
        gpu: &Gpu,
        recorder: &Recorder,
        plan: &GpuPlan,
        scores: &DeviceBuffer,
        context: usize,
    ) {
        let grid = [self.shape.num_heads as u32, plan.counts().num_tokens as u32, 1];
        recorder.dispatch(gpu, &self.softmax, &[&plan.buffer, scores], &[context as u32], grid);
    }

    /// Reference attention, step 3.
    #[allow(clippy::too_many_arguments)] // As of `scores`.
    pub fn values(
        &self,
        gpu: &Gpu,
        recorder: &Recorder,
        plan: &GpuPlan,
        (scores, context): (&DeviceBuffer, usize),
        (_, v): Pages<'_>,
        (out, half): Output<'_>,
    ) {
        assert_eq!(half.is_some(), self.has_half, "attention: an output's f16 copy");
        let mut buffers = vec![&plan.buffer, scores, v, out];
        buffers.extend(half.map(|(half, _)| half));
        let values = [context as u32, half.map_or(0, |(_, stride)| stride as u32)];
        let grid = [self.shape.num_heads as u32, plan.counts().num_tokens as u32, 1];
        recorder.dispatch(gpu, &self.values, &buffers, &values, grid);
    }

    /// The grid for a planned batch: split where whole contexts would leave a large device idle.
    fn grid(&self, plan: &GpuPlan) -> Grid {
        let counts = plan.counts();
        let is_split = counts.max_context > SPAN
            && counts.num_runs * self.tiles_of_run() < WORKGROUPS_WANTED
            && self.parts_bytes(plan) <= SCRATCH_BYTES;
        if is_split { Grid::Split } else { Grid::Whole }
    }

    /// Cached heads, or pieces of the query heads of a cached head.
    fn tiles_of_run(&self) -> usize {
        let QkvShape { num_heads, num_kv_heads, .. } = self.shape;
        num_kv_heads * (num_heads / num_kv_heads).div_ceil(TILE_ROWS)
    }

    /// `[T, num_heads, spans, head_dim + 2]` of f32.
    fn parts_bytes(&self, plan: &GpuPlan) -> u64 {
        let counts = plan.counts();
        let parts = counts.num_tokens * self.shape.num_heads * counts.max_context.div_ceil(SPAN);
        (parts * (self.shape.head_dim + 2) * 4) as u64
    }
}

/// The kernels of one shape of heads over one kind of cache, as files and defines.
#[derive(Clone, Copy)]
pub(crate) struct Specs {
    pub shape: QkvShape,
    pub scale: f32,
    pub dtype: KvDtype,
    /// Whether outputs are written as f16 too.
    pub has_half: bool,
    /// Whether the fused kernel runs on matrix units: so it does for every batch, or for none.
    pub on_matrix_units: bool,
    /// Whether matrices are loaded from vectors.
    pub has_vectors: bool,
}

impl Specs {
    /// What a device runs.
    fn new(gpu: &Gpu, op: AttentionOp, dtype: KvDtype) -> Self {
        let AttentionOp { shape, scale, .. } = op;
        let width = shape.head_dim;
        assert!(width <= MAX_HEAD_DIM && width.is_multiple_of(2), "attention: a head of {width} columns");
        let capabilities = gpu.capabilities();
        let has_matrices = capabilities.matrix_tile == Some(16);
        let has_room = capabilities.max_workgroup_bytes >= MATRIX_WORKGROUP_BYTES;
        Self {
            shape,
            scale,
            dtype,
            has_half: has_matrices,
            on_matrix_units: has_matrices && has_room && Self::suit_matrix_units(shape, dtype),
            has_vectors: has_vectors(gpu),
        }
    }

    /// Whether matrices of 16 x 16 make up the heads, and whole positions of them are held by a workgroup.
    pub fn suit_matrix_units(shape: QkvShape, dtype: KvDtype) -> bool {
        dtype == KvDtype::F16 && shape.head_dim.is_multiple_of(16) && shape.head_dim <= 128
    }

    /// The fused kernel.
    pub fn fused(&self, grid: Grid) -> KernelSpec {
        let width = self.shape.head_dim;
        let spec = if self.on_matrix_units {
            self.pages("attention_matrix")
                .with_flag("F16", true)
                .with_flag("MATRIX", true)
                .with_flag("VECTORS", self.has_vectors)
                .with("PIECES", width.div_ceil(64))
                .with("K_STEPS", width / 16)
                .with("LOADS", width / 8)
        } else {
            self.pages("attention_fused").with("PIECES", width.div_ceil(PIECE_COLS))
        };
        let spec = spec.with("SPAN", SPAN).with_flag("SPLIT", grid == Grid::Split);
        spec.with_flag("HALF", self.has_half && grid == Grid::Whole)
    }

    /// The kernel that joins spans.
    pub fn join(&self) -> KernelSpec {
        let spec = KernelSpec::new("attention_join").with("HEAD_DIM", self.shape.head_dim).with("SPAN", SPAN);
        spec.with_flag("HALF", self.has_half)
    }

    /// Step 1 of the reference.
    pub fn scores(&self) -> KernelSpec {
        self.pages("attention_scores")
    }

    /// Step 3 of the reference.
    pub fn values(&self) -> KernelSpec {
        self.pages("attention_values").with_flag("HALF", self.has_half)
    }

    fn pages(&self, file: &'static str) -> KernelSpec {
        KernelSpec::new(file)
            .with("HEAD_DIM", self.shape.head_dim)
            .with("NUM_HEADS", self.shape.num_heads)
            .with("NUM_KV_HEADS", self.shape.num_kv_heads)
            .with("SCALE", self.scale)
            .with_flag("KV_F32", self.dtype == KvDtype::F32)
    }
}
