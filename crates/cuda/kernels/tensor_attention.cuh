// Attention over keys and values in f16, on tensor cores.
//
// Queries and weights are each a sum of two f16 (`two_halves`), so that products lose no more than f32 does. Within a split, keys are taken
// in blocks of 64. After each block, the sums so far are scaled to the largest score so far, then the block's are added. Splits
// are merged as in `attention.cu`. So a row's result depends on its own context alone. Two kernels follow this order:
//   attend_run: up to 64 queries of consecutive tokens; a warp takes 16 tokens of a head, and all columns;
//   attend_row: one token and up to 16 heads; a warp takes 64 keys for the scores, then a quarter of the columns for the values.
#pragma once
#include "tensor.cuh"

#define KEY_BLOCK 64
#define BLOCKS (SPLIT / KEY_BLOCK)
// Heads of a block of `attend_run`, and of `attend_row`.
#define RUN_HEADS 4
#define ROW_HEADS 16
// Steps of a loop of `attend_row` that are written out. A kernel of one wave runs code once: each line of it is a miss.
#define ROW_UNROLL 2
// The row of a key that no query sees.
#define ABSENT 0xffffffffu

INLINE float minus_infinity() { return __int_as_float(0xff800000); }

// Rows of D halves lie in shared memory in pieces of 16 bytes, whose places depend on the row: the same piece of eight rows lies in
// different banks.
template <int D> INLINE u32 piece_at(u32 row, u32 piece) { return row * (2 * D) + ((piece ^ (row & 7)) << 4); }

// Two values, each as a sum of two halves.
INLINE void two_halves(float a, float b, u32& high, u32& low) {
    high = pack_half2(a, b);
    low = pack_half2(a - low_half(high), b - high_half(high));
}

INLINE float in_range(float x) {
    x = x > HALF_MAX ? HALF_MAX : x;
    return x < -HALF_MAX ? -HALF_MAX : x;
}

// A piece of a query, or zeros without one.
template <int D> INLINE void store_query(u8* high, u8* low, u32 row, u32 piece, const float* query) {
    u32 highs[4] = {0, 0, 0, 0}, lows[4] = {0, 0, 0, 0};
    if (query) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float2 both = *(const float2*)(query + 2 * i);
            two_halves(in_range(both.x), in_range(both.y), highs[i], lows[i]);
        }
    }
    u32 at = piece_at<D>(row, piece);
    *(uint4*)(high + at) = {highs[0], highs[1], highs[2], highs[3]};
    *(uint4*)(low + at) = {lows[0], lows[1], lows[2], lows[3]};
}

// The number of a cached row among those of all pages.
INLINE u32 cached_index(const Attention& a, const u32* table, u32 kv_head, u32 position) {
    u32 page = table[position / a.page_size];
    return (page * a.num_kv_heads + kv_head) * a.page_size + position % a.page_size;
}

// Starts copies of 64 cached rows to shared memory, by `threads` threads; zeros for rows that are absent and for columns beyond `dim`.
template <int D> INLINE void copy_block(u32 to, const u16* pages, const u32* rows, u32 dim, u32 thread, u32 threads) {
    constexpr u32 PIECES = D / 8;
#pragma unroll 8
    for (u32 i = thread; i < KEY_BLOCK * PIECES; i += threads) {
        u32 key = i / PIECES, piece = i % PIECES, row = rows[key];
        bool is_there = row != ABSENT && piece * 8 < dim;
        copy_16(to + piece_at<D>(key, piece), is_there ? pages + (u64)row * dim + piece * 8 : pages, is_there);
    }
}

// Of each of two rows, those of a thread's sums: lane / 4 and that + 8.
struct Pair {
    float of[2];
};

