// Operations on rows. `half_out` is the f16 copy of the output, or null.
#include "common.cuh"
#include "choice.cuh"

#define THREADS 256

// The sum over a block of 256 threads, the same in each; `shared` has eight floats.
INLINE float block_sum(float value, float* shared) {
    value = warp_sum(value);
    __syncthreads();
    if ((threadIdx.x & 31) == 0) {
        shared[threadIdx.x >> 5] = value;
    }
    __syncthreads();
    float sum = 0.0f;
    for (int i = 0; i < THREADS / 32; i++) {
        sum += shared[i];
    }
    return sum;
}

// Vectors of four columns that a thread of a norm keeps.
#define VECTORS 8

INLINE float4 plus(float4 a, float4 b) { return {a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w}; }

// Four columns of a row of activations, the first a multiple of four.
INLINE void store_halves(u16* row, u32 half_shape, u32 col, float4 v) {
    *(u32*)(row + activation_at(col, half_shape)) = activation(v.x) | (u32)activation(v.y) << 16;
    *(u32*)(row + activation_at(col + 2, half_shape)) = activation(v.z) | (u32)activation(v.w) << 16;
}

// A row of at most VECTORS * 1024 columns, all of it in registers, so that it is read once and all loads are under way together.
INLINE void norm_vectors(float4* x, const float4* delta, const float4* weight, float4* out, u16* half_out, u32 half_shape, u32 cols,
                         float eps, float* shared) {
    float4 values[VECTORS], weights[VECTORS];
    u32 vectors = cols / 4;
#pragma unroll
    for (u32 i = 0; i < VECTORS; i++) {
        u32 at = i * THREADS + threadIdx.x;
        weights[i] = at < vectors ? __ldg(weight + at) : float4{0.0f, 0.0f, 0.0f, 0.0f};
    }
    await_previous();
#pragma unroll
    for (u32 i = 0; i < VECTORS; i++) {
        u32 at = i * THREADS + threadIdx.x;
        values[i] = at < vectors ? x[at] : float4{0.0f, 0.0f, 0.0f, 0.0f};
    }
    if (delta) {
#pragma unroll
        for (u32 i = 0; i < VECTORS; i++) {
            u32 at = i * THREADS + threadIdx.x;
            if (at < vectors) {
                values[i] = plus(values[i], delta[at]);
                x[at] = values[i];
            }
        }
    }
    float sum = 0.0f;
#pragma unroll
    for (u32 i = 0; i < VECTORS; i++) {
        float4 v = values[i];
        sum = fmaf(v.w, v.w, fmaf(v.z, v.z, fmaf(v.y, v.y, fmaf(v.x, v.x, sum))));
    }
    sum = block_sum(sum, shared);
    float factor = 1.0f / sqrtf(sum / (float)cols + eps);
#pragma unroll
    for (u32 i = 0; i < VECTORS; i++) {
        u32 at = i * THREADS + threadIdx.x;
        if (at < vectors) {
            float4 v = values[i], w = weights[i];
            v = {v.x * factor * w.x, v.y * factor * w.y, v.z * factor * w.z, v.w * factor * w.w};
            out[at] = v;
            if (half_out) {
                store_halves(half_out, half_shape, 4 * at, v);
            }
        }
    }
}

// x += delta if there is one; out = x / sqrt(mean(x^2) + eps) * weight. A block takes a row.
KERNEL rms_norm(float* x, const float* delta, const float* weight, float* out, u16* half_out, u32 cols, u32 half_shape, float eps) {
    __shared__ float shared[8];
    u64 first = (u64)blockIdx.x * cols;
    u16* half_row = half_out ? half_out + (u64)blockIdx.x * stride_of(half_shape) : half_out;
    if (cols % 4 == 0 && cols <= VECTORS * 4 * THREADS) {
        const float4* of_delta = delta ? (const float4*)(delta + first) : nullptr;
        norm_vectors((float4*)(x + first), of_delta, (const float4*)weight, (float4*)(out + first), half_row, half_shape, cols, eps,
                     shared);
        return;
    }
    await_previous();
    float sum = 0.0f;
    for (u32 col = threadIdx.x; col < cols; col += THREADS) {
        float value = x[first + col];
        if (delta) {
            value += delta[first + col];
            x[first + col] = value;
        }
        sum = fmaf(value, value, sum);
    }
    sum = block_sum(sum, shared);
    float factor = 1.0f / sqrtf(sum / (float)cols + eps);
    for (u32 col = threadIdx.x; col < cols; col += THREADS) {
        float value = x[first + col] * factor * weight[col];
        out[first + col] = value;
        if (half_row) {
            half_row[activation_at(col, half_shape)] = activation(value);
        }
    }
}

