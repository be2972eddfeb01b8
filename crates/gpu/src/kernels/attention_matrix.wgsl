//@include enables
// Fused attention of a run of rows over one cached head, on matrix units.
//
//   q16 = f16(q * scale)                                up to 16 query rows (token, head of the group)
//   for each split of ${SPLIT_LEN} positions:
//       s = q16 . k, capped, -inf past the row's own position and before its window
//                                                       blocks of 64 positions, 16 a subgroup
//       m = max(s), p = f16(exp(s - m)), l = sum(p)
//       o = p . v                                       blocks of 64 positions, 16 columns at a time a subgroup
//       (m, l, o) is merged with that of the splits before it
//   out = o / l, l + exp(sink - m) in place of l if the head has a sink
//
// A split's weights all have one maximum, so that its values are summed without corrections. The next block of keys or
// values is read while one is multiplied. With SPLIT a workgroup takes one split and writes a partial, and attention_merge
// merges the partials.
//@include attention_head
alias QkvItem = vec4<f32>;
alias CachedItem = vec4<f16>;

alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sums = coop_mat16x16<f32, C>;
// Pieces of 16 columns of values that a subgroup takes.
const PIECES = ${PIECES}u;

// Rows in workgroup memory are padded, so that the rows of a matrix fall into different banks. In fours of elements.
const HEAD_QUADS = HEAD_DIM / 4u;
const STAGE_QUADS = HEAD_QUADS + 2u;
const SCORE_QUADS = SPLIT_LEN / 4u + 2u;
const WEIGHT_QUADS = SPLIT_LEN / 4u + 2u;

// Devices whose matrix units load from vectors get vectors, for the sake of wide accesses. STEP is a four's length.
//@if VECTORS
const STEP = 1u;
var<workgroup> staged: array<vec4<f16>, BLOCK * STAGE_QUADS>;
var<workgroup> scores: array<vec4<f32>, 16u * SCORE_QUADS>;
var<workgroup> weights: array<vec4<f16>, 16u * WEIGHT_QUADS>;

fn put_staged(at: u32, quad: vec4<f16>) {
    staged[at] = quad;
}

fn put_weights(at: u32, quad: vec4<f16>) {
    weights[at] = quad;
}

fn scores_at(at: u32) -> vec4<f32> {
    return scores[at];
}
//@else
const STEP = 4u;
var<workgroup> staged: array<f16, BLOCK * STAGE_QUADS * STEP>;
var<workgroup> scores: array<f32, 16u * SCORE_QUADS * STEP>;
var<workgroup> weights: array<f16, 16u * WEIGHT_QUADS * STEP>;

fn put_staged(at: u32, quad: vec4<f16>) {
    //@for i in 4
    staged[at * STEP + ${i}u] = quad[${i}];
    //@end
}

fn put_weights(at: u32, quad: vec4<f16>) {
    //@for i in 4
    weights[at * STEP + ${i}u] = quad[${i}];
    //@end
}

fn scores_at(at: u32) -> vec4<f32> {
    let first = at * STEP;
    return vec4<f32>(scores[first], scores[first + 1u], scores[first + 2u], scores[first + 3u]);
}
//@end

var<workgroup> cached_rows: array<u32, SPLIT_LEN>;

fn stage_queries(tile: Tile, lane: u32) {
    for (var i = lane; i < 16u * HEAD_QUADS; i += LANES) {
        let row = i / HEAD_QUADS;
        var quad = vec4<f16>();
        if row < tile.rows {
            quad = vec4<f16>(qkv[query_start(tile, row) / 4u + i % HEAD_QUADS] * SCALE);
        }
        put_staged(row * STAGE_QUADS + i % HEAD_QUADS, quad);
    }
}

// A lane's ith four of a block of keys (0) or values (1). Past the last position it is zero.
//@for kv in 2
fn block_quad${kv}(first: u32, count: u32, i: u32) -> vec4<f16> {
    let position = first + i / HEAD_QUADS;
    var quad = vec4<f16>();
    if position < count {
        quad = pages${kv}(cached_rows[position] * HEAD_QUADS + i % HEAD_QUADS);
    }
    return quad;
}
//@end

// Over the eight lanes of a row.
fn largest_of_row(value: f32) -> f32 {
    var largest = max(value, subgroupShuffleXor(value, 1u));
    largest = max(largest, subgroupShuffleXor(largest, 2u));
    return max(largest, subgroupShuffleXor(largest, 4u));
}

