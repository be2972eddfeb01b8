//! [`Backend`] on a GPU.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use gguf::{Format, TensorView};
use model::{
    Activation, AttentionOp, Backend, Batch, BatchLimits, BufferRole, Error, ExpertInput, ExpertOp, Gating,
    KvDtype, KvShape, Layout, Linear, ModelSpec, Peaks, QkvShape, Read, Result, RopeOp, RopeStyle,
    RoutesShape, Routing, SharedOutput,
};
use pack::TILE_ROWS;

use crate::activations::{GpuBuffer, Half, Twin};
use crate::attention::{Attention, MAX_HEAD_DIM};
use crate::buffer::DeviceBuffer;
use crate::device::Gpu;
use crate::experts::{self, ExpertMatrix, GROUPS, GpuExperts, GpuRoutes};
use crate::footprint;
use crate::kernel::{Kernel, KernelSpec, Kernels};
use crate::kv_cache::GpuKvCache;
use crate::matrix::GpuMatrix;
use crate::peak;
use crate::plan::GpuPlan;
use crate::product::{NumericPath, Product, ProductKernels, Shape};
use crate::readback::Readback;
use crate::recorder::Recorder;

/// A GPU as a device.
pub struct GpuBackend {
    pub(crate) gpu: Gpu,
    pub(crate) kernels: Kernels,
    pub(crate) recorder: Arc<Recorder>,
    products: Mutex<HashMap<(Format, NumericPath), Arc<ProductKernels>>>,
    /// By what the kernels are compiled for.
    attention: Mutex<HashMap<AttentionKey, Arc<Attention>>>,
    rows: RowKernels,
    /// Products of experts, by format, pairs of a workgroup, and whether there is a bias.
    expert_products: Mutex<HashMap<(Format, usize, bool), Arc<Kernel>>>,
    /// Norms, by whether they add first, their columns, and whether they write an f16 copy of their output.
    norms: Mutex<HashMap<(bool, usize, bool), Arc<Kernel>>>,
    readback: Readback,
}

/// What attention kernels are compiled for, floats as their bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct AttentionKey {
    shape: QkvShape,
    scale: u32,
    softcap: Option<u32>,
    window: Option<usize>,
    sinks: bool,
    dtype: KvDtype,
}

impl AttentionKey {
    fn new(op: AttentionOp, dtype: KvDtype) -> Self {
        let AttentionOp { shape, scale, softcap, window, sinks, .. } = op;
        Self { shape, scale: scale.to_bits(), softcap: softcap.map(f32::to_bits), window, sinks, dtype }
    }
}

/// The kernels that work row by row, compiled when first asked for.
#[derive(Default)]
struct RowKernels {
    add: OnceLock<Arc<Kernel>>,
    scale: OnceLock<Arc<Kernel>>,
    softcap: OnceLock<Arc<Kernel>>,
    norm_heads: OnceLock<Arc<Kernel>>,
    scale_queries: OnceLock<Arc<Kernel>>,
    /// By activation, each without and with an f16 copy of the output.
    gated: [[OnceLock<Arc<Kernel>>; 2]; 3],
    gather_rows: OnceLock<Arc<Kernel>>,
    to_half: OnceLock<Arc<Kernel>>,
    argmax: OnceLock<Arc<Kernel>>,
    /// By gating, and whether weights are normed.
    route: [[OnceLock<Arc<Kernel>>; 2]; 2],
    sort_pairs: OnceLock<Arc<Kernel>>,
    /// Without a shared expert, with one, and with one that has a gate.
    combine_experts: [OnceLock<Arc<Kernel>>; 3],
    /// By style and element type of the cache.
    rope_store_kv: [[OnceLock<Arc<Kernel>>; 2]; 2],
}

