// Attention over paged keys and values, in f32.
//
// A context is cut into splits of 256 absolute positions. A split's partial result (largest score, sum of exponentials, weighted sum
// of values) depends on the row and the split alone; partials are merged in the order of the splits, by one function. Either
// one block takes all splits of a row in turn, or each a block of its own and `attention_merge` merges: the bits are the same.
#include "common.cuh"

#define SPLIT 256
#define THREADS 128
#define WARPS 4
// Heads of a cached head that a block takes.
#define GROUP 8
#define MAX_HEAD_DIM 256
// Keys that a lane has under way.
#define KEYS 4
// Values of a head's partial sums over some of the positions.
#define PARTS 512

struct Attention {
    const u32* positions;
    const u32* seq_of_row;
    const u32* block_tables;
    const float* qkv;
    const void* k_pages;
    const void* v_pages;
    const float* sinks; // or null
    float* out;
    u16* half_out;   // or null
    float* partials; // [place in rows][head][split][head_dim + 2], or null: a block takes all splits
    const u32* rows; // the rows that are taken, or null: all
    const u32* runs; // [run]: its first row, and its rows, consecutive tokens of a sequence
    u32 num_heads, num_kv_heads, head_dim, page_size, max_blocks, max_splits, half_shape;
    u32 window; // 0: none
    float scale, softcap; // 0: none
    // Of `attend_row`: keys that it has room for, and whether values have room of their own.
    u32 key_room, is_apart;
};

// Two neighbouring values of the cache.
INLINE void cached_pair(const u16* p, float& a, float& b) {
    u32 word = *(const u32*)p;
    a = low_half(word);
    b = high_half(word);
}
INLINE void cached_pair(const float* p, float& a, float& b) {
    float2 both = *(const float2*)p;
    a = both.x;
    b = both.y;
}

// Four neighbouring ones.
INLINE void cached_four(const u16* p, float* out) {
    uint2 words = *(const uint2*)p;
    out[0] = low_half(words.x), out[1] = high_half(words.x), out[2] = low_half(words.y), out[3] = high_half(words.y);
}
INLINE void cached_four(const float* p, float* out) { *(float4*)out = *(const float4*)p; }

// Eight neighbouring ones.
INLINE void cached_eight(const u16* p, float* out) {
    uint4 words = *(const uint4*)p;
    const u32 all[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        out[2 * i] = low_half(all[i]);
        out[2 * i + 1] = high_half(all[i]);
    }
}
INLINE void cached_eight(const float* p, float* out) {
    *(float4*)out = *(const float4*)p;
    *(float4*)(out + 4) = *(const float4*)(p + 4);
}

INLINE u32 first_seen(const Attention& a, u32 position) {
    return a.window && position + 1 > a.window ? position + 1 - a.window : 0;
}

INLINE u64 cached_row(const Attention& a, const u32* table, u32 kv_head, u32 position) {
    u32 page = table[position / a.page_size];
    return (((u64)page * a.num_kv_heads + kv_head) * a.page_size + position % a.page_size) * a.head_dim;
}

INLINE float capped(const Attention& a, float score) {
    score *= a.scale;
    return a.softcap > 0.0f ? a.softcap * tanhf(score / a.softcap) : score;
}

INLINE float* partial_of(const Attention& a, u32 row, u32 head, u32 split) {
    return a.partials + (((u64)row * a.num_heads + head) * a.max_splits + split) * (a.head_dim + 2);
}

// Merges a split's value into that of the splits before it; `largest` are those of the scores before and in the split.
INLINE void merge_value(float& merged, float value, float largest, float split_largest, bool is_first) {
    if (is_first) {
        merged = value;
        return;
    }
    float both = max_f(largest, split_largest);
    merged = fmaf(merged, expf(largest - both), value * expf(split_largest - both));
}

// As `merge_value`, of the largest score and the sum of exponentials.
INLINE void merge_stats(float& largest, float& sum, float split_largest, float split_sum, bool is_first) {
    merge_value(sum, split_sum, largest, split_largest, is_first);
    largest = is_first ? split_largest : max_f(largest, split_largest);
}

// The sum of exponentials with that of the head's sink, a score without a value.
INLINE float with_sink(const Attention& a, u32 head, float largest, float sum) {
    return a.sinks ? sum + expf(a.sinks[head] - largest) : sum;
}

INLINE void write_out(const Attention& a, u32 row, u32 col, float value) {
    a.out[(u64)row * a.num_heads * a.head_dim + col] = value;
    if (a.half_out) {
        a.half_out[(u64)row * stride_of(a.half_shape) + activation_at(col, a.half_shape)] = activation(value);
    }
}

