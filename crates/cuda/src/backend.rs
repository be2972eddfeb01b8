//! [`Backend`] on a card.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use gguf::{Format, TensorView};
use model::{
    Activation, AttentionOp, Backend, Batch, BatchLimits, BufferRole, Error, ExpertInput, ExpertOp, Gating,
    KvShape, Layout, Linear, ModelSpec, QkvShape, Rank, Read, Result, RopeOp, RopeStyle, RoutesShape,
    Routing, Shards, SharedOutput,
};
use pack::TILE_ROWS;

use crate::attention::{
    MAX_HEAD_DIM, ReferenceInputs, RowRoom, Rows, Spread, fused_parameters, reference_parameters, words,
};
use crate::buffer::{CudaBuffer, Half, HalfOrder};
use crate::cards::Card;
use crate::driver::{Arg, Context, HostWords, Kernel};
use crate::experts::{CudaExperts, CudaRoutes, check_experts};
use crate::footprint;
use crate::group::{Ends, MOST_RANKS, Place};
use crate::kv_cache::CudaKvCache;
use crate::matrix::{CudaMatrix, ExpertMatrix, Planes};
use crate::modules::{FormatKernels, Products, RowKernels, TensorAttention};
use crate::plan::{CudaPlan, Section};
use crate::wide::{Leaves, WIDE_FROM, WIDE_ROWS, Wide, splits_of, wide_blocks};

/// Tokens of a block of the product for many tokens, and rows.
const MANY: usize = 128;

/// Rows from which on kernels that wait for memory take more columns a block: with fewer, the card has threads to spare.
const MANY_ROWS: usize = 64;

/// A card as a device.
pub struct CudaBackend {
    card: Card,
    context: Arc<Context>,
    rows: RowKernels,
    tensor_attention: Vec<TensorAttention>,
    /// By block format, loaded when first asked for.
    formats: Mutex<HashMap<Format, Arc<FormatKernels>>>,
    /// What kernels could not be queued for: the next wait reports the first.
    failure: Mutex<Option<Error>>,
    staging: Mutex<Option<HostWords>>,
    multiprocessors: usize,
    /// Bytes of shared memory that a block can have.
    shared_limit: usize,
    leaves: Option<Leaves>,
    /// In a group.
    place: Option<Place>,
}

/// The part of a product's parameters that is the same for dense layers and for experts.
struct ProductShape<'a> {
    planes: &'a Planes,
    kernels: &'a FormatKernels,
    rows: usize,
    cols: usize,
    out_first: usize,
}

/// The pairs of a product of experts.
struct Pairs<'a> {
    routes: &'a CudaRoutes,
    per_row: usize,
}

impl CudaBackend {
    /// Opens a card.
    ///
    /// # Errors
    /// When the driver refuses, or takes none of the kernels.
    pub fn new(card: &Card) -> Result<Self> {
        Self::open(card, card.open(true)?, None)
    }

    /// The ranks of a group, on a card each; also on the same, to try it out.
    ///
    /// # Errors
    /// As [`new`](Self::new), and when the cards do not reach one another's memory or are too many.
    pub fn group(cards: &[Card]) -> Result<Vec<Self>> {
        if cards.len() > MOST_RANKS {
            return Err(Error::InvalidValue {
                what: "tensor parallel on CUDA devices".to_owned(),
                expected: format!("at most {MOST_RANKS} ranks"),
                found: cards.len().to_string(),
            });
        }
        // Blocks that wait for a kernel which waits for another rank would keep that rank from the card.
        let is_shared = |card: &Card| cards.iter().filter(|other| other.index() == card.index()).count() > 1;
        let contexts = cards.iter().map(|card| card.open(!is_shared(card))).collect::<Result<Vec<_>>>()?;
        let places = Place::all(cards, &contexts)?;
        let ranks = cards.iter().zip(contexts).zip(places);
        ranks.map(|((card, context), place)| Self::open(card, context, Some(place))).collect()
    }

    fn open(card: &Card, context: Arc<Context>, place: Option<Place>) -> Result<Self> {
        let multiprocessors = card.multiprocessors()? as usize;
        let shared_limit = card.block_bytes()? as usize;
        Ok(Self {
            rows: RowKernels::load(&context, card.capability())?,
            tensor_attention: TensorAttention::load(&context, card.capability(), shared_limit)?,
            card: card.clone(),
            formats: Mutex::default(),
            failure: Mutex::default(),
            staging: Mutex::default(),
            multiprocessors,
            shared_limit,
            leaves: Leaves::new(&context, card.capability(), multiprocessors)?,
            place,
            context,
        })
    }

