// language: metal3.1
#include <metal_stdlib>
#include <simd/simd.h>

using metal::uint;

struct _mslBufferSizes {
    uint size0;
    uint size1;
    uint size2;
    uint size3;
    uint size4;
};

typedef uint type_1[1];
typedef float QkvItem;
typedef QkvItem type_2[1];
typedef uint CachedPair;
typedef CachedPair type_3[1];
typedef metal::float2 type_6[1];
struct Tile {
    uint seq;
    uint first_row;
    uint first_position;
    uint kv_head;
    uint first_head;
    uint heads;
    uint rows;
    uint end;
};
struct type_7 {
    float inner[16];
};
struct type_8 {
    metal::float2 inner[16];
};
struct Immediates {
    uint splits;
    uint half_stride;
};
struct type_10 {
    metal::float2 inner[1024];
};
struct type_11 {
    metal::float2 inner[1088];
};
struct type_12 {
    float inner[1024];
};
struct type_13 {
    uint inner[64];
};
struct Stats {
    float largest;
    float sum;
};
struct type_14 {
    float inner[128];
};
constant uint PLAN_NUM_TOKENS = 0u;
constant uint PLAN_NUM_SEQS = 1u;
constant uint PLAN_NUM_WANTED_ROWS = 2u;
constant uint PLAN_NUM_RUNS = 3u;
constant uint PLAN_NUM_BLOCKS = 4u;
constant uint PLAN_PAGE_SIZE = 5u;
constant uint PLAN_TOKEN_IDS = 6u;
constant uint PLAN_POSITIONS = 7u;
constant uint PLAN_SLOT_MAPPING = 8u;
constant uint PLAN_SEQ_OF_ROW = 9u;
constant uint PLAN_CU_SEQLENS_Q = 10u;
constant uint PLAN_CONTEXT_LENS = 11u;
constant uint PLAN_BLOCK_TABLES = 12u;
constant uint PLAN_WANTED_ROWS = 13u;
constant uint PLAN_RUNS = 14u;
constant uint RUN_WORDS = 3u;
constant uint HEAD_DIM = 128u;
constant uint HEAD_WORDS = 64u;
constant uint NUM_HEADS = 32u;
constant uint NUM_KV_HEADS = 8u;
constant uint GROUP = 4u;
constant uint Q_COLS = 4096u;
constant uint QKV_COLS = 6144u;
constant float SCALE = 0.088388346;
constant uint LANES = 128u;
constant uint BLOCK = 64u;
constant uint SPLIT_LEN = 256u;
constant uint TILE_HEADS = 4u;
constant uint TILES_OF_GROUP = 1u;
constant uint PIECE_WORDS = 16u;
constant uint STAGE_STRIDE = 17u;
constant uint Q_WORDS = 64u;

uint naga_div(uint lhs, uint rhs) {
    return lhs / metal::select(rhs, 1u, rhs == 0u);
}

uint naga_mod(uint lhs, uint rhs) {
    return lhs % metal::select(rhs, 1u, rhs == 0u);
}

uint cached_row(
    uint seq,
    uint kv_head,
    uint position,
    device type_1 const& plan,
    constant _mslBufferSizes& _buffer_sizes
) {
    uint page_size = plan[5];
    uint _e8 = plan[12];
    uint _e11 = plan[4];
    uint block_table = _e8 + (seq * _e11);
    uint page = plan[block_table + naga_div(position, page_size)];
    return (((page * NUM_KV_HEADS) + kv_head) * page_size) + naga_mod(position, page_size);
}

metal::float2 cached(
    CachedPair pair
) {
    return float2(as_type<half2>(pair));
}

metal::float2 merge_factors(
    float max_so_far,
    float next_max
) {
    float both = metal::max(max_so_far, next_max);
    return metal::float2(metal::exp(max_so_far - both), metal::exp(next_max - both));
}

float merged_sum(
    float sum,
    float next_sum,
    metal::float2 factors_1
) {
    return metal::fma(sum, factors_1.x, next_sum * factors_1.y);
}

metal::float2 merged_values(
    metal::float2 values,
    metal::float2 next,
    metal::float2 factors_2
) {
    return metal::fma(values, metal::float2(factors_2.x), next * factors_2.y);
}

Tile tile_of(
    uint run,
    uint index,
    device type_1 const& plan,
    constant _mslBufferSizes& _buffer_sizes
) {
    uint _e4 = plan[14];
    uint words = _e4 + (run * RUN_WORDS);
    uint first_row = plan[words + 1u];
    uint tokens = plan[words + 2u];
    uint _e21 = plan[7];
    uint first_position = plan[_e21 + first_row];
    uint kv_head_1 = naga_div(index, TILES_OF_GROUP);
    uint first_of_group = naga_mod(index, TILES_OF_GROUP) * 16u;
    uint heads = metal::min(TILE_HEADS, GROUP - first_of_group);
    uint _e37 = plan[words];
    return Tile {_e37, first_row, first_position, kv_head_1, (kv_head_1 * GROUP) + first_of_group, heads, tokens * heads, first_position + tokens};
}

uint row_position(
    Tile tile,
    uint row
) {
    return metal::min(tile.first_position + naga_div(row, tile.heads), tile.end - 1u);
}

uint row_and_head(
    Tile tile_1,
    uint row_1
) {
    return (((tile_1.first_row + naga_div(row_1, tile_1.heads)) * NUM_HEADS) + tile_1.first_head) + naga_mod(row_1, tile_1.heads);
}

uint query_start(
    Tile tile_2,
    uint row_2
) {
    return ((tile_2.first_row + naga_div(row_2, tile_2.heads)) * QKV_COLS) + ((tile_2.first_head + naga_mod(row_2, tile_2.heads)) * HEAD_DIM);
}

void put_out(
    Tile tile_3,
    uint row_3,
    uint word_8,
    metal::float2 pair_1,
    device type_6& out,
    constant _mslBufferSizes& _buffer_sizes
) {
    bool local = {};
    if (row_3 < tile_3.rows) {
        local = word_8 < HEAD_WORDS;
    } else {
        local = false;
    }
    bool _e11 = local;
    if (_e11) {
        uint _e12 = row_and_head(tile_3, row_3);
        out[(_e12 * HEAD_WORDS) + word_8] = pair_1;
        return;
    } else {
        return;
    }
}

CachedPair pages0_(
    uint at,
    device type_3 const& k_pages,
    constant _mslBufferSizes& _buffer_sizes
) {
    CachedPair _e3 = k_pages[at];
    return _e3;
}

CachedPair pages1_(
    uint at_1,
    device type_3 const& v_pages,
    constant _mslBufferSizes& _buffer_sizes
) {
    CachedPair _e3 = v_pages[at_1];
    return _e3;
}