impl GpuBackend {
    /// A backend on an opened device.
    pub fn new(gpu: Gpu) -> Self {
        Self {
            gpu,
            kernels: Kernels::default(),
            recorder: Arc::new(Recorder::default()),
            products: Mutex::default(),
            attention: Mutex::default(),
            rows: RowKernels::default(),
            expert_products: Mutex::default(),
            norms: Mutex::default(),
            readback: Readback::default(),
        }
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Name, dispatches and seconds of every kernel since the last call, the slowest first. Empty unless the device was
    /// opened to profile.
    pub fn kernel_times(&self) -> Vec<(&'static str, u64, f64)> {
        self.recorder.timings(&self.gpu)
    }

    fn new_buffer(&self, rows: usize, cols: usize, what: &str, twin: Twin) -> Result<GpuBuffer> {
        GpuBuffer::new(&self.gpu, &self.recorder, (rows, cols), what, twin)
    }

    /// The kernels of a format, those for products with a matrix of `rows x cols` compiled.
    fn products(&self, format: Format, rows: usize, cols: usize) -> Arc<ProductKernels> {
        let path = NumericPath::of(self.gpu.capabilities(), format, cols);
        let kernels = {
            let mut products = self.products.lock().unwrap_or_else(PoisonError::into_inner);
            let of_format = products.entry((format, path));
            Arc::clone(of_format.or_insert_with(|| Arc::new(ProductKernels::new(format, path))))
        };
        kernels.compile(&self.gpu, &self.kernels, rows);
        kernels
    }

    fn expert_product(&self, format: Format, group: usize, has_bias: bool) -> Arc<Kernel> {
        let mut products = self.expert_products.lock().unwrap_or_else(PoisonError::into_inner);
        let spec = || self.kernels.get(&self.gpu, &experts::product_spec(format, group, has_bias));
        Arc::clone(products.entry((format, group, has_bias)).or_insert_with(spec))
    }

    pub(crate) fn attention(&self, op: AttentionOp, dtype: KvDtype) -> Arc<Attention> {
        let mut attention = self.attention.lock().unwrap_or_else(PoisonError::into_inner);
        let of_op = attention.entry(AttentionKey::new(op, dtype));
        Arc::clone(of_op.or_insert_with(|| Arc::new(Attention::new(&self.gpu, &self.kernels, op, dtype))))
    }

    fn dispatch(&self, kernel: &Arc<Kernel>, buffers: &[&DeviceBuffer], values: &[u32], grid: [u32; 3]) {
        self.recorder.dispatch(&self.gpu, kernel, buffers, values, grid);
    }

    /// The f16 copy of a product's input, which operations keep beside what they write; made here of what came from the
    /// host.
    fn half_of<'a>(&self, x: &'a GpuBuffer) -> &'a Half {
        x.half_or_make(|| {
            let size = (x.rows, x.cols);
            let half = Half::new(&self.gpu, &self.recorder, size).expect("inputs from the host are small");
            let spec = || self.kernels.get(&self.gpu, &KernelSpec::new("to_half"));
            let kernel = self.rows.to_half.get_or_init(spec);
            let grid = [x.cols.div_ceil(512) as u32, x.rows as u32, 1];
            let values = [x.cols as u32, half.stride as u32];
            self.dispatch(kernel, &[&x.values, &half.values], &values, grid);
            half
        })
    }

    /// Runs a kernel with one parameter over the first `rows` rows, in place.
    fn each_element(
        &self,
        rows: usize,
        x: &GpuBuffer,
        kernel: &OnceLock<Arc<Kernel>>,
        file: &'static str,
        parameter: f32,
    ) {
        x.check_rows(rows);
        let kernel = kernel.get_or_init(|| self.kernels.get(&self.gpu, &KernelSpec::new(file)));
        let len = rows * x.cols;
        self.dispatch(kernel, &[&x.values], &[len as u32, parameter.to_bits()], element_grid(len));
    }

    fn norm_kernel(&self, adds: bool, cols: usize, has_half: bool) -> Arc<Kernel> {
        let mut norms = self.norms.lock().unwrap_or_else(PoisonError::into_inner);
        let kernel = norms.entry((adds, cols, has_half)).or_insert_with(|| {
            let subgroup = self.gpu.capabilities().subgroup_size;
            self.kernels.get(&self.gpu, &norm_spec(adds, cols, subgroup, has_half))
        });
        Arc::clone(kernel)
    }

    /// The norm of `x`, to which `delta` is added before, if there is one.
    fn norm(
        &self,
        rows: usize,
        x: &GpuBuffer,
        delta: Option<&GpuBuffer>,
        weight: &GpuBuffer,
        eps: f32,
        out: &GpuBuffer,
    ) {
        for buffer in [x, out].into_iter().chain(delta) {
            buffer.check_rows(rows);
            assert_eq!((buffer.cols, weight.cols), (x.cols, x.cols), "rms_norm: columns");
        }
        let half = out.half();
        let mut buffers = vec![&x.values, &weight.values, &out.values];
        buffers.extend(delta.map(|delta| &delta.values));
        buffers.extend(half.map(|half| &half.values));
        let values = [x.cols as u32, half.map_or(0, |half| half.stride as u32), eps.to_bits()];
        let kernel = self.norm_kernel(delta.is_some(), x.cols, half.is_some());
        self.dispatch(&kernel, &buffers, &values, [rows as u32, 1, 1]);
    }
}