struct __align__(16) Shared {
    float q[GROUP][MAX_HEAD_DIM];
    float weights[GROUP][SPLIT];
    float out[GROUP][MAX_HEAD_DIM];    // merged so far
    float parts[GROUP][PARTS]; // [part][head_dim]
    float largest[GROUP], sum[GROUP];  // merged so far
    float split_largest[GROUP], split_sum[GROUP];
    u64 rows[SPLIT];
};

// W neighbouring values of the cache.
template <int W, typename E> INLINE void cached_some(const E* p, float* out) {
    if constexpr (W == 4) {
        cached_four(p, out);
    } else {
        cached_pair(p, out[0], out[1]);
    }
}

// The weighted sums of a split's values, over every n-th position each, n being returned. A thread takes W columns of one sum.
template <int W, typename E> INLINE u32 value_sums(Shared& s, const E* v, u32 count, u32 heads, u32 dim) {
    u32 threads = dim / W, parts = min_u(THREADS / threads, PARTS / dim);
    u32 part = threadIdx.x / threads, col = threadIdx.x % threads * W;
    if (part < parts) {
        float sums[GROUP][W];
#pragma unroll
        for (u32 head = 0; head < GROUP; head++) {
#pragma unroll
            for (int j = 0; j < W; j++) {
                sums[head][j] = 0.0f;
            }
        }
#pragma unroll 8
        for (u32 i = part; i < count; i += parts) {
            float value[W];
            cached_some<W>(v + s.rows[i] + col, value);
#pragma unroll
            for (u32 head = 0; head < GROUP; head++) {
                if (head < heads) {
                    float weight = s.weights[head][i];
#pragma unroll
                    for (int j = 0; j < W; j++) {
                        sums[head][j] = fmaf(weight, value[j], sums[head][j]);
                    }
                }
            }
        }
#pragma unroll
        for (u32 head = 0; head < GROUP; head++) {
            if (head < heads) {
#pragma unroll
                for (int j = 0; j < W; j++) {
                    s.parts[head][part * dim + col + j] = sums[head][j];
                }
            }
        }
    }
    return parts;
}