// The f16 copy of rows. grid: rows, columns over 256.
KERNEL copy_to_half(const float* x, u16* half_out, u32 cols, u32 half_shape) {
    await_previous();
    u32 row = blockIdx.x, col = blockIdx.y * THREADS + threadIdx.x;
    if (col < cols) {
        half_out[(u64)row * stride_of(half_shape) + activation_at(col, half_shape)] = activation(x[(u64)row * cols + col]);
    }
}

KERNEL add(float* x, const float* delta, u64 len) {
    await_previous();
    u64 i = (u64)blockIdx.x * THREADS + threadIdx.x;
    if (i < len) {
        x[i] += delta[i];
    }
}

KERNEL scale(float* x, u64 len, float factor) {
    await_previous();
    u64 i = (u64)blockIdx.x * THREADS + threadIdx.x;
    if (i < len) {
        x[i] *= factor;
    }
}

KERNEL softcap(float* x, u64 len, float cap) {
    await_previous();
    u64 i = (u64)blockIdx.x * THREADS + threadIdx.x;
    if (i < len) {
        x[i] = cap * tanhf(x[i] / cap);
    }
}

INLINE float gated_value(float gate, float up, u32 act) {
    if (act == 0) {
        return gate / (1.0f + expf(-gate)) * up;
    }
    if (act == 1) {
        // 0.5 x (1 + tanh(y)) is x / (1 + exp(-2 y)).
        float y = 0.7978845608f * (gate + 0.044715f * gate * gate * gate);
        return gate / (1.0f + expf(-2.0f * y)) * up;
    }
    float x = min_f(gate, 7.0f);
    float u = min_f(max_f(up, -7.0f), 7.0f);
    return x / (1.0f + expf(-1.702f * x)) * (u + 1.0f);
}

// Of each row, act(gate) * up: SwiGLU (0), GeGLU (1), the clamped SwiGLU of gpt-oss (2). grid: rows, columns over 256.
KERNEL gated(const float* gate_up, float* out, u16* half_out, u32 cols, u32 half_shape, u32 act) {
    await_previous();
    u32 row = blockIdx.x, col = blockIdx.y * THREADS + threadIdx.x;
    if (col >= cols) {
        return;
    }
    const float* gate = gate_up + (u64)row * 2 * cols + col;
    float value = gated_value(gate[0], gate[cols], act);
    out[(u64)row * cols + col] = value;
    if (half_out) {
        half_out[(u64)row * stride_of(half_shape) + activation_at(col, half_shape)] = activation(value);
    }
}

// The same for many rows, where columns are a multiple of four: a thread takes four. grid: rows, columns over 1024.
KERNEL gated_many(const float* gate_up, float* out, u16* half_out, u32 cols, u32 half_shape, u32 act) {
    await_previous();
    u32 row = blockIdx.x, col = 4 * (blockIdx.y * THREADS + threadIdx.x);
    if (col >= cols) {
        return;
    }
    const float* gates = gate_up + (u64)row * 2 * cols + col;
    float4 gate = *(const float4*)gates, up = *(const float4*)(gates + cols);
    float4 value = {gated_value(gate.x, up.x, act), gated_value(gate.y, up.y, act), gated_value(gate.z, up.z, act),
                    gated_value(gate.w, up.w, act)};
    *(float4*)(out + (u64)row * cols + col) = value;
    if (half_out) {
        store_halves(half_out + (u64)row * stride_of(half_shape), half_shape, col, value);
    }
}

// Norms each head of the queries and keys. A warp takes a head; grid: heads, rows.
KERNEL norm_heads(float* qkv, const float* q_weight, const float* k_weight, u32 num_heads, u32 head_dim, u32 cols, float eps) {
    await_previous();
    float* head = qkv + (u64)blockIdx.y * cols + blockIdx.x * head_dim;
    const float* weight = blockIdx.x < num_heads ? q_weight : k_weight;
    float sum = 0.0f;
    for (u32 i = threadIdx.x; i < head_dim; i += 32) {
        sum = fmaf(head[i], head[i], sum);
    }
    float factor = 1.0f / sqrtf(warp_sum(sum) / (float)head_dim + eps);
    for (u32 i = threadIdx.x; i < head_dim; i += 32) {
        head[i] = head[i] * factor * weight[i];
    }
}

// Multiplies the queries of each row by the factor of its position.
KERNEL scale_queries(const u32* positions, const float* factors, float* qkv, u32 q_cols, u32 cols) {
    await_previous();
    u32 col = blockIdx.x * THREADS + threadIdx.x;
    if (col < q_cols) {
        qkv[(u64)blockIdx.y * cols + col] *= factors[positions[blockIdx.y]];
    }
}