// Scores of 16 queries and 64 keys, before scaling. `query` is the query whose pieces the lane loads.
template <int D, int UNROLL> INLINE void scores_of(float (&s)[8][4], u32 high, u32 low, u32 query, u32 keys) {
    u32 lane = threadIdx.x & 31;
    u32 key_row = keys + ((lane & 7) + (lane >> 4) * 8) * (2 * D);
#pragma unroll
    for (int n = 0; n < 8; n++) {
        s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0.0f;
    }
#pragma unroll UNROLL
    for (u32 step = 0; step < D / 16; step++) {
        u32 q_high[4], q_low[4], at = piece_at<D>(query, 2 * step + (lane >> 4));
        load_matrices(q_high, high + at);
        load_matrices(q_low, low + at);
        u32 piece = key_row + (((2 * step + (lane >> 3 & 1)) ^ (lane & 7)) << 4);
#pragma unroll
        for (u32 n = 0; n < 4; n++) {
            u32 k[4];
            load_matrices(k, piece + n * 16 * (2 * D));
            multiply(s[2 * n], q_low, k[0], k[1]);
            multiply(s[2 * n + 1], q_low, k[2], k[3]);
            multiply(s[2 * n], q_high, k[0], k[1]);
            multiply(s[2 * n + 1], q_high, k[2], k[3]);
        }
    }
}

// Scales the scores of the block that begins at position `first`; each row sees positions from .. to. Returns the largest of each row.
INLINE Pair mask(const Attention& a, float (&s)[8][4], u32 first, const u32 (&from)[2], const u32 (&to)[2]) {
    Pair largest = {{minus_infinity(), minus_infinity()}};
    if (a.softcap > 0.0f) {
#pragma unroll
        for (u32 i = 0; i < 32; i++) {
            s[i / 4][i % 4] = capped(a, s[i / 4][i % 4]);
        }
    } else {
#pragma unroll
        for (u32 i = 0; i < 32; i++) {
            s[i / 4][i % 4] *= a.scale;
        }
    }
#pragma unroll
    for (u32 n = 0; n < 8; n++) {
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            u32 position = first + 8 * n + 2 * (threadIdx.x & 3) + i % 2;
            bool is_seen = position >= from[i / 2] && position < to[i / 2];
            s[n][i] = is_seen ? s[n][i] : minus_infinity();
            largest.of[i / 2] = max_f(largest.of[i / 2], s[n][i]);
        }
    }
#pragma unroll
    for (int row = 0; row < 2; row++) {
        largest.of[row] = max_f(largest.of[row], __shfl_xor_sync(0xffffffffu, largest.of[row], 1));
        largest.of[row] = max_f(largest.of[row], __shfl_xor_sync(0xffffffffu, largest.of[row], 2));
    }
    return largest;
}

// Makes weights of scores, relative to the largest so far. Returns the sum of each row.
INLINE Pair weigh(float (&s)[8][4], const Pair& largest) {
    Pair sum = {{0.0f, 0.0f}};
#pragma unroll
    for (u32 n = 0; n < 8; n++) {
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            float score = s[n][i];
            s[n][i] = score == minus_infinity() ? 0.0f : expf(score - largest.of[i / 2]);
            sum.of[i / 2] += s[n][i];
        }
    }
#pragma unroll
    for (int row = 0; row < 2; row++) {
        sum.of[row] += __shfl_xor_sync(0xffffffffu, sum.of[row], 1);
        sum.of[row] += __shfl_xor_sync(0xffffffffu, sum.of[row], 2);
    }
    return sum;
}

// What a row has of a split so far.
struct Stats {
    Pair largest, sum;

    INLINE void clear() {
        largest = {{minus_infinity(), minus_infinity()}};
        sum = {{0.0f, 0.0f}};
    }
    // Takes in the largest score of a block. Returns what the sums so far are to be multiplied by.
    INLINE Pair grow(const Pair& of_block) {
        Pair factor;
#pragma unroll
        for (int row = 0; row < 2; row++) {
            float before = largest.of[row];
            largest.of[row] = max_f(before, of_block.of[row]);
            factor.of[row] = before == minus_infinity() ? 0.0f : expf(before - largest.of[row]);
        }
        return factor;
    }
    INLINE void add(const Pair& factor, const Pair& of_block) {
#pragma unroll
        for (int row = 0; row < 2; row++) {
            sum.of[row] = fmaf(sum.of[row], factor.of[row], of_block.of[row]);
        }
    }
};

template <int N> INLINE void scale_sums(float (&out)[N][4], const Pair& factor) {
#pragma unroll
    for (int n = 0; n < N; n++) {
        out[n][0] *= factor.of[0], out[n][1] *= factor.of[0], out[n][2] *= factor.of[1], out[n][3] *= factor.of[1];
    }
}

