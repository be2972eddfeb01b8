// Fused attention of a run of rows over one cached head, in f32.
//
//   for each split of ${SPLIT_LEN} positions:
//       m = -inf, l = 0, o = 0                          for each of up to 16 query rows (token, head of the group)
//       for each block of 64 positions:
//           s = q . k * scale, capped, -inf past the row's own position and before its window
//           m' = max(m, s), p = exp(s - m'), l = l * exp(m - m') + sum(p), o = o * exp(m - m') + p . v
//       (m, l, o) is merged with that of the splits before it
//   out = o / l, l + exp(sink - m) in place of l if the head has a sink
//
// The same for each row wherever it is in the tile: blocks and splits start at absolute positions, sums go by position.
// Keys and values are staged in f32, 32 columns of a block at a time; both are read once for all heads of the group.
// With SPLIT a workgroup takes one split and writes a partial, and attention_merge merges the partials.
//@include attention_head
alias QkvItem = f32;
alias CachedItem = CachedPair;

const PIECE_WORDS = 16u;               // pairs of columns of a staged piece
const STAGE_STRIDE = PIECE_WORDS + 1u; // so that lanes that read a column of positions meet different banks
const Q_WORDS = ${PIECES}u * PIECE_WORDS;

var<workgroup> queries: array<vec2<f32>, 16u * Q_WORDS>;
var<workgroup> staged: array<vec2<f32>, BLOCK * STAGE_STRIDE>;
var<workgroup> weights: array<f32, 16u * BLOCK>;
var<workgroup> cached_rows: array<u32, BLOCK>;

fn load_queries(tile: Tile, lane: u32) {
    for (var i = lane; i < 16u * Q_WORDS; i += LANES) {
        let row = i / Q_WORDS;
        let word = i % Q_WORDS;
        var pair = vec2<f32>();
        if row < tile.rows && word < HEAD_WORDS {
            let first = query_start(tile, row) + 2u * word;
            pair = vec2<f32>(qkv[first], qkv[first + 1u]);
        }
        queries[i] = pair;
    }
}

fn find_rows(tile: Tile, first: u32, lane: u32) {
    if lane < BLOCK && first + lane < tile.end {
        cached_rows[lane] = cached_row(tile.seq, tile.kv_head, first + lane);
    }
}

// Past the last position and the last column, zeros are staged.
//@for kv in 2
fn stage_piece${kv}(count: u32, piece: u32, lane: u32) {
    for (var i = lane; i < BLOCK * PIECE_WORDS; i += LANES) {
        let position = i / PIECE_WORDS;
        let word = piece * PIECE_WORDS + i % PIECE_WORDS;
        var pair = vec2<f32>();
        if position < count && word < HEAD_WORDS {
            pair = cached(pages${kv}(cached_rows[position] * HEAD_WORDS + word));
        }
        staged[position * STAGE_STRIDE + i % PIECE_WORDS] = pair;
    }
}
//@end

// A row's largest score in a split so far, and the sum of its weights.
struct Stats {
    largest: f32,
    sum: f32,
}

