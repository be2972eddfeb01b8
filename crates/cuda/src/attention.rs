//! What launches of attention need to know: parameters, and how a step's splits are spread over blocks.

use model::{AttentionOp, BatchLimits, QkvShape};

use crate::kv_cache::CudaKvCache;
use crate::plan::{CudaPlan, Section};

/// Most columns of a head.
pub(crate) const MAX_HEAD_DIM: usize = 256;
/// Positions of a split (`SPLIT` in `attention.cu`).
const SPLIT: usize = 256;
/// Heads of a block (`GROUP`).
const GROUP: usize = 8;
/// Most words of partial results: 64 MB.
const MOST_PARTIAL_WORDS: u64 = 16 << 20;
/// Blocks that fill any card: with more, each takes all splits of a row.
const ENOUGH_BLOCKS: usize = 1024;

/// Two words of a kernel's parameters.
pub(crate) fn words(low: usize, high: usize) -> u64 {
    let word = |value: usize| u64::from(u32::try_from(value).expect("sizes fit 32 bits"));
    word(low) | word(high) << 32
}

/// Two floats, likewise.
pub(crate) fn floats(low: f32, high: f32) -> u64 {
    u64::from(low.to_bits()) | u64::from(high.to_bits()) << 32
}

/// Words that a split's partial result takes, of all heads of a row.
fn words_per_split(shape: QkvShape) -> u64 {
    (shape.num_heads * (shape.head_dim + 2)) as u64
}

/// Words for the partial results of the largest steps that are worth splitting.
pub(crate) fn partial_words(limits: BatchLimits, shapes: &[QkvShape]) -> u64 {
    // A page has a position at least; pages are counted, not positions, as plans of any page size are made with the limits.
    let of_shape = |&shape: &QkvShape| {
        let rows = limits.max_tokens.min(ENOUGH_BLOCKS / shape.num_kv_heads.max(1) + 1) as u64;
        (rows * words_per_split(shape)).saturating_mul(MOST_SPLITS)
    };
    shapes.iter().map(of_shape).max().unwrap_or(0).min(MOST_PARTIAL_WORDS)
}

/// Splits of the longest context that is worth having blocks of its own for each: 128 K tokens.
const MOST_SPLITS: u64 = 512;

/// How a step's attention is spread over blocks. It changes no result.
pub(crate) struct Spread {
    pub grid: [u32; 3],
    /// Splits of the longest context, if each has a block of its own.
    pub splits: Option<usize>,
}

impl Spread {
    pub fn of(op: AttentionOp, plan: &CudaPlan) -> Self {
        let (shape, counts) = (op.shape, plan.counts());
        let groups = shape.num_kv_heads * (shape.num_heads / shape.num_kv_heads).div_ceil(GROUP);
        let splits = counts.max_context.div_ceil(SPLIT).max(1);
        let needed = (counts.num_tokens as u64 * splits as u64).saturating_mul(words_per_split(shape));
        let (_, room) = plan.partials();
        let is_split = splits > 1 && counts.num_tokens * groups < ENOUGH_BLOCKS && needed <= room;
        let blocks = if is_split { splits } else { 1 };
        Self {
            grid: [counts.num_tokens as u32, groups as u32, blocks as u32],
            splits: is_split.then_some(splits),
        }
    }
}

/// `struct Attention`.
pub(crate) fn fused_parameters(
    op: AttentionOp,
    plan: &CudaPlan,
    spread: &Spread,
    (qkv, sinks): (u64, u64),
    cache: &CudaKvCache,
    ((out, half_out), half_stride): ((u64, u64), usize),
) -> [u64; 15] {
    let [k, v] = cache.pages(op, plan);
    let QkvShape { num_heads, num_kv_heads, head_dim } = op.shape;
    let partials = spread.splits.map_or(0, |_| plan.partials().0);
    let counts = plan.counts();
    [
        plan.section(Section::Positions),
        plan.section(Section::SeqOfRow),
        plan.section(Section::BlockTables),
        qkv,
        k,
        v,
        sinks,
        out,
        half_out,
        partials,
        words(num_heads, num_kv_heads),
        words(head_dim, counts.page_size),
        words(counts.max_blocks, spread.splits.unwrap_or(1)),
        words(half_stride, window(op)),
        floats(op.scale, op.softcap.unwrap_or(0.0)),
    ]
}

/// Where the steps of reference attention read and write, as addresses; 0 for what a step does not have.
#[derive(Default)]
pub(crate) struct ReferenceInputs {
    pub qkv: u64,
    pub pages: u64,
    pub is_half: bool,
    pub sinks: u64,
    pub scores: u64,
    /// Columns of a head's scores.
    pub context: usize,
    pub out: (u64, u64),
    pub half_stride: usize,
}

/// `struct Reference`.
pub(crate) fn reference_parameters(op: AttentionOp, plan: &CudaPlan, inputs: &ReferenceInputs) -> [u64; 15] {
    let QkvShape { num_heads, num_kv_heads, head_dim } = op.shape;
    let counts = plan.counts();
    let scale = u64::from(op.scale.to_bits()) << 32;
    [
        plan.section(Section::Positions),
        plan.section(Section::SeqOfRow),
        plan.section(Section::BlockTables),
        inputs.qkv,
        inputs.pages,
        inputs.sinks,
        inputs.scores,
        inputs.out.0,
        inputs.out.1,
        words(num_heads, num_kv_heads),
        words(head_dim, counts.page_size),
        words(counts.max_blocks, inputs.context),
        words(inputs.half_stride, window(op)),
        words(usize::from(inputs.is_half), 0) | scale,
        floats(op.softcap.unwrap_or(0.0), 0.0),
    ]
}

fn window(op: AttentionOp) -> usize {
    // As many positions as there can be are no window.
    op.window.map_or(0, |window| window.min(u32::MAX as usize))
}