// Adds 16 keys' weights times their values. `values` is the first of the 16 keys, `piece` the first of the columns.
template <int D, int N> INLINE void add_values(float (&out)[N][4], const u32 (&high)[4], const u32 (&low)[4], u32 values, u32 piece) {
    u32 lane = threadIdx.x & 31, row = values + (lane & 15) * (2 * D);
#pragma unroll
    for (u32 n = 0; n < N / 2; n++) {
        u32 v[4];
        load_transposed(v, row + (((piece + 2 * n + (lane >> 4)) ^ (lane & 7)) << 4));
        multiply(out[2 * n], low, v[0], v[1]);
        multiply(out[2 * n + 1], low, v[2], v[3]);
        multiply(out[2 * n], high, v[0], v[1]);
        multiply(out[2 * n + 1], high, v[2], v[3]);
    }
}

INLINE void write_pair(const Attention& a, u32 row, u32 col, float first, float second) {
    *(float2*)(a.out + (u64)row * a.num_heads * a.head_dim + col) = {first, second};
    if (a.half_out) {
        u32 both = activation(first) | (u32)activation(second) << 16;
        *(u32*)(a.half_out + (u64)row * stride_of(a.half_shape) + activation_at(col, a.half_shape)) = both;
    }
}

// What a merge of splits does to the values before and to those of the split: as `merge_value`.
struct Merge {
    float before, split;
    bool is_first;

    INLINE Merge(float largest, float of_split, bool is_first) : is_first(is_first) {
        float both = max_f(largest, of_split);
        before = expf(largest - both);
        split = expf(of_split - both);
    }
    INLINE float operator()(float merged, float value) const { return is_first ? value : fmaf(merged, before, value * split); }
};

