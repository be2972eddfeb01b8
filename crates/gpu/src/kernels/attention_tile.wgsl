// A tile: the rows of a run times the heads of a group (or of a piece of 16 of them), row = token * heads + head.
const LANES = 128u;
const BLOCK = 64u;
const SPAN = ${SPAN}u;
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

// A row's largest score in a span so far, and the sum of its weights.
struct Stats {
    largest: f32,
    sum: f32,
}

var<workgroup> of_lanes: array<f32, LANES>;
var<workgroup> sums_of_lanes: array<f32, LANES>;
var<workgroup> corrections: array<f32, 16>;
var<workgroup> all_factors: array<vec2<f32>, 16>;

fn tile_of(run: u32, part: u32) -> Tile {
    let words = plan[PLAN_RUNS] + run * 3u;
    let first_row = plan[words + 1u];
    let tokens = plan[words + 2u];
    let first_position = plan[plan[PLAN_POSITIONS] + first_row];
    let kv_head = part / TILES_OF_GROUP;
    let first_of_group = part % TILES_OF_GROUP * 16u;
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

// Turns a block's scores into weights, eight lanes a row, and leaves each row's correction of what came before. Ends with a
// barrier, as it must begin after one.
fn take_block(before: Stats, first: u32, position: u32, lane: u32) -> Stats {
    let row = lane / 8u * BLOCK;
    var largest = before.largest;
    for (var p = lane % 8u; p < BLOCK; p += 8u) {
        if first + p <= position {
            largest = max(largest, weights[row + p]);
        }
    }
    of_lanes[lane] = largest;
    workgroupBarrier();
    //@for i in 8
    largest = max(largest, of_lanes[lane / 8u * 8u + ${i}u]);
    //@end
    var sum = 0.0;
    for (var p = lane % 8u; p < BLOCK; p += 8u) {
        var weight = 0.0;
        if first + p <= position {
            weight = exp(weights[row + p] - largest);
        }
        weights[row + p] = weight;
        sum += weight;
    }
    sums_of_lanes[lane] = sum;
    // Exactly one where the block changes nothing.
    let correction = select(exp(before.largest - largest), 1.0, before.largest == largest);
    if lane % 8u == 0u {
        corrections[lane / 8u] = correction;
    }
    workgroupBarrier();
    var total = 0.0;
    //@for i in 8
    total += sums_of_lanes[lane / 8u * 8u + ${i}u];
    //@end
    return Stats(largest, fma(before.sum, correction, total));
}
