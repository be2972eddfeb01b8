// Products of f16 and bf16 weights with the most tokens, on compute capability 9.0: warps of their own bring weights to shared memory,
// from where tensor cores read both operands. So the warps that multiply do little else. The order of sums is that of the other
// kernels.
#pragma once
#include "wide.cuh"

#define DESCRIPTORS "l"(weights), "l"(tokens), "r"(adds)

// A step of 64 rows, both operands from shared memory. Without `adds`, what the sums were does not count.
INLINE void multiply_shared(float (&c)[16][4], u64 weights, u64 tokens, u32 adds) {
    asm volatile(
        "{\n"
        ".reg .pred adds;\n"
        "setp.ne.b32 adds, %66, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
        "%64, %65, adds, 1, 1, 0, 0;\n"
        "}\n"
        : SUMS_OF_4(0), SUMS_OF_4(4), SUMS_OF_4(8), SUMS_OF_4(12)
        : DESCRIPTORS);
}

// Announces bytes that count for a barrier.
INLINE void expect(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

// Four matrices of 8x8 halves to shared memory, from where tensor cores read them too; a lane gives the address of a row.
INLINE void store_matrices(u32 address, const u32 (&m)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(m[0]), "r"(m[1]), "r"(m[2]), "r"(m[3])
                 : "memory");
}

// Half chunks in shared memory: of weights [128 rows][64], then of tokens [G * 8][64], both in the order that the copy engine's
// swizzle of 128 bytes gives them.
constexpr u32 OF_WEIGHTS = WIDE_ROWS * 128;
template <int G, int STAGES> using Halves = Ring<OF_WEIGHTS + G * 8 * 128, STAGES>;

template <int I> INLINE void store_step(u32 to, const Prepared& upper, const Prepared& lower) {
    u32 a[4];
    step_operands<I>(upper, lower, a);
    store_matrices(to ^ I % 4 * 32, a);
}

// Fills the stages, chunk after chunk. A warp turns 16 rows of weights into f16; the first of them have the tokens brought too.
template <int G, int STAGES> INLINE void produce(const Product& p, const TokenMap& map, const Halves<G, STAGES>& halves, u32 first_chunk,
                                                 u32 count) {
    // Chunks whose weights are under way from memory.
    constexpr u32 AHEAD = 2;
    u32 warp = (threadIdx.x - CONSUMERS) >> 5, lane = threadIdx.x & 31, first = blockIdx.x * G * 8;
    Rows rows = rows_of(min_u(blockIdx.y * (WIDE_ROWS / 16) + warp, (p.rows + 15) / 16 - 1), p.cols);
    Raw upper[AHEAD], lower[AHEAD];
#pragma unroll
    for (u32 i = 0; i < AHEAD; i++) {
        load_rows(p.planes, rows, first_chunk + min_u(i, count - 1), upper[i], lower[i]);
    }
    await_previous();
    // What others wrote is for the copy engine to read.
    asm volatile("fence.proxy.async.global;" ::: "memory");
    bool brings = lane == 0 && warp * 32 < min_u(p.tokens - first, G * 8);
    u32 to_tokens = OF_WEIGHTS + warp * halves.BOX;
    // Lane l has row l % 8 of matrix l / 8: the upper and lower eight rows of columns 0 .. 7 of a step, then of columns 8 .. 15.
    u32 row = warp * 16 + (lane >> 3 & 1) * 8 + (lane & 7), piece = lane >> 4 ^ (lane & 7);
    u32 to_row = row * 128 + piece * 16;
    Turn<STAGES> turn;
#pragma unroll 1
    for (u32 start = 0; start < count; start += AHEAD) {
#pragma unroll
        for (u32 slot = 0; slot < AHEAD; slot++) {
            u32 i = start + slot;
            if (i >= count) {
                break;
            }
            Turn<STAGES> second = turn;
            second.next();
            u32 stages[2] = {halves.at(turn.stage), halves.at(second.stage)};
            u32 filled[2] = {halves.filled(turn.stage), halves.filled(second.stage)};
            // Stages are used up in turn.
            await(halves.used_up(second.stage), second.parity ^ 1);
            if (brings) {
                u32 col = (first_chunk + i) * CHUNK;
                expect(filled[0], halves.BOX);
                copy_box(stages[0] + to_tokens, map, col, first + warp * 32, filled[0]);
                expect(filled[1], halves.BOX);
                copy_box(stages[1] + to_tokens, map, col + 64, first + warp * 32, filled[1]);
            }
            __syncwarp();
            Prepared of_upper = prepare(upper[slot]), of_lower = prepare(lower[slot]);
            store_step<0>(stages[0] + to_row, of_upper, of_lower);
            store_step<1>(stages[0] + to_row, of_upper, of_lower);
            store_step<2>(stages[0] + to_row, of_upper, of_lower);
            store_step<3>(stages[0] + to_row, of_upper, of_lower);
            store_step<4>(stages[1] + to_row, of_upper, of_lower);
            store_step<5>(stages[1] + to_row, of_upper, of_lower);
            store_step<6>(stages[1] + to_row, of_upper, of_lower);
            store_step<7>(stages[1] + to_row, of_upper, of_lower);
            __syncwarp();
            if (lane == 0) {
                arrive(filled[0]);
                arrive(filled[1]);
            }
            // Not before the blocks that it replaces are done with: a copy of them would wait for these loads.
            if (i + AHEAD < count) {
                load_rows(p.planes, rows, first_chunk + i + AHEAD, upper[slot], lower[slot]);
            }
            turn = second;
            turn.next();
        }
    }
}