// grid: rows, cached heads times groups of heads, splits (or 1).
template <typename E> INLINE void attend(const Attention& a) {
    __shared__ Shared s;
    await_previous();
    u32 row = blockIdx.x, position = a.positions[row];
    u32 per_kv = a.num_heads / a.num_kv_heads, groups = (per_kv + GROUP - 1) / GROUP;
    u32 kv_head = blockIdx.y / groups, first_head = kv_head * per_kv + blockIdx.y % groups * GROUP;
    u32 heads = min_u(GROUP, (kv_head + 1) * per_kv - first_head);
    u32 seen = first_seen(a, position), dim = a.head_dim;
    u32 first_split = seen / SPLIT, end_split = position / SPLIT + 1;
    if (a.partials) {
        if (blockIdx.z < first_split || blockIdx.z >= end_split) {
            return;
        }
        first_split = blockIdx.z;
        end_split = first_split + 1;
    }
    const u32* table = a.block_tables + (u64)a.seq_of_row[row] * a.max_blocks;
    const E* k = (const E*)a.k_pages;
    const E* v = (const E*)a.v_pages;
    u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    u32 cols = (a.num_heads + 2 * a.num_kv_heads) * dim;
    for (u32 i = threadIdx.x; i < heads * dim; i += THREADS) {
        s.q[i / dim][i % dim] = a.qkv[(u64)row * cols + first_head * dim + i];
    }
    for (u32 split = first_split; split < end_split; split++) {
        u32 start = split * SPLIT > seen ? split * SPLIT : seen;
        u32 end = min_u(position + 1, (split + 1) * SPLIT), count = end - start;
        __syncthreads();
        for (u32 i = threadIdx.x; i < count; i += THREADS) {
            s.rows[i] = cached_row(a, table, kv_head, start + i);
        }
        __syncthreads();
        // Eight lanes take a key: lane j columns 8 j .. 8 j + 7 of each 64, or 2 j and 2 j + 1 of each 16. They have KEYS keys under way.
        for (u32 first = warp * 4 * KEYS; first < count; first += WARPS * 4 * KEYS) {
            const E* keys[KEYS];
            float sums[KEYS][GROUP];
#pragma unroll
            for (u32 n = 0; n < KEYS; n++) {
                keys[n] = k + s.rows[min_u(first + 4 * n + (lane >> 3), count - 1)];
#pragma unroll
                for (u32 head = 0; head < GROUP; head++) {
                    sums[n][head] = 0.0f;
                }
            }
            if (dim % 64 == 0) {
                for (u32 col = 8 * (lane & 7); col < dim; col += 64) {
                    float key[KEYS][8];
#pragma unroll
                    for (u32 n = 0; n < KEYS; n++) {
                        cached_eight(keys[n] + col, key[n]);
                    }
#pragma unroll
                    for (u32 head = 0; head < GROUP; head++) {
                        if (head < heads) {
#pragma unroll
                            for (int j = 0; j < 8; j += 4) {
                                float4 q = *(const float4*)&s.q[head][col + j];
#pragma unroll
                                for (u32 n = 0; n < KEYS; n++) {
                                    float sum = fmaf(q.y, key[n][j + 1], fmaf(q.x, key[n][j], sums[n][head]));
                                    sums[n][head] = fmaf(q.w, key[n][j + 3], fmaf(q.z, key[n][j + 2], sum));
                                }
                            }
                        }
                    }
                }
            } else {
                for (u32 col = 2 * (lane & 7); col < dim; col += 16) {
#pragma unroll
                    for (u32 n = 0; n < KEYS; n++) {
                        float k_a, k_b;
                        cached_pair(keys[n] + col, k_a, k_b);
#pragma unroll
                        for (u32 head = 0; head < GROUP; head++) {
                            if (head < heads) {
                                float2 q = *(const float2*)&s.q[head][col];
                                sums[n][head] = fmaf(q.y, k_b, fmaf(q.x, k_a, sums[n][head]));
                            }
                        }
                    }
                }
            }
#pragma unroll
            for (u32 n = 0; n < KEYS; n++) {
                u32 i = first + 4 * n + (lane >> 3);
#pragma unroll
                for (u32 head = 0; head < GROUP; head++) {
                    if (head < heads) {
                        float sum = sums[n][head];
                        sum += __shfl_xor_sync(0xffffffffu, sum, 4);
                        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
                        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
                        if (i < count && (lane & 7) == head) {
                            s.weights[head][i] = capped(a, sum);
                        }
                    }
                }
            }
        }
        __syncthreads();
        for (u32 head = warp; head < heads; head += WARPS) {
            float largest = s.weights[head][0];
            for (u32 i = lane; i < count; i += 32) {
                largest = max_f(largest, s.weights[head][i]);
            }
            largest = warp_max(largest);
            float sum = 0.0f;
            for (u32 i = lane; i < count; i += 32) {
                float weight = expf(s.weights[head][i] - largest);
                s.weights[head][i] = weight;
                sum += weight;
            }
            sum = warp_sum(sum);
            if (lane == 0) {
                s.split_largest[head] = largest;
                s.split_sum[head] = sum;
            }
        }
        __syncthreads();
        u32 parts = dim % 4 == 0 ? value_sums<4>(s, v, count, heads, dim) : value_sums<2>(s, v, count, heads, dim);
        __syncthreads();
        for (u32 i = threadIdx.x; i < heads * dim; i += THREADS) {
            u32 head = i / dim, col = i % dim;
            float value = s.parts[head][col];
            for (u32 part = 1; part < parts; part++) {
                value += s.parts[head][part * dim + col];
            }
            if (a.partials) {
                partial_of(a, row, first_head + head, split)[col] = value;
            } else {
                merge_value(s.out[head][col], value, s.largest[head], s.split_largest[head], split == first_split);
            }
        }
        __syncthreads();
        if (threadIdx.x < heads) {
            u32 head = threadIdx.x;
            if (a.partials) {
                float* partial = partial_of(a, row, first_head + head, split);
                partial[dim] = s.split_largest[head];
                partial[dim + 1] = s.split_sum[head];
            } else {
                merge_stats(s.largest[head], s.sum[head], s.split_largest[head], s.split_sum[head], split == first_split);
            }
        }
    }
    if (!a.partials) {
        __syncthreads();
        for (u32 i = threadIdx.x; i < heads * dim; i += THREADS) {
            u32 head = i / dim, col = i % dim;
            float factor = 1.0f / with_sink(a, first_head + head, s.largest[head], s.sum[head]);
            write_out(a, row, (first_head + head) * dim + col, s.out[head][col] * factor);
        }
    }
}

KERNEL __launch_bounds__(THREADS) attention_f16(Attention a) { attend<u16>(a); }
KERNEL __launch_bounds__(THREADS) attention_f32(Attention a) { attend<float>(a); }

#include "tensor_attention.cuh"