/// # Panics
/// When scores of reference attention do not fit the planned batch: kernels check no index.
fn check_scores(plan: &GpuPlan, op: AttentionOp, scores: &GpuBuffer) {
    scores.check_rows(plan.counts().num_tokens);
    let (context, needed) = (scores.cols / op.shape.num_heads, plan.counts().max_context);
    assert!(context >= needed, "attention: scores of {context} positions, expected {needed}");
}

/// # Panics
/// When there are not as many sinks as the operation has.
fn check_sinks(op: AttentionOp, sinks: Option<&GpuBuffer>) {
    let expected = if op.sinks { op.shape.num_heads } else { 0 };
    assert_eq!(sinks.map_or(0, |sinks| sinks.rows * sinks.cols), expected, "attention: sinks");
}

/// An activation, with or without an f16 copy of its output.
pub(crate) fn gated_spec(act: Activation, has_half: bool) -> KernelSpec {
    let spec = KernelSpec::new("gated")
        .with_flag("GELU", act == Activation::GeluTanh)
        .with_flag("CLAMPED", act == Activation::ClampedSwiglu);
    if has_half { spec.with("HALF", 2) } else { spec }
}

/// Most columns of a row that a workgroup holds in registers.
const MAX_NORM_COLS: usize = 8192;

/// The norm of rows of `cols` columns, with or without an addition before it.
pub(crate) fn norm_spec(adds: bool, cols: usize, subgroup: Option<u32>, has_half: bool) -> KernelSpec {
    let spec = if cols.is_multiple_of(4) && cols <= MAX_NORM_COLS {
        KernelSpec::new("rms_norm_vectors").with("VECTORS", cols.div_ceil(1024))
    } else {
        KernelSpec::new("rms_norm")
    };
    let spec = subgroup.into_iter().fold(spec, |spec, size| spec.with("SUBGROUP", size));
    let spec = spec.with_flag("ADD", adds);
    if has_half { spec.with("HALF", if adds { 4 } else { 3 }) } else { spec }
}

impl Backend for GpuBackend {
    type Buffer = GpuBuffer;
    type Matrix = GpuMatrix;
    type KvCache = GpuKvCache;
    type Plan = GpuPlan;
    type Experts = GpuExperts;
    type Routes = GpuRoutes;

    fn check_spec(&self, spec: &ModelSpec) -> Result<()> {
        spec.experts().map_or(Ok(()), |spec| experts::check_experts(spec.num_experts))?;
        spec.layers.iter().try_for_each(|layer| check_head_dim(layer.attn.head_dim))
    }

    fn load(&self, tensor: TensorView<'_>) -> Result<GpuMatrix> {
        let products = self.products(tensor.format(), tensor.rows(), tensor.cols());
        GpuMatrix::load(&self.gpu, &self.recorder, products, &[tensor])
    }

