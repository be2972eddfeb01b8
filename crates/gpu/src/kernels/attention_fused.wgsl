// Fused attention of a run of rows over one cached head, in f32.
//
//   for each span of ${SPAN} positions:
//       m = -inf, l = 0, o = 0                          for each of up to 16 query rows (token, head of the group)
//       for each block of 64 positions:
//           s = q . k * scale, -inf past the row's own position
//           m' = max(m, s), p = exp(s - m'), l = l * exp(m - m') + sum(p), o = o * exp(m - m') + p . v
//       (m, l, o) joins that of the spans before it
//   out = o / l
//
// The same for each row wherever it is in the tile: blocks and spans start at absolute positions, sums go by position.
// Keys and values are staged in f32, 32 columns of a block at a time; both are read once for all heads of the group.
// With SPLIT a workgroup takes one span, and the parts are joined by attention_join.
//@include plan
@group(0) @binding(0) var<storage, read> plan: array<u32>;
@group(0) @binding(1) var<storage, read> qkv: array<f32>;
@group(0) @binding(2) var<storage, read> k_pages: array<CachedPair>;
@group(0) @binding(3) var<storage, read> v_pages: array<CachedPair>;
@group(0) @binding(4) var<storage, read_write> out: array<vec2<f32>>;
//@if HALF
@group(0) @binding(5) var<storage, read_write> half_out: array<u32>;
//@include half
//@end
//@include attention_pages
//@include attention_joined
//@include attention_tile

struct Immediates {
    spans: u32,        // of the longest context
    half_stride: u32,
}
var<immediate> imm: Immediates;

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

// Zeros stand for positions and columns that there are none of.
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

fn pages0(at: u32) -> CachedPair {
    return k_pages[at];
}

fn pages1(at: u32) -> CachedPair {
    return v_pages[at];
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tile = tile_of(group.x, group.y);
    //@if SPLIT
    let first_span = group.z;
    let end_span = group.z + 1u;
    if first_span * SPAN >= tile.end {
        return;
    }
    //@else
    let first_span = 0u;
    let end_span = (tile.end + SPAN - 1u) / SPAN;
    //@end
    load_queries(tile, lane);

    // For scores a lane takes a position and every other row; for weights an eighth of a row; for values a pair of
    // columns of every eighth row.
    let stats_position = row_position(tile, lane / 8u);
    var joined_max = 0.0;
    var joined = 0.0;
    //@for c in ${PIECES}
    //@for r in 2
    var joined${c}_${r} = vec2<f32>();
    //@end
    //@end
    for (var span = first_span; span < end_span; span++) {
        var stats = Stats(LOWEST, 0.0);
        //@for c in ${PIECES}
        //@for r in 2
        var values${c}_${r} = vec2<f32>();
        //@end
        //@end
        let span_end = min(tile.end, (span + 1u) * SPAN);
        for (var first = span * SPAN; first < span_end; first += BLOCK) {
            let count = min(BLOCK, span_end - first);
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
            weights[(${r}u * 2u + lane / BLOCK) * BLOCK + lane % BLOCK] = score${r} * SCALE;
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
        put_part(tile, ${r}u * 8u + lane / PIECE_WORDS, span, ${c}u * PIECE_WORDS + lane % PIECE_WORDS, values${c}_${r});
        //@end
        //@end
        if lane % 8u == 0u {
            put_part(tile, lane / 8u, span, HEAD_WORDS, vec2<f32>(stats.largest, stats.sum));
        }
        //@else
        var factors = vec2<f32>(1.0, 0.0);
        if span == 0u {
            factors = vec2<f32>(0.0, 1.0);
            joined_max = stats.largest;
        } else if stats_position >= span * SPAN {
            factors = join_factors(joined_max, stats.largest);
            joined_max = max(joined_max, stats.largest);
        }
        joined = joined_sum(joined, stats.sum, factors);
        if lane % 8u == 0u {
            all_factors[lane / 8u] = factors;
        }
        workgroupBarrier();
        //@for r in 2
        let factors${r} = all_factors[${r}u * 8u + lane / PIECE_WORDS];
        //@for c in ${PIECES}
        joined${c}_${r} = joined_values(joined${c}_${r}, values${c}_${r}, factors${r});
        //@end
        //@end
        //@end
    }
    //@if SPLIT
    //@else
    if lane % 8u == 0u {
        corrections[lane / 8u] = joined;
    }
    workgroupBarrier();
    //@for r in 2
    //@for c in ${PIECES}
    put_out(
        tile, ${r}u * 8u + lane / PIECE_WORDS, ${c}u * PIECE_WORDS + lane % PIECE_WORDS,
        joined${c}_${r} / corrections[${r}u * 8u + lane / PIECE_WORDS]
    );
    //@end
    //@end
    //@end
}

//@if SPLIT
// Rows have a part in the spans that they reach.
fn put_part(tile: Tile, row: u32, span: u32, word: u32, pair: vec2<f32>) {
    if row < tile.rows && row_position(tile, row) >= span * SPAN && word <= HEAD_WORDS {
        out[(row_and_head(tile, row) * imm.spans + span) * (HEAD_WORDS + 1u) + word] = pair;
    }
}
//@else
fn put_out(tile: Tile, row: u32, word: u32, pair: vec2<f32>) {
    if row < tile.rows && word < HEAD_WORDS {
        let at = row_and_head(tile, row);
        out[at * HEAD_WORDS + word] = pair;
        //@if HALF
        half_out[at / NUM_HEADS * imm.half_stride + at % NUM_HEADS * HEAD_WORDS + word] = half_word(pair.x, pair.y);
        //@end
    }
}
//@end
