//! What launches of attention need to know: parameters, and how a step's splits are spread over blocks.

use model::{AttentionOp, BatchLimits, QkvShape};

use crate::buffer::Half;
use crate::kv_cache::CudaKvCache;
use crate::plan::{CudaPlan, Section};

/// Most columns of a head.
pub(crate) const MAX_HEAD_DIM: usize = 256;
/// Positions of a split (`SPLIT` in `attention.cu`).
const SPLIT: usize = 256;
/// Heads of a block of the kernels without tensor cores (`GROUP`).
const GROUP: usize = 8;
/// Keys that kernels on tensor cores take at a time (`KEY_BLOCK`).
const KEY_BLOCK: usize = 64;
/// Heads of their blocks (`RUN_HEADS`, `ROW_HEADS`).
const RUN_HEADS: usize = 4;
const ROW_HEADS: usize = 16;
/// Static memory of `attend_row`, and what the system takes of a block's.
pub(crate) const ROW_STATIC_BYTES: usize = 512 + 1024;
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

/// How attention over some rows of a step is spread over blocks. It changes no result.
pub(crate) struct Spread {
    pub grid: [usize; 3],
    /// Splits of the longest context, if each has a block of its own.
    pub splits: Option<usize>,
}

impl Spread {
    /// Over `rows` rows, of which the longest context has so many tokens; a block takes up to `group` heads.
    fn new(op: AttentionOp, plan: &CudaPlan, (rows, context): (usize, usize), group: usize) -> Self {
        let groups = groups(op.shape, group);
        let splits = context.div_ceil(SPLIT).max(1);
        let needed = (rows as u64 * splits as u64).saturating_mul(words_per_split(op.shape));
        let (_, room) = plan.partials();
        let is_split = splits > 1 && rows * groups < ENOUGH_BLOCKS && needed <= room;
        Self { grid: [rows, groups, if is_split { splits } else { 1 }], splits: is_split.then_some(splits) }
    }

    /// Over all rows, for the kernels without tensor cores.
    pub fn of_all(op: AttentionOp, plan: &CudaPlan) -> Self {
        let counts = plan.counts();
        Self::new(op, plan, (counts.num_tokens, counts.max_context), GROUP)
    }

    /// Over the rows that are no part of a run.
    pub fn of_singles(op: AttentionOp, plan: &CudaPlan) -> Self {
        let counts = plan.counts();
        Self::new(op, plan, (counts.singles, counts.max_single_context), ROW_HEADS)
    }

    /// Over runs of tokens.
    pub fn of_runs(op: AttentionOp, plan: &CudaPlan) -> Self {
        let (_, runs) = runs_for(op.shape, plan);
        Self { grid: [runs, groups(op.shape, RUN_HEADS), 1], splits: None }
    }
}

/// Blocks over the heads, of up to `group` heads of a cached head.
fn groups(shape: QkvShape, group: usize) -> usize {
    shape.num_kv_heads * (shape.num_heads / shape.num_kv_heads).div_ceil(group)
}

/// The runs whose tokens and heads are four times 16 rows, and how many there are.
fn runs_for(shape: QkvShape, plan: &CudaPlan) -> (Section, usize) {
    let [of_16, of_32, of_64] = plan.counts().runs;
    match shape.num_heads / shape.num_kv_heads {
        1 => (Section::Runs64, of_64),
        2 => (Section::Runs32, of_32),
        _ => (Section::Runs16, of_16),
    }
}

/// Dynamic memory of `attend_run` for heads of up to so many columns.
pub(crate) fn run_shared_bytes(width: usize) -> usize {
    4 * KEY_BLOCK * 2 * width + 2 * KEY_BLOCK * 4
}

/// Dynamic memory of `attend_row`.
fn row_shared_bytes(width: usize, heads: usize, room: RowRoom) -> usize {
    let heads = heads.min(ROW_HEADS).next_power_of_two();
    let copies = if room.is_apart { 2 } else { 1 };
    2 * heads * 2 * (width + SPLIT) + room.keys * (copies * 2 * width + 4)
}