fn sum_of_row(value: f32) -> f32 {
    var sum = value + subgroupShuffleXor(value, 1u);
    sum += subgroupShuffleXor(sum, 2u);
    return sum + subgroupShuffleXor(sum, 4u);
}

// Scores of the four positions from `first` on, as a row at `position` sees them.
fn seen(quad: vec4<f32>, first: u32, position: u32) -> vec4<f32> {
    let positions = vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u);
    //@if SOFTCAP
    let scores = vec4<f32>(capped(quad.x), capped(quad.y), capped(quad.z), capped(quad.w));
    //@else
    let scores = quad;
    //@end
    //@if WINDOW
    let is_seen = (positions <= vec4<u32>(position)) & (positions >= vec4<u32>(first_seen(position)));
    //@else
    let is_seen = positions <= vec4<u32>(position);
    //@end
    return select(vec4<f32>(LOWEST), scores, is_seen);
}

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane_of_subgroup: u32,
) {
    let lane = subgroup * 32u + lane_of_subgroup;
    let tile = tile_of(group.x, group.y);
    //@if SPLIT
    // Nothing past the end or before the window: matrices allow of no return.
    //@if WINDOW
    let first_split = max(group.z, first_seen(tile.first_position) / SPLIT_LEN);
    //@else
    let first_split = group.z;
    //@end
    let end_split = min(group.z + 1u, (tile.end + SPLIT_LEN - 1u) / SPLIT_LEN);
    //@else
    //@if WINDOW
    let first_split = first_seen(tile.first_position) / SPLIT_LEN;
    //@else
    let first_split = 0u;
    //@end
    let end_split = (tile.end + SPLIT_LEN - 1u) / SPLIT_LEN;
    //@end
    stage_queries(tile, lane);
    workgroupBarrier();
    //@for k in ${K_STEPS}
    let query${k} = coopLoadT<Left>(&staged[STEP * ${k}u * 4u], STEP * STAGE_QUADS);
    //@end

    // For weights a lane takes an eighth of a row; for values half a row of its subgroup's columns.
    let stats_row = lane / 8u;
    let stats_position = row_position(tile, stats_row);
    let values_row = lane_of_subgroup / 2u;
    var merged_max = 0.0;
    var merged = 0.0;
    //@for c in ${PIECES}
    //@for i in 4
    var merged${c}_${i} = vec2<f32>();
    //@end
    //@end
    for (var split = first_split; split < end_split; split++) {
        let count = min(tile.end - split * SPLIT_LEN, SPLIT_LEN);
        for (var i = lane; i < count; i += LANES) {
            cached_rows[i] = cached_row(tile.seq, tile.kv_head, split * SPLIT_LEN + i);
        }
        workgroupBarrier();
        //@for i in ${LOADS}
        var ahead${i} = block_quad0(0u, count, lane + ${i}u * LANES);
        //@end
        for (var first = 0u; first < count; first += BLOCK) {
            //@for i in ${LOADS}
            put_staged((lane + ${i}u * LANES) / HEAD_QUADS * STAGE_QUADS + (lane + ${i}u * LANES) % HEAD_QUADS, ahead${i});
            //@end
            workgroupBarrier();
            if first + BLOCK < count {
                //@for i in ${LOADS}
                ahead${i} = block_quad0(first + BLOCK, count, lane + ${i}u * LANES);
                //@end
            } else {
                //@for i in ${LOADS}
                ahead${i} = block_quad1(0u, count, lane + ${i}u * LANES);
                //@end
            }
            var sums = Sums();
            //@for k in ${K_STEPS}
            sums = coopMultiplyAdd(
                query${k}, coopLoad<Right>(&staged[STEP * (subgroup * 16u * STAGE_QUADS + ${k}u * 4u)], STEP * STAGE_QUADS), sums
            );
            //@end
            coopStoreT(sums, &scores[STEP * (first / 4u + subgroup * 4u)], STEP * SCORE_QUADS);
            workgroupBarrier();
        }

        var split_max = LOWEST;
        //@for j in 8
        let seen${j} = seen(
            scores_at(stats_row * SCORE_QUADS + ${j}u * 8u + lane % 8u), split * SPLIT_LEN + ${j}u * 32u + lane % 8u * 4u, stats_position
        );
        split_max = max(split_max, max(max(seen${j}.x, seen${j}.y), max(seen${j}.z, seen${j}.w)));
        //@end
        split_max = largest_of_row(split_max);
        var split_sum = 0.0;
        //@for j in 8
        {
            let exps = exp(seen${j} - vec4<f32>(split_max));
            let rounded = vec4<f16>(select(exps, vec4<f32>(), seen${j} == vec4<f32>(LOWEST)));
            put_weights(stats_row * WEIGHT_QUADS + ${j}u * 8u + lane % 8u, rounded);
            let wide = vec4<f32>(rounded);
            split_sum += (wide.x + wide.y) + (wide.z + wide.w);
        }
        //@end
        split_sum = sum_of_row(split_sum);
        //@if SPLIT
        if lane % 8u == 0u {
            put_stats(tile, stats_row, split, split_max, split_sum);
        }
        //@else
        var row_factors = vec2<f32>(1.0, 0.0);
        //@if WINDOW
        let row_split = first_seen(stats_position) / SPLIT_LEN;
        if split == row_split {
            row_factors = vec2<f32>(0.0, 1.0);
            merged_max = split_max;
        } else if split > row_split && stats_position >= split * SPLIT_LEN {
        //@else
        if split == 0u {
            row_factors = vec2<f32>(0.0, 1.0);
            merged_max = split_max;
        } else if stats_position >= split * SPLIT_LEN {
        //@end
            row_factors = merge_factors(merged_max, split_max);
            merged_max = max(merged_max, split_max);
        }
        merged = merged_sum(merged, split_sum, row_factors);
        if lane % 8u == 0u {
            all_factors[stats_row] = row_factors;
        }
        //@end

        //@for c in ${PIECES}
        // Where columns run out, subgroups repeat the last.
        let piece${c} = min(${c}u * 4u + subgroup, HEAD_DIM / 16u - 1u);
        var values${c} = Sums();
        //@end
        for (var first = 0u; first < count; first += BLOCK) {
            //@for i in ${LOADS}
            put_staged((lane + ${i}u * LANES) / HEAD_QUADS * STAGE_QUADS + (lane + ${i}u * LANES) % HEAD_QUADS, ahead${i});
            //@end
            workgroupBarrier();
            //@for i in ${LOADS}
            ahead${i} = block_quad1(first + BLOCK, count, lane + ${i}u * LANES);
            //@end
            //@for k in 4
            {
                let left = coopLoadT<Left>(&weights[STEP * (first / 4u + ${k}u * 4u)], STEP * WEIGHT_QUADS);
                //@for c in ${PIECES}
                let right${c} = coopLoadT<Right>(&staged[STEP * (${k}u * 16u * STAGE_QUADS + piece${c} * 4u)], STEP * STAGE_QUADS);
                values${c} = coopMultiplyAdd(left, right${c}, values${c});
                //@end
            }
            //@end
            workgroupBarrier();
        }
        // The scores have been read: their memory brings the values from matrices to lanes.
        //@for c in ${PIECES}
        coopStoreT(values${c}, &scores[STEP * (subgroup * PIECES + ${c}u) * 64u], STEP * 4u);
        //@end
        workgroupBarrier();
        //@if SPLIT
        //@else
        let factors = all_factors[values_row];
        //@end
        //@for c in ${PIECES}
        {
            let at = (subgroup * PIECES + ${c}u) * 64u + values_row * 4u + lane_of_subgroup % 2u * 2u;
            let low = scores_at(at);
            let high = scores_at(at + 1u);
            //@if SPLIT
            let word = piece${c} * 8u + lane_of_subgroup % 2u * 4u;
            put_partial(tile, values_row, split, word, low.xy);
            put_partial(tile, values_row, split, word + 1u, low.zw);
            put_partial(tile, values_row, split, word + 2u, high.xy);
            put_partial(tile, values_row, split, word + 3u, high.zw);
            //@else
            merged${c}_0 = merged_values(merged${c}_0, low.xy, factors);
            merged${c}_1 = merged_values(merged${c}_1, low.zw, factors);
            merged${c}_2 = merged_values(merged${c}_2, high.xy, factors);
            merged${c}_3 = merged_values(merged${c}_3, high.zw, factors);
            //@end
        }
        //@end
    }
    //@if SPLIT
    //@else
    if lane % 8u == 0u {
        //@if SINKS
        let sink = sinks[tile.first_head + stats_row % tile.heads];
        corrections[stats_row] = merged + exp(sink - merged_max);
        //@else
        corrections[stats_row] = merged;
        //@end
    }
    workgroupBarrier();
    let sum = corrections[values_row];
    //@for c in ${PIECES}
    //@for i in 4
    put_out(
        tile, values_row, min(${c}u * 4u + subgroup, HEAD_DIM / 16u - 1u) * 8u + lane_of_subgroup % 2u * 4u + ${i}u,
        merged${c}_${i} / sum
    );
    //@end
    //@end
    //@end
}
