//! How attention cuts a step: a sequence's rows into runs, the heads of a group into tiles, and long contexts into splits,
//! whose partial results are merged in order.

use model::QkvShape;

/// Most query rows of a tile: a run's tokens times the heads that share a cached head.
pub(crate) const TILE_ROWS: usize = 16;

/// Positions of a split.
pub(crate) const SPLIT_LEN: usize = 256;

/// Most bytes of partials: those of 16 sequences of 8192 tokens with 32 heads of 128 columns, or of one of 131072, take
/// 8.5 MB.
const MAX_PARTIAL_BYTES: u64 = 32 << 20;

/// Workgroups that keep a large device busy.
const WORKGROUPS_WANTED: usize = 512;

/// Whether splits are taken by workgroups of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grid {
    /// A workgroup walks all splits of its rows.
    Whole,
    /// A workgroup takes a split.
    Split,
}

/// Tokens of a run, in a model whose layers have heads of these shapes: a tile holds a run for the largest group of heads
/// that share a cached head.
pub(crate) fn rows_per_run(shapes: &[QkvShape]) -> usize {
    let group = |shape: &QkvShape| shape.num_heads / shape.num_kv_heads;
    (TILE_ROWS / shapes.iter().map(group).max().unwrap_or(1)).max(1)
}

/// Tiles of a run: one for each cached head, or more where a group has more heads than a tile has rows.
pub(crate) fn tiles_per_run(shape: QkvShape) -> usize {
    shape.num_kv_heads * (shape.num_heads / shape.num_kv_heads).div_ceil(TILE_ROWS)
}

/// The grid for a step: split where whole contexts would leave a large device idle.
pub(crate) fn grid(shape: QkvShape, num_tokens: usize, num_runs: usize, max_context: usize) -> Grid {
    let is_split = max_context > SPLIT_LEN
        && num_runs <= max_split_runs(shape)
        && partial_bytes(shape, num_tokens, max_context) <= MAX_PARTIAL_BYTES;
    if is_split { Grid::Split } else { Grid::Whole }
}

/// Bytes of a step's partials: `[num_tokens, num_heads, splits, head_dim + 2]` of f32.
pub(crate) fn partial_bytes(shape: QkvShape, num_tokens: usize, max_context: usize) -> u64 {
    let partials = num_tokens as u64 * shape.num_heads as u64 * max_context.div_ceil(SPLIT_LEN) as u64;
    partials * (shape.head_dim as u64 + 2) * 4
}

/// Most bytes of the partials of any step of up to `max_tokens` tokens whose contexts have up to `max_context` positions.
pub(crate) fn max_partial_bytes(shapes: &[QkvShape], max_tokens: usize, max_context: usize) -> u64 {
    if max_context <= SPLIT_LEN {
        return 0;
    }
    let of_shape = |&shape: &QkvShape| {
        // The runs of a step have the most tokens when all of them are full.
        let most_in_runs = max_split_runs(shape) * rows_per_run(shapes);
        partial_bytes(shape, max_tokens.min(most_in_runs), max_context).min(MAX_PARTIAL_BYTES)
    };
    shapes.iter().map(of_shape).max().unwrap_or(0)
}

/// Most runs of a step that is split: with more, whole contexts make workgroups enough.
fn max_split_runs(shape: QkvShape) -> usize {
    (WORKGROUPS_WANTED - 1) / tiles_per_run(shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE_8B: QkvShape = QkvShape { num_heads: 32, num_kv_heads: 8, head_dim: 128 };

    #[test]
    fn a_tile_holds_a_run_for_a_group() {
        for (group, rows) in [(1, 16), (3, 5), (4, 4), (16, 1), (32, 1)] {
            let shape = QkvShape { num_heads: group, num_kv_heads: 1, head_dim: 64 };
            assert_eq!(rows_per_run(&[shape]), rows);
            assert_eq!(rows_per_run(&[shape, QkvShape { num_heads: 1, ..shape }]), rows);
        }
    }

    #[test]
    fn partials_take_what_a_step_within_the_limits_can_have() {
        let demo = QkvShape { num_heads: 4, num_kv_heads: 2, head_dim: 32 };
        let cases = [
            // A context of one split has no partials.
            (SHAPE_8B, 512, 256, 0),
            // A decode over two splits, and eight of them over four.
            (SHAPE_8B, 1, 512, 2 * 32 * 130 * 4),
            (SHAPE_8B, 8, 1024, 8 * 4 * 32 * 130 * 4),
            // 63 runs of four tokens are split, more are not.
            (SHAPE_8B, 512, 512, 63 * 4 * 2 * 32 * 130 * 4),
            (SHAPE_8B, 4096, 512, 63 * 4 * 2 * 32 * 130 * 4),
            (SHAPE_8B, 512, 131_072, MAX_PARTIAL_BYTES),
            (demo, 64, 320, 64 * 2 * 4 * 34 * 4),
            // More cached heads than workgroups are wanted.
            (QkvShape { num_heads: 600, num_kv_heads: 600, head_dim: 64 }, 512, 8192, 0),
        ];
        for (shape, max_tokens, max_context, bytes) in cases {
            let case = format!("{shape:?}, {max_tokens} tokens, {max_context} positions");
            assert_eq!(max_partial_bytes(&[shape], max_tokens, max_context), bytes, "{case}");
        }
    }

    /// Every step that is split has its partials within what its plan has for them.
    #[test]
    fn no_split_step_has_more_partials_than_its_plan() {
        let shapes = [SHAPE_8B, QkvShape { num_heads: 6, num_kv_heads: 2, head_dim: 80 }];
        for (shape, max_tokens, max_context) in
            shapes.into_iter().flat_map(|shape| [(shape, 300, 700), (shape, 40, 20_000), (shape, 2000, 9000)])
        {
            let most = max_partial_bytes(&[shape], max_tokens, max_context);
            let rows = rows_per_run(&[shape]);
            for num_tokens in 1..=max_tokens {
                for context in (1..=max_context).step_by(97) {
                    let runs = num_tokens.div_ceil(rows);
                    if grid(shape, num_tokens, runs, context) == Grid::Split {
                        assert!(partial_bytes(shape, num_tokens, context) <= most, "{num_tokens}, {context}");
                    }
                }
            }
        }
    }
}
