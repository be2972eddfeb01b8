//! The negative control: a back end with a fault, to show that the checks find it.

use std::ops::Range;

use gguf::{Format, TensorView};
use model::{
    Activation, AttentionOp, Backend, Batch, BatchLimits, BufferRole, Error, ExpertOp, KvDtype, KvShape,
    Layout, Linear, ModelSpec, QkvShape, Rank, Read, Result, RopeOp, RoutesShape, Routing, Shards,
    SharedOutput, Want,
};

use crate::{Inputs, Subject};

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Products of at least so many rows add the results of the two halves of the columns. Always or never it is another
    /// order of the sum and no fault; of several rows alone it is the most tempting way to break batch invariance.
    SplitK {
        /// 1 splits always, `usize::MAX` never.
        from_rows: usize,
    },
    /// Norms take epsilon for zero.
    NormWithoutEpsilon,
    /// Rows of a chunk that continues a sequence do not attend to their own position.
    AttentionMissesOwnPosition,
    /// Attention ignores the scale and divides by the root of the head's width.
    AttentionIgnoresScale,
    /// Attention takes no account of a window.
    AttentionIgnoresWindow,
    /// Attention has no sinks.
    AttentionIgnoresSinks,
    /// Attention does not cap scores.
    AttentionIgnoresSoftcap,
    /// Queries are left as they are.
    QueriesAreNotScaled,
    /// Every gate is a SiLU.
    GeluIsSilu,
    /// Scaling takes a row too many.
    ScaleTouchesRowBeyond,
    /// The indices of the highest values are those of the first rows, whichever are asked for.
    ArgmaxFromFirstRow,
    /// Reads begin at the first row, whichever is asked for.
    ReadFromFirstRow,
    /// Of a stack's bias only the rows of the first matrix are added.
    BiasOfFirstPart,
    /// The weights of experts are not normed.
    RoutesAreNotNormed,
    /// Experts have no bias.
    ExpertsWithoutBias,
    /// No step begins.
    PlanFails,
    /// Activations panic.
    GatePanics,
    /// A rank gathers its part from a row too far.
    GatherFromSecondRow,
}

/// A back end, but for its fault.
pub struct Faulty<B: Backend> {
    inner: B,
    fault: Fault,
}

/// A buffer with the sizes that the back end keeps to itself.
pub struct Buffer<B: Backend> {
    rows: usize,
    cols: usize,
    inner: B::Buffer,
}

/// One matrix, as a stack of one.
pub struct Matrix<B: Backend> {
    rows: usize,
    inner: Linear<B>,
}

/// A batch, and the same with earlier positions.
pub struct Plan<B: Backend> {
    inner: B::Plan,
    shifted: Option<B::Plan>,
}

impl<B: Backend> Faulty<B> {
    /// A back end with a fault.
    pub fn new(inner: B, fault: Fault) -> Self {
        Self { inner, fault }
    }

    /// The first rows; zeros of a device that has failed, which the step's own read says.
    fn read(&self, rows: usize, buffer: &Buffer<B>) -> Vec<f32> {
        let len = rows * buffer.cols;
        crate::read(&self.inner, &buffer.inner, len).unwrap_or_else(|_| vec![0.0; len])
    }

    fn upload_inner(&self, rows: usize, cols: usize, values: &[f32]) -> B::Buffer {
        self.inner.upload(rows, cols, values).expect("memory")
    }

    /// What is multiplied, one after the other: `x`, or `x` with either half of its columns zero.
    fn summands(&self, rows: usize, x: &Buffer<B>) -> Vec<B::Buffer> {
        let values = self.read(rows, x);
        let keeping = |kept: Range<usize>| {
            let keep = |(i, &value): (usize, &f32)| if kept.contains(&(i % x.cols)) { value } else { 0.0 };
            let half: Vec<f32> = values.iter().enumerate().map(keep).collect();
            self.upload_inner(rows, x.cols, &half)
        };
        match self.fault {
            Fault::SplitK { from_rows } if rows >= from_rows => {
                vec![keeping(0..x.cols / 2), keeping(x.cols / 2..x.cols)]
            }
            _ => vec![keeping(0..x.cols)],
        }
    }

    fn eps(&self, eps: f32) -> f32 {
        if self.fault == Fault::NormWithoutEpsilon { 0.0 } else { eps }
    }