var<workgroup> of_lanes: array<f32, LANES>;
var<workgroup> sums_of_lanes: array<f32, LANES>;
// Replaces a block's scores by weights, eight lanes a row, and leaves each row's correction of what came before. It must
// begin after a barrier, and it ends with one.
fn take_block(before: Stats, first: u32, position: u32, lane: u32) -> Stats {
    let row = lane / 8u * BLOCK;
    var largest = before.largest;
    for (var p = lane % 8u; p < BLOCK; p += 8u) {
        //@if WINDOW
        if first + p <= position && first + p >= first_seen(position) {
        //@else
        if first + p <= position {
        //@end
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
        //@if WINDOW
        if first + p <= position && first + p >= first_seen(position) {
        //@else
        if first + p <= position {
        //@end
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

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tile = tile_of(group.x, group.y);
    //@if SPLIT
    let first_split = group.z;
    let end_split = group.z + 1u;
    if first_split * SPLIT_LEN >= tile.end {
        return;
    }
    //@if WINDOW
    if end_split * SPLIT_LEN <= first_seen(tile.first_position) {
        return;
    }
    //@end
    //@else
    //@if WINDOW
    let first_split = first_seen(tile.first_position) / SPLIT_LEN;
    //@else
    let first_split = 0u;
    //@end
    let end_split = (tile.end + SPLIT_LEN - 1u) / SPLIT_LEN;
    //@end
    load_queries(tile, lane);

    // For scores a lane takes a position and every other row; for weights an eighth of a row; for values a pair of
    // columns of every eighth row.
    let stats_position = row_position(tile, lane / 8u);
    var merged_max = 0.0;
    var merged = 0.0;
    //@for c in ${PIECES}
    //@for r in 2
    var merged${c}_${r} = vec2<f32>();
    //@end
    //@end
    for (var split = first_split; split < end_split; split++) {
        var stats = Stats(LOWEST, 0.0);
        //@for c in ${PIECES}
        //@for r in 2
        var values${c}_${r} = vec2<f32>();
        //@end
        //@end
        let split_end = min(tile.end, (split + 1u) * SPLIT_LEN);
        //@if WINDOW
        let begin = max(split * SPLIT_LEN, first_seen(tile.first_position) / BLOCK * BLOCK);
        //@else
        let begin = split * SPLIT_LEN;
        //@end
        for (var first = begin; first < split_end; first += BLOCK) {
            let count = min(BLOCK, split_end - first);
            find_rows(tile, first, lane);
            workgroupBarrier();
            //@for r in 8
            var score${r} = 0.0;
            //@end
            for (var piece = 0u; piece < ${PIECES}u; piece++) {
                stage_piece0(count, piece, lane);
                workgroupBarrier();
                //@for r in 8
                if ${r}u * 2u + lane / BLOCK < tile.rows {
                    let q = (${r}u * 2u + lane / BLOCK) * Q_WORDS + piece * PIECE_WORDS;
                    let k = (lane % BLOCK) * STAGE_STRIDE;
                    for (var word = 0u; word < PIECE_WORDS; word++) {
                        score${r} = fma(queries[q + word].x, staged[k + word].x, score${r});
                        score${r} = fma(queries[q + word].y, staged[k + word].y, score${r});
                    }
                }
                //@end
                workgroupBarrier();
            }
            //@for r in 8
            //@if SOFTCAP
            weights[(${r}u * 2u + lane / BLOCK) * BLOCK + lane % BLOCK] = capped(score${r} * SCALE);
            //@else
            weights[(${r}u * 2u + lane / BLOCK) * BLOCK + lane % BLOCK] = score${r} * SCALE;
            //@end
            //@end
            stage_piece1(count, 0u, lane);
            workgroupBarrier();
            stats = take_block(stats, first, stats_position, lane);
            //@for r in 2
            let correction${r} = corrections[${r}u * 8u + lane / PIECE_WORDS];
            //@end
            //@for c in ${PIECES}
            if ${c}u > 0u {
                stage_piece1(count, ${c}u, lane);
                workgroupBarrier();
            }
            //@for r in 2
            if ${r}u * 8u + lane / PIECE_WORDS < tile.rows {
                let row = (${r}u * 8u + lane / PIECE_WORDS) * BLOCK;
                values${c}_${r} *= correction${r};
                for (var p = 0u; p < count; p++) {
                    let v = staged[p * STAGE_STRIDE + lane % PIECE_WORDS];
                    values${c}_${r} = fma(vec2<f32>(weights[row + p]), v, values${c}_${r});
                }
            }
            //@end
            workgroupBarrier();
            //@end
        }
        //@if SPLIT
        //@for r in 2
        //@for c in ${PIECES}
        put_partial(tile, ${r}u * 8u + lane / PIECE_WORDS, split, ${c}u * PIECE_WORDS + lane % PIECE_WORDS, values${c}_${r});
        //@end
        //@end
        if lane % 8u == 0u {
            put_stats(tile, lane / 8u, split, stats.largest, stats.sum);
        }
        //@else
        var factors = vec2<f32>(1.0, 0.0);
        //@if WINDOW
        let row_split = first_seen(stats_position) / SPLIT_LEN;
        if split == row_split {
            factors = vec2<f32>(0.0, 1.0);
            merged_max = stats.largest;
        } else if split > row_split && stats_position >= split * SPLIT_LEN {
        //@else
        if split == 0u {
            factors = vec2<f32>(0.0, 1.0);
            merged_max = stats.largest;
        } else if stats_position >= split * SPLIT_LEN {
        //@end
            factors = merge_factors(merged_max, stats.largest);
            merged_max = max(merged_max, stats.largest);
        }
        merged = merged_sum(merged, stats.sum, factors);
        if lane % 8u == 0u {
            all_factors[lane / 8u] = factors;
        }
        workgroupBarrier();
        //@for r in 2
        let factors${r} = all_factors[${r}u * 8u + lane / PIECE_WORDS];
        //@for c in ${PIECES}
        merged${c}_${r} = merged_values(merged${c}_${r}, values${c}_${r}, factors${r});
        //@end
        //@end
        //@end
    }
    //@if SPLIT
    //@else
    if lane % 8u == 0u {
        //@if SINKS
        let sink = sinks[tile.first_head + lane / 8u % tile.heads];
        corrections[lane / 8u] = merged + exp(sink - merged_max);
        //@else
        corrections[lane / 8u] = merged;
        //@end
    }
    workgroupBarrier();
    //@for r in 2
    //@for c in ${PIECES}
    put_out(
        tile, ${r}u * 8u + lane / PIECE_WORDS, ${c}u * PIECE_WORDS + lane % PIECE_WORDS,
        merged${c}_${r} / corrections[${r}u * 8u + lane / PIECE_WORDS]
    );
    //@end
    //@end
    //@end
}