    fn load_stack(&self, tensors: &[TensorView<'_>]) -> Result<Vec<GpuMatrix>> {
        let mut parts = Vec::new();
        let joins = |a: &TensorView<'_>, b: &TensorView<'_>| {
            a.format() == b.format() && a.rows().is_multiple_of(TILE_ROWS)
        };
        for stack in tensors.chunk_by(joins) {
            let rows = stack.iter().map(TensorView::rows).sum();
            let products = self.products(stack[0].format(), rows, stack[0].cols());
            parts.push(GpuMatrix::load(&self.gpu, &self.recorder, products, stack)?);
        }
        Ok(parts)
    }

    fn load_experts(&self, experts: &[Vec<TensorView<'_>>]) -> Result<GpuExperts> {
        let part = |part: usize| {
            let tensors: Vec<TensorView<'_>> = experts.iter().map(|expert| expert[part]).collect();
            ExpertMatrix::load(&self.gpu, &self.recorder, &tensors)
        };
        let parts = (0..experts[0].len()).map(part).collect::<Result<Vec<_>>>()?;
        for part in &parts {
            for group in GROUPS {
                self.expert_product(part.format, group, false);
            }
        }
        Ok(GpuExperts { parts })
    }

    fn experts_bytes(&self, experts: &GpuExperts) -> u64 {
        experts.parts.iter().map(ExpertMatrix::bytes).sum()
    }

    fn alloc_routes(&self, shape: RoutesShape) -> Result<GpuRoutes> {
        GpuRoutes::new(&self.gpu, &self.recorder, shape)
    }

    fn matrix_bytes(&self, matrix: &GpuMatrix) -> u64 {
        matrix.bytes
    }

    fn peaks(&self) -> Result<Option<Peaks>> {
        peak::measure(&self.gpu, &self.kernels, &self.recorder).map(Some)
    }

    fn alloc(&self, rows: usize, cols: usize, role: BufferRole) -> Result<GpuBuffer> {
        self.new_buffer(rows, cols, "activations", Twin::of(role, cols))
    }

    fn upload(&self, rows: usize, cols: usize, values: &[f32]) -> Result<GpuBuffer> {
        let buffer = self.new_buffer(rows, cols, "constants", Twin::OnDemand)?;
        self.gpu.queue.write_buffer(&buffer.values.raw, 0, bytemuck::cast_slice(values));
        Ok(buffer)
    }

    fn alloc_kv_cache(&self, shape: &KvShape) -> Result<GpuKvCache> {
        shape.layers.iter().try_for_each(|heads| check_head_dim(heads.head_dim))?;
        GpuKvCache::new(&self.gpu, &self.recorder, shape)
    }

    fn alloc_plan(&self, limits: BatchLimits, shapes: &[QkvShape]) -> Result<GpuPlan> {
        GpuPlan::new(&self.gpu, &self.recorder, limits, shapes)
    }

    fn footprint(&self, layout: &Layout) -> u64 {
        footprint::of_layout(self.gpu.capabilities(), layout)
    }

    fn plan(&self, batch: &Batch, plan: &mut GpuPlan) -> Result<()> {
        self.gpu.check()?;
        plan.upload(&self.gpu, &self.recorder, batch)
    }

    fn embed(&self, plan: &GpuPlan, table: &GpuMatrix, out: &mut GpuBuffer) {
        let tokens = plan.counts().num_tokens;
        out.check_rows(tokens);
        assert_eq!(out.cols, table.cols, "embed: columns");
        assert!(plan.counts().end_token <= table.rows, "embed: a token beyond {} rows", table.rows);
        let kernel = table.kernels.embed(&self.gpu, &self.kernels);
        let chunks = table.cols.div_ceil(64) as u32;
        for slice in &table.slices {
            let mut buffers = vec![&plan.buffer, &out.values];
            buffers.extend(&slice.planes);
            let values = [
                chunks,
                table.cols.div_ceil(256) as u32,
                table.cols as u32,
                slice.first_row as u32,
                slice.rows as u32,
            ];
            self.dispatch(kernel, &buffers, &values, [(2 * chunks).div_ceil(64), tokens as u32, 1]);
        }
    }

    fn rms_norm(&self, rows: usize, x: &GpuBuffer, weight: &GpuBuffer, eps: f32, out: &mut GpuBuffer) {
        self.norm(rows, x, None, weight, eps, out);
    }

    fn add_rms_norm(
        &self,
        rows: usize,
        x: &mut GpuBuffer,
        delta: &GpuBuffer,
        weight: &GpuBuffer,
        eps: f32,
        out: &mut GpuBuffer,
    ) {
        self.norm(rows, x, Some(delta), weight, eps, out);
    }

    fn add(&self, rows: usize, x: &mut GpuBuffer, delta: &GpuBuffer) {
        x.check_rows(rows);
        delta.check_rows(rows);
        assert_eq!(delta.cols, x.cols, "add: columns");
        let kernel = self.rows.add.get_or_init(|| self.kernels.get(&self.gpu, &KernelSpec::new("add")));
        let len = rows * x.cols;
        self.dispatch(kernel, &[&x.values, &delta.values], &[len as u32], element_grid(len));
    }

    fn scale(&self, rows: usize, x: &mut GpuBuffer, factor: f32) {
        self.each_element(rows, x, &self.rows.scale, "scale", factor);
    }

    fn softcap(&self, rows: usize, x: &mut GpuBuffer, cap: f32) {
        self.each_element(rows, x, &self.rows.softcap, "softcap", cap);
    }

    fn matmul(&self, rows: usize, x: &GpuBuffer, weight: &Linear<Self>, out: &mut GpuBuffer) {
        x.check_rows(rows);
        out.check_rows(rows);
        assert!(weight.bias.as_ref().is_none_or(|bias| bias.cols == out.cols), "matmul: columns of the bias");
        assert_eq!(out.cols, weight.parts.iter().map(|p| p.rows).sum::<usize>(), "matmul: output columns");
        let mut out_first = 0;
        for part in &weight.parts {
            assert_eq!(part.cols, x.cols, "matmul: columns");
            for slice in &part.slices {
                let shape = Shape::for_product(part.kernels.path, part.kernels.format, rows, part.rows);
                let (input, x_stride) = match part.kernels.path {
                    NumericPath::Float => (&x.values, x.cols),
                    NumericPath::MatrixUnits => {
                        let half = self.half_of(x);
                        (&half.values, half.stride)
                    }
                };
                let kernel = part.kernels.get(&self.gpu, &self.kernels, shape, weight.bias.is_some());
                let mut buffers = vec![input, &out.values];
                buffers.extend(&slice.planes);
                buffers.extend(weight.bias.as_ref().map(|bias| &bias.values));
                let product = Product {
                    cols: part.cols,
                    rows: slice.rows,
                    out_first: out_first + slice.first_row,
                    tokens: rows,
                    x_stride,
                    out_stride: out.cols,
                };
                let (values, len) = product.immediates(&self.gpu, shape);
                let grid = shape.grid(rows, slice.rows.div_ceil(TILE_ROWS));
                self.dispatch(&kernel, &buffers, &values[..len], grid);
            }
            out_first += part.rows;
        }
    }

    fn norm_heads(
        &self,
        plan: &GpuPlan,
        shape: QkvShape,
        (q_weight, k_weight): (&GpuBuffer, &GpuBuffer),
        eps: f32,
        qkv: &mut GpuBuffer,
    ) {
        let QkvShape { num_heads, num_kv_heads, head_dim } = shape;
        let tokens = plan.counts().num_tokens;
        qkv.check_rows(tokens);
        assert_eq!(qkv.cols, shape.cols(), "norm_heads: columns");
        assert_eq!((q_weight.cols, k_weight.cols), (head_dim, head_dim), "norm_heads: weights");
        let spec = || self.kernels.get(&self.gpu, &KernelSpec::new("norm_heads"));
        let kernel = self.rows.norm_heads.get_or_init(spec);
        let values = [num_heads as u32, num_kv_heads as u32, head_dim as u32, eps.to_bits()];
        let grid = [(num_heads + num_kv_heads) as u32, tokens as u32, 1];
        self.dispatch(kernel, &[&qkv.values, &q_weight.values, &k_weight.values], &values, grid);
    }

    fn rope_store_kv(
        &self,
        plan: &GpuPlan,
        op: AttentionOp,
        rope: Option<RopeOp<'_, Self>>,
        qkv: &mut GpuBuffer,
        cache: &mut GpuKvCache,
    ) {
        let QkvShape { num_heads, num_kv_heads, head_dim } = op.shape;
        let counts = plan.counts();
        qkv.check_rows(counts.num_tokens);
        assert_eq!(qkv.cols, op.shape.cols(), "rope_store_kv: columns");
        if let Some(rope) = &rope {
            rope.table.check_rows(counts.max_context);
            assert!(
                rope.dim <= head_dim && rope.table.cols == rope.dim,
                "rope_store_kv: the table's columns"
            );
        }
        // Without rotation no element of the table is read.
        let (dim, style, table) = match &rope {
            Some(rope) => (rope.dim, rope.style, &rope.table.values),
            None => (0, RopeStyle::Interleaved, &plan.buffer),
        };
        let interleaved = style == RopeStyle::Interleaved;
        let wide = cache.dtype() == KvDtype::F32;
        let slot = &self.rows.rope_store_kv[usize::from(interleaved)][usize::from(wide)];
        let kernel = slot.get_or_init(|| {
            let spec = KernelSpec::new("rope_store_kv")
                .with_flag("INTERLEAVED", interleaved)
                .with_flag("KV_F32", wide);
            self.kernels.get(&self.gpu, &spec)
        });
        let (k, v) = cache.layer(op, plan.counts()).pages();
        let values = [num_heads, num_kv_heads, head_dim, dim].map(|value| value as u32);
        let items = num_heads * dim / 2 + num_kv_heads * head_dim;
        let grid = [items.div_ceil(64) as u32, plan.counts().num_tokens as u32, 1];
        self.dispatch(kernel, &[&plan.buffer, table, &qkv.values, k, v], &values, grid);
    }

    fn scale_queries(&self, plan: &GpuPlan, shape: QkvShape, factors: &GpuBuffer, qkv: &mut GpuBuffer) {
        let counts = plan.counts();
        qkv.check_rows(counts.num_tokens);
        factors.check_rows(counts.max_context);
        assert_eq!((qkv.cols, factors.cols), (shape.cols(), 1), "scale_queries: columns");
        let spec = || self.kernels.get(&self.gpu, &KernelSpec::new("scale_queries"));
        let kernel = self.rows.scale_queries.get_or_init(spec);
        let values = [shape.q_cols() as u32, shape.cols() as u32];
        let grid = [shape.q_cols().div_ceil(256) as u32, counts.num_tokens as u32, 1];
        self.dispatch(kernel, &[&plan.buffer, &factors.values, &qkv.values], &values, grid);
    }

    fn paged_attention(
        &self,
        plan: &GpuPlan,
        op: AttentionOp,
        (qkv, sinks): (&GpuBuffer, Option<&GpuBuffer>),
        cache: &GpuKvCache,
        out: &mut GpuBuffer,
    ) {
        check_sinks(op, sinks);
        qkv.check_rows(plan.counts().num_tokens);
        out.check_rows(plan.counts().num_tokens);
        assert_eq!((qkv.cols, out.cols), (op.shape.cols(), op.shape.q_cols()), "attention: columns");
        let attention = self.attention(op, cache.dtype());
        let half = out.half().map(|half| (&half.values, half.stride));
        let pages = cache.layer(op, plan.counts()).pages();
        let inputs = (&qkv.values, sinks.map(|sinks| &sinks.values));
        attention.fused(&self.gpu, &self.recorder, plan, inputs, pages, (&out.values, half));
    }

    fn attention_scores(
        &self,
        plan: &GpuPlan,
        op: AttentionOp,
        qkv: &GpuBuffer,
        cache: &GpuKvCache,
        scores: &mut GpuBuffer,
    ) {
        qkv.check_rows(plan.counts().num_tokens);
        check_scores(plan, op, scores);
        let attention = self.attention(op, cache.dtype());
        let context = scores.cols / op.shape.num_heads;
        let pages = cache.layer(op, plan.counts()).pages();
        attention.scores(&self.gpu, &self.recorder, plan, &qkv.values, pages, &scores.values, context);
    }

    fn attention_softmax(
        &self,
        plan: &GpuPlan,
        op: AttentionOp,
        sinks: Option<&GpuBuffer>,
        scores: &mut GpuBuffer,
    ) {
        check_scores(plan, op, scores);
        check_sinks(op, sinks);
        let attention = self.attention(op, KvDtype::F16);
        let context = scores.cols / op.shape.num_heads;
        let sinks = sinks.map(|sinks| &sinks.values);
        attention.softmax(&self.gpu, &self.recorder, plan, (&scores.values, context), sinks);
    }

    fn attention_values(
        &self,
        plan: &GpuPlan,
        op: AttentionOp,
        scores: &GpuBuffer,
        cache: &GpuKvCache,
        out: &mut GpuBuffer,
    ) {
        check_scores(plan, op, scores);
        out.check_rows(plan.counts().num_tokens);
        let attention = self.attention(op, cache.dtype());
        let half = out.half().map(|half| (&half.values, half.stride));
        let scores = (&scores.values, scores.cols / op.shape.num_heads);
        let pages = cache.layer(op, plan.counts()).pages();
        attention.values(&self.gpu, &self.recorder, plan, scores, pages, (&out.values, half));
    }

    fn gated(&self, rows: usize, act: Activation, gate_up: &GpuBuffer, out: &mut GpuBuffer) {
        gate_up.check_rows(rows);
        out.check_rows(rows);
        assert_eq!(gate_up.cols, 2 * out.cols, "gated: columns");
        let half = out.half();
        let slot = match act {
            Activation::Silu => 0,
            Activation::GeluTanh => 1,
            Activation::ClampedSwiglu => 2,
        };
        let kernel = self.rows.gated[slot][usize::from(half.is_some())]
            .get_or_init(|| self.kernels.get(&self.gpu, &gated_spec(act, half.is_some())));
        let mut buffers = vec![&gate_up.values, &out.values];
        buffers.extend(half.map(|half| &half.values));
        let values = [out.cols as u32, half.map_or(0, |half| half.stride as u32)];
        self.dispatch(kernel, &buffers, &values, [out.cols.div_ceil(512) as u32, rows as u32, 1]);
    }

    fn route(&self, rows: usize, logits: &GpuBuffer, routing: Routing, routes: &mut GpuRoutes) {
        let RoutesShape { max_tokens, num_experts, top_k, .. } = routes.shape;
        logits.check_rows(rows);
        assert_eq!(
            (logits.cols, routing.top_k),
            (num_experts, top_k),
            "route: columns, and experts of a token"
        );
        assert!(rows <= max_tokens, "route: {rows} tokens, expected at most {max_tokens}");
        routes.tokens = rows;
        let of_gating = &self.rows.route[usize::from(routing.gating == Gating::SoftmaxOfSelected)];
        let kernel = of_gating[usize::from(routing.norm)]
            .get_or_init(|| self.kernels.get(&self.gpu, &experts::route_spec(routing)));
        let values = [num_experts as u32, top_k as u32, Routing::MIN_SUM.to_bits(), routing.scale.to_bits()];
        let buffers = [&logits.values, &routes.ids, &routes.weights];
        self.dispatch(kernel, &buffers, &values, [rows as u32, 1, 1]);
        let kernel = self.rows.sort_pairs.get_or_init(|| self.kernels.get(&self.gpu, &experts::sort_spec()));
        let values = [routes.pairs() as u32, num_experts as u32, routes.group() as u32];
        let buffers = [&routes.ids, &routes.order, &routes.groups];
        self.dispatch(kernel, &buffers, &values, [1, 1, 1]);
    }

    fn matmul_experts(&self, x: &GpuBuffer, op: ExpertOp<'_, Self>, routes: &GpuRoutes, out: &mut GpuBuffer) {
        let ExpertOp { weights: GpuExperts { parts }, bias, input } = op;
        let (x_rows, pairs_per_row) = match input {
            ExpertInput::Tokens => (routes.tokens, routes.shape.top_k),
            ExpertInput::Pairs => (routes.pairs(), 1),
        };
        x.check_rows(x_rows);
        out.check_rows(routes.pairs());
        assert_eq!(
            out.cols,
            parts.iter().map(|p| p.rows).sum::<usize>(),
            "matmul of experts: output columns"
        );
        let bias_size = (routes.shape.num_experts, out.cols);
        assert!(bias.is_none_or(|bias| (bias.rows, bias.cols) == bias_size), "matmul of experts: bias");
        let mut out_first = 0;
        for part in parts {
            assert_eq!(part.cols, x.cols, "matmul of experts: columns");
            let kernel = self.expert_product(part.format, routes.group(), bias.is_some());
            for slice in &part.slices {
                let mut buffers = vec![&x.values, &out.values];
                buffers.extend(&slice.planes);
                buffers.extend([&routes.order, &routes.groups]);
                buffers.extend(bias.map(|bias| &bias.values));
                let values = [
                    part.cols.div_ceil(64),
                    part.cols.div_ceil(256),
                    part.cols,
                    part.rows,
                    out.cols,
                    out_first,
                    slice.first_expert,
                    slice.experts,
                    pairs_per_row,
                ];
                let grid = [part.rows.div_ceil(TILE_ROWS) as u32, routes.max_groups() as u32, 1];
                self.dispatch(&kernel, &buffers, &values.map(|value| value as u32), grid);
            }
            out_first += part.rows;
        }
    }

    fn combine_experts(
        &self,
        x: &GpuBuffer,
        routes: &GpuRoutes,
        shared: Option<SharedOutput<'_, Self>>,
        out: &mut GpuBuffer,
    ) {
        x.check_rows(routes.pairs());
        out.check_rows(routes.tokens);
        assert_eq!(x.cols, out.cols, "combine_experts: columns");
        let gate = shared.as_ref().and_then(|shared| shared.gate);
        let kernel = &self.rows.combine_experts[usize::from(shared.is_some()) + usize::from(gate.is_some())];
        let spec = experts::combine_spec(shared.is_some(), gate.is_some());
        let kernel = kernel.get_or_init(|| self.kernels.get(&self.gpu, &spec));
        let mut buffers = vec![&x.values, &routes.weights, &out.values];
        if let Some(SharedOutput { values, gate }) = shared {
            values.check_rows(routes.tokens);
            assert_eq!(values.cols, out.cols, "combine_experts: columns of the shared expert");
            assert!(gate.is_none_or(|gate| gate.cols == 1), "combine_experts: columns of the gate");
            buffers.push(&values.values);
            buffers.extend(gate.map(|gate| &gate.values));
        }
        let grid = [out.cols.div_ceil(256) as u32, routes.tokens as u32, 1];
        self.dispatch(kernel, &buffers, &[out.cols as u32, routes.shape.top_k as u32], grid);
    }

    fn gather_rows(&self, plan: &GpuPlan, x: &GpuBuffer, out: &mut GpuBuffer) {
        let rows = plan.counts().num_wanted_rows;
        x.check_rows(plan.counts().num_tokens);
        out.check_rows(rows);
        assert_eq!(out.cols, x.cols, "gather_rows: columns");
        let spec = || self.kernels.get(&self.gpu, &KernelSpec::new("gather_rows"));
        let kernel = self.rows.gather_rows.get_or_init(spec);
        let buffers = [&plan.buffer, &x.values, &out.values];
        self.dispatch(kernel, &buffers, &[x.cols as u32], [rows as u32, 1, 1]);
    }

    fn argmax(&self, rows: Range<usize>, x: &GpuBuffer, out: &mut GpuBuffer) {
        x.check_rows(rows.end);
        out.check_rows(rows.len());
        assert_eq!(out.cols, 1, "argmax: a row has one index");
        let kernel = self.rows.argmax.get_or_init(|| self.kernels.get(&self.gpu, &KernelSpec::new("argmax")));
        let values = [x.cols as u32, rows.start as u32];
        self.dispatch(kernel, &[&x.values, &out.values], &values, [rows.len() as u32, 1, 1]);
    }

    fn read_into(&self, reads: &mut [Read<'_, Self>]) -> Result<()> {
        self.readback.read(&self.gpu, &self.recorder, reads)
    }
}

/// Workgroups of 256 lanes for `len` elements, in two dimensions.
fn element_grid(len: usize) -> [u32; 3] {
    let groups = len.div_ceil(256);
    let x_groups = groups.min(32768);
    [x_groups as u32, groups.div_ceil(x_groups.max(1)) as u32, 1]
}

fn check_head_dim(head_dim: usize) -> Result<()> {
    if head_dim.is_multiple_of(2) && head_dim <= MAX_HEAD_DIM {
        return Ok(());
    }
    Err(Error::InvalidValue {
        what: "head_dim on a GPU".to_owned(),
        expected: format!("an even number up to {MAX_HEAD_DIM}"),
        found: head_dim.to_string(),
    })
}