// Rotates the queries of a head of a row in place, or stores the rotated keys or the values. Heads are those of queries, of keys, then of
// values. A warp takes a head. Without `table` nothing is rotated.
//   pages: [page][kv_head][page_size][head_dim]
INLINE void rope_store_head(const u32* positions, const u32* slots, const float* table, float* qkv, void* k_pages, void* v_pages,
                            u32 num_heads, u32 num_kv_heads, u32 head_dim, u32 page_size, u32 rope_dim, u32 halves, u32 is_half,
                            u32 row, u32 head) {
    u32 cols = (num_heads + 2 * num_kv_heads) * head_dim;
    float* x = qkv + (u64)row * cols + head * head_dim;
    bool is_query = head < num_heads, is_value = head >= num_heads + num_kv_heads;
    u32 slot = slots[row];
    u32 kv_head = is_query ? 0 : (head - num_heads) % num_kv_heads;
    u64 at = (((u64)(slot / page_size) * num_kv_heads + kv_head) * page_size + slot % page_size) * head_dim;
    void* pages = is_value ? v_pages : k_pages;
    u32 rotated = table && !is_value ? rope_dim : 0;
    const float* rotations = table + (u64)positions[row] * rope_dim;
    await_previous();
    for (u32 i = threadIdx.x & 31; i < head_dim / 2; i += 32) {
        // The pairs of rotated columns first, then the other columns, two at a time.
        u32 a, b;
        float x_a, x_b;
        if (i < rotated / 2) {
            a = halves ? i : 2 * i;
            b = halves ? i + rotated / 2 : 2 * i + 1;
            float c = rotations[2 * i], s = rotations[2 * i + 1];
            float p = x[a], q = x[b];
            x_a = p * c - q * s;
            x_b = p * s + q * c;
        } else {
            a = 2 * i;
            b = 2 * i + 1;
            x_a = x[a];
            x_b = x[b];
        }
        if (is_query) {
            x[a] = x_a;
            x[b] = x_b;
        } else if (is_half) {
            ((u16*)pages)[at + a] = to_half(x_a);
            ((u16*)pages)[at + b] = to_half(x_b);
        } else {
            ((float*)pages)[at + a] = x_a;
            ((float*)pages)[at + b] = x_b;
        }
    }
}

#define ROPE_STORE_KV(NAME, HEAD)                                                                                                 \
    KERNEL NAME(const u32* positions, const u32* slots, const float* table, float* qkv, void* k_pages, void* v_pages,             \
                u32 num_heads, u32 num_kv_heads, u32 head_dim, u32 page_size, u32 rope_dim, u32 halves, u32 is_half) {            \
        u32 head = HEAD;                                                                                                          \
        if (head < num_heads + 2 * num_kv_heads) {                                                                                \
            rope_store_head(positions, slots, table, qkv, k_pages, v_pages, num_heads, num_kv_heads, head_dim, page_size,         \
                            rope_dim, halves, is_half, blockIdx.y, head);                                                         \
        }                                                                                                                         \
    }
// grid: heads, rows; for many rows, heads over eight.
ROPE_STORE_KV(rope_store_kv, blockIdx.x)
ROPE_STORE_KV(rope_store_kv_many, blockIdx.x * (THREADS / 32) + (threadIdx.x >> 5))

// out[i] = x[wanted[i]]. A block takes 256 columns of a row.
KERNEL gather_rows(const u32* wanted, const float* x, float* out, u16* half_out, u32 cols, u32 half_shape) {
    await_previous();
    u32 col = blockIdx.x * THREADS + threadIdx.x;
    if (col < cols) {
        float value = x[(u64)wanted[blockIdx.y] * cols + col];
        out[(u64)blockIdx.y * cols + col] = value;
        if (half_out) {
            half_out[(u64)blockIdx.y * stride_of(half_shape) + activation_at(col, half_shape)] = activation(value);
        }
    }
}

// The best of a block of 256 threads: the highest key, of equal ones the first index.
INLINE void block_best(u32& key, u32& index, u32* keys, u32* indices) {
    __syncthreads();
    keys[threadIdx.x] = key;
    indices[threadIdx.x] = index;
    for (u32 step = THREADS / 2; step > 0; step >>= 1) {
        __syncthreads();
        if (threadIdx.x < step) {
            u32 other = keys[threadIdx.x + step], other_index = indices[threadIdx.x + step];
            if (other > keys[threadIdx.x] || (other == keys[threadIdx.x] && other_index < indices[threadIdx.x])) {
                keys[threadIdx.x] = other;
                indices[threadIdx.x] = other_index;
            }
        }
    }
    __syncthreads();
    key = keys[0];
    index = indices[0];
}