// Merges the partials of a row and head in the order of the splits. grid: rows, heads.
KERNEL __launch_bounds__(THREADS) attention_merge(Attention a) {
    await_previous();
    u32 row = a.rows ? a.rows[blockIdx.x] : blockIdx.x;
    u32 head = blockIdx.y, position = a.positions[row], dim = a.head_dim;
    u32 first_split = first_seen(a, position) / SPLIT, end_split = position / SPLIT + 1;
    for (u32 col = threadIdx.x; col < dim; col += THREADS) {
        float largest = 0.0f, sum = 0.0f, value = 0.0f;
        for (u32 split = first_split; split < end_split; split++) {
            const float* partial = partial_of(a, blockIdx.x, head, split);
            bool is_first = split == first_split;
            merge_value(value, partial[col], largest, partial[dim], is_first);
            merge_stats(largest, sum, partial[dim], partial[dim + 1], is_first);
        }
        write_out(a, row, head * dim + col, value * (1.0f / with_sink(a, head, largest, sum)));
    }
}

// Reference attention. grid: positions over 64, rows, heads.
struct Reference {
    const u32* positions;
    const u32* seq_of_row;
    const u32* block_tables;
    const float* qkv;
    const void* pages; // of keys, or of values
    const float* sinks;
    float* scores; // [row][head][context]
    float* out;
    u16* half_out;
    u32 num_heads, num_kv_heads, head_dim, page_size, max_blocks, context, half_shape, window, is_half;
    float scale, softcap;
};

INLINE float page_value(const Reference& r, u64 i) {
    return r.is_half ? from_half(((const u16*)r.pages)[i]) : ((const float*)r.pages)[i];
}

INLINE u64 page_row(const Reference& r, u32 row, u32 head, u32 position) {
    u32 page = r.block_tables[(u64)r.seq_of_row[row] * r.max_blocks + position / r.page_size];
    u32 kv_head = head / (r.num_heads / r.num_kv_heads);
    return (((u64)page * r.num_kv_heads + kv_head) * r.page_size + position % r.page_size) * r.head_dim;
}

KERNEL attention_scores(Reference r) {
    await_previous();
    u32 row = blockIdx.y, head = blockIdx.z, position = blockIdx.x * 64 + threadIdx.x;
    u32 own = r.positions[row];
    if (position > own) {
        return;
    }
    float* out = r.scores + ((u64)row * r.num_heads + head) * r.context + position;
    if (r.window && position + r.window <= own) {
        *out = -3.4028234e38f; // So low that its weight is zero.
        return;
    }
    const float* q = r.qkv + (u64)row * (r.num_heads + 2 * r.num_kv_heads) * r.head_dim + head * r.head_dim;
    u64 k = page_row(r, row, head, position);
    float sum = 0.0f;
    for (u32 i = 0; i < r.head_dim; i++) {
        sum = fmaf(q[i], page_value(r, k + i), sum);
    }
    sum *= r.scale;
    *out = r.softcap > 0.0f ? r.softcap * tanhf(sum / r.softcap) : sum;
}

// A warp takes a row and head. grid: rows, heads.
KERNEL attention_softmax(Reference r) {
    await_previous();
    u32 row = blockIdx.x, head = blockIdx.y, len = r.positions[row] + 1;
    float* scores = r.scores + ((u64)row * r.num_heads + head) * r.context;
    float largest = scores[0];
    for (u32 i = threadIdx.x; i < len; i += 32) {
        largest = max_f(largest, scores[i]);
    }
    largest = warp_max(largest);
    float sum = 0.0f;
    for (u32 i = threadIdx.x; i < len; i += 32) {
        float weight = expf(scores[i] - largest);
        scores[i] = weight;
        sum += weight;
    }
    sum = warp_sum(sum);
    if (r.sinks) {
        sum += expf(r.sinks[head] - largest);
    }
    for (u32 i = threadIdx.x; i < len; i += 32) {
        scores[i] /= sum;
    }
}

// grid: rows, heads.
KERNEL attention_values(Reference r) {
    await_previous();
    u32 row = blockIdx.x, head = blockIdx.y, own = r.positions[row];
    const float* weights = r.scores + ((u64)row * r.num_heads + head) * r.context;
    u32 first = r.window && own + 1 > r.window ? own + 1 - r.window : 0;
    for (u32 col = threadIdx.x; col < r.head_dim; col += blockDim.x) {
        float sum = 0.0f;
        for (u32 position = first; position <= own; position++) {
            sum = fmaf(weights[position], page_value(r, page_row(r, row, head, position) + col), sum);
        }
        u32 at = head * r.head_dim + col;
        r.out[(u64)row * r.num_heads * r.head_dim + at] = sum;
        if (r.half_out) {
            r.half_out[(u64)row * stride_of(r.half_shape) + activation_at(at, r.half_shape)] = activation(sum);
        }
    }
}