    fn sinks<'a>(&self, sinks: Option<&'a Buffer<B>>) -> Option<&'a B::Buffer> {
        sinks.filter(|_| self.fault != Fault::AttentionIgnoresSinks).map(|sinks| &sinks.inner)
    }

    fn op(&self, op: AttentionOp) -> AttentionOp {
        match self.fault {
            Fault::AttentionIgnoresScale => {
                AttentionOp { scale: 1.0 / (op.shape.head_dim as f32).sqrt(), ..op }
            }
            Fault::AttentionIgnoresWindow => AttentionOp { window: None, ..op },
            Fault::AttentionIgnoresSoftcap => AttentionOp { softcap: None, ..op },
            Fault::AttentionIgnoresSinks => AttentionOp { sinks: false, ..op },
            _ => op,
        }
    }
}

impl<B: Backend> Plan<B> {
    /// The batch as attention sees it.
    fn of_attention(&self) -> &B::Plan {
        self.shifted.as_ref().unwrap_or(&self.inner)
    }
}

/// The batch with every chunk that continues a sequence one position earlier.
fn shifted(batch: &Batch) -> Batch {
    let mut shifted = Batch::new(batch.limits(), batch.page_size());
    for (seq, rows) in batch.cu_seqlens_q().windows(2).enumerate() {
        let rows = rows[0] as usize..rows[1] as usize;
        let start = (batch.positions()[rows.start] as usize).saturating_sub(1);
        shifted.push(&batch.token_ids()[rows], start, batch.block_table(seq), Want::None);
    }
    shifted
}

impl<B: Backend> Backend for Faulty<B> {
    type Buffer = Buffer<B>;
    type Matrix = Matrix<B>;
    type KvCache = B::KvCache;
    type Plan = Plan<B>;
    type Experts = B::Experts;
    type Routes = B::Routes;

    fn rank(&self) -> Rank {
        self.inner.rank()
    }

    fn check_spec(&self, spec: &ModelSpec) -> Result<()> {
        self.inner.check_spec(spec)
    }

    fn load(&self, tensor: TensorView<'_>) -> Result<Matrix<B>> {
        let parts = vec![self.inner.load(tensor)?];
        Ok(Matrix { rows: tensor.rows(), inner: Linear { parts, bias: None } })
    }