    /// The card.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// Free and total bytes of memory.
    ///
    /// # Errors
    /// When the card is lost.
    pub fn memory(&self) -> Result<(u64, u64)> {
        self.context.memory()
    }

    fn launch(&self, kernel: &Kernel, grid: [usize; 3], args: &[Arg<'_>]) {
        self.launch_with(kernel, grid, kernel.shared_bytes, args);
    }

    fn launch_with(&self, kernel: &Kernel, grid: [usize; 3], shared_bytes: u32, args: &[Arg<'_>]) {
        let grid = grid.map(|blocks| u32::try_from(blocks).expect("grids fit 32 bits"));
        if let Err(error) = self.context.launch(kernel, grid, shared_bytes, args) {
            self.fail(error);
        }
    }

    /// The kernels on tensor cores for heads of so many columns, if there are any.
    fn tensor_attention(&self, head_dim: usize) -> Option<&TensorAttention> {
        let is_whole = head_dim.is_multiple_of(16);
        self.tensor_attention.iter().find(|kernels| is_whole && head_dim <= kernels.width)
    }

    /// Why a rank has left, if one has.
    fn check_group(&self) -> Result<()> {
        self.place.as_ref().map_or(Ok(()), Place::check)
    }

    /// What could not be queued since the last call, or why a rank has left.
    fn check(&self) -> Result<()> {
        self.check_group()?;
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }

    fn format(&self, format: Format) -> Result<Arc<FormatKernels>> {
        let mut formats = self.formats.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernels) = formats.get(&format) {
            return Ok(Arc::clone(kernels));
        }
        let kernels = Arc::new(FormatKernels::load(&self.context, self.card.capability(), format)?);
        formats.insert(format, Arc::clone(&kernels));
        Ok(kernels)
    }

    /// A product's input in f16, in this order or in any; none when the card refuses.
    fn half_of(&self, x: &CudaBuffer, order: Option<HalfOrder>) -> Option<Half> {
        let half = x.half(&self.context, order, |values, half| {
            let args = [values.into(), half.address.into(), x.cols.into(), half.shape.into()];
            self.launch(&self.rows.copy_to_half, [x.rows, x.cols.div_ceil(256), 1], &args);
        });
        self.done(half)
    }

    /// Where so many rows of a buffer are written, and their f16 copy, in the order that the product of as many takes; none when the
    /// card refuses.
    fn write_both(&self, buffer: &CudaBuffer, rows: usize) -> Option<(u64, Half)> {
        let order = if self.takes_wide(rows) { HalfOrder::BySteps } else { HalfOrder::ByLanes };
        self.done(buffer.write_both(order))
    }

    /// What the card did, or none: the next wait reports why.
    fn done<T>(&self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.fail(error)).ok()
    }

    /// Whether the kernels of `wide.cuh` take a product of so many tokens.
    fn takes_wide(&self, tokens: usize) -> bool {
        self.leaves.is_some() && tokens > WIDE_FROM
    }

    fn fail(&self, error: Error) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    fn each_element(&self, kernel: &Kernel, rows: usize, x: &CudaBuffer, parameter: Arg<'_>) {
        x.check_rows(rows);
        let len = rows * x.cols;
        self.launch(kernel, [len.div_ceil(256), 1, 1], &[x.write().into(), (len as u64).into(), parameter]);
    }

    fn norm(
        &self,
        rows: usize,
        x: &CudaBuffer,
        delta: Option<&CudaBuffer>,
        weight: &CudaBuffer,
        eps: f32,
        out: &CudaBuffer,
    ) {
        for buffer in [x, out].into_iter().chain(delta) {
            buffer.check_rows(rows);
            assert_eq!((buffer.cols, weight.cols), (x.cols, x.cols), "rms_norm: columns");
        }
        let values = if delta.is_some() { x.write() } else { x.read() };
        let Some((out_values, half)) = self.write_both(out, rows) else { return };
        let args = [
            values.into(),
            delta.map_or(0, CudaBuffer::read).into(),
            weight.read().into(),
            out_values.into(),
            half.address.into(),
            x.cols.into(),
            half.shape.into(),
            eps.into(),
        ];
        self.launch(&self.rows.rms_norm, [rows, 1, 1], &args);
    }

