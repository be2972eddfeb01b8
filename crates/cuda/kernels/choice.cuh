// What a token or an expert is chosen by: the highest of a row, or a draw. A draw follows `draw` of the crate `model` to the bit:
// shares of probability are whole numbers, so that a row's threads may add them in any order.
#pragma once
#include "common.cuh"

#define CHOICE_THREADS 1024
#define CHOICE_WARPS (CHOICE_THREADS / 32)
#define NO_TOKEN 0xffffffffu

// A number that is greater for a greater value. NaN counts as minus infinity, and plus infinity as the greatest number.
INLINE u32 key_of(float value) {
    u32 bits = __float_as_uint(value), magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) {
        return 0x80000000u - 0x7f800000u;
    }
    return bits >= 0x80000000u ? 0x80000000u - magnitude : 0x80000000u + min_u(magnitude, 0x7f7fffffu);
}

// Vectors of four columns that a thread of `argmax` has under way.
#define ARGMAX_VECTORS 4
#define NO_KEY (0x80000000u - 0x7f800000u)

// A key and a column as a number that is greater for a greater key and, of equal ones, the earlier column.
INLINE u64 candidate(float value, u32 col) {
    u32 key = key_of(value);
    return key > NO_KEY ? (u64)key << 32 | (0xffffffffu - col) : 0;
}
INLINE u64 max_u64(u64 a, u64 b) { return a > b ? a : b; }
INLINE u64 warp_best(u64 best) {
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) {
        best = max_u64(best, __shfl_xor_sync(0xffffffffu, best, step));
    }
    return best;
}

// The index of a row's highest value; NO_TOKEN of a row without any above minus infinity.
INLINE u32 block_argmax(const float* row, u32 cols) {
    __shared__ u64 bests[CHOICE_WARPS];
    u64 best = 0;
    u32 vectors = cols % 4 == 0 ? cols / 4 : 0;
    for (u32 first = threadIdx.x; first < vectors; first += ARGMAX_VECTORS * CHOICE_THREADS) {
        float4 values[ARGMAX_VECTORS];
#pragma unroll
        for (u32 i = 0; i < ARGMAX_VECTORS; i++) {
            values[i] = ((const float4*)row)[min_u(first + i * CHOICE_THREADS, vectors - 1)];
        }
#pragma unroll
        for (u32 i = 0; i < ARGMAX_VECTORS; i++) {
            u32 col = 4 * min_u(first + i * CHOICE_THREADS, vectors - 1);
            best = max_u64(best, candidate(values[i].x, col));
            best = max_u64(best, candidate(values[i].y, col + 1));
            best = max_u64(best, candidate(values[i].z, col + 2));
            best = max_u64(best, candidate(values[i].w, col + 3));
        }
    }
    for (u32 col = 4 * vectors + threadIdx.x; col < cols; col += CHOICE_THREADS) {
        best = max_u64(best, candidate(row[col], col));
    }
    best = warp_best(best);
    if ((threadIdx.x & 31) == 0) {
        bests[threadIdx.x >> 5] = best;
    }
    __syncthreads();
    best = warp_best(bests[threadIdx.x & 31]);
    return best ? 0xffffffffu - (u32)best : NO_TOKEN;
}

// The index of each row's highest value.
KERNEL __launch_bounds__(CHOICE_THREADS) argmax(const float* x, u32* out, u32 cols, u32 first_row) {
    await_previous();
    u32 index = block_argmax(x + (u64)(first_row + blockIdx.x) * cols, cols);
    if (threadIdx.x == 0) {
        out[blockIdx.x] = index;
    }
}

// Brackets are cut into so many parts at a time, of equal width.
#define PART_BITS 3
#define PARTS (1 << PART_BITS)

// How a token is chosen: `Draw` of the crate `model`, in words.
struct Draw { float temperature; u32 top_k; float top_p, min_p; u32 point_low, point_high; };

// Exponentials with the bits of `model::math::exp`.
INLINE float draw_exp(float x) {
    const float magic = 12582912.0f;
    float clamped = x < -87.3f ? -87.3f : x > 88.8f ? 88.8f : x;
    float shifted = clamped * 1.44269504088896340736f + magic;
    float n = shifted - magic;
    float r = (clamped - n * 0.6933594f) - n * -2.1219444e-4f;
    float p = 1.9875691e-4f;
    p = p * r + 1.3981999e-3f;
    p = p * r + 8.333452e-3f;
    p = p * r + 4.1665796e-2f;
    p = p * r + 1.6666665e-1f;
    p = p * r + 5e-1f;
    float e = (p * r * r + r) + 1.0f;
    int power = __float_as_int(shifted) - __float_as_int(magic), half = power >> 1;
    float y = e * __int_as_float((half + 127) << 23) * __int_as_float((power - half + 127) << 23);
    return x < -87.3f ? 0.0f : y;
}