    fn load_experts(&self, experts: &[Vec<TensorView<'_>>]) -> Result<B::Experts> {
        self.inner.load_experts(experts)
    }

    fn experts_bytes(&self, experts: &B::Experts) -> u64 {
        self.inner.experts_bytes(experts)
    }

    fn alloc_routes(&self, shape: RoutesShape) -> Result<B::Routes> {
        self.inner.alloc_routes(shape)
    }

    fn matrix_bytes(&self, matrix: &Matrix<B>) -> u64 {
        self.inner.matrix_bytes(&matrix.inner.parts[0])
    }

    fn alloc(&self, rows: usize, cols: usize, role: BufferRole) -> Result<Buffer<B>> {
        Ok(Buffer { rows, cols, inner: self.inner.alloc(rows, cols, role)? })
    }

    fn upload(&self, rows: usize, cols: usize, values: &[f32]) -> Result<Buffer<B>> {
        Ok(Buffer { rows, cols, inner: self.inner.upload(rows, cols, values)? })
    }

    fn alloc_kv_cache(&self, shape: &KvShape) -> Result<B::KvCache> {
        self.inner.alloc_kv_cache(shape)
    }

    fn alloc_plan(&self, limits: BatchLimits, shapes: &[QkvShape]) -> Result<Plan<B>> {
        let plan = || self.inner.alloc_plan(limits, shapes);
        let shifted = (self.fault == Fault::AttentionMissesOwnPosition).then(plan).transpose()?;
        Ok(Plan { inner: plan()?, shifted })
    }

    fn footprint(&self, layout: &Layout) -> u64 {
        self.inner.footprint(layout)
    }

    fn plan(&self, batch: &Batch, plan: &mut Plan<B>) -> Result<()> {
        if self.fault == Fault::PlanFails {
            return Err(Error::Device("no step begins".to_owned()));
        }
        if let Some(plan) = &mut plan.shifted {
            self.inner.plan(&shifted(batch), plan)?;
        }
        self.inner.plan(batch, &mut plan.inner)
    }

    fn embed(&self, plan: &Plan<B>, table: &Matrix<B>, out: &mut Buffer<B>) {
        self.inner.embed(&plan.inner, &table.inner.parts[0], &mut out.inner);
    }

    fn rms_norm(&self, rows: usize, x: &Buffer<B>, weight: &Buffer<B>, eps: f32, out: &mut Buffer<B>) {
        self.inner.rms_norm(rows, &x.inner, &weight.inner, self.eps(eps), &mut out.inner);
    }

    fn add_rms_norm(
        &self,
        rows: usize,
        x: &mut Buffer<B>,
        delta: &Buffer<B>,
        weight: &Buffer<B>,
        eps: f32,
        out: &mut Buffer<B>,
    ) {
        let eps = self.eps(eps);
        self.inner.add_rms_norm(rows, &mut x.inner, &delta.inner, &weight.inner, eps, &mut out.inner);
    }

    fn add(&self, rows: usize, x: &mut Buffer<B>, delta: &Buffer<B>) {
        self.inner.add(rows, &mut x.inner, &delta.inner);
    }

    fn scale(&self, rows: usize, x: &mut Buffer<B>, factor: f32) {
        let rows = if self.fault == Fault::ScaleTouchesRowBeyond { x.rows.min(rows + 1) } else { rows };
        self.inner.scale(rows, &mut x.inner, factor);
    }

    fn softcap(&self, rows: usize, x: &mut Buffer<B>, cap: f32) {
        self.inner.softcap(rows, &mut x.inner, cap);
    }

    fn matmul(&self, rows: usize, x: &Buffer<B>, weight: &Linear<Self>, out: &mut Buffer<B>) {
        let mut values = self.read(out.rows, out);
        values[..rows * out.cols].fill(0.0);
        let summands = self.summands(rows, x);
        let mut first_col = 0;
        for part in &weight.parts {
            let mut product = self.alloc(rows, part.rows, BufferRole::Values).expect("memory");
            for x in &summands {
                self.inner.matmul(rows, x, &part.inner, &mut product.inner);
                let product = self.read(rows, &product);
                for (out, product) in values.chunks_mut(out.cols).zip(product.chunks(part.rows)) {
                    out[first_col..].iter_mut().zip(product).for_each(|(out, product)| *out += product);
                }
            }
            first_col += part.rows;
        }
        if let Some(bias) = &weight.bias {
            let mut bias = self.read(1, bias);
            if self.fault == Fault::BiasOfFirstPart {
                bias[weight.parts[0].rows..].fill(0.0);
            }
            let rows = values.chunks_mut(out.cols).take(rows);
            rows.for_each(|out| out.iter_mut().zip(&bias).for_each(|(out, bias)| *out += bias));
        }
        out.inner = self.upload_inner(out.rows, out.cols, &values);
    }

    fn norm_heads(
        &self,
        plan: &Plan<B>,
        shape: QkvShape,
        (q_weight, k_weight): (&Buffer<B>, &Buffer<B>),
        eps: f32,
        qkv: &mut Buffer<B>,
    ) {
        let weights = (&q_weight.inner, &k_weight.inner);
        self.inner.norm_heads(&plan.inner, shape, weights, self.eps(eps), &mut qkv.inner);
    }

    fn rope_store_kv(
        &self,
        plan: &Plan<B>,
        op: AttentionOp,
        rope: Option<RopeOp<'_, Self>>,
        qkv: &mut Buffer<B>,
        cache: &mut B::KvCache,
    ) {
        let rope = rope.map(|RopeOp { dim, style, table }| RopeOp { dim, style, table: &table.inner });
        self.inner.rope_store_kv(&plan.inner, op, rope, &mut qkv.inner, cache);
    }

    fn scale_queries(&self, plan: &Plan<B>, shape: QkvShape, factors: &Buffer<B>, qkv: &mut Buffer<B>) {
        if self.fault != Fault::QueriesAreNotScaled {
            self.inner.scale_queries(&plan.inner, shape, &factors.inner, &mut qkv.inner);
        }
    }

    fn paged_attention(
        &self,
        plan: &Plan<B>,
        op: AttentionOp,
        (qkv, sinks): (&Buffer<B>, Option<&Buffer<B>>),
        cache: &B::KvCache,
        out: &mut Buffer<B>,
    ) {
        let inputs = (&qkv.inner, self.sinks(sinks));
        self.inner.paged_attention(plan.of_attention(), self.op(op), inputs, cache, &mut out.inner);
    }

    fn attention_scores(
        &self,
        plan: &Plan<B>,
        op: AttentionOp,
        qkv: &Buffer<B>,
        cache: &B::KvCache,
        scores: &mut Buffer<B>,
    ) {
        self.inner.attention_scores(&plan.inner, op, &qkv.inner, cache, &mut scores.inner);
    }

    fn attention_softmax(
        &self,
        plan: &Plan<B>,
        op: AttentionOp,
        sinks: Option<&Buffer<B>>,
        scores: &mut Buffer<B>,
    ) {
        let sinks = self.sinks(sinks);
        self.inner.attention_softmax(&plan.inner, self.op(op), sinks, &mut scores.inner);
    }

    fn attention_values(
        &self,
        plan: &Plan<B>,
        op: AttentionOp,
        scores: &Buffer<B>,
        cache: &B::KvCache,
        out: &mut Buffer<B>,
    ) {
        self.inner.attention_values(&plan.inner, op, &scores.inner, cache, &mut out.inner);
    }

    fn gated(&self, rows: usize, act: Activation, gate_up: &Buffer<B>, out: &mut Buffer<B>) {
        assert!(self.fault != Fault::GatePanics, "there is no activation");
        let act = if self.fault == Fault::GeluIsSilu { Activation::Silu } else { act };
        self.inner.gated(rows, act, &gate_up.inner, &mut out.inner);
    }

    fn route(&self, rows: usize, logits: &Buffer<B>, mut routing: Routing, routes: &mut B::Routes) {
        routing.norm &= self.fault != Fault::RoutesAreNotNormed;
        self.inner.route(rows, &logits.inner, routing, routes);
    }

    fn matmul_experts(
        &self,
        x: &Buffer<B>,
        ExpertOp { weights, bias, input }: ExpertOp<'_, Self>,
        routes: &B::Routes,
        out: &mut Buffer<B>,
    ) {
        let bias = bias.filter(|_| self.fault != Fault::ExpertsWithoutBias).map(|bias| &bias.inner);
        self.inner.matmul_experts(&x.inner, ExpertOp { weights, bias, input }, routes, &mut out.inner);
    }

    fn combine_experts(
        &self,
        x: &Buffer<B>,
        routes: &B::Routes,
        shared: Option<SharedOutput<'_, Self>>,
        out: &mut Buffer<B>,
    ) {
        let shared = shared.map(|SharedOutput { values, gate }| SharedOutput {
            values: &values.inner,
            gate: gate.map(|gate| &gate.inner),
        });
        self.inner.combine_experts(&x.inner, routes, shared, &mut out.inner);
    }

    fn gather_rows(&self, plan: &Plan<B>, x: &Buffer<B>, out: &mut Buffer<B>) {
        self.inner.gather_rows(&plan.inner, &x.inner, &mut out.inner);
    }

    fn argmax(&self, rows: Range<usize>, x: &Buffer<B>, out: &mut Buffer<B>) {
        let first = if self.fault == Fault::ArgmaxFromFirstRow { 0 } else { rows.start };
        self.inner.argmax(first..first + rows.len(), &x.inner, &mut out.inner);
    }

    fn draws(&self) -> bool {
        self.inner.draws()
    }

    fn draw(&self, plan: &Plan<B>, x: &Buffer<B>, out: &mut Buffer<B>) {
        self.inner.draw(&plan.inner, &x.inner, &mut out.inner);
    }

    fn all_gather(&self, rows: usize, part: &Buffer<B>, shards: &Shards, out: &mut Buffer<B>) {
        if self.fault == Fault::GatherFromSecondRow && rows > 1 {
            let mut values = self.read(part.rows, part);
            values.rotate_left(part.cols);
            let part = Buffer::<B> {
                rows: part.rows,
                cols: part.cols,
                inner: self.upload_inner(part.rows, part.cols, &values),
            };
            return self.inner.all_gather(rows, &part.inner, shards, &mut out.inner);
        }
        self.inner.all_gather(rows, &part.inner, shards, &mut out.inner);
    }

    fn leave_group(&self, reason: &str) {
        self.inner.leave_group(reason);
    }

    fn read_into(&self, reads: &mut [Read<'_, Self>]) -> Result<()> {
        let mut inner: Vec<Read<'_, B>> = Vec::with_capacity(reads.len());
        for Read { buffer, first_row, out } in reads {
            let first_row = if self.fault == Fault::ReadFromFirstRow { 0 } else { *first_row };
            inner.push(Read { buffer: &buffer.inner, first_row, out });
        }
        self.inner.read_into(&mut inner)
    }
}

impl<S: Subject> Subject for Faulty<S> {
    fn name(&self) -> String {
        format!("{} with a fault: {:?}", self.inner.name(), self.fault)
    }

    fn row_limit(&self) -> f64 {
        self.inner.row_limit()
    }

    fn embed_limit(&self) -> f64 {
        self.inner.embed_limit()
    }

    fn product_limit(&self, format: Format, inputs: Inputs) -> f64 {
        self.inner.product_limit(format, inputs)
    }

    fn attention_limit(&self, op: AttentionOp, dtype: KvDtype) -> f64 {
        self.inner.attention_limit(op, dtype)
    }

    fn formats_of_tall_matrices(&self) -> Vec<Format> {
        self.inner.formats_of_tall_matrices()
    }
}