    /// How a kernel of `wide.cuh` takes a product, if one does.
    fn wide<'a>(&self, shape: &ProductShape<'a>, tokens: usize) -> Option<Wide<'a>> {
        let Products::Tensor { wide, .. } = &shape.kernels.products else { return None };
        if !self.takes_wide(tokens) {
            return None;
        }
        let (size, kernel) = wide.iter().find(|(size, _)| tokens <= *size).or(wide.last())?;
        let [groups, row_groups] = [tokens.div_ceil(*size), shape.rows.div_ceil(WIDE_ROWS)];
        let splits = splits_of(groups * row_groups, self.multiprocessors * wide_blocks(*size));
        Some(Wide { kernel, grid: [groups, row_groups, splits], splits })
    }

    /// `out = weight * x + bias` for `tokens` rows of `x`, or for pairs.
    fn product(
        &self,
        shape: &ProductShape<'_>,
        (x, tokens): (&CudaBuffer, usize),
        bias: Option<&CudaBuffer>,
        pairs: Option<&Pairs<'_>>,
        out: &CudaBuffer,
    ) {
        let is_float = matches!(shape.kernels.products, Products::Floats(_));
        let wide = if pairs.is_some() { None } else { self.wide(shape, tokens) };
        let order = match (pairs, wide) {
            (Some(_), _) => None,
            (None, Some(_)) => Some(HalfOrder::BySteps),
            (None, None) => Some(HalfOrder::ByLanes),
        };
        let half = if is_float { Some(Half::default()) } else { self.half_of(x, order) };
        let Some(half) = half else { return };
        let (leaves, arrivals) = self.leaves.as_ref().map_or((0, 0), Leaves::addresses);
        let planes = shape.planes.addresses();
        let of_expert = shape.planes.words();
        let (order, groups) =
            pairs.map_or((0, 0), |pairs| (pairs.routes.order.address(), pairs.routes.groups.address()));
        let parameters = [
            planes[0],
            planes[1],
            planes[2],
            planes[3],
            of_expert[0],
            of_expert[1],
            of_expert[2],
            of_expert[3],
            x.read(),
            half.address,
            bias.map_or(0, CudaBuffer::read),
            out.write(),
            order,
            groups,
            words(shape.rows, shape.cols),
            u64::from(half.shape) | words(0, tokens),
            words(out.cols, shape.out_first),
            words(pairs.map_or(1, |pairs| pairs.per_row), wide.map_or(1, |wide| wide.splits)),
            leaves,
            arrivals,
        ];
        let tiles = shape.rows.div_ceil(TILE_ROWS);
        let parameters = Arg::Struct(&parameters);
        if let Some(wide) = wide {
            if let Some(map) = self.done(x.map()) {
                self.launch(wide.kernel, wide.grid, &[parameters, Arg::Struct(map.words())]);
            }
            return;
        }
        match (&shape.kernels.products, pairs) {
            (Products::Floats(kernel), _) => {
                let size = pairs.map_or(4, |pairs| pairs.routes.group());
                let groups = pairs.map_or(tokens.div_ceil(size), |pairs| pairs.routes.max_groups());
                self.launch(kernel, [shape.rows.div_ceil(8), groups, 1], &[parameters, size.into()]);
            }
            (Products::Tensor { few, .. }, Some(Pairs { routes, .. })) => {
                let (_, kernel) =
                    few.iter().find(|(size, _)| *size == routes.group()).expect("a group's kernel");
                self.launch(kernel, [tiles, routes.max_groups(), 1], &[parameters]);
            }
            (Products::Tensor { few, many, .. }, None) => {
                let blocks = [tokens.div_ceil(MANY), shape.rows.div_ceil(MANY), 1];
                let (most, last) = &few[few.len() - 1];
                if tokens > *most && blocks[0] * blocks[1] * 4 >= self.multiprocessors * 3 {
                    self.launch(many, blocks, &[parameters]);
                } else {
                    let fits = few.iter().find(|(size, _)| tokens <= *size);
                    let (size, kernel) = fits.map_or((most, last), |(size, kernel)| (size, kernel));
                    self.launch(kernel, [tiles, tokens.div_ceil(*size), 1], &[parameters]);
                }
            }
        }
    }
}

/// # Panics
/// When scores of reference attention do not fit the planned batch: kernels check no index.
fn check_scores(plan: &CudaPlan, op: AttentionOp, scores: &CudaBuffer) -> usize {
    scores.check_rows(plan.counts().num_tokens);
    let (context, needed) = (scores.cols / op.shape.num_heads, plan.counts().max_context);
    assert!(context >= needed, "attention: scores of {context} positions, expected {needed}");
    context
}

/// # Panics
/// When there are not as many sinks as the operation has.
fn check_sinks(op: AttentionOp, sinks: Option<&CudaBuffer>) {
    let expected = if op.sinks { op.shape.num_heads } else { 0 };
    assert_eq!(sinks.map_or(0, |sinks| sinks.rows * sinks.cols), expected, "attention: sinks");
}

