// Products of quantised weights with the most tokens, on compute capability 9.0: warps of their own have the copy engine bring weights
// and tokens to shared memory, several chunks ahead. The warps that multiply turn weights into f16 in registers, half a chunk ahead
// of tensor cores: their instructions are what limits them, so they compute no addresses of memory. The order of sums is that of
// the other kernels.
#pragma once
#include "wide.cuh"

struct BlockBytes {
    u32 quants, high, scales;
    bool has_supers;
};
constexpr BlockBytes OF_BLOCK = PLANES;

// Weights of a chunk's 16 rows in shared memory: as in memory, plane after plane. A tile of 64 columns has 32 blocks.
constexpr u32 OF_QUANTS = 32 * OF_BLOCK.quants, OF_HIGH = 32 * OF_BLOCK.high, OF_SCALES = 32 * OF_BLOCK.scales,
              OF_SUPERS = OF_BLOCK.has_supers ? 64 : 0, OF_TILE = OF_QUANTS + OF_HIGH + OF_SCALES;
constexpr u32 AT_HIGH = 2 * OF_QUANTS, AT_SCALES = AT_HIGH + 2 * OF_HIGH, AT_SUPERS = AT_SCALES + 2 * OF_SCALES,
              OF_ROWS = AT_SUPERS + OF_SUPERS;

// As the planes of `load`, in shared memory.
struct Brought : Planes {
    INLINE Brought(u32 at)
        : Planes{(const u32*)(u64)at, (const u32*)(u64)(at + AT_HIGH), (const u32*)(u64)(at + AT_SCALES), (const u32*)(u64)(at + AT_SUPERS)} {}
    INLINE uint4 get(const uint4* p) const {
        uint4 v;
        asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"((u32)(u64)p) : "memory");
        return v;
    }
    INLINE uint2 get(const uint2* p) const {
        uint2 v;
        asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"((u32)(u64)p) : "memory");
        return v;
    }
#define SHARED_WORD(T, TYPE)                                                                                                      \
    INLINE u32 get(const T* p) const {                                                                                            \
        u32 v;                                                                                                                    \
        asm volatile("ld.shared." TYPE " %0, [%1];" : "=r"(v) : "r"((u32)(u64)p) : "memory");                                      \
        return v;                                                                                                                 \
    }
    SHARED_WORD(u32, "u32")
    SHARED_WORD(u16, "u16")
    SHARED_WORD(u8, "u8")
#undef SHARED_WORD
};

// Copies bytes, a multiple of 16, that count for the barrier.
INLINE void copy_bytes(u32 to, const void* from, u32 bytes, u32 barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from), "r"(bytes),
                 "r"(barrier)
                 : "memory");
}

// Stages in shared memory, a chunk each: its tokens as in `Stages`, then its weights by warp.
template <int G> constexpr u32 OF_TOKENS = G * 8 * CHUNK * 2;
template <int G, int STAGES> using ChunkStages = Ring<(OF_TOKENS<G> + WIDE_ROWS / 16 * OF_ROWS + 1023) & ~1023u, STAGES>;

// A step of 64 rows. Without `adds`, what the sums were does not count.
INLINE void multiply_adding(float (&c)[16][4], const u32 (&a)[4], u64 tokens, u32 adds) {
    asm volatile(
        "{\n"
        ".reg .pred adds;\n"
        "setp.ne.b32 adds, %69, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
        "{%64, %65, %66, %67}, %68, adds, 1, 1, 0;\n"
        "}\n"
        : SUMS_OF_4(0), SUMS_OF_4(4), SUMS_OF_4(8), SUMS_OF_4(12)
        : WEIGHTS_AND_TOKENS, "r"(adds));
}

// The operands of half a chunk's four steps.
struct Operands { u32 of_step[4][4]; };

template <int HALF> INLINE void convert_half(const Prepared& upper, const Prepared& lower, Operands& to) {
    step_operands<4 * HALF>(upper, lower, to.of_step[0]);
    step_operands<4 * HALF + 1>(upper, lower, to.of_step[1]);
    step_operands<4 * HALF + 2>(upper, lower, to.of_step[2]);
    step_operands<4 * HALF + 3>(upper, lower, to.of_step[3]);
}

