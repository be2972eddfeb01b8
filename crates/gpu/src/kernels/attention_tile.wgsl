// A tile: the rows of a run times the heads of a group (or of a piece of 16 of them), row = token * heads + head.
const LANES = 128u;
const BLOCK = 64u;
const SPLIT_LEN = ${SPLIT_LEN}u;
const TILE_HEADS = min(GROUP, 16u);
const TILES_OF_GROUP = (GROUP + 15u) / 16u;
// Less than every score.
const LOWEST = -3.4028234e38;

struct Tile {
    seq: u32,
    first_row: u32,
    first_position: u32,
    kv_head: u32,
    first_head: u32,
    heads: u32,
    rows: u32,         // tokens * heads
    end: u32,          // past the last token's position
}

// By row.
var<workgroup> corrections: array<f32, 16>;
var<workgroup> all_factors: array<vec2<f32>, 16>;

// Tile `index` of a run: pieces of the group of one cached head, cached head by cached head.
fn tile_of(run: u32, index: u32) -> Tile {
    let words = plan[PLAN_RUNS] + run * RUN_WORDS;
    let first_row = plan[words + 1u];
    let tokens = plan[words + 2u];
    let first_position = plan[plan[PLAN_POSITIONS] + first_row];
    let kv_head = index / TILES_OF_GROUP;
    let first_of_group = index % TILES_OF_GROUP * 16u;
    let heads = min(TILE_HEADS, GROUP - first_of_group);
    return Tile(
        plan[words], first_row, first_position, kv_head, kv_head * GROUP + first_of_group, heads,
        tokens * heads, first_position + tokens
    );
}

// Rows past the tile's last are at its position.
fn row_position(tile: Tile, row: u32) -> u32 {
    return min(tile.first_position + row / tile.heads, tile.end - 1u);
}

// Index among all rows' heads.
fn row_and_head(tile: Tile, row: u32) -> u32 {
    return (tile.first_row + row / tile.heads) * NUM_HEADS + tile.first_head + row % tile.heads;
}

fn query_start(tile: Tile, row: u32) -> u32 {
    return (tile.first_row + row / tile.heads) * QKV_COLS + (tile.first_head + row % tile.heads) * HEAD_DIM;
}