fn check_head_dim(head_dim: usize) -> Result<()> {
    if head_dim.is_multiple_of(2) && head_dim <= MAX_HEAD_DIM {
        return Ok(());
    }
    Err(Error::InvalidValue {
        what: "head_dim on a CUDA device".to_owned(),
        expected: format!("an even number up to {MAX_HEAD_DIM}"),
        found: head_dim.to_string(),
    })
}

impl Backend for CudaBackend {
    type Buffer = CudaBuffer;
    type Matrix = CudaMatrix;
    type KvCache = CudaKvCache;
    type Plan = CudaPlan;
    type Experts = CudaExperts;
    type Routes = CudaRoutes;

    fn rank(&self) -> Rank {
        self.place.as_ref().map_or(Rank::ONLY, Place::rank)
    }

    fn check_spec(&self, spec: &ModelSpec) -> Result<()> {
        spec.experts().map_or(Ok(()), |spec| check_experts(spec.num_experts))?;
        spec.layers.iter().try_for_each(|layer| check_head_dim(layer.attn.head_dim))
    }

    fn load(&self, tensor: TensorView<'_>) -> Result<CudaMatrix> {
        CudaMatrix::load(&self.context, self.format(tensor.format())?, &[tensor])
    }

    fn load_stack(&self, tensors: &[TensorView<'_>]) -> Result<Vec<CudaMatrix>> {
        let joins = |a: &TensorView<'_>, b: &TensorView<'_>| {
            a.format() == b.format() && a.rows().is_multiple_of(TILE_ROWS)
        };
        let load = |stack: &[TensorView<'_>]| {
            CudaMatrix::load(&self.context, self.format(stack[0].format())?, stack)
        };
        tensors.chunk_by(joins).map(load).collect()
    }

    fn load_experts(&self, experts: &[Vec<TensorView<'_>>]) -> Result<CudaExperts> {
        let part = |part: usize| {
            let tensors: Vec<TensorView<'_>> = experts.iter().map(|expert| expert[part]).collect();
            ExpertMatrix::load(&self.context, self.format(tensors[0].format())?, &tensors)
        };
        Ok(CudaExperts { parts: (0..experts[0].len()).map(part).collect::<Result<_>>()? })
    }

    fn matrix_bytes(&self, matrix: &CudaMatrix) -> u64 {
        matrix.planes.bytes()
    }

    fn experts_bytes(&self, experts: &CudaExperts) -> u64 {
        experts.parts.iter().map(|part| part.planes.bytes()).sum()
    }

    fn alloc(&self, rows: usize, cols: usize, role: BufferRole) -> Result<CudaBuffer> {
        CudaBuffer::new(&self.context, (rows, cols), "activations", role)
    }

    fn upload(&self, rows: usize, cols: usize, values: &[f32]) -> Result<CudaBuffer> {
        let buffer = CudaBuffer::new(&self.context, (rows, cols), "constants", BufferRole::Values)?;
        buffer.fill(values)?;
        Ok(buffer)
    }

    fn alloc_kv_cache(&self, shape: &KvShape) -> Result<CudaKvCache> {
        shape.layers.iter().try_for_each(|heads| check_head_dim(heads.head_dim))?;
        CudaKvCache::new(&self.context, shape)
    }

    fn alloc_plan(&self, limits: BatchLimits, shapes: &[QkvShape]) -> Result<CudaPlan> {
        CudaPlan::new(&self.context, limits, shapes)
    }

    fn alloc_routes(&self, shape: RoutesShape) -> Result<CudaRoutes> {
        CudaRoutes::new(&self.context, shape)
    }

    fn footprint(&self, layout: &Layout) -> u64 {
        footprint::of_layout(layout)
    }

    fn plan(&self, batch: &Batch, plan: &mut CudaPlan) -> Result<()> {
        self.check()?;
        plan.upload(batch)
    }

    fn embed(&self, plan: &CudaPlan, table: &CudaMatrix, out: &mut CudaBuffer) {
        let counts = plan.counts();
        out.check_rows(counts.num_tokens);
        assert_eq!(out.cols, table.cols, "embed: columns");
        assert!(counts.end_token <= table.rows, "embed: a token beyond {} rows", table.rows);
        let planes = table.planes.addresses();
        let parameters = [
            planes[0],
            planes[1],
            planes[2],
            planes[3],
            plan.section(Section::TokenIds),
            out.write(),
            words(table.cols, 0),
        ];
        let grid = [table.cols.div_ceil(64 * 32), counts.num_tokens, 1];
        self.launch(&table.kernels.embed, grid, &[Arg::Struct(&parameters)]);
    }

    fn rms_norm(&self, rows: usize, x: &CudaBuffer, weight: &CudaBuffer, eps: f32, out: &mut CudaBuffer) {
        self.norm(rows, x, None, weight, eps, out);
    }

    fn add_rms_norm(
        &self,
        rows: usize,
        x: &mut CudaBuffer,
        delta: &CudaBuffer,
        weight: &CudaBuffer,
        eps: f32,
        out: &mut CudaBuffer,
    ) {
        self.norm(rows, x, Some(delta), weight, eps, out);
    }

    fn add(&self, rows: usize, x: &mut CudaBuffer, delta: &CudaBuffer) {
        x.check_rows(rows);
        delta.check_rows(rows);
        assert_eq!(delta.cols, x.cols, "add: columns");
        let len = rows * x.cols;
        let args = [x.write().into(), delta.read().into(), (len as u64).into()];
        self.launch(&self.rows.add, [len.div_ceil(256), 1, 1], &args);
    }

    fn scale(&self, rows: usize, x: &mut CudaBuffer, factor: f32) {
        self.each_element(&self.rows.scale, rows, x, factor.into());
    }

    fn softcap(&self, rows: usize, x: &mut CudaBuffer, cap: f32) {
        self.each_element(&self.rows.softcap, rows, x, cap.into());
    }

    fn matmul(&self, rows: usize, x: &CudaBuffer, weight: &Linear<Self>, out: &mut CudaBuffer) {
        x.check_rows(rows);
        out.check_rows(rows);
        let all_rows: usize = weight.parts.iter().map(|part| part.rows).sum();
        assert_eq!(out.cols, all_rows, "matmul: output columns");
        let bias = weight.bias.as_ref();
        assert!(bias.is_none_or(|bias| bias.rows * bias.cols == out.cols), "matmul: bias");
        let mut out_first = 0;
        for part in &weight.parts {
            assert_eq!(part.cols, x.cols, "matmul: columns");
            let CudaMatrix { rows: part_rows, cols, ref planes, ref kernels } = *part;
            let shape = ProductShape { planes, kernels, rows: part_rows, cols, out_first };
            self.product(&shape, (x, rows), bias, None, out);
            out_first += part_rows;
        }
    }

    fn norm_heads(
        &self,
        plan: &CudaPlan,
        shape: QkvShape,
        (q_weight, k_weight): (&CudaBuffer, &CudaBuffer),
        eps: f32,
        qkv: &mut CudaBuffer,
    ) {
        let tokens = plan.counts().num_tokens;
        qkv.check_rows(tokens);
        let QkvShape { num_heads, num_kv_heads, head_dim } = shape;
        let cols = [qkv.cols, q_weight.cols, k_weight.cols];
        assert_eq!(cols, [shape.cols(), head_dim, head_dim], "norm_heads: columns");
        let args = [
            qkv.write().into(),
            q_weight.read().into(),
            k_weight.read().into(),
            num_heads.into(),
            head_dim.into(),
            qkv.cols.into(),
            eps.into(),
        ];
        self.launch(&self.rows.norm_heads, [num_heads + num_kv_heads, tokens, 1], &args);
    }

    fn rope_store_kv(
        &self,
        plan: &CudaPlan,
        op: AttentionOp,
        rope: Option<RopeOp<'_, Self>>,
        qkv: &mut CudaBuffer,
        cache: &mut CudaKvCache,
    ) {
        let counts = plan.counts();
        qkv.check_rows(counts.num_tokens);
        let QkvShape { num_heads, num_kv_heads, head_dim } = op.shape;
        assert_eq!(qkv.cols, op.shape.cols(), "rope_store_kv: columns");
        let [k, v] = cache.pages(op, plan);
        let (mut table, mut dim, mut halves) = (0, 0, false);
        if let Some(rope) = rope {
            rope.table.check_rows(counts.max_context);
            assert!(rope.dim <= head_dim && rope.dim.is_multiple_of(2), "rope_store_kv: dimensions");
            assert_eq!(rope.table.cols, rope.dim, "rope_store_kv: columns of the table");
            (table, dim, halves) = (rope.table.read(), rope.dim, rope.style == RopeStyle::Halves);
        }
        let args = [
            plan.section(Section::Positions).into(),
            plan.section(Section::SlotMapping).into(),
            table.into(),
            qkv.write().into(),
            k.into(),
            v.into(),
            num_heads.into(),
            num_kv_heads.into(),
            head_dim.into(),
            counts.page_size.into(),
            dim.into(),
            usize::from(halves).into(),
            usize::from(cache.is_half()).into(),
        ];
        let heads = num_heads + 2 * num_kv_heads;
        let (kernel, blocks) = if counts.num_tokens < MANY_ROWS {
            (&self.rows.rope_store_kv, heads)
        } else {
            (&self.rows.rope_store_kv_many, heads.div_ceil(8))
        };
        self.launch(kernel, [blocks, counts.num_tokens, 1], &args);
    }

    fn scale_queries(&self, plan: &CudaPlan, shape: QkvShape, factors: &CudaBuffer, qkv: &mut CudaBuffer) {
        let counts = plan.counts();
        qkv.check_rows(counts.num_tokens);
        factors.check_rows(counts.max_context);
        assert_eq!((qkv.cols, factors.cols), (shape.cols(), 1), "scale_queries: columns");
        let args = [
            plan.section(Section::Positions).into(),
            factors.read().into(),
            qkv.write().into(),
            shape.q_cols().into(),
            shape.cols().into(),
        ];
        let grid = [shape.q_cols().div_ceil(256), counts.num_tokens, 1];
        self.launch(&self.rows.scale_queries, grid, &args);
    }

    fn paged_attention(
        &self,
        plan: &CudaPlan,
        op: AttentionOp,
        (qkv, sinks): (&CudaBuffer, Option<&CudaBuffer>),
        cache: &CudaKvCache,
        out: &mut CudaBuffer,
    ) {
        let tokens = plan.counts().num_tokens;
        check_sinks(op, sinks);
        qkv.check_rows(tokens);
        out.check_rows(tokens);
        assert_eq!((qkv.cols, out.cols), (op.shape.cols(), op.shape.q_cols()), "attention: columns");
        let inputs = (qkv.read(), sinks.map_or(0, CudaBuffer::read));
        let Some(outputs) = self.write_both(out, tokens) else { return };
        let launch = |kernel: &Kernel, rows: Rows, spread: &Spread, shared_bytes: u32| {
            let parameters = fused_parameters(op, plan, (rows, spread), inputs, cache, outputs);
            let parameters = [Arg::Struct(&parameters)];
            self.launch_with(kernel, spread.grid, shared_bytes, &parameters);
            if spread.splits.is_some() {
                let grid = [spread.grid[0], op.shape.num_heads, 1];
                self.launch(&self.rows.attention_merge, grid, &parameters);
            }
        };
        let tensor = if cache.is_half() { self.tensor_attention(op.shape.head_dim) } else { None };
        let Some(tensor) = tensor else {
            let kernel = if cache.is_half() { &self.rows.attention_f16 } else { &self.rows.attention_f32 };
            return launch(kernel, Rows::All, &Spread::of_all(op, plan), kernel.shared_bytes);
        };
        launch(&tensor.run, Rows::Runs, &Spread::of_runs(op, plan), tensor.run.shared_bytes);
        let spread = Spread::of_singles(op, plan);
        let card = (self.multiprocessors, self.shared_limit);
        let (room, bytes) = RowRoom::new((op, tensor.width), plan, &spread, card);
        launch(&tensor.row, Rows::Singles(room), &spread, bytes as u32);
    }

    fn attention_scores(
        &self,
        plan: &CudaPlan,
        op: AttentionOp,
        qkv: &CudaBuffer,
        cache: &CudaKvCache,
        scores: &mut CudaBuffer,
    ) {
        let counts = plan.counts();
        qkv.check_rows(counts.num_tokens);
        assert_eq!(qkv.cols, op.shape.cols(), "attention_scores: columns");
        let context = check_scores(plan, op, scores);
        let [pages, _] = cache.pages(op, plan);
        let inputs = ReferenceInputs {
            qkv: qkv.read(),
            pages,
            is_half: cache.is_half(),
            scores: scores.write(),
            context,
            ..ReferenceInputs::default()
        };
        let parameters = reference_parameters(op, plan, &inputs);
        let grid = [counts.max_context.div_ceil(64), counts.num_tokens, op.shape.num_heads];
        self.launch(&self.rows.attention_scores, grid, &[Arg::Struct(&parameters)]);
    }

    fn attention_softmax(
        &self,
        plan: &CudaPlan,
        op: AttentionOp,
        sinks: Option<&CudaBuffer>,
        scores: &mut CudaBuffer,
    ) {
        check_sinks(op, sinks);
        let context = check_scores(plan, op, scores);
        let sinks = sinks.map_or(0, CudaBuffer::read);
        let inputs = ReferenceInputs { sinks, scores: scores.write(), context, ..ReferenceInputs::default() };
        let parameters = reference_parameters(op, plan, &inputs);
        let grid = [plan.counts().num_tokens, op.shape.num_heads, 1];
        self.launch(&self.rows.attention_softmax, grid, &[Arg::Struct(&parameters)]);
    }

    fn attention_values(
        &self,
        plan: &CudaPlan,
        op: AttentionOp,
        scores: &CudaBuffer,
        cache: &CudaKvCache,
        out: &mut CudaBuffer,
    ) {
        let context = check_scores(plan, op, scores);
        let tokens = plan.counts().num_tokens;
        out.check_rows(tokens);
        assert_eq!(out.cols, op.shape.q_cols(), "attention_values: columns");
        let [_, pages] = cache.pages(op, plan);
        let Some((out, half)) = self.write_both(out, tokens) else { return };
        let inputs = ReferenceInputs {
            pages,
            is_half: cache.is_half(),
            scores: scores.read(),
            context,
            out,
            half,
            ..ReferenceInputs::default()
        };
        let parameters = reference_parameters(op, plan, &inputs);
        let grid = [tokens, op.shape.num_heads, 1];
        self.launch(&self.rows.attention_values, grid, &[Arg::Struct(&parameters)]);
    }

    fn gated(&self, rows: usize, act: Activation, gate_up: &CudaBuffer, out: &mut CudaBuffer) {
        gate_up.check_rows(rows);
        out.check_rows(rows);
        assert_eq!(gate_up.cols, 2 * out.cols, "gated: columns");
        let act: u32 = match act {
            Activation::Silu => 0,
            Activation::GeluTanh => 1,
            Activation::ClampedSwiglu => 2,
        };
        let Some((values, half)) = self.write_both(out, rows) else { return };
        let args = [
            gate_up.read().into(),
            values.into(),
            half.address.into(),
            out.cols.into(),
            half.shape.into(),
            act.into(),
        ];
        let (kernel, cols_of_block) = if rows < MANY_ROWS || !out.cols.is_multiple_of(4) {
            (&self.rows.gated, 256)
        } else {
            (&self.rows.gated_many, 4 * 256)
        };
        self.launch(kernel, [rows, out.cols.div_ceil(cols_of_block), 1], &args);
    }

    fn route(&self, rows: usize, logits: &CudaBuffer, routing: Routing, routes: &mut CudaRoutes) {
        let RoutesShape { max_tokens, num_experts, top_k, .. } = routes.shape;
        logits.check_rows(rows);
        assert_eq!(
            (logits.cols, routing.top_k),
            (num_experts, top_k),
            "route: columns, and experts of a token"
        );
        assert!(rows <= max_tokens, "route: {rows} tokens, expected at most {max_tokens}");
        routes.tokens = rows;
        let args = [
            logits.read().into(),
            routes.ids.address().into(),
            routes.weights.address().into(),
            num_experts.into(),
            top_k.into(),
            Routing::MIN_SUM.into(),
            routing.scale.into(),
            usize::from(routing.gating == Gating::SoftmaxOfSelected).into(),
            usize::from(routing.norm).into(),
        ];
        self.launch(&self.rows.route, [rows, 1, 1], &args);
        let args = [
            routes.ids.address().into(),
            routes.order.address().into(),
            routes.groups.address().into(),
            routes.pairs().into(),
            num_experts.into(),
            routes.group().into(),
        ];
        self.launch(&self.rows.sort_pairs, [1, 1, 1], &args);
    }

    fn matmul_experts(
        &self,
        x: &CudaBuffer,
        op: ExpertOp<'_, Self>,
        routes: &CudaRoutes,
        out: &mut CudaBuffer,
    ) {
        let ExpertOp { weights: CudaExperts { parts }, bias, input } = op;
        let (x_rows, per_row) = match input {
            ExpertInput::Tokens => (routes.tokens, routes.shape.top_k),
            ExpertInput::Pairs => (routes.pairs(), 1),
        };
        x.check_rows(x_rows);
        out.check_rows(routes.pairs());
        let all_rows: usize = parts.iter().map(|part| part.rows).sum();
        assert_eq!(out.cols, all_rows, "matmul of experts: output columns");
        let bias_size = (routes.shape.num_experts, out.cols);
        assert!(bias.is_none_or(|bias| (bias.rows, bias.cols) == bias_size), "matmul of experts: bias");
        let pairs = Pairs { routes, per_row };
        let mut out_first = 0;
        for ExpertMatrix { rows, cols, planes, kernels } in parts {
            assert_eq!(*cols, x.cols, "matmul of experts: columns");
            let shape = ProductShape { planes, kernels, rows: *rows, cols: *cols, out_first };
            self.product(&shape, (x, routes.pairs()), bias, Some(&pairs), out);
            out_first += rows;
        }
    }

    fn combine_experts(
        &self,
        x: &CudaBuffer,
        routes: &CudaRoutes,
        shared: Option<SharedOutput<'_, Self>>,
        out: &mut CudaBuffer,
    ) {
        x.check_rows(routes.pairs());
        out.check_rows(routes.tokens);
        assert_eq!(x.cols, out.cols, "combine_experts: columns");
        let (mut shared_values, mut gate_values) = (0, 0);
        if let Some(SharedOutput { values, gate }) = shared {
            values.check_rows(routes.tokens);
            assert_eq!(values.cols, out.cols, "combine_experts: columns of the shared expert");
            assert!(gate.is_none_or(|gate| gate.cols == 1), "combine_experts: columns of the gate");
            (shared_values, gate_values) = (values.read(), gate.map_or(0, CudaBuffer::read));
        }
        let args = [
            x.read().into(),
            routes.weights.address().into(),
            shared_values.into(),
            gate_values.into(),
            out.write().into(),
            out.cols.into(),
            routes.shape.top_k.into(),
        ];
        self.launch(&self.rows.combine_experts, [out.cols.div_ceil(256), routes.tokens, 1], &args);
    }

    fn gather_rows(&self, plan: &CudaPlan, x: &CudaBuffer, out: &mut CudaBuffer) {
        let rows = plan.counts().num_wanted_rows;
        x.check_rows(plan.counts().num_tokens);
        out.check_rows(rows);
        assert_eq!(out.cols, x.cols, "gather_rows: columns");
        let Some((values, half)) = self.write_both(out, rows) else { return };
        let args = [
            plan.section(Section::WantedRows).into(),
            x.read().into(),
            values.into(),
            half.address.into(),
            x.cols.into(),
            half.shape.into(),
        ];
        self.launch(&self.rows.gather_rows, [x.cols.div_ceil(256), rows, 1], &args);
    }

    fn argmax(&self, rows: Range<usize>, x: &CudaBuffer, out: &mut CudaBuffer) {
        x.check_rows(rows.end);
        out.check_rows(rows.len());
        assert_eq!(out.cols, 1, "argmax: a row has one index");
        let args = [x.read().into(), out.write().into(), x.cols.into(), rows.start.into()];
        self.launch(&self.rows.argmax, [rows.len(), 1, 1], &args);
    }

    fn draws(&self) -> bool {
        true
    }

    fn draw(&self, plan: &CudaPlan, x: &CudaBuffer, out: &mut CudaBuffer) {
        let rows = plan.counts().draws;
        x.check_rows(rows);
        out.check_rows(rows);
        assert_eq!(out.cols, 1, "draw: a row has one token");
        let args = [x.read().into(), plan.section(Section::Draws).into(), out.write().into(), x.cols.into()];
        self.launch(&self.rows.draw, [rows, 1, 1], &args);
    }

    fn all_gather(&self, rows: usize, part: &CudaBuffer, shards: &Shards, out: &mut CudaBuffer) {
        let place = self.place.as_ref().expect("a gather of a group");
        part.check_rows(rows);
        out.check_rows(rows);
        let own = shards.of(place.rank().idx()).len();
        assert_eq!((part.cols, out.cols), (own, shards.cols()), "all_gather: columns");
        let Some((values, half)) = self.write_both(out, rows) else { return };
        let ends = Ends { part: part.read(), out: values, half };
        let gather = place.gather(rows, shards, &ends);
        let kernel = if gather.is_few { &self.rows.gather_few } else { &self.rows.gather_many };
        self.launch(kernel, [gather.blocks, 1, 1], &[Arg::Struct(&gather.parameters)]);
    }

    fn leave_group(&self, reason: &str) {
        if let Some(place) = &self.place {
            place.leave(reason);
        }
    }

    fn read_into(&self, reads: &mut [Read<'_, Self>]) -> Result<()> {
        self.check()?;
        let len = reads.iter().map(|read| read.out.len()).sum();
        if len == 0 {
            self.context.wait()?;
            return self.check_group();
        }
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        if staging.as_ref().is_none_or(|words| words.len() < len) {
            // The driver may wait for the card before it gives memory, and a card for another rank.
            self.context.wait()?;
            *staging = Some(HostWords::new(&self.context, len)?);
        }
        let words = staging.as_mut().expect("made above");
        let mut copies = Vec::with_capacity(reads.len());
        let mut at = 0;
        for read in reads.iter() {
            copies.push((read.buffer.memory(), read.first_row * read.buffer.cols, at, read.out.len()));
            at += read.out.len();
        }
        let mut values = words.read(&copies)?;
        for read in reads {
            let (here, rest) = values.split_at(read.out.len());
            read.out.copy_from_slice(here);
            values = rest;
        }
        // A gather that a rank has left ends without its values.
        self.check_group()
    }
}
