// Gathering the parts of rows that the ranks of a group have computed. A rank's kernel writes to the memory of other cards, and reads it.
#include "common.cuh"

#define THREADS 256
#define MOST_RANKS 8
// Values of a rank's part that are sent; of more, the address is.
#define MOST_SENT 131072
// Looks at a word between two looks at whether a rank has left.
#define LOOKS 4096

// What a rank is sent, for gathers of odd and of even numbers. Words that are written together have the gather's number beside
// them, which says that they have come.
struct Inbox {
    // {low half, number, high half, number} of the address of a rank's part.
    uint4 parts[2][MOST_RANKS];
    // {value, number, next value, number}.
    uint4 values[2][MOST_RANKS][MOST_SENT / 2];
};

struct Gather {
    const float* part;  // [rows, columns of this rank]
    float* out;         // [rows, cols]
    u16* half;          // its f16 copy, or null
    const u32* left;    // not zero once a rank has left
    Inbox* inboxes[MOST_RANKS];
    u32 starts[MOST_RANKS + 2];  // the first column of each rank, and the number of all
    u32 rows, half_shape;
    u32 rank, ranks;
    u32 number, pad;  // of the gather, the same on all ranks, not zero
};

INLINE u32 width_of(const Gather& p, u32 rank) { return p.starts[rank + 1] - p.starts[rank]; }

// These go past the cache of the multiprocessor, which is not told of what other cards write.
INLINE uint4 look(const void* at) {
    uint4 v;
    asm volatile("ld.volatile.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(at) : "memory");
    return v;
}
INLINE u32 look_word(const void* at) {
    u32 v;
    asm volatile("ld.volatile.global.u32 %0, [%1];" : "=r"(v) : "l"(at) : "memory");
    return v;
}
INLINE void send(void* to, u32 low, u32 high, u32 number) {
    asm volatile("st.volatile.global.v4.u32 [%0], {%1, %2, %3, %2};" : : "l"(to), "r"(low), "r"(number), "r"(high) : "memory");
}

// Waits for words of this gather. False when a rank has left.
INLINE bool receive(const uint4* at, u32 number, const u32* left, u32& low, u32& high) {
    for (u32 looks = 1;; looks++) {
        uint4 v = look(at);
        if (v.y == number && v.w == number) {
            low = v.x;
            high = v.z;
            return true;
        }
        if (looks % LOOKS == 0 && look_word(left) != 0) {
            return false;
        }
    }
}

// Parts of few values: each rank sends its own to all others. A thread sends two values at a time, and takes as many.
INLINE void put(const Gather& p, u32 rank, u32 at, u32 word) {
    u32 width = width_of(p, rank), row = at / width, col = p.starts[rank] + at % width;
    if (row < p.rows) {
        float value = __uint_as_float(word);
        p.out[(u64)row * p.starts[p.ranks] + col] = value;
        if (p.half) {
            p.half[(u64)row * stride_of(p.half_shape) + activation_at(col, p.half_shape)] = activation(value);
        }
    }
}

KERNEL gather_few(const __grid_constant__ Gather p) {
    await_previous();
    u32 first = blockIdx.x * THREADS + threadIdx.x, step = gridDim.x * THREADS, parity = p.number & 1;
    u32 own = p.rows * width_of(p, p.rank);
    for (u32 pair = first; 2 * pair < own; pair += step) {
        u32 low = __float_as_uint(p.part[2 * pair]);
        u32 high = 2 * pair + 1 < own ? __float_as_uint(p.part[2 * pair + 1]) : 0;
        for (u32 rank = 0; rank < p.ranks; rank++) {
            if (rank != p.rank) {
                send(&p.inboxes[rank]->values[parity][p.rank][pair], low, high, p.number);
            }
        }
    }
    for (u32 at = first; at < own; at += step) {
        put(p, p.rank, at, __float_as_uint(p.part[at]));
    }
    for (u32 rank = 0; rank < p.ranks; rank++) {
        u32 values = rank != p.rank ? p.rows * width_of(p, rank) : 0;
        for (u32 pair = first; 2 * pair < values; pair += step) {
            u32 low, high;
            if (!receive(&p.inboxes[p.rank]->values[parity][rank][pair], p.number, p.left, low, high)) {
                return;
            }
            put(p, rank, 2 * pair, low);
            put(p, rank, 2 * pair + 1, high);
        }
    }
}

// Parts of many values: each rank says where its own is, and reads those of the others.
#define TOGETHER 4

INLINE u32 rank_of(const Gather& p, u32 col) {
    u32 rank = 0;
    while (col >= p.starts[rank + 1]) {
        rank++;
    }
    return rank;
}

INLINE void put_vector(const Gather& p, u32 row, u32 col, uint4 words) {
    float4 v = {__uint_as_float(words.x), __uint_as_float(words.y), __uint_as_float(words.z), __uint_as_float(words.w)};
    *(float4*)(p.out + (u64)row * p.starts[p.ranks] + col) = v;
    if (p.half) {
        u16* half = p.half + (u64)row * stride_of(p.half_shape);
        *(u32*)(half + activation_at(col, p.half_shape)) = activation(v.x) | (u32)activation(v.y) << 16;
        *(u32*)(half + activation_at(col + 2, p.half_shape)) = activation(v.z) | (u32)activation(v.w) << 16;
    }
}

KERNEL gather_many(const __grid_constant__ Gather p) {
    __shared__ u64 parts[MOST_RANKS];
    await_previous();
    u32 parity = p.number & 1;
    bool has_come = true;
    if (threadIdx.x < p.ranks) {
        u32 rank = threadIdx.x, low, high;
        u64 part = (u64)p.part;
        if (rank != p.rank) {
            if (blockIdx.x == 0) {
                __threadfence_system();
                send(&p.inboxes[rank]->parts[parity][p.rank], (u32)part, (u32)(part >> 32), p.number);
            }
            has_come = receive(&p.inboxes[p.rank]->parts[parity][rank], p.number, p.left, low, high);
            part = (u64)high << 32 | low;
            __threadfence_system();
        }
        parts[rank] = part;
    }
    if (!__syncthreads_and(has_come)) {
        return;
    }
    u32 cols = p.starts[p.ranks], unit = 4;
    for (u32 rank = 1; rank <= p.ranks; rank++) {
        unit = p.starts[rank] % 4 == 0 ? unit : 1;
    }
    u32 per_row = cols / unit, step = gridDim.x * THREADS;
    u32 all = p.rows * per_row;
    for (u32 first = blockIdx.x * THREADS + threadIdx.x; first < all; first += TOGETHER * step) {
        uint4 words[TOGETHER];
#pragma unroll
        for (u32 i = 0; i < TOGETHER; i++) {
            u32 at = first + i * step;
            if (at < all) {
                u32 row = at / per_row, col = at % per_row * unit, rank = rank_of(p, col);
                const float* from = (const float*)parts[rank] + (u64)row * width_of(p, rank) + (col - p.starts[rank]);
                if (unit == 4) {
                    words[i] = look(from);
                } else {
                    words[i].x = look_word(from);
                }
            }
        }
#pragma unroll
        for (u32 i = 0; i < TOGETHER; i++) {
            u32 at = first + i * step;
            if (at < all) {
                u32 row = at / per_row, col = at % per_row * unit;
                if (unit == 4) {
                    put_vector(p, row, col, words[i]);
                } else {
                    u32 rank = rank_of(p, col);
                    put(p, rank, row * width_of(p, rank) + (col - p.starts[rank]), words[i].x);
                }
            }
        }
    }
}