/// What the kernels for heads of up to so many columns need at most, to run at all; with their static memory.
pub(crate) fn most_shared_bytes(width: usize) -> usize {
    let row = row_shared_bytes(width, ROW_HEADS, RowRoom { keys: SPLIT, is_apart: false });
    row.max(run_shared_bytes(width)) + ROW_STATIC_BYTES
}

/// Keys that a block of `attend_row` has room for, and whether the values have room of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RowRoom {
    pub keys: usize,
    pub is_apart: bool,
}

impl RowRoom {
    /// For a step, and the bytes that it takes. Values have room of their own where all blocks run at once even so: they come while
    /// scores are computed.
    pub fn new(
        (op, width): (AttentionOp, usize),
        plan: &CudaPlan,
        spread: &Spread,
        (multiprocessors, shared_limit): (usize, usize),
    ) -> (Self, usize) {
        let heads = op.shape.num_heads / op.shape.num_kv_heads;
        let keys = plan.counts().max_single_context.next_multiple_of(KEY_BLOCK).min(SPLIT);
        let apart = Self { keys, is_apart: true };
        let bytes = row_shared_bytes(width, heads, apart);
        let at_once = multiprocessors * (shared_limit / (bytes + ROW_STATIC_BYTES));
        if spread.grid.iter().product::<usize>() <= at_once {
            return (apart, bytes);
        }
        let in_turn = Self { keys, is_apart: false };
        (in_turn, row_shared_bytes(width, heads, in_turn))
    }
}

/// The rows of a step that a launch takes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rows {
    All,
    Singles(RowRoom),
    Runs,
}

/// `struct Attention`.
pub(crate) fn fused_parameters(
    op: AttentionOp,
    plan: &CudaPlan,
    (rows, spread): (Rows, &Spread),
    (qkv, sinks): (u64, u64),
    cache: &CudaKvCache,
    (out, half): (u64, Half),
) -> [u64; 18] {
    let [k, v] = cache.pages(op, plan);
    let QkvShape { num_heads, num_kv_heads, head_dim } = op.shape;
    let partials = spread.splits.map_or(0, |_| plan.partials().0);
    let counts = plan.counts();
    let (singles, runs, room) = match rows {
        Rows::All => (0, 0, RowRoom::default()),
        Rows::Singles(room) => (plan.section(Section::Singles), 0, room),
        Rows::Runs => (0, plan.section(runs_for(op.shape, plan).0), RowRoom::default()),
    };
    [
        plan.section(Section::Positions),
        plan.section(Section::SeqOfRow),
        plan.section(Section::BlockTables),
        qkv,
        k,
        v,
        sinks,
        out,
        half.address,
        partials,
        singles,
        runs,
        words(num_heads, num_kv_heads),
        words(head_dim, counts.page_size),
        words(counts.max_blocks, spread.splits.unwrap_or(1)),
        u64::from(half.shape) | words(0, window(op)),
        floats(op.scale, op.softcap.unwrap_or(0.0)),
        words(room.keys, usize::from(room.is_apart)),
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
    pub out: u64,
    pub half: Half,
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
        inputs.out,
        inputs.half.address,
        words(num_heads, num_kv_heads),
        words(head_dim, counts.page_size),
        words(counts.max_blocks, inputs.context),
        u64::from(inputs.half.shape) | words(0, window(op)),
        words(usize::from(inputs.is_half), 0) | scale,
        floats(op.softcap.unwrap_or(0.0), 0.0),
    ]
}

fn window(op: AttentionOp) -> usize {
    // As many positions as there can be are no window.
    op.window.map_or(0, |window| window.min(u32::MAX as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_of_100_kb_have_the_kernels_for_common_heads() {
        let fits = |width: usize, bytes: usize| most_shared_bytes(width) <= bytes;
        assert!(fits(64, 99 << 10) && fits(128, 99 << 10) && !fits(256, 99 << 10));
        assert!(fits(256, 163 << 10));
    }
}