// grid: runs of tokens, cached heads times groups of RUN_HEADS heads.
template <int D> INLINE void attend_run(const Attention& a) {
    constexpr u32 BYTES = KEY_BLOCK * 2 * D;
    extern __shared__ __align__(128) u8 shared[]; // queries (upper halves, lower halves), keys, values [64][D]; rows [2][64]
    u32* rows = (u32*)(shared + 4 * BYTES);
    u32 high = shared_address(shared), low = high + BYTES, keys = low + BYTES, values = keys + BYTES;
    u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    u32 first_row = a.runs[2 * blockIdx.x], tokens = a.runs[2 * blockIdx.x + 1];
    u32 position = a.positions[first_row], end = position + tokens, seen = first_seen(a, position);
    u32 per_kv = a.num_heads / a.num_kv_heads, groups = (per_kv + RUN_HEADS - 1) / RUN_HEADS;
    u32 kv_head = blockIdx.y / groups, first_head = kv_head * per_kv + blockIdx.y % groups * RUN_HEADS;
    u32 heads = min_u(RUN_HEADS, (kv_head + 1) * per_kv - first_head), dim = a.head_dim;
    u32 head = first_head + warp % heads, first_token = warp / heads * 16;
    bool has_tokens = first_token < tokens;
    u32 from[2], to[2];
#pragma unroll
    for (u32 row = 0; row < 2; row++) {
        u32 token = first_token + lane / 4 + 8 * row;
        from[row] = first_seen(a, position + token);
        to[row] = token < tokens ? position + token + 1 : 0;
    }
    u32 warp_seen = first_seen(a, position + first_token), warp_end = position + min_u(tokens, first_token + 16);
    const u32* table = a.block_tables + (u64)a.seq_of_row[first_row] * a.max_blocks;
    u32 block = seen / KEY_BLOCK, last = (end - 1) / KEY_BLOCK;
    auto find_rows = [&](u32 block) {
        if (threadIdx.x < KEY_BLOCK) {
            u32 at = block * KEY_BLOCK + threadIdx.x;
            bool is_seen = at >= seen && at < end;
            rows[block % 2 * KEY_BLOCK + threadIdx.x] = is_seen ? cached_index(a, table, kv_head, at) : ABSENT;
        }
    };
    auto copy = [&](u32 to, const void* pages, u32 block) {
        copy_block<D>(to, (const u16*)pages, rows + block % 2 * KEY_BLOCK, dim, threadIdx.x, THREADS);
        end_copies();
    };
    find_rows(block);
    __syncthreads();
    await_previous();
    copy(keys, a.k_pages, block);
    for (u32 i = lane; i < 16 * (D / 8); i += 32) {
        u32 token = first_token + i / (D / 8), piece = i % (D / 8);
        u32 cols = (a.num_heads + 2 * a.num_kv_heads) * dim;
        bool is_there = token < tokens && piece * 8 < dim;
        const float* query = is_there ? a.qkv + (u64)(first_row + token) * cols + head * dim + piece * 8 : nullptr;
        store_query<D>(shared, shared + BYTES, warp * 16 + i / (D / 8), piece, query);
    }
    __syncwarp();
    float out[D / 8][4] = {};
    Stats stats;
    stats.clear();
    Pair largest = {{0.0f, 0.0f}}, sum = {{0.0f, 0.0f}}; // of the splits before
    auto end_of_split = [&](u32 split, u32 row, u32 token) {
        u32 last_split = (to[row] - 1) / SPLIT, first_split = from[row] / SPLIT;
        if (split < first_split || split > last_split) {
            return;
        }
        bool is_first = split == first_split;
        Merge merge(largest.of[row], stats.largest.of[row], is_first);
        merge_stats(largest.of[row], sum.of[row], stats.largest.of[row], stats.sum.of[row], is_first);
        float factor = 1.0f / with_sink(a, head, largest.of[row], sum.of[row]);
        u32 first_col = 2 * (lane & 3);
        // So that addresses are not kept in registers over the whole loop.
        asm volatile("" : "+r"(first_col));
#pragma unroll
        for (u32 n = 0; n < D / 8; n++) {
            u32 col = first_col + 8 * n;
            if (col < dim) {
                // The output holds what is merged so far.
                float2* merged = (float2*)(a.out + ((u64)(first_row + token) * a.num_heads + head) * dim + col);
                float2 value = {out[n][2 * row], out[n][2 * row + 1]};
                if (!is_first) {
                    value = {merge(merged->x, value.x), merge(merged->y, value.y)};
                }
                if (split == last_split) {
                    write_pair(a, first_row + token, head * dim + col, value.x * factor, value.y * factor);
                } else {
                    *merged = value;
                }
            }
        }
    };
    for (; block <= last; block++) {
        u32 first = block * KEY_BLOCK;
        bool takes = has_tokens && first < warp_end && first + KEY_BLOCK > warp_seen;
        copy(values, a.v_pages, block);
        await_copies<1>();
        __syncthreads();
        float s[8][4];
        if (takes) {
            scores_of<D, D / 16>(s, high, low, warp * 16 + (lane & 15), keys);
        }
        if (block < last) {
            find_rows(block + 1);
        }
        __syncthreads();
        if (block < last) {
            copy(keys, a.k_pages, block + 1);
        } else {
            end_copies();
        }
        if (takes) {
            Pair factor = stats.grow(mask(a, s, first, from, to));
            stats.add(factor, weigh(s, stats.largest));
            scale_sums(out, factor);
        }
        await_copies<1>();
        __syncthreads();
        if (takes) {
#pragma unroll
            for (u32 step = 0; step < 4; step++) {
                u32 w_high[4], w_low[4];
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    const float* both = s[2 * step + i / 2] + i % 2 * 2;
                    two_halves(both[0], both[1], w_high[i], w_low[i]);
                }
                add_values<D>(out, w_high, w_low, values + step * 16 * (2 * D), 0);
            }
        }
        __syncthreads();
        if (block % BLOCKS != BLOCKS - 1 && block < last) {
            continue;
        }
#pragma unroll
        for (u32 row = 0; row < 2; row++) {
            u32 token = first_token + lane / 4 + 8 * row;
            if (token < tokens) {
                end_of_split(block / BLOCKS, row, token);
            }
        }
        scale_sums(out, {{0.0f, 0.0f}});
        stats.clear();
    }
}

