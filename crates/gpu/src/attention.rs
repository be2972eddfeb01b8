//! Attention on the device: the fused kernels, and the three-step reference.
//!
//! A workgroup takes a run of rows and a cached head. In a step that has few of those over long contexts, contexts are cut
//! into splits: a workgroup computes the partial result of a split, and a second kernel merges the partials in order. Each
//! split is computed by itself in any case, so that both give the same bits.

use std::sync::Arc;

use model::{AttentionOp, KvDtype, QkvShape};

use crate::buffer::DeviceBuffer;
use crate::device::Gpu;
use crate::kernel::{Kernel, KernelSpec, Kernels};
use crate::plan::GpuPlan;
use crate::product::MAX_HALF_COLS;
use crate::recorder::Recorder;
use crate::tiling::{self, Grid, SPLIT_LEN};

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
    merge: Arc<Kernel>,
    scores: Arc<Kernel>,
    softmax: Arc<Kernel>,
    values: Arc<Kernel>,
}

/// An output, and its f16 copy with the copy's stride in words, where the device has matrix units.
pub(crate) type Output<'a> = (&'a DeviceBuffer, Option<(&'a DeviceBuffer, usize)>);

/// Queries, keys and values of a step, and the sinks of heads that have some.
pub(crate) type Inputs<'a> = (&'a DeviceBuffer, Option<&'a DeviceBuffer>);

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
            merge: kernel(specs.merge()),
            scores: kernel(specs.scores()),
            softmax: kernel(specs.softmax()),
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
        inputs: Inputs<'_>,
        pages: Pages<'_>,
        out: Output<'_>,
    ) {
        let counts = plan.counts();
        let grid = tiling::grid(self.shape, counts.num_tokens, counts.num_runs, counts.max_context);
        self.fused_on(grid, gpu, recorder, plan, inputs, pages, out);
    }

    /// As [`fused`](Self::fused), over the given grid.
    #[allow(clippy::too_many_arguments)] // Those of `fused`.
    pub fn fused_on(
        &self,
        grid: Grid,
        gpu: &Gpu,
        recorder: &Recorder,
        plan: &GpuPlan,
        (qkv, sinks): Inputs<'_>,
        (k, v): Pages<'_>,
        (out, half): Output<'_>,
    ) {
        self.check(plan, half);
        let counts = plan.counts();
        let splits = counts.max_context.div_ceil(SPLIT_LEN) as u32;
        let (runs, tiles) = (counts.num_runs as u32, tiling::tiles_per_run(self.shape) as u32);
        let half_stride = half.map_or(0, |(_, stride)| stride as u32);
        let values = [splits, half_stride];
        match grid {
            Grid::Whole => {
                let mut buffers = vec![&plan.buffer, qkv, k, v, out];
                buffers.extend(half.map(|(half, _)| half));
                buffers.extend(sinks);
                recorder.dispatch(gpu, &self.whole, &buffers, &values, [runs, tiles, 1]);
            }
            Grid::Split => {
                let partials = plan.partials();
                let bytes = tiling::partial_bytes(self.shape, counts.num_tokens, counts.max_context);
                let size = partials.raw.size();
                assert!(bytes <= size, "attention: {bytes} bytes of partials, the plan has {size}");
                let buffers = [&plan.buffer, qkv, k, v, partials];
                recorder.dispatch(gpu, &self.split, &buffers, &values, [runs, tiles, splits]);
                let mut buffers = vec![&plan.buffer, partials, out];
                buffers.extend(half.map(|(half, _)| half));
                buffers.extend(sinks);
                let grid = [self.shape.num_heads as u32, counts.num_tokens as u32, 1];
                recorder.dispatch(gpu, &self.merge, &buffers, &values, grid);
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
        (scores, context): (&DeviceBuffer, usize),
        sinks: Option<&DeviceBuffer>,
    ) {
        let grid = [self.shape.num_heads as u32, plan.counts().num_tokens as u32, 1];
        let mut buffers = vec![&plan.buffer, scores];
        buffers.extend(sinks);
        recorder.dispatch(gpu, &self.softmax, &buffers, &[context as u32], grid);
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
        self.check(plan, half);
        let mut buffers = vec![&plan.buffer, scores, v, out];
        buffers.extend(half.map(|(half, _)| half));
        let values = [context as u32, half.map_or(0, |(_, stride)| stride as u32)];
        let grid = [self.shape.num_heads as u32, plan.counts().num_tokens as u32, 1];
        recorder.dispatch(gpu, &self.values, &buffers, &values, grid);
    }

    /// # Panics
    /// When the plan was made for other heads, or the output is not written as the kernels write it.
    fn check(&self, plan: &GpuPlan, half: Option<(&DeviceBuffer, usize)>) {
        assert!(plan.suits(self.shape), "attention: the plan was made for other heads");
        assert_eq!(half.is_some(), self.has_half, "attention: an output's f16 copy");
    }
}

/// The kernels of one shape of heads over one kind of cache, as files and defines.
#[derive(Clone, Copy)]
pub(crate) struct Specs {
    pub shape: QkvShape,
    pub scale: f32,
    pub softcap: Option<f32>,
    pub window: Option<usize>,
    pub sinks: bool,
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
        let AttentionOp { shape, scale, softcap, window, sinks, .. } = op;
        let width = shape.head_dim;
        assert!(width <= MAX_HEAD_DIM && width.is_multiple_of(2), "attention: a head of {width} columns");
        let capabilities = gpu.capabilities();
        let has_matrix_units = capabilities.has_matrix_units();
        let fits = capabilities.max_workgroup_bytes >= MATRIX_WORKGROUP_BYTES;
        Self {
            shape,
            scale,
            softcap,
            window,
            sinks,
            dtype,
            has_half: has_matrix_units && shape.q_cols() <= MAX_HALF_COLS,
            on_matrix_units: has_matrix_units && fits && Self::suit_matrix_units(shape, dtype),
            has_vectors: gpu.loads_vectors(),
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
        let spec = spec.with("SPLIT_LEN", SPLIT_LEN).with_flag("SPLIT", grid == Grid::Split);
        let has_half = self.has_half && grid == Grid::Whole;
        let spec = spec.with_flag("HALF", has_half);
        // Of splits, the kernel that merges them takes the sinks in.
        self.with_sinks(spec, grid == Grid::Whole, if has_half { 6 } else { 5 })
    }

    /// The kernel that merges the partials of splits.
    pub fn merge(&self) -> KernelSpec {
        let spec = KernelSpec::new("attention_merge").with("HEAD_DIM", self.shape.head_dim);
        let spec = spec.with("SPLIT_LEN", SPLIT_LEN).with_flag("HALF", self.has_half);
        self.with_sinks(self.seen(spec), true, if self.has_half { 4 } else { 3 })
    }

    /// Step 1 of the reference.
    pub fn scores(&self) -> KernelSpec {
        self.pages("attention_scores")
    }

    /// Step 2 of the reference.
    pub fn softmax(&self) -> KernelSpec {
        self.with_sinks(KernelSpec::new("attention_softmax"), true, 2)
    }

    /// Step 3 of the reference.
    pub fn values(&self) -> KernelSpec {
        self.pages("attention_values").with_flag("HALF", self.has_half)
    }

    fn pages(&self, file: &'static str) -> KernelSpec {
        let spec = KernelSpec::new(file)
            .with("HEAD_DIM", self.shape.head_dim)
            .with("NUM_HEADS", self.shape.num_heads)
            .with("NUM_KV_HEADS", self.shape.num_kv_heads)
            .with("SCALE", self.scale)
            .with_flag("KV_F32", self.dtype == KvDtype::F32);
        let spec = self.softcap.into_iter().fold(spec, |spec, cap| spec.with("SOFTCAP", cap));
        self.seen(spec)
    }

    /// Adds sinks, if heads have some and the kernel takes them: at this binding.
    fn with_sinks(&self, spec: KernelSpec, takes: bool, binding: usize) -> KernelSpec {
        if self.sinks && takes { spec.with("SINKS", binding) } else { spec }
    }

    /// Adds the window.
    fn seen(&self, spec: KernelSpec) -> KernelSpec {
        self.window.into_iter().fold(spec, |spec, window| spec.with("WINDOW", window))
    }
}