void load_queries(
    Tile tile_4,
    uint lane_1,
    device type_2 const& qkv,
    threadgroup type_10& queries,
    constant _mslBufferSizes& _buffer_sizes
) {
    uint i = {};
    metal::float2 pair_2 = {};
    bool local_1 = {};
    i = lane_1;
    uint2 loop_bound = uint2(4294967295u);
    bool loop_init = true;
    while(true) {
        if (metal::all(loop_bound == uint2(0u))) { break; }
        loop_bound -= uint2(loop_bound.y == 0u, 1u);
        if (!loop_init) {
            uint _e39 = i;
            i = _e39 + LANES;
        }
        loop_init = false;
        uint _e3 = i;
        if (_e3 < 1024u) {
        } else {
            break;
        }
        {
            uint _e6 = i;
            uint row_4 = naga_div(_e6, Q_WORDS);
            uint _e9 = i;
            uint word_9 = naga_mod(_e9, Q_WORDS);
            pair_2 = metal::float2 {};
            if (row_4 < tile_4.rows) {
                local_1 = word_9 < HEAD_WORDS;
            } else {
                local_1 = false;
            }
            bool _e21 = local_1;
            if (_e21) {
                uint _e22 = query_start(tile_4, row_4);
                uint first_3 = _e22 + (2u * word_9);
                QkvItem _e28 = qkv[first_3];
                QkvItem _e33 = qkv[first_3 + 1u];
                pair_2 = metal::float2(_e28, _e33);
            }
            uint _e36 = i;
            metal::float2 _e38 = pair_2;
            queries.inner[_e36] = _e38;
        }
    }
    return;
}

void find_rows(
    Tile tile_5,
    uint first_1,
    uint lane_2,
    device type_1 const& plan,
    threadgroup type_13& cached_rows,
    constant _mslBufferSizes& _buffer_sizes
) {
    bool local_2 = {};
    if (lane_2 < BLOCK) {
        local_2 = (first_1 + lane_2) < tile_5.end;
    } else {
        local_2 = false;
    }
    bool _e11 = local_2;
    if (_e11) {
        uint _e17 = cached_row(tile_5.seq, tile_5.kv_head, first_1 + lane_2, plan, _buffer_sizes);
        cached_rows.inner[lane_2] = _e17;
        return;
    } else {
        return;
    }
}

void stage_piece0_(
    uint count,
    uint piece_1,
    uint lane_3,
    device type_3 const& k_pages,
    threadgroup type_11& staged,
    threadgroup type_13& cached_rows,
    constant _mslBufferSizes& _buffer_sizes
) {
    uint i_1 = {};
    metal::float2 pair_3 = {};
    bool local_3 = {};
    i_1 = lane_3;
    uint2 loop_bound_1 = uint2(4294967295u);
    bool loop_init_1 = true;
    while(true) {
        if (metal::all(loop_bound_1 == uint2(0u))) { break; }
        loop_bound_1 -= uint2(loop_bound_1.y == 0u, 1u);
        if (!loop_init_1) {
            uint _e42 = i_1;
            i_1 = _e42 + LANES;
        }
        loop_init_1 = false;
        uint _e4 = i_1;
        if (_e4 < 1024u) {
        } else {
            break;
        }
        {
            uint _e7 = i_1;
            uint position_2 = naga_div(_e7, PIECE_WORDS);
            uint _e12 = i_1;
            uint word_10 = (piece_1 * PIECE_WORDS) + naga_mod(_e12, PIECE_WORDS);
            pair_3 = metal::float2 {};
            if (position_2 < count) {
                local_3 = word_10 < HEAD_WORDS;
            } else {
                local_3 = false;
            }
            bool _e24 = local_3;
            if (_e24) {
                uint _e27 = cached_rows.inner[position_2];
                CachedPair _e31 = pages0_((_e27 * HEAD_WORDS) + word_10, k_pages, _buffer_sizes);
                metal::float2 _e32 = cached(_e31);
                pair_3 = _e32;
            }
            uint _e36 = i_1;
            metal::float2 _e41 = pair_3;
            staged.inner[(position_2 * STAGE_STRIDE) + naga_mod(_e36, PIECE_WORDS)] = _e41;
        }
    }
    return;
}

void stage_piece1_(
    uint count_1,
    uint piece_2,
    uint lane_4,
    device type_3 const& v_pages,
    threadgroup type_11& staged,
    threadgroup type_13& cached_rows,
    constant _mslBufferSizes& _buffer_sizes
) {
    uint i_2 = {};
    metal::float2 pair_4 = {};
    bool local_4 = {};
    i_2 = lane_4;
    uint2 loop_bound_2 = uint2(4294967295u);
    bool loop_init_2 = true;
    while(true) {
        if (metal::all(loop_bound_2 == uint2(0u))) { break; }
        loop_bound_2 -= uint2(loop_bound_2.y == 0u, 1u);
        if (!loop_init_2) {
            uint _e42 = i_2;
            i_2 = _e42 + LANES;
        }
        loop_init_2 = false;
        uint _e4 = i_2;
        if (_e4 < 1024u) {
        } else {
            break;
        }
        {
            uint _e7 = i_2;
            uint position_3 = naga_div(_e7, PIECE_WORDS);
            uint _e12 = i_2;
            uint word_11 = (piece_2 * PIECE_WORDS) + naga_mod(_e12, PIECE_WORDS);
            pair_4 = metal::float2 {};
            if (position_3 < count_1) {
                local_4 = word_11 < HEAD_WORDS;
            } else {
                local_4 = false;
            }
            bool _e24 = local_4;
            if (_e24) {
                uint _e27 = cached_rows.inner[position_3];
                CachedPair _e31 = pages1_((_e27 * HEAD_WORDS) + word_11, v_pages, _buffer_sizes);
                metal::float2 _e32 = cached(_e31);
                pair_4 = _e32;
            }
            uint _e36 = i_2;
            metal::float2 _e41 = pair_4;
            staged.inner[(position_3 * STAGE_STRIDE) + naga_mod(_e36, PIECE_WORDS)] = _e41;
        }
    }
    return;
}