// A number that is greater for a greater score, by all its bits; 0 for one that is impossible.
INLINE u32 order_key(float score) {
    u32 bits = __float_as_uint(score);
    return score > -__int_as_float(0x7f800000) ? bits ^ ((u32)((int)bits >> 31) | 0x80000000u) : 0;
}
INLINE float score_of(u32 key) {
    return __uint_as_float(key & 0x80000000u ? key ^ 0x80000000u : ~key);
}

// What a block's threads tell each other.
struct ChoiceShared {
    u64 sums[CHOICE_WARPS][PARTS];
    u64 totals[PARTS];
};

// The tokens that are left: those whose key is above `key`, and of those that have it the ones up to `token`.
struct Kept { u32 key, token; };
INLINE bool is_kept(const Kept& kept, u32 key, u32 token) {
    return key > kept.key || (key == kept.key && token <= kept.token);
}

struct Row {
    const float* logits;
    u32 cols;
    float highest, temperature;

    INLINE u32 key(u32 token) const {
        float logit = logits[token];
        // NaN is no greater than anything, so that it has no key.
        return order_key(logit > 3.40282347e38f ? 3.40282347e38f : logit);
    }
    INLINE float weight(u32 key) const { return draw_exp((score_of(key) - highest) / temperature); }
    INLINE u64 share(u32 key) const { return (u64)(weight(key) * 17592186044416.0f); }
};

INLINE u64 warp_total(u64 value) {
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) {
        value += __shfl_xor_sync(0xffffffffu, value, step);
    }
    return value;
}

// Sums over the block, the same in every thread.
template <int N> INLINE void block_totals(u64 (&sums)[N], ChoiceShared& shared) {
    __syncthreads();
#pragma unroll
    for (int i = 0; i < N; i++) {
        u64 sum = warp_total(sums[i]);
        if ((threadIdx.x & 31) == 0) {
            shared.sums[threadIdx.x >> 5][i] = sum;
        }
    }
    __syncthreads();
    if (threadIdx.x < 32) {
#pragma unroll
        for (int i = 0; i < N; i++) {
            u64 sum = warp_total(shared.sums[threadIdx.x][i]);
            if (threadIdx.x == 0) {
                shared.totals[i] = sum;
            }
        }
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < N; i++) {
        sums[i] = shared.totals[i];
    }
}

// The highest place, of 2^BITS, so that the values at it and above it add up to `wanted` or more; and what those above it add up
// to, and those at it. `visit(add)` calls `add(place, value)` for every token. All values add up to `wanted` at least.
template <int BITS, typename Visit>
INLINE u32 find_place(const Visit& visit, u64 wanted, u64& above, u64& at, ChoiceShared& shared) {
    u32 first = 0;
    above = 0;
    constexpr int ROUNDS = (BITS + PART_BITS - 1) / PART_BITS;
#pragma unroll 1
    for (int round = ROUNDS - 1; round >= 0; round--) {
        u32 shift = PART_BITS * round;
        u64 sums[PARTS] = {};
        visit([&](u32 place, u64 value) {
            // Places before the bracket give a part beyond all, like those behind it.
            u32 part = (place - first) >> shift;
            bool is_in = place >= first;
#pragma unroll
            for (u32 i = 0; i < PARTS; i++) {
                sums[i] += is_in && part == i ? value : 0;
            }
        });
        block_totals(sums, shared);
        u32 part = 0;
        u64 higher = 0;
#pragma unroll
        for (int i = PARTS - 1; i > 0; i--) {
            // Parts are taken from the top until they are enough.
            bool is_enough = above + higher + sums[i] >= wanted;
            if (part == 0) {
                if (is_enough) {
                    part = i;
                } else {
                    higher += sums[i];
                }
            }
        }
        above += higher;
        at = sums[0];
#pragma unroll
        for (int i = 1; i < PARTS; i++) {
            at = part == i ? sums[i] : at;
        }
        first += part << shift;
    }
    return first;
}

// As few of the best of the tokens that are kept as have `wanted` of the values, at least one.
template <typename Value>
INLINE Kept keep_best(const Row& row, const Kept& kept, u64 wanted, const Value& value, ChoiceShared& shared) {
    u64 above, at;
    u32 key = find_place<32>(
        [&](const auto& add) {
#pragma unroll 4
            for (u32 token = threadIdx.x; token < row.cols; token += CHOICE_THREADS) {
                u32 key = row.key(token);
                if (key && is_kept(kept, key, token)) {
                    add(key, value(key));
                }
            }
        },
        wanted, above, at, shared);
    // Of equal ones as many as it takes, in the order of their ids.
    u64 each = value(key), count = at / each, needed = (wanted - above + each - 1) / each;
    if (needed >= count) {
        return {key, key == kept.key ? kept.token : NO_TOKEN};
    }
    // From the last id on, so that the highest place is the lowest id.
    u32 place = find_place<32>(
        [&](const auto& add) {
#pragma unroll 4
            for (u32 token = threadIdx.x; token < row.cols; token += CHOICE_THREADS) {
                if (row.key(token) == key && is_kept(kept, key, token)) {
                    add(NO_TOKEN - 1 - token, 1);
                }
            }
        },
        needed, above, at, shared);
    return {key, NO_TOKEN - 1 - place};
}