// The experts of each token by rank, and their weights. A block takes a token.
KERNEL route(const float* logits, u32* ids, float* weights, u32 experts, u32 top_k, float min_sum, float factor, u32 of_selected,
             u32 norm) {
    await_previous();
    __shared__ u32 keys[THREADS], indices[THREADS];
    __shared__ float shared[8];
    const float* x = logits + (u64)blockIdx.x * experts;
    u32* chosen = ids + blockIdx.x * top_k;
    // What was taken last: all that is left comes after it. No key is as high as this.
    u32 last_key = 0xffffffffu, last = 0, highest = 0;
    for (u32 rank = 0; rank < top_k; rank++) {
        u32 best = 0, index = 0;
        for (u32 expert = threadIdx.x; expert < experts; expert += THREADS) {
            u32 key = key_of(x[expert]);
            bool is_left = key < last_key || (key == last_key && expert > last);
            if (is_left && key > best) {
                best = key;
                index = expert;
            }
        }
        block_best(best, index, keys, indices);
        last_key = best;
        last = index;
        highest = rank == 0 ? last : highest;
        if (threadIdx.x == 0) {
            chosen[rank] = last;
        }
    }
    float largest = x[highest];
    float sum = 0.0f;
    for (u32 expert = threadIdx.x; expert < experts; expert += THREADS) {
        sum += expf(x[expert] - largest);
    }
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) {
        if (of_selected) {
            sum = 0.0f;
            for (u32 rank = 0; rank < top_k; rank++) {
                sum += expf(x[chosen[rank]] - largest);
            }
        }
        float total = 0.0f;
        for (u32 rank = 0; rank < top_k; rank++) {
            float weight = expf(x[chosen[rank]] - largest) / sum;
            total += weight;
            weights[blockIdx.x * top_k + rank] = weight;
        }
        total = norm ? max_f(total, min_sum) : 1.0f;
        for (u32 rank = 0; rank < top_k; rank++) {
            weights[blockIdx.x * top_k + rank] = weights[blockIdx.x * top_k + rank] / total * factor;
        }
    }
}

#define MAX_EXPERTS 512
// The pairs sorted by expert, and cut into groups of up to `group` pairs of one expert: their number, then of each its expert,
// its first place in the order, and its pairs. One block; the order of an expert's pairs is none that a result depends on.
KERNEL sort_pairs(const u32* ids, u32* order, u32* groups, u32 pairs, u32 experts, u32 group) {
    await_previous();
    __shared__ u32 counts[MAX_EXPERTS], places[MAX_EXPERTS], firsts[MAX_EXPERTS];
    for (u32 expert = threadIdx.x; expert < experts; expert += THREADS) {
        counts[expert] = 0;
    }
    __syncthreads();
    for (u32 pair = threadIdx.x; pair < pairs; pair += THREADS) {
        atomicAdd(&counts[ids[pair]], 1u);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        u32 place = 0, first = 0;
        for (u32 expert = 0; expert < experts; expert++) {
            places[expert] = place;
            firsts[expert] = first;
            place += counts[expert];
            first += (counts[expert] + group - 1) / group;
        }
        groups[0] = first;
    }
    __syncthreads();
    for (u32 expert = threadIdx.x; expert < experts; expert += THREADS) {
        u32 end = places[expert] + counts[expert], word = 1 + 3 * firsts[expert];
        for (u32 first = places[expert]; first < end; first += group) {
            groups[word] = expert;
            groups[word + 1] = first;
            groups[word + 2] = min_u(group, end - first);
            word += 3;
        }
    }
    __syncthreads();
    for (u32 pair = threadIdx.x; pair < pairs; pair += THREADS) {
        order[atomicAdd(&places[ids[pair]], 1u)] = pair;
    }
}

// out[t, j] = sum over ranks, in order, of weights[t, rank] * x[t * top_k + rank, j], then of the shared expert's output.
KERNEL combine_experts(const float* x, const float* weights, const float* shared_out, const float* gate, float* out, u32 cols,
                       u32 top_k) {
    await_previous();
    u32 token = blockIdx.y, col = blockIdx.x * THREADS + threadIdx.x;
    if (col >= cols) {
        return;
    }
    float sum = 0.0f;
    for (u32 rank = 0; rank < top_k; rank++) {
        u64 pair = (u64)token * top_k + rank;
        sum = fmaf(weights[pair], x[pair * cols + col], sum);
    }
    if (shared_out) {
        float factor = gate ? 1.0f / (1.0f + expf(-gate[token])) : 1.0f;
        sum = fmaf(factor, shared_out[(u64)token * cols + col], sum);
    }
    out[(u64)token * cols + col] = sum;
}