Stats take_block(
    Stats before,
    uint first_2,
    uint position_1,
    uint lane_5,
    threadgroup type_7& corrections,
    threadgroup type_12& weights,
    threadgroup type_14& of_lanes,
    threadgroup type_14& sums_of_lanes
) {
    float largest = {};
    uint p_8 = {};
    float sum_1 = 0.0;
    uint p_9 = {};
    float weight = {};
    float total = 0.0;
    uint row_5 = naga_div(lane_5, 8u) * BLOCK;
    largest = before.largest;
    p_8 = naga_mod(lane_5, 8u);
    uint2 loop_bound_3 = uint2(4294967295u);
    bool loop_init_3 = true;
    while(true) {
        if (metal::all(loop_bound_3 == uint2(0u))) { break; }
        loop_bound_3 -= uint2(loop_bound_3.y == 0u, 1u);
        if (!loop_init_3) {
            uint _e26 = p_8;
            p_8 = _e26 + 8u;
        }
        loop_init_3 = false;
        uint _e13 = p_8;
        if (_e13 < BLOCK) {
        } else {
            break;
        }
        {
            uint _e16 = p_8;
            if ((first_2 + _e16) <= position_1) {
                float _e19 = largest;
                uint _e21 = p_8;
                float _e24 = weights.inner[row_5 + _e21];
                largest = metal::max(_e19, _e24);
            }
        }
    }
    float _e31 = largest;
    of_lanes.inner[lane_5] = _e31;
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    float _e32 = largest;
    float _e41 = of_lanes.inner[(naga_div(lane_5, 8u) * 8u) + 0u];
    largest = metal::max(_e32, _e41);
    float _e43 = largest;
    float _e52 = of_lanes.inner[(naga_div(lane_5, 8u) * 8u) + 1u];
    largest = metal::max(_e43, _e52);
    float _e54 = largest;
    float _e63 = of_lanes.inner[(naga_div(lane_5, 8u) * 8u) + 2u];
    largest = metal::max(_e54, _e63);
    float _e65 = largest;
    float _e74 = of_lanes.inner[(naga_div(lane_5, 8u) * 8u) + 3u];
    largest = metal::max(_e65, _e74);
    float _e76 = largest;
    float _e85 = of_lanes.inner[(naga_div(lane_5, 8u) * 8u) + 4u];
    largest = metal::max(_e76, _e85);
    float _e87 = largest;
    float _e96 = of_lanes.inner[(naga_div(lane_5, 8u) * 8u) + 5u];
    largest = metal::max(_e87, _e96);
    float _e98 = largest;
    float _e107 = of_lanes.inner[(naga_div(lane_5, 8u) * 8u) + 6u];
    largest = metal::max(_e98, _e107);
    float _e109 = largest;
    float _e118 = of_lanes.inner[(naga_div(lane_5, 8u) * 8u) + 7u];
    largest = metal::max(_e109, _e118);
    p_9 = naga_mod(lane_5, 8u);
    uint2 loop_bound_4 = uint2(4294967295u);
    bool loop_init_4 = true;
    while(true) {
        if (metal::all(loop_bound_4 == uint2(0u))) { break; }
        loop_bound_4 -= uint2(loop_bound_4.y == 0u, 1u);
        if (!loop_init_4) {
            uint _e149 = p_9;
            p_9 = _e149 + 8u;
        }
        loop_init_4 = false;
        uint _e125 = p_9;
        if (_e125 < BLOCK) {
        } else {
            break;
        }
        {
            weight = 0.0;
            uint _e130 = p_9;
            if ((first_2 + _e130) <= position_1) {
                uint _e134 = p_9;
                float _e137 = weights.inner[row_5 + _e134];
                float _e138 = largest;
                weight = metal::exp(_e137 - _e138);
            }
            uint _e142 = p_9;
            float _e145 = weight;
            weights.inner[row_5 + _e142] = _e145;
            float _e146 = sum_1;
            float _e147 = weight;
            sum_1 = _e146 + _e147;
        }
    }
    float _e154 = sum_1;
    sums_of_lanes.inner[lane_5] = _e154;
    float _e156 = largest;
    float _e160 = largest;
    float correction = (before.largest == _e160) ? 1.0 : metal::exp(before.largest - _e156);
    if (naga_mod(lane_5, 8u) == 0u) {
        corrections.inner[naga_div(lane_5, 8u)] = correction;
    }
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    float _e174 = total;
    float _e183 = sums_of_lanes.inner[(naga_div(lane_5, 8u) * 8u) + 0u];
    total = _e174 + _e183;
    float _e185 = total;
    float _e194 = sums_of_lanes.inner[(naga_div(lane_5, 8u) * 8u) + 1u];
    total = _e185 + _e194;
    float _e196 = total;
    float _e205 = sums_of_lanes.inner[(naga_div(lane_5, 8u) * 8u) + 2u];
    total = _e196 + _e205;
    float _e207 = total;
    float _e216 = sums_of_lanes.inner[(naga_div(lane_5, 8u) * 8u) + 3u];
    total = _e207 + _e216;
    float _e218 = total;
    float _e227 = sums_of_lanes.inner[(naga_div(lane_5, 8u) * 8u) + 4u];
    total = _e218 + _e227;
    float _e229 = total;
    float _e238 = sums_of_lanes.inner[(naga_div(lane_5, 8u) * 8u) + 5u];
    total = _e229 + _e238;
    float _e240 = total;
    float _e249 = sums_of_lanes.inner[(naga_div(lane_5, 8u) * 8u) + 6u];
    total = _e240 + _e249;
    float _e251 = total;
    float _e260 = sums_of_lanes.inner[(naga_div(lane_5, 8u) * 8u) + 7u];
    total = _e251 + _e260;
    float _e262 = largest;
    float _e264 = total;
    return Stats {_e262, metal::fma(before.sum, correction, _e264)};
}