// Queues half a chunk: its operands are not to be touched before `await_all_but<N>`.
template <int G> INLINE void multiply_half(float (&sums)[G][4], const Operands& weights, u64 tokens, u32 adds) {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
    multiply_adding(sums, weights.of_step[0], tokens, adds);
    multiply_adding(sums, weights.of_step[1], tokens + 2, 1);
    multiply_adding(sums, weights.of_step[2], tokens + 4, 1);
    multiply_adding(sums, weights.of_step[3], tokens + 6, 1);
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Has chunk after chunk brought: one thread of each warp the weights of 16 rows, and a box of tokens.
template <int G, int STAGES> INLINE void bring(const Product& p, const TokenMap& map, const ChunkStages<G, STAGES>& stages, u32 first_chunk,
                                              u32 count) {
    u32 warp = __shfl_sync(0xffffffffu, (threadIdx.x - CONSUMERS) >> 5, 0);
    if (threadIdx.x % 32 != 0) {
        return;
    }
    u32 first = blockIdx.x * G * 8, half = warp % 2, token = warp / 2 * 32;
    bool brings_tokens = token < min_u(p.tokens - first, G * 8);
    Rows rows = rows_of(min_u(blockIdx.y * (WIDE_ROWS / 16) + warp, (p.rows + 15) / 16 - 1), p.cols);
    u32 of_rows = OF_TOKENS<G> + warp * OF_ROWS, of_tokens = half * G * 8 * 128 + token * 128;
    auto bring_weights = [&](u32 i, u32 stage) {
        u32 tile = 2 * (first_chunk + i), to = stages.at(stage) + of_rows, filled = stages.filled(stage);
        u32 tiles = min_u(rows.tiles - tile, 2);
        arrive_expecting(filled, tiles * OF_TILE + OF_SUPERS + (brings_tokens ? stages.BOX : 0));
        u64 at = rows.first_tile + tile;
        copy_bytes(to, (const u8*)p.planes.quants + at * OF_QUANTS, tiles * OF_QUANTS, filled);
        if (OF_HIGH) {
            copy_bytes(to + AT_HIGH, (const u8*)p.planes.high + at * OF_HIGH, tiles * OF_HIGH, filled);
        }
        if (OF_SCALES) {
            copy_bytes(to + AT_SCALES, (const u8*)p.planes.scales + at * OF_SCALES, tiles * OF_SCALES, filled);
        }
        if (OF_SUPERS) {
            copy_bytes(to + AT_SUPERS, p.planes.supers + (rows.first_super + tile / 4) * 16, OF_SUPERS, filled);
        }
    };
    u32 ahead = min_u(count, STAGES);
#pragma unroll 1
    for (u32 i = 0; i < ahead; i++) {
        bring_weights(i, i);
    }
    await_previous();
    // What others wrote is for the copy engine to read.
    asm volatile("fence.proxy.async.global;" ::: "memory");
    Turn<STAGES> turn{0, 1}; // the parity of the turn before
#pragma unroll 1
    for (u32 i = 0; i < count; i++) {
        if (i >= STAGES) {
            await(stages.used_up(turn.stage), turn.parity);
            bring_weights(i, turn.stage);
        }
        if (brings_tokens) {
            copy_box(stages.at(turn.stage) + of_tokens, map, (first_chunk + i) * CHUNK + 64 * half, first + token,
                     stages.filled(turn.stage));
        }
        turn.next();
    }
}

// Multiplies 64 rows a group of four warps with all tokens.
template <int G, int STAGES> INLINE void consume(const Product& p, const ChunkStages<G, STAGES>& stages, u32 leaf, u32 end_leaf) {
    u32 tile = blockIdx.y * (WIDE_ROWS / 16) + (threadIdx.x >> 5), block = blockIdx.y * gridDim.x + blockIdx.x;
    u32 chunks = (p.cols + CHUNK - 1) / CHUNK, lane = threadIdx.x & 31;
    u32 first_chunk = leaf * chunks / LEAVES, count = end_leaf * chunks / LEAVES - first_chunk;
    Sums<G, false> sums(nullptr);
    float products[G][4] = {};
    await_previous();
    // Chunks that are left of the leaf. Leaves without chunks are skipped.
    u32 left = 0;
    auto begin_leaf = [&] {
        for (; leaf < end_leaf; leaf++) {
            left = (leaf + 1) * chunks / LEAVES - leaf * chunks / LEAVES;
            if (left > 0) {
                break;
            }
            if (p.splits > 1) {
                const float none[G][4] = {};
                store_leaf(p, block, leaf, none);
            }
        }
    };
    begin_leaf();
    u32 of_rows = OF_TOKENS<G> + (threadIdx.x >> 5) * OF_ROWS;
    // Tiles that are there: beyond the row, weights are zero.
    u32 tiles = (p.cols + 63) / 64 - 2 * first_chunk, lane_tile = lane >> 1 & 1, place = (lane >> 2) * 2 + (lane & 1);
    Raw upper{}, lower{};
    auto take = [&](u32 stage, u32 i) {
        Brought planes(stages.at(stage) + of_rows);
        upper = load(planes, lane_tile, place, lane >> 2);
        lower = load(planes, lane_tile, place + 16, (lane >> 2) + 8);
        if (2 * i + lane_tile >= tiles) {
            upper = lower = Raw{};
        }
    };
    if (count > 0) {
        await(stages.filled(0), 0);
        take(0, 0);
    }
    Prepared of_upper = prepare(upper), of_lower = prepare(lower);
    Operands first, second;
    convert_half<0>(of_upper, of_lower, first);
    Turn<STAGES> turn;
    u32 last = 0, adds = 0;
#pragma unroll 1
    for (u32 i = 0; i < count; i++) {
        u64 tokens = step_descriptor(stages.at(turn.stage));
        multiply_half(products, first, tokens, adds);
        await_all_but<1>();
        if (adds && lane == 0) {
            arrive(stages.used_up(last));
        }
        convert_half<1>(of_upper, of_lower, second);
        multiply_half(products, second, tokens + (G * 8 * 128 >> 4), 1);
        last = turn.stage;
        turn.next();
        if (i + 1 < count) {
            await(stages.filled(turn.stage), turn.parity);
            take(turn.stage, i + 1);
        }
        await_all_but<1>();
        of_upper = prepare(upper), of_lower = prepare(lower);
        convert_half<0>(of_upper, of_lower, first);
        adds = 1;
        if (--left == 0) {
            await_sums(products);
            if (lane == 0) {
                arrive(stages.used_up(last));
            }
            adds = 0;
            if (p.splits > 1) {
                store_leaf(p, block, leaf, products);
            } else {
                sums.add(products);
            }
            leaf++;
            begin_leaf();
        }
    }
    await_all_but<0>();
    if (p.splits > 1 && !join_leaves<CONSUMERS>(p, block, sums.of_thread)) {
        return;
    }
    write_wide(p, tile, blockIdx.x * G * 8, sums.of_thread);
}

// Dynamic memory of a block (`MOST_WIDE_BYTES` of the host).
#define WIDE_BYTES (226 * 1024)

KERNEL __launch_bounds__(CONSUMERS + PRODUCERS, 1) product_wide_128(const __grid_constant__ Product p, const __grid_constant__ TokenMap map) {
    constexpr int G = 16, STAGES = (WIDE_BYTES - 1024) / ChunkStages<G, 1>::BYTES;
    auto multiply = [&](auto stages, u32 leaf, u32 end_leaf) { consume<G, STAGES>(p, stages, leaf, end_leaf); };
    auto bring_all = [&](auto stages, u32 first_chunk, u32 count) { bring<G, STAGES>(p, map, stages, first_chunk, count); };
    wide_by_parts<ChunkStages<G, STAGES>, STAGES, 224, 32>(p, WIDE_ROWS / 16, WIDE_ROWS / 16, multiply, bring_all);
}