// Where the shares, added in the order of ids, first exceed `wanted`: in spans of the ids, by warps, then in spans of these.
template <typename Share> INLINE u32 find_token(u32 cols, u64 wanted, const Share& share, ChoiceShared& shared) {
    u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5, first = 0, len = cols;
#pragma unroll 1
    while (len > 1) {
        u32 each = (len + CHOICE_WARPS - 1) / CHOICE_WARPS, begin = warp * each;
        u64 sum = 0;
        for (u32 i = begin + lane; i < min_u(begin + each, len); i += 32) {
            sum += share(first + i);
        }
        sum = warp_total(sum);
        __syncthreads();
        if (lane == 0) {
            shared.sums[warp][0] = sum;
        }
        __syncthreads();
        u32 span = CHOICE_WARPS - 1;
        u64 before = 0;
        for (u32 i = 0; i < CHOICE_WARPS; i++) {
            if (before + shared.sums[i][0] > wanted) {
                span = i;
                break;
            }
            before += shared.sums[i][0];
        }
        wanted -= before;
        first += span * each;
        len = min_u(each, len - span * each);
    }
    return first;
}

// The token that each row yields; 0xffffffff of a row without any logit above minus infinity. A block takes a row.
KERNEL __launch_bounds__(CHOICE_THREADS) draw(const float* x, const Draw* draws, u32* out, u32 cols) {
    await_previous();
    __shared__ ChoiceShared shared;
    Draw draw = draws[blockIdx.x];
    Row row = {x + (u64)blockIdx.x * cols, cols, 0.0f, draw.temperature};
    if (draw.temperature == 0.0f) {
        u32 token = block_argmax(row.logits, cols);
        if (threadIdx.x == 0) {
            out[blockIdx.x] = token;
        }
        return;
    }
    u32 best = 0;
    u64 count[1] = {0};
#pragma unroll 4
    for (u32 token = threadIdx.x; token < cols; token += CHOICE_THREADS) {
        u32 key = row.key(token);
        best = key > best ? key : best;
        count[0] += key != 0;
    }
    block_totals(count, shared);
    __shared__ u32 bests[CHOICE_WARPS];
    best = __reduce_max_sync(0xffffffffu, best);
    if ((threadIdx.x & 31) == 0) {
        bests[threadIdx.x >> 5] = best;
    }
    __syncthreads();
    best = __reduce_max_sync(0xffffffffu, bests[threadIdx.x & 31]);
    if (best == 0) {
        if (threadIdx.x == 0) {
            out[blockIdx.x] = NO_TOKEN;
        }
        return;
    }
    row.highest = score_of(best);
    // All that is possible: no key is lower than 1.
    Kept kept = {1, NO_TOKEN};
    if (draw.top_k > 0 && draw.top_k < count[0]) {
        kept = keep_best(row, kept, draw.top_k, [](u32) { return 1ull; }, shared);
    }
    auto share = [&](u32 token) -> u64 {
        u32 key = row.key(token);
        return key && is_kept(kept, key, token) ? row.share(key) : 0;
    };
    if (draw.top_p < 1.0f) {
        u64 total[1] = {0};
#pragma unroll 4
        for (u32 token = threadIdx.x; token < cols; token += CHOICE_THREADS) {
            total[0] += share(token);
        }
        block_totals(total, shared);
        u64 wanted = (u64)((double)draw.top_p * (double)total[0]);
        kept = keep_best(row, kept, wanted > 0 ? wanted : 1, [&](u32 key) { return row.share(key); }, shared);
    }
    auto drawn = [&](u32 token) -> u64 {
        u32 key = row.key(token);
        if (!key || !is_kept(kept, key, token)) {
            return 0;
        }
        float weight = row.weight(key);
        return weight >= draw.min_p ? (u64)(weight * 17592186044416.0f) : 0;
    };
    u64 total[1] = {0};
#pragma unroll 4
    for (u32 token = threadIdx.x; token < cols; token += CHOICE_THREADS) {
        total[0] += drawn(token);
    }
    block_totals(total, shared);
    u64 wanted = __umul64hi((u64)draw.point_high << 32 | draw.point_low, total[0]);
    u32 token = find_token(cols, wanted, drawn, shared);
    if (threadIdx.x == 0) {
        out[blockIdx.x] = token;
    }
}