// grid: rows, cached heads times groups of ROW_HEADS heads, splits (or 1).
template <int D> INLINE void attend_row(const Attention& a) {
    constexpr u32 ROW = 2 * D, PIECES = D / 8, TILES = D / 32;
    // Queries and weights (upper halves, lower halves) [heads][D] and [heads][256], keys and values [key_room][D] each or in turn,
    // rows [256].
    extern __shared__ __align__(128) u8 shared[];
    __shared__ float largest_of[BLOCKS][ROW_HEADS], sum_of[BLOCKS][ROW_HEADS];
    u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    u32 row = a.rows[blockIdx.x], position = a.positions[row], seen = first_seen(a, position), dim = a.head_dim;
    u32 per_kv = a.num_heads / a.num_kv_heads, groups = (per_kv + ROW_HEADS - 1) / ROW_HEADS;
    u32 kv_head = blockIdx.y / groups, first_head = kv_head * per_kv + blockIdx.y % groups * ROW_HEADS;
    u32 heads = min_u(ROW_HEADS, (kv_head + 1) * per_kv - first_head);
    // Of the 16 rows of a product, those beyond the heads repeat them.
    u32 most = heads > 8 ? 16 : heads > 4 ? 8 : heads > 2 ? 4 : heads;
    u32 first_split = seen / SPLIT, end_split = position / SPLIT + 1;
    if (a.partials) {
        if (blockIdx.z < first_split || blockIdx.z >= end_split) {
            return;
        }
        first_split = blockIdx.z;
        end_split = first_split + 1;
    }
    u32 high = shared_address(shared), low = high + most * ROW;
    u8* weights = shared + 2 * most * ROW;
    u32 weights_high = low + most * ROW, weights_low = weights_high + most * 2 * SPLIT;
    u32 keys = weights_low + most * 2 * SPLIT, values = a.is_apart ? keys + a.key_room * ROW : keys;
    u32* rows = (u32*)(shared + (values - high) + a.key_room * ROW);
    u32 query = (lane & 15) & (most - 1);
    const u32* table = a.block_tables + (u64)a.seq_of_row[row] * a.max_blocks;
    Pair merged_largest = {{0.0f, 0.0f}}, merged_sum = {{0.0f, 0.0f}};
    float merged[TILES][4];
    for (u32 split = first_split; split < end_split; split++) {
        u32 base = split * SPLIT, end = min_u(position + 1, base + SPLIT);
        u32 blocks = (end - base + KEY_BLOCK - 1) / KEY_BLOCK;
        u32 from[2] = {seen, seen}, to[2] = {end, end};
        __syncthreads();
        for (u32 i = threadIdx.x; i < blocks * KEY_BLOCK; i += THREADS) {
            bool is_seen = base + i >= seen && base + i < end;
            rows[i] = is_seen ? cached_index(a, table, kv_head, base + i) : ABSENT;
        }
        __syncthreads();
        bool is_first = split == first_split, takes = warp < blocks;
        if (is_first) {
            await_previous();
        }
        auto copy = [&](u32 to, const void* pages) {
            copy_block<D>(to + warp * KEY_BLOCK * ROW, (const u16*)pages, rows + warp * KEY_BLOCK, dim, lane, 32);
            end_copies();
        };
        if (takes) {
            copy(keys, a.k_pages);
            if (a.is_apart) {
                copy(values, a.v_pages);
            }
        }
        if (is_first) {
            const float* queries = a.qkv + (u64)row * (a.num_heads + 2 * a.num_kv_heads) * dim + first_head * dim;
            for (u32 i = threadIdx.x; i < most * PIECES; i += THREADS) {
                u32 head = i / PIECES, piece = i % PIECES;
                bool is_there = head < heads && piece * 8 < dim;
                store_query<D>(shared, shared + most * ROW, head, piece, is_there ? queries + head * dim + piece * 8 : nullptr);
            }
            __syncthreads();
        }
        float s[8][4];
        if (takes) {
            if (a.is_apart) {
                await_copies<1>();
            } else {
                await_copies<0>();
            }
            __syncwarp();
            scores_of<D, ROW_UNROLL>(s, high, low, query, keys + warp * KEY_BLOCK * ROW);
            if (!a.is_apart) {
                __syncwarp();
                copy(values, a.v_pages);
            }
            Pair largest = mask(a, s, base + warp * KEY_BLOCK, from, to);
            if (lane % 4 == 0) {
                largest_of[warp][lane / 4] = largest.of[0];
                largest_of[warp][lane / 4 + 8] = largest.of[1];
            }
        }
        __syncthreads();
        auto pair_of = [&](const float* of_block) { return Pair{{of_block[lane / 4], of_block[lane / 4 + 8]}}; };
        if (takes) {
            Stats stats;
            stats.clear();
            for (u32 block = 0; block <= warp; block++) {
                stats.grow(pair_of(largest_of[block]));
            }
            Pair sum = weigh(s, stats.largest);
            if (lane % 4 == 0) {
                sum_of[warp][lane / 4] = sum.of[0];
                sum_of[warp][lane / 4 + 8] = sum.of[1];
            }
#pragma unroll
            for (u32 n = 0; n < 8; n++) {
#pragma unroll
                for (u32 half = 0; half < 2; half++) {
                    u32 head = lane / 4 + 8 * half, w_high, w_low;
                    two_halves(s[n][2 * half], s[n][2 * half + 1], w_high, w_low);
                    if (head < most) {
                        u32 at = piece_at<SPLIT>(head, warp * (KEY_BLOCK / 8) + n) + lane % 4 * 4;
                        *(u32*)(weights + at) = w_high;
                        *(u32*)(weights + most * 2 * SPLIT + at) = w_low;
                    }
                }
            }
        }
        await_copies<0>();
        __syncthreads();
        float out[TILES][4] = {};
        Stats stats;
        stats.clear();
        for (u32 block = 0; block < blocks; block++) {
            Pair factor = stats.grow(pair_of(largest_of[block]));
            stats.add(factor, pair_of(sum_of[block]));
            scale_sums(out, factor);
#pragma unroll 1
            for (u32 step = 0; step < 4; step++) {
                u32 w_high[4], w_low[4], at = piece_at<SPLIT>(query, block * (KEY_BLOCK / 8) + 2 * step + (lane >> 4));
                load_matrices(w_high, weights_high + at);
                load_matrices(w_low, weights_low + at);
                add_values<D>(out, w_high, w_low, values + (block * KEY_BLOCK + step * 16) * ROW, warp * (PIECES / 4));
            }
        }
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            u32 head = lane / 4 + 8 * half;
            Merge merge(merged_largest.of[half], stats.largest.of[half], is_first);
            merge_stats(merged_largest.of[half], merged_sum.of[half], stats.largest.of[half], stats.sum.of[half], is_first);
            if (head >= heads) {
                continue;
            }
            float factor = 1.0f / with_sink(a, first_head + head, merged_largest.of[half], merged_sum.of[half]);
            float* partial = a.partials ? partial_of(a, blockIdx.x, first_head + head, split) : nullptr;
#pragma unroll
            for (u32 n = 0; n < TILES; n++) {
                u32 col = warp * (D / 4) + 8 * n + 2 * (lane & 3);
#pragma unroll
                for (u32 i = 2 * half; i < 2 * half + 2; i++) {
                    merged[n][i] = merge(merged[n][i], out[n][i]);
                }
                float first = merged[n][2 * half], second = merged[n][2 * half + 1];
                if (col < dim && partial) {
                    *(float2*)(partial + col) = {first, second};
                } else if (col < dim && split + 1 == end_split) {
                    write_pair(a, row, (first_head + head) * dim + col, first * factor, second * factor);
                }
            }
            if (partial && warp == 0 && lane % 4 == 0) {
                partial[dim] = stats.largest.of[half];
                partial[dim + 1] = stats.sum.of[half];
            }
        }
    }
}

KERNEL __launch_bounds__(THREADS, 4) attention_run_64(Attention a) { attend_run<64>(a); }
KERNEL __launch_bounds__(THREADS, 3) attention_run_128(Attention a) { attend_run<128>(a); }
KERNEL __launch_bounds__(THREADS, 1) attention_run_256(Attention a) { attend_run<256>(a); }
KERNEL __launch_bounds__(THREADS, 4) attention_row_64(Attention a) { attend_row<64>(a); }
KERNEL __launch_bounds__(THREADS, 3) attention_row_128(Attention a) { attend_row<128>(a); }
KERNEL __launch_bounds__(THREADS, 1) attention_row_256(Attention a) { attend_row<256>(a); }