// Multiplies what the stages bring: a group of four warps 64 rows with all tokens.
template <int G, int STAGES> INLINE void consume(const Product& p, const Halves<G, STAGES>& halves, u32 leaf, u32 end_leaf) {
    u32 tile = blockIdx.y * (WIDE_ROWS / 16) + (threadIdx.x >> 5), block = blockIdx.y * gridDim.x + blockIdx.x;
    u32 chunks = (p.cols + CHUNK - 1) / CHUNK;
    u32 group = __shfl_sync(0xffffffffu, threadIdx.x >> 7, 0), frees = threadIdx.x % 128 == 0;
    await_previous();
    Sums<G, false> sums(nullptr);
    float products[G][4] = {};
    Turn<STAGES> turn;
    for (; leaf < end_leaf; leaf++) {
        u32 count = 2 * ((leaf + 1) * chunks / LEAVES - leaf * chunks / LEAVES);
        if (count == 0) {
            if (p.splits > 1) {
                const float none[G][4] = {};
                store_leaf(p, block, leaf, none);
            }
            continue;
        }
        u32 last = 0;
#pragma unroll 1
        for (u32 i = 0; i < count; i++) {
            await(halves.filled(turn.stage), turn.parity);
            // What producers wrote is for tensor cores to read. Here, since it waits for all loads of a thread that are under way.
            asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
            u32 stage = halves.at(turn.stage);
            u64 weights = step_descriptor(stage + group * 64 * 128), tokens = step_descriptor(stage + OF_WEIGHTS);
            asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
            multiply_shared(products, weights, tokens, i);
            multiply_shared(products, weights + 2, tokens + 2, 1);
            multiply_shared(products, weights + 4, tokens + 4, 1);
            multiply_shared(products, weights + 6, tokens + 6, 1);
            asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
            if (i > 0) {
                await_all_but<1>();
                if (frees) {
                    arrive(halves.used_up(last));
                }
            }
            last = turn.stage;
            turn.next();
        }
        await_sums(products);
        if (frees) {
            arrive(halves.used_up(last));
        }
        if (p.splits > 1) {
            store_leaf(p, block, leaf, products);
            continue;
        }
        sums.add(products);
    }
    if (p.splits > 1 && !join_leaves<CONSUMERS>(p, block, sums.of_thread)) {
        return;
    }
    write_wide(p, tile, blockIdx.x * G * 8, sums.of_thread);
}

KERNEL __launch_bounds__(CONSUMERS + PRODUCERS, 1) product_wide_128(const __grid_constant__ Product p, const __grid_constant__ TokenMap map) {
    constexpr int G = 16, STAGES = 6;
    auto multiply = [&](auto halves, u32 leaf, u32 end_leaf) { consume<G, STAGES>(p, halves, leaf, end_leaf); };
    auto bring = [&](auto halves, u32 first_chunk, u32 count) {
        if (count > 0) {
            produce<G, STAGES>(p, map, halves, first_chunk, count);
        }
    };
    wide_by_parts<Halves<G, STAGES>, STAGES, 152, 104>(p, PRODUCERS / 32, CONSUMERS / 128, multiply, bring);
}