struct main_Input {
};
[[max_total_threads_per_threadgroup(128)]] kernel void main_(
  metal::uint3 group [[threadgroup_position_in_grid]]
, uint lane [[thread_index_in_threadgroup]]
, device type_1 const& plan [[user(fake0)]]
, device type_2 const& qkv [[user(fake0)]]
, device type_3 const& k_pages [[user(fake0)]]
, device type_3 const& v_pages [[user(fake0)]]
, device type_6& out [[user(fake0)]]
, threadgroup type_7& corrections
, threadgroup type_8& all_factors
, threadgroup type_10& queries
, threadgroup type_11& staged
, threadgroup type_12& weights
, threadgroup type_13& cached_rows
, threadgroup type_14& of_lanes
, threadgroup type_14& sums_of_lanes
, constant _mslBufferSizes& _buffer_sizes [[user(fake0)]]
) {
    if (lane == 0u) {
        corrections = {};
        all_factors = {};
        queries = {};
        staged = {};
        weights = {};
        cached_rows = {};
        of_lanes = {};
        sums_of_lanes = {};
    }
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    float merged_max = 0.0;
    float merged = 0.0;
    metal::float2 merged0_0_ = metal::float2 {};
    metal::float2 merged0_1_ = metal::float2 {};
    metal::float2 merged1_0_ = metal::float2 {};
    metal::float2 merged1_1_ = metal::float2 {};
    metal::float2 merged2_0_ = metal::float2 {};
    metal::float2 merged2_1_ = metal::float2 {};
    metal::float2 merged3_0_ = metal::float2 {};
    metal::float2 merged3_1_ = metal::float2 {};
    uint split = {};
    Stats stats = {};
    metal::float2 values0_0_ = {};
    metal::float2 values0_1_ = {};
    metal::float2 values1_0_ = {};
    metal::float2 values1_1_ = {};
    metal::float2 values2_0_ = {};
    metal::float2 values2_1_ = {};
    metal::float2 values3_0_ = {};
    metal::float2 values3_1_ = {};
    uint first = {};
    float score0_ = {};
    float score1_ = {};
    float score2_ = {};
    float score3_ = {};
    float score4_ = {};
    float score5_ = {};
    float score6_ = {};
    float score7_ = {};
    uint piece = {};
    uint word = {};
    uint word_1 = {};
    uint word_2 = {};
    uint word_3 = {};
    uint word_4 = {};
    uint word_5 = {};
    uint word_6 = {};
    uint word_7 = {};
    uint p = {};
    uint p_1 = {};
    uint p_2 = {};
    uint p_3 = {};
    uint p_4 = {};
    uint p_5 = {};
    uint p_6 = {};
    uint p_7 = {};
    metal::float2 factors = {};
    Tile _e4 = tile_of(group.x, group.y, plan, _buffer_sizes);
    uint end_split = naga_div((_e4.end + SPLIT_LEN) - 1u, SPLIT_LEN);
    load_queries(_e4, lane, qkv, queries, _buffer_sizes);
    uint _e15 = row_position(_e4, naga_div(lane, 8u));
    split = 0u;
    uint2 loop_bound_5 = uint2(4294967295u);
    bool loop_init_5 = true;
    while(true) {
        if (metal::all(loop_bound_5 == uint2(0u))) { break; }
        loop_bound_5 -= uint2(loop_bound_5.y == 0u, 1u);
        if (!loop_init_5) {
            uint _e1072 = split;
            split = _e1072 + 1u;
        }
        loop_init_5 = false;
        uint _e37 = split;
        if (_e37 < end_split) {
        } else {
            break;
        }
        {
            stats = Stats {-340282350000000000000000000000000000000.0, 0.0};
            values0_0_ = metal::float2 {};
            values0_1_ = metal::float2 {};
            values1_0_ = metal::float2 {};
            values1_1_ = metal::float2 {};
            values2_0_ = metal::float2 {};
            values2_1_ = metal::float2 {};
            values3_0_ = metal::float2 {};
            values3_1_ = metal::float2 {};
            uint _e60 = split;
            uint split_end = metal::min(_e4.end, (_e60 + 1u) * SPLIT_LEN);
            uint _e66 = split;
            uint begin = _e66 * SPLIT_LEN;
            first = begin;
            uint2 loop_bound_6 = uint2(4294967295u);
            bool loop_init_6 = true;
            while(true) {
                if (metal::all(loop_bound_6 == uint2(0u))) { break; }
                loop_bound_6 -= uint2(loop_bound_6.y == 0u, 1u);
                if (!loop_init_6) {
                    uint _e992 = first;
                    first = _e992 + BLOCK;
                }
                loop_init_6 = false;
                uint _e70 = first;
                if (_e70 < split_end) {
                } else {
                    break;
                }
                {
                    uint _e73 = first;
                    uint count_2 = metal::min(BLOCK, split_end - _e73);
                    uint _e76 = first;
                    find_rows(_e4, _e76, lane, plan, cached_rows, _buffer_sizes);
                    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
                    score0_ = 0.0;
                    score1_ = 0.0;
                    score2_ = 0.0;
                    score3_ = 0.0;
                    score4_ = 0.0;
                    score5_ = 0.0;
                    score6_ = 0.0;
                    score7_ = 0.0;
                    piece = 0u;
                    uint2 loop_bound_7 = uint2(4294967295u);
                    bool loop_init_7 = true;
                    while(true) {
                        if (metal::all(loop_bound_7 == uint2(0u))) { break; }
                        loop_bound_7 -= uint2(loop_bound_7.y == 0u, 1u);
                        if (!loop_init_7) {
                            uint _e548 = piece;
                            piece = _e548 + 1u;
                        }
                        loop_init_7 = false;
                        uint _e95 = piece;
                        if (_e95 < 4u) {
                        } else {
                            break;
                        }
                        {
                            uint _e98 = piece;
                            stage_piece0_(count_2, _e98, lane, k_pages, staged, cached_rows, _buffer_sizes);
                            metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
                            if ((0u + naga_div(lane, BLOCK)) < _e4.rows) {
                                uint _e111 = piece;
                                uint q = ((0u + naga_div(lane, BLOCK)) * Q_WORDS) + (_e111 * PIECE_WORDS);
                                uint k = naga_mod(lane, BLOCK) * STAGE_STRIDE;
                                word = 0u;
                                uint2 loop_bound_8 = uint2(4294967295u);
                                bool loop_init_8 = true;
                                while(true) {
                                    if (metal::all(loop_bound_8 == uint2(0u))) { break; }
                                    loop_bound_8 -= uint2(loop_bound_8.y == 0u, 1u);
                                    if (!loop_init_8) {
                                        uint _e153 = word;
                                        word = _e153 + 1u;
                                    }
                                    loop_init_8 = false;
                                    uint _e121 = word;
                                    if (_e121 < PIECE_WORDS) {
                                    } else {
                                        break;
                                    }
                                    {
                                        uint _e125 = word;
                                        float _e129 = queries.inner[q + _e125].x;
                                        uint _e131 = word;
                                        float _e135 = staged.inner[k + _e131].x;
                                        float _e136 = score0_;
                                        score0_ = metal::fma(_e129, _e135, _e136);
                                        uint _e139 = word;
                                        float _e143 = queries.inner[q + _e139].y;
                                        uint _e145 = word;
                                        float _e149 = staged.inner[k + _e145].y;
                                        float _e150 = score0_;
                                        score0_ = metal::fma(_e143, _e149, _e150);
                                    }
                                }
                            }
                            if ((2u + naga_div(lane, BLOCK)) < _e4.rows) {
                                uint _e167 = piece;
                                uint q_1 = ((2u + naga_div(lane, BLOCK)) * Q_WORDS) + (_e167 * PIECE_WORDS);
                                uint k_1 = naga_mod(lane, BLOCK) * STAGE_STRIDE;
                                word_1 = 0u;
                                uint2 loop_bound_9 = uint2(4294967295u);
                                bool loop_init_9 = true;
                                while(true) {
                                    if (metal::all(loop_bound_9 == uint2(0u))) { break; }
                                    loop_bound_9 -= uint2(loop_bound_9.y == 0u, 1u);
                                    if (!loop_init_9) {
                                        uint _e209 = word_1;
                                        word_1 = _e209 + 1u;
                                    }
                                    loop_init_9 = false;
                                    uint _e177 = word_1;
                                    if (_e177 < PIECE_WORDS) {
                                    } else {
                                        break;
                                    }
                                    {
                                        uint _e181 = word_1;
                                        float _e185 = queries.inner[q_1 + _e181].x;
                                        uint _e187 = word_1;
                                        float _e191 = staged.inner[k_1 + _e187].x;
                                        float _e192 = score1_;
                                        score1_ = metal::fma(_e185, _e191, _e192);
                                        uint _e195 = word_1;
                                        float _e199 = queries.inner[q_1 + _e195].y;
                                        uint _e201 = word_1;
                                        float _e205 = staged.inner[k_1 + _e201].y;
                                        float _e206 = score1_;
                                        score1_ = metal::fma(_e199, _e205, _e206);
                                    }
                                }
                            }
                            if ((4u + naga_div(lane, BLOCK)) < _e4.rows) {
                                uint _e223 = piece;
                                uint q_2 = ((4u + naga_div(lane, BLOCK)) * Q_WORDS) + (_e223 * PIECE_WORDS);
                                uint k_2 = naga_mod(lane, BLOCK) * STAGE_STRIDE;
                                word_2 = 0u;
                                uint2 loop_bound_10 = uint2(4294967295u);
                                bool loop_init_10 = true;
                                while(true) {
                                    if (metal::all(loop_bound_10 == uint2(0u))) { break; }
                                    loop_bound_10 -= uint2(loop_bound_10.y == 0u, 1u);
                                    if (!loop_init_10) {
                                        uint _e265 = word_2;
                                        word_2 = _e265 + 1u;
                                    }
                                    loop_init_10 = false;
                                    uint _e233 = word_2;
                                    if (_e233 < PIECE_WORDS) {
                                    } else {
                                        break;
                                    }
                                    {
                                        uint _e237 = word_2;
                                        float _e241 = queries.inner[q_2 + _e237].x;
                                        uint _e243 = word_2;
                                        float _e247 = staged.inner[k_2 + _e243].x;
                                        float _e248 = score2_;
                                        score2_ = metal::fma(_e241, _e247, _e248);
                                        uint _e251 = word_2;
                                        float _e255 = queries.inner[q_2 + _e251].y;
                                        uint _e257 = word_2;
                                        float _e261 = staged.inner[k_2 + _e257].y;
                                        float _e262 = score2_;
                                        score2_ = metal::fma(_e255, _e261, _e262);
                                    }
                                }
                            }
                            if ((6u + naga_div(lane, BLOCK)) < _e4.rows) {
                                uint _e279 = piece;
                                uint q_3 = ((6u + naga_div(lane, BLOCK)) * Q_WORDS) + (_e279 * PIECE_WORDS);
                                uint k_3 = naga_mod(lane, BLOCK) * STAGE_STRIDE;
                                word_3 = 0u;
                                uint2 loop_bound_11 = uint2(4294967295u);
                                bool loop_init_11 = true;
                                while(true) {
                                    if (metal::all(loop_bound_11 == uint2(0u))) { break; }
                                    loop_bound_11 -= uint2(loop_bound_11.y == 0u, 1u);
                                    if (!loop_init_11) {
                                        uint _e321 = word_3;
                                        word_3 = _e321 + 1u;
                                    }
                                    loop_init_11 = false;
                                    uint _e289 = word_3;
                                    if (_e289 < PIECE_WORDS) {
                                    } else {
                                        break;
                                    }
                                    {
                                        uint _e293 = word_3;
                                        float _e297 = queries.inner[q_3 + _e293].x;
                                        uint _e299 = word_3;
                                        float _e303 = staged.inner[k_3 + _e299].x;
                                        float _e304 = score3_;
                                        score3_ = metal::fma(_e297, _e303, _e304);
                                        uint _e307 = word_3;
                                        float _e311 = queries.inner[q_3 + _e307].y;
                                        uint _e313 = word_3;
                                        float _e317 = staged.inner[k_3 + _e313].y;
                                        float _e318 = score3_;
                                        score3_ = metal::fma(_e311, _e317, _e318);
                                    }
                                }
                            }
                            if ((8u + naga_div(lane, BLOCK)) < _e4.rows) {
                                uint _e335 = piece;
                                uint q_4 = ((8u + naga_div(lane, BLOCK)) * Q_WORDS) + (_e335 * PIECE_WORDS);
                                uint k_4 = naga_mod(lane, BLOCK) * STAGE_STRIDE;
                                word_4 = 0u;
                                uint2 loop_bound_12 = uint2(4294967295u);
                                bool loop_init_12 = true;
                                while(true) {
                                    if (metal::all(loop_bound_12 == uint2(0u))) { break; }
                                    loop_bound_12 -= uint2(loop_bound_12.y == 0u, 1u);
                                    if (!loop_init_12) {
                                        uint _e377 = word_4;
                                        word_4 = _e377 + 1u;
                                    }
                                    loop_init_12 = false;
                                    uint _e345 = word_4;
                                    if (_e345 < PIECE_WORDS) {
                                    } else {
                                        break;
                                    }
                                    {
                                        uint _e349 = word_4;
                                        float _e353 = queries.inner[q_4 + _e349].x;
                                        uint _e355 = word_4;
                                        float _e359 = staged.inner[k_4 + _e355].x;
                                        float _e360 = score4_;
                                        score4_ = metal::fma(_e353, _e359, _e360);
                                        uint _e363 = word_4;
                                        float _e367 = queries.inner[q_4 + _e363].y;
                                        uint _e369 = word_4;
                                        float _e373 = staged.inner[k_4 + _e369].y;
                                        float _e374 = score4_;
                                        score4_ = metal::fma(_e367, _e373, _e374);
                                    }
                                }
                            }
                            if ((10u + naga_div(lane, BLOCK)) < _e4.rows) {
                                uint _e391 = piece;
                                uint q_5 = ((10u + naga_div(lane, BLOCK)) * Q_WORDS) + (_e391 * PIECE_WORDS);
                                uint k_5 = naga_mod(lane, BLOCK) * STAGE_STRIDE;
                                word_5 = 0u;
                                uint2 loop_bound_13 = uint2(4294967295u);
                                bool loop_init_13 = true;
                                while(true) {
                                    if (metal::all(loop_bound_13 == uint2(0u))) { break; }
                                    loop_bound_13 -= uint2(loop_bound_13.y == 0u, 1u);
                                    if (!loop_init_13) {
                                        uint _e433 = word_5;
                                        word_5 = _e433 + 1u;
                                    }
                                    loop_init_13 = false;
                                    uint _e401 = word_5;
                                    if (_e401 < PIECE_WORDS) {
                                    } else {
                                        break;
                                    }
                                    {
                                        uint _e405 = word_5;
                                        float _e409 = queries.inner[q_5 + _e405].x;
                                        uint _e411 = word_5;
                                        float _e415 = staged.inner[k_5 + _e411].x;
                                        float _e416 = score5_;
                                        score5_ = metal::fma(_e409, _e415, _e416);
                                        uint _e419 = word_5;
                                        float _e423 = queries.inner[q_5 + _e419].y;
                                        uint _e425 = word_5;
                                        float _e429 = staged.inner[k_5 + _e425].y;
                                        float _e430 = score5_;
                                        score5_ = metal::fma(_e423, _e429, _e430);
                                    }
                                }
                            }
                            if ((12u + naga_div(lane, BLOCK)) < _e4.rows) {
                                uint _e447 = piece;
                                uint q_6 = ((12u + naga_div(lane, BLOCK)) * Q_WORDS) + (_e447 * PIECE_WORDS);
                                uint k_6 = naga_mod(lane, BLOCK) * STAGE_STRIDE;
                                word_6 = 0u;
                                uint2 loop_bound_14 = uint2(4294967295u);
                                bool loop_init_14 = true;
                                while(true) {
                                    if (metal::all(loop_bound_14 == uint2(0u))) { break; }
                                    loop_bound_14 -= uint2(loop_bound_14.y == 0u, 1u);
                                    if (!loop_init_14) {
                                        uint _e489 = word_6;
                                        word_6 = _e489 + 1u;
                                    }
                                    loop_init_14 = false;
                                    uint _e457 = word_6;
                                    if (_e457 < PIECE_WORDS) {
                                    } else {
                                        break;
                                    }
                                    {
                                        uint _e461 = word_6;
                                        float _e465 = queries.inner[q_6 + _e461].x;
                                        uint _e467 = word_6;
                                        float _e471 = staged.inner[k_6 + _e467].x;
                                        float _e472 = score6_;
                                        score6_ = metal::fma(_e465, _e471, _e472);
                                        uint _e475 = word_6;
                                        float _e479 = queries.inner[q_6 + _e475].y;
                                        uint _e481 = word_6;
                                        float _e485 = staged.inner[k_6 + _e481].y;
                                        float _e486 = score6_;
                                        score6_ = metal::fma(_e479, _e485, _e486);
                                    }
                                }
                            }
                            if ((14u + naga_div(lane, BLOCK)) < _e4.rows) {
                                uint _e503 = piece;
                                uint q_7 = ((14u + naga_div(lane, BLOCK)) * Q_WORDS) + (_e503 * PIECE_WORDS);
                                uint k_7 = naga_mod(lane, BLOCK) * STAGE_STRIDE;
                                word_7 = 0u;
                                uint2 loop_bound_15 = uint2(4294967295u);
                                bool loop_init_15 = true;
                                while(true) {
                                    if (metal::all(loop_bound_15 == uint2(0u))) { break; }
                                    loop_bound_15 -= uint2(loop_bound_15.y == 0u, 1u);
                                    if (!loop_init_15) {
                                        uint _e545 = word_7;
                                        word_7 = _e545 + 1u;
                                    }
                                    loop_init_15 = false;
                                    uint _e513 = word_7;
                                    if (_e513 < PIECE_WORDS) {
                                    } else {
                                        break;
                                    }
                                    {
                                        uint _e517 = word_7;
                                        float _e521 = queries.inner[q_7 + _e517].x;
                                        uint _e523 = word_7;
                                        float _e527 = staged.inner[k_7 + _e523].x;
                                        float _e528 = score7_;
                                        score7_ = metal::fma(_e521, _e527, _e528);
                                        uint _e531 = word_7;
                                        float _e535 = queries.inner[q_7 + _e531].y;
                                        uint _e537 = word_7;
                                        float _e541 = staged.inner[k_7 + _e537].y;
                                        float _e542 = score7_;
                                        score7_ = metal::fma(_e535, _e541, _e542);
                                    }
                                }
                            }
                            metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
                        }
                    }
                    float _e561 = score0_;
                    weights.inner[((0u + naga_div(lane, BLOCK)) * BLOCK) + naga_mod(lane, BLOCK)] = _e561 * SCALE;
                    float _e575 = score1_;
                    weights.inner[((2u + naga_div(lane, BLOCK)) * BLOCK) + naga_mod(lane, BLOCK)] = _e575 * SCALE;
                    float _e589 = score2_;
                    weights.inner[((4u + naga_div(lane, BLOCK)) * BLOCK) + naga_mod(lane, BLOCK)] = _e589 * SCALE;
                    float _e603 = score3_;
                    weights.inner[((6u + naga_div(lane, BLOCK)) * BLOCK) + naga_mod(lane, BLOCK)] = _e603 * SCALE;
                    float _e617 = score4_;
                    weights.inner[((8u + naga_div(lane, BLOCK)) * BLOCK) + naga_mod(lane, BLOCK)] = _e617 * SCALE;
                    float _e631 = score5_;
                    weights.inner[((10u + naga_div(lane, BLOCK)) * BLOCK) + naga_mod(lane, BLOCK)] = _e631 * SCALE;
                    float _e645 = score6_;
                    weights.inner[((12u + naga_div(lane, BLOCK)) * BLOCK) + naga_mod(lane, BLOCK)] = _e645 * SCALE;
                    float _e659 = score7_;
                    weights.inner[((14u + naga_div(lane, BLOCK)) * BLOCK) + naga_mod(lane, BLOCK)] = _e659 * SCALE;
                    stage_piece1_(count_2, 0u, lane, v_pages, staged, cached_rows, _buffer_sizes);
                    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
                    Stats _e663 = stats;
                    uint _e664 = first;
                    Stats _e665 = take_block(_e663, _e664, _e15, lane, corrections, weights, of_lanes, sums_of_lanes);
                    stats = _e665;
                    float correction0_ = corrections.inner[0u + naga_div(lane, PIECE_WORDS)];
                    float correction1_ = corrections.inner[8u + naga_div(lane, PIECE_WORDS)];
                    if (false) {
                        stage_piece1_(count_2, 0u, lane, v_pages, staged, cached_rows, _buffer_sizes);
                        metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
                    }
                    if ((0u + naga_div(lane, PIECE_WORDS)) < _e4.rows) {
                        uint row_6 = (0u + naga_div(lane, PIECE_WORDS)) * BLOCK;
                        metal::float2 _e694 = values0_0_;
                        values0_0_ = _e694 * correction0_;
                        p = 0u;
                        uint2 loop_bound_16 = uint2(4294967295u);
                        bool loop_init_16 = true;
                        while(true) {
                            if (metal::all(loop_bound_16 == uint2(0u))) { break; }
                            loop_bound_16 -= uint2(loop_bound_16.y == 0u, 1u);
                            if (!loop_init_16) {
                                uint _e718 = p;
                                p = _e718 + 1u;
                            }
                            loop_init_16 = false;
                            uint _e698 = p;
                            if (_e698 < count_2) {
                            } else {
                                break;
                            }
                            {
                                uint _e701 = p;
                                metal::float2 v = staged.inner[(_e701 * STAGE_STRIDE) + naga_mod(lane, PIECE_WORDS)];
                                uint _e710 = p;
                                float _e713 = weights.inner[row_6 + _e710];
                                metal::float2 _e715 = values0_0_;
                                values0_0_ = metal::fma(metal::float2(_e713), v, _e715);
                            }
                        }
                    }
                    if ((8u + naga_div(lane, PIECE_WORDS)) < _e4.rows) {
                        uint row_7 = (8u + naga_div(lane, PIECE_WORDS)) * BLOCK;
                        metal::float2 _e732 = values0_1_;
                        values0_1_ = _e732 * correction1_;
                        p_1 = 0u;
                        uint2 loop_bound_17 = uint2(4294967295u);
                        bool loop_init_17 = true;
                        while(true) {
                            if (metal::all(loop_bound_17 == uint2(0u))) { break; }
                            loop_bound_17 -= uint2(loop_bound_17.y == 0u, 1u);
                            if (!loop_init_17) {
                                uint _e756 = p_1;
                                p_1 = _e756 + 1u;
                            }
                            loop_init_17 = false;
                            uint _e736 = p_1;
                            if (_e736 < count_2) {
                            } else {
                                break;
                            }
                            {
                                uint _e739 = p_1;
                                metal::float2 v_1 = staged.inner[(_e739 * STAGE_STRIDE) + naga_mod(lane, PIECE_WORDS)];
                                uint _e748 = p_1;
                                float _e751 = weights.inner[row_7 + _e748];
                                metal::float2 _e753 = values0_1_;
                                values0_1_ = metal::fma(metal::float2(_e751), v_1, _e753);
                            }
                        }
                    }
                    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
                    if (true) {
                        stage_piece1_(count_2, 1u, lane, v_pages, staged, cached_rows, _buffer_sizes);
                        metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
                    }
                    if ((0u + naga_div(lane, PIECE_WORDS)) < _e4.rows) {
                        uint row_8 = (0u + naga_div(lane, PIECE_WORDS)) * BLOCK;
                        metal::float2 _e772 = values1_0_;
                        values1_0_ = _e772 * correction0_;
                        p_2 = 0u;
                        uint2 loop_bound_18 = uint2(4294967295u);
                        bool loop_init_18 = true;
                        while(true) {
                            if (metal::all(loop_bound_18 == uint2(0u))) { break; }
                            loop_bound_18 -= uint2(loop_bound_18.y == 0u, 1u);
                            if (!loop_init_18) {
                                uint _e796 = p_2;
                                p_2 = _e796 + 1u;
                            }
                            loop_init_18 = false;
                            uint _e776 = p_2;
                            if (_e776 < count_2) {
                            } else {
                                break;
                            }
                            {
                                uint _e779 = p_2;
                                metal::float2 v_2 = staged.inner[(_e779 * STAGE_STRIDE) + naga_mod(lane, PIECE_WORDS)];
                                uint _e788 = p_2;
                                float _e791 = weights.inner[row_8 + _e788];
                                metal::float2 _e793 = values1_0_;
                                values1_0_ = metal::fma(metal::float2(_e791), v_2, _e793);
                            }
                        }
                    }
                    if ((8u + naga_div(lane, PIECE_WORDS)) < _e4.rows) {
                        uint row_9 = (8u + naga_div(lane, PIECE_WORDS)) * BLOCK;
                        metal::float2 _e810 = values1_1_;
                        values1_1_ = _e810 * correction1_;
                        p_3 = 0u;
                        uint2 loop_bound_19 = uint2(4294967295u);
                        bool loop_init_19 = true;
                        while(true) {
                            if (metal::all(loop_bound_19 == uint2(0u))) { break; }
                            loop_bound_19 -= uint2(loop_bound_19.y == 0u, 1u);
                            if (!loop_init_19) {
                                uint _e834 = p_3;
                                p_3 = _e834 + 1u;
                            }
                            loop_init_19 = false;
                            uint _e814 = p_3;
                            if (_e814 < count_2) {
                            } else {
                                break;
                            }
                            {
                                uint _e817 = p_3;
                                metal::float2 v_3 = staged.inner[(_e817 * STAGE_STRIDE) + naga_mod(lane, PIECE_WORDS)];
                                uint _e826 = p_3;
                                float _e829 = weights.inner[row_9 + _e826];
                                metal::float2 _e831 = values1_1_;
                                values1_1_ = metal::fma(metal::float2(_e829), v_3, _e831);
                            }
                        }
                    }
                    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
                    if (true) {
                        stage_piece1_(count_2, 2u, lane, v_pages, staged, cached_rows, _buffer_sizes);
                        metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
                    }
                    if ((0u + naga_div(lane, PIECE_WORDS)) < _e4.rows) {
                        uint row_10 = (0u + naga_div(lane, PIECE_WORDS)) * BLOCK;
                        metal::float2 _e850 = values2_0_;
                        values2_0_ = _e850 * correction0_;
                        p_4 = 0u;
                        uint2 loop_bound_20 = uint2(4294967295u);
                        bool loop_init_20 = true;
                        while(true) {
                            if (metal::all(loop_bound_20 == uint2(0u))) { break; }
                            loop_bound_20 -= uint2(loop_bound_20.y == 0u, 1u);
                            if (!loop_init_20) {
                                uint _e874 = p_4;
                                p_4 = _e874 + 1u;
                            }
                            loop_init_20 = false;
                            uint _e854 = p_4;
                            if (_e854 < count_2) {
                            } else {
                                break;
                            }
                            {
                                uint _e857 = p_4;
                                metal::float2 v_4 = staged.inner[(_e857 * STAGE_STRIDE) + naga_mod(lane, PIECE_WORDS)];
                                uint _e866 = p_4;
                                float _e869 = weights.inner[row_10 + _e866];
                                metal::float2 _e871 = values2_0_;
                                values2_0_ = metal::fma(metal::float2(_e869), v_4, _e871);
                            }
                        }
                    }
                    if ((8u + naga_div(lane, PIECE_WORDS)) < _e4.rows) {
                        uint row_11 = (8u + naga_div(lane, PIECE_WORDS)) * BLOCK;
                        metal::float2 _e888 = values2_1_;
                        values2_1_ = _e888 * correction1_;
                        p_5 = 0u;
                        uint2 loop_bound_21 = uint2(4294967295u);
                        bool loop_init_21 = true;
                        while(true) {
                            if (metal::all(loop_bound_21 == uint2(0u))) { break; }
                            loop_bound_21 -= uint2(loop_bound_21.y == 0u, 1u);
                            if (!loop_init_21) {
                                uint _e912 = p_5;
                                p_5 = _e912 + 1u;
                            }
                            loop_init_21 = false;
                            uint _e892 = p_5;
                            if (_e892 < count_2) {
                            } else {
                                break;
                            }
                            {
                                uint _e895 = p_5;
                                metal::float2 v_5 = staged.inner[(_e895 * STAGE_STRIDE) + naga_mod(lane, PIECE_WORDS)];
                                uint _e904 = p_5;
                                float _e907 = weights.inner[row_11 + _e904];
                                metal::float2 _e909 = values2_1_;
                                values2_1_ = metal::fma(metal::float2(_e907), v_5, _e909);
                            }
                        }
                    }
                    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
                    if (true) {
                        stage_piece1_(count_2, 3u, lane, v_pages, staged, cached_rows, _buffer_sizes);
                        metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
                    }
                    if ((0u + naga_div(lane, PIECE_WORDS)) < _e4.rows) {
                        uint row_12 = (0u + naga_div(lane, PIECE_WORDS)) * BLOCK;
                        metal::float2 _e928 = values3_0_;
                        values3_0_ = _e928 * correction0_;
                        p_6 = 0u;
                        uint2 loop_bound_22 = uint2(4294967295u);
                        bool loop_init_22 = true;
                        while(true) {
                            if (metal::all(loop_bound_22 == uint2(0u))) { break; }
                            loop_bound_22 -= uint2(loop_bound_22.y == 0u, 1u);
                            if (!loop_init_22) {
                                uint _e952 = p_6;
                                p_6 = _e952 + 1u;
                            }
                            loop_init_22 = false;
                            uint _e932 = p_6;
                            if (_e932 < count_2) {
                            } else {
                                break;
                            }
                            {
                                uint _e935 = p_6;
                                metal::float2 v_6 = staged.inner[(_e935 * STAGE_STRIDE) + naga_mod(lane, PIECE_WORDS)];
                                uint _e944 = p_6;
                                float _e947 = weights.inner[row_12 + _e944];
                                metal::float2 _e949 = values3_0_;
                                values3_0_ = metal::fma(metal::float2(_e947), v_6, _e949);
                            }
                        }
                    }
                    if ((8u + naga_div(lane, PIECE_WORDS)) < _e4.rows) {
                        uint row_13 = (8u + naga_div(lane, PIECE_WORDS)) * BLOCK;
                        metal::float2 _e966 = values3_1_;
                        values3_1_ = _e966 * correction1_;
                        p_7 = 0u;
                        uint2 loop_bound_23 = uint2(4294967295u);
                        bool loop_init_23 = true;
                        while(true) {
                            if (metal::all(loop_bound_23 == uint2(0u))) { break; }
                            loop_bound_23 -= uint2(loop_bound_23.y == 0u, 1u);
                            if (!loop_init_23) {
                                uint _e990 = p_7;
                                p_7 = _e990 + 1u;
                            }
                            loop_init_23 = false;
                            uint _e970 = p_7;
                            if (_e970 < count_2) {
                            } else {
                                break;
                            }
                            {
                                uint _e973 = p_7;
                                metal::float2 v_7 = staged.inner[(_e973 * STAGE_STRIDE) + naga_mod(lane, PIECE_WORDS)];
                                uint _e982 = p_7;
                                float _e985 = weights.inner[row_13 + _e982];
                                metal::float2 _e987 = values3_1_;
                                values3_1_ = metal::fma(metal::float2(_e985), v_7, _e987);
                            }
                        }
                    }
                    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
                }
            }
            factors = metal::float2(1.0, 0.0);
            uint _e999 = split;
            if (_e999 == 0u) {
                factors = metal::float2(0.0, 1.0);
                float _e1006 = stats.largest;
                merged_max = _e1006;
            } else {
                uint _e1007 = split;
                if (_e15 >= (_e1007 * SPLIT_LEN)) {
                    float _e1011 = merged_max;
                    float _e1013 = stats.largest;
                    metal::float2 _e1014 = merge_factors(_e1011, _e1013);
                    factors = _e1014;
                    float _e1015 = merged_max;
                    float _e1017 = stats.largest;
                    merged_max = metal::max(_e1015, _e1017);
                }
            }
            float _e1019 = merged;
            float _e1021 = stats.sum;
            metal::float2 _e1022 = factors;
            float _e1023 = merged_sum(_e1019, _e1021, _e1022);
            merged = _e1023;
            if (naga_mod(lane, 8u) == 0u) {
                metal::float2 _e1032 = factors;
                all_factors.inner[naga_div(lane, 8u)] = _e1032;
            }
            metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
            metal::float2 factors0_ = all_factors.inner[0u + naga_div(lane, PIECE_WORDS)];
            metal::float2 _e1040 = merged0_0_;
            metal::float2 _e1041 = values0_0_;
            metal::float2 _e1042 = merged_values(_e1040, _e1041, factors0_);
            merged0_0_ = _e1042;
            metal::float2 _e1043 = merged1_0_;
            metal::float2 _e1044 = values1_0_;
            metal::float2 _e1045 = merged_values(_e1043, _e1044, factors0_);
            merged1_0_ = _e1045;
            metal::float2 _e1046 = merged2_0_;
            metal::float2 _e1047 = values2_0_;
            metal::float2 _e1048 = merged_values(_e1046, _e1047, factors0_);
            merged2_0_ = _e1048;
            metal::float2 _e1049 = merged3_0_;
            metal::float2 _e1050 = values3_0_;
            metal::float2 _e1051 = merged_values(_e1049, _e1050, factors0_);
            merged3_0_ = _e1051;
            metal::float2 factors1_ = all_factors.inner[8u + naga_div(lane, PIECE_WORDS)];
            metal::float2 _e1059 = merged0_1_;
            metal::float2 _e1060 = values0_1_;
            metal::float2 _e1061 = merged_values(_e1059, _e1060, factors1_);
            merged0_1_ = _e1061;
            metal::float2 _e1062 = merged1_1_;
            metal::float2 _e1063 = values1_1_;
            metal::float2 _e1064 = merged_values(_e1062, _e1063, factors1_);
            merged1_1_ = _e1064;
            metal::float2 _e1065 = merged2_1_;
            metal::float2 _e1066 = values2_1_;
            metal::float2 _e1067 = merged_values(_e1065, _e1066, factors1_);
            merged2_1_ = _e1067;
            metal::float2 _e1068 = merged3_1_;
            metal::float2 _e1069 = values3_1_;
            metal::float2 _e1070 = merged_values(_e1068, _e1069, factors1_);
            merged3_1_ = _e1070;
        }
    }
    if (naga_mod(lane, 8u) == 0u) {
        float _e1082 = merged;
        corrections.inner[naga_div(lane, 8u)] = _e1082;
    }
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    metal::float2 _e1091 = merged0_0_;
    float _e1098 = corrections.inner[0u + naga_div(lane, PIECE_WORDS)];
    put_out(_e4, 0u + naga_div(lane, PIECE_WORDS), 0u + naga_mod(lane, PIECE_WORDS), _e1091 / metal::float2(_e1098), out, _buffer_sizes);
    metal::float2 _e1109 = merged1_0_;
    float _e1116 = corrections.inner[0u + naga_div(lane, PIECE_WORDS)];
    put_out(_e4, 0u + naga_div(lane, PIECE_WORDS), 16u + naga_mod(lane, PIECE_WORDS), _e1109 / metal::float2(_e1116), out, _buffer_sizes);
    metal::float2 _e1127 = merged2_0_;
    float _e1134 = corrections.inner[0u + naga_div(lane, PIECE_WORDS)];
    put_out(_e4, 0u + naga_div(lane, PIECE_WORDS), 32u + naga_mod(lane, PIECE_WORDS), _e1127 / metal::float2(_e1134), out, _buffer_sizes);
    metal::float2 _e1145 = merged3_0_;
    float _e1152 = corrections.inner[0u + naga_div(lane, PIECE_WORDS)];
    put_out(_e4, 0u + naga_div(lane, PIECE_WORDS), 48u + naga_mod(lane, PIECE_WORDS), _e1145 / metal::float2(_e1152), out, _buffer_sizes);
    metal::float2 _e1163 = merged0_1_;
    float _e1170 = corrections.inner[8u + naga_div(lane, PIECE_WORDS)];
    put_out(_e4, 8u + naga_div(lane, PIECE_WORDS), 0u + naga_mod(lane, PIECE_WORDS), _e1163 / metal::float2(_e1170), out, _buffer_sizes);
    metal::float2 _e1181 = merged1_1_;
    float _e1188 = corrections.inner[8u + naga_div(lane, PIECE_WORDS)];
    put_out(_e4, 8u + naga_div(lane, PIECE_WORDS), 16u + naga_mod(lane, PIECE_WORDS), _e1181 / metal::float2(_e1188), out, _buffer_sizes);
    metal::float2 _e1199 = merged2_1_;
    float _e1206 = corrections.inner[8u + naga_div(lane, PIECE_WORDS)];
    put_out(_e4, 8u + naga_div(lane, PIECE_WORDS), 32u + naga_mod(lane, PIECE_WORDS), _e1199 / metal::float2(_e1206), out, _buffer_sizes);
    metal::float2 _e1217 = merged3_1_;
    float _e1224 = corrections.inner[8u + naga_div(lane, PIECE_WORDS)];
    put_out(_e4, 8u + naga_div(lane, PIECE_WORDS), 48u + naga_mod(lane, PIECE_WORDS), _e1217 / metal::float2(_e1224), out, _buffer_sizes);
    return;
}
