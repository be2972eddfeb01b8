// Products with many tokens on cards whose tensor cores read tokens from shared memory themselves (compute capability 9.0). The
// order of sums is that of the other kernels: a step's 16 products and the sum so far are added in the same way by both
// instructions.
#pragma once

#define WIDE_ROWS 128
#define WIDE_THREADS 256
// With the most tokens: threads of a block that multiply, and that bring what they multiply.
#define CONSUMERS 256
#define PRODUCERS 256

// Registers of a thread from here on, for a group of four warps: of what a block has, by what each group needs.
template <int N> INLINE void take_registers() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N)); }
template <int N> INLINE void give_registers() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N)); }

// A value that the compiler does not compute again.
INLINE u32 kept(u32 value) {
    asm volatile("" : "+r"(value));
    return value;
}

// Where a step's 16 columns of the tokens lie in shared memory: rows of 64 columns, eight tokens after eight, 16 bytes of a row in the
// order that the copy engine's swizzle of 128 bytes gives them.
INLINE u64 step_descriptor(u32 address) {
    u64 between_pieces = 1024, swizzle_128 = 1;
    return (u64)(address >> 4 & 0x3fff) | (between_pieces >> 4) << 32 | swizzle_128 << 62;
}

#define SUMS_OF(n) "+f"(c[n][0]), "+f"(c[n][1]), "+f"(c[n][2]), "+f"(c[n][3])
#define SUMS_OF_4(n) SUMS_OF(n), SUMS_OF(n + 1), SUMS_OF(n + 2), SUMS_OF(n + 3)
#define WEIGHTS_AND_TOKENS "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(tokens)

// A step of 64 rows: weights from registers, four of its warps' 16 rows each, tokens from shared memory.
INLINE void multiply_wide(float (&c)[4][4], const u32* a, u64 tokens) {
    asm volatile(
        "{\n"
        ".reg .pred adds;\n"
        "setp.ne.b32 adds, 1, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
        "{%16, %17, %18, %19}, %20, adds, 1, 1, 0;\n"
        "}\n"
        : SUMS_OF_4(0)
        : WEIGHTS_AND_TOKENS);
}
INLINE void multiply_wide(float (&c)[8][4], const u32* a, u64 tokens) {
    asm volatile(
        "{\n"
        ".reg .pred adds;\n"
        "setp.ne.b32 adds, 1, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "{%32, %33, %34, %35}, %36, adds, 1, 1, 0;\n"
        "}\n"
        : SUMS_OF_4(0), SUMS_OF_4(4)
        : WEIGHTS_AND_TOKENS);
}
// Step I of a chunk, queued: its weights and sums are not to be touched before `await_sums`. `tokens`: the chunk's.
template <int I, int G>
INLINE void step_wide(float (&sums)[G][4], const Prepared& upper, const Prepared& lower, u32 tokens) {
    u32 a[4];
    step_operands<I>(upper, lower, a);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
    multiply_wide(sums, a, step_descriptor(tokens + I / 4 * (G * 8 * 128) + I % 4 * 32));
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Waits until all is done but the last N groups that were queued.
template <int N> INLINE void await_all_but() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"); }

// Waits until what was queued is done.
template <int G> INLINE void await_sums(float (&sums)[G][4]) {
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
    for (int n = 0; n < G; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            asm volatile("" : "+f"(sums[n][i])::"memory");
        }
    }
}

// A barrier in shared memory, as its address: it turns over when so many threads have arrived and all bytes that were announced
// are there. `parity` is that of the turn that is waited for.
INLINE void make_barrier(u32 barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
INLINE void arrive(u32 barrier) { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory"); }
INLINE void arrive_expecting(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
INLINE void await(u32 barrier, u32 parity) {
    u32 is_over;
    do {
        asm volatile(
            "{\n"
            ".reg .pred over;\n"
            "mbarrier.try_wait.parity.shared::cta.b64 over, [%1], %2;\n"
            "selp.u32 %0, 1, 0, over;\n"
            "}\n"
            : "=r"(is_over)
            : "r"(barrier), "r"(parity)
            : "memory");
    } while (!is_over);
}

// What the copy engine knows of a buffer of tokens: the driver's words.
struct __align__(64) TokenMap { u64 words[16]; };

// Copies a box of 64 columns and 32 tokens; its bytes count for the barrier.
INLINE void copy_box(u32 to, const TokenMap& map, u32 col, u32 token, u32 barrier) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(to),
                 "l"(&map), "r"(col), "r"(token), "r"(barrier)
                 : "memory");
}

// Stages in shared memory that are filled and used up in turn, and two barriers for each.
template <u32 STAGE_BYTES, int STAGES> struct Ring {
    static constexpr u32 BYTES = STAGE_BYTES, BOX = 64 * 32 * 2; // of a stage, of a box of tokens
    u32 first, barriers;                                         // of each stage, that it is filled, then that it is used up

    INLINE u32 at(u32 stage) const { return first + stage * BYTES; }
    INLINE u32 filled(u32 stage) const { return barriers + 16 * stage; }
    INLINE u32 used_up(u32 stage) const { return barriers + 16 * stage + 8; }

    // By all threads; how many of them fill a stage, and use it up.
    INLINE void make(u32 fillers, u32 users) const {
        if (threadIdx.x == 0) {
            for (u32 stage = 0; stage < STAGES; stage++) {
                make_barrier(filled(stage), fillers);
                make_barrier(used_up(stage), users);
            }
            asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        }
        __syncthreads();
    }
};

// A stage, and the parity of its turn.
template <int STAGES> struct Turn {
    u32 stage = 0, parity = 0;
    INLINE void next() {
        if (++stage == STAGES) {
            stage = 0;
            parity ^= 1;
        }
    }
};

// The stages of a block's tokens in shared memory, chunk after chunk. Each warp has a box of them brought; two groups of four warps
// use them up, each at its own pace.
template <int G, int STAGES> struct Stages : Ring<G * 8 * CHUNK * 2, STAGES> {
    using Ring<G * 8 * CHUNK * 2, STAGES>::BOX;
    using Ring<G * 8 * CHUNK * 2, STAGES>::at;
    using Ring<G * 8 * CHUNK * 2, STAGES>::filled;
    using Ring<G * 8 * CHUNK * 2, STAGES>::used_up;
    // Chunks that are brought before they are used: one group may be a chunk ahead of the other without a wait.
    static constexpr u32 AHEAD = STAGES - 2;
    // A warp's box of the i-th of the block's chunks, by one of its threads.
    INLINE void fill(const TokenMap& map, u32 token, u32 chunk, u32 i) const {
        u32 stage = i % STAGES, box = box_of_warp(), half = box % 2, tokens = box / 2 * 32;
        await(used_up(stage), i / STAGES & 1 ^ 1);
        arrive_expecting(filled(stage), BOX);
        copy_box(at(stage) + half * G * 8 * 128 + tokens * 128, map, chunk * CHUNK + 64 * half, token + tokens, filled(stage));
    }
    // Which box of a chunk the warp brings: the boxes are spread over both groups, so that none falls behind.
    static INLINE u32 box_of_warp() { return (threadIdx.x >> 5) % 4 * 2 + (threadIdx.x >> 7); }
    INLINE void free(u32 stage) const {
        if (threadIdx.x % 128 == 0) {
            arrive(used_up(stage));
        }
    }
};

template <int G> INLINE void store_leaf(const Product& p, u32 block, u32 leaf, const float (&sums)[G][4]) {
    float4* to = p.leaves + ((u64)block * LEAVES + leaf) * G * WIDE_THREADS + threadIdx.x;
#pragma unroll
    for (u32 n = 0; n < G; n++) {
        to[n * WIDE_THREADS] = {sums[n][0], sums[n][1], sums[n][2], sums[n][3]};
    }
}

// A barrier of the first THREADS threads of a block.
template <int THREADS> INLINE void await_threads() { asm volatile("bar.sync 1, %0;" ::"n"(THREADS) : "memory"); }

// Adds the leaves of a tile, that several blocks have: the last of them to come here does.
template <int THREADS, int G> INLINE bool join_leaves(const Product& p, u32 tile, float (&sums)[G][4]) {
    __shared__ bool is_last;
    __threadfence();
    await_threads<THREADS>();
    if (threadIdx.x == 0) {
        is_last = atomicAdd(p.arrivals + tile, 1u) == p.splits - 1;
    }
    await_threads<THREADS>();
    if (!is_last) {
        return false;
    }
    __threadfence();
#pragma unroll
    for (u32 n = 0; n < G; n++) {
        float4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
        for (u32 leaf = 0; leaf < LEAVES; leaf++) {
            float4 part = __ldcg(p.leaves + (((u64)tile * LEAVES + leaf) * G + n) * WIDE_THREADS + threadIdx.x);
            sum = {sum.x + part.x, sum.y + part.y, sum.z + part.z, sum.w + part.w};
        }
        sums[n][0] = sum.x, sums[n][1] = sum.y, sums[n][2] = sum.z, sums[n][3] = sum.w;
    }
    if (threadIdx.x == 0) {
        p.arrivals[tile] = 0;
    }
    return true;
}

template <int G> INLINE void write_wide(const Product& p, u32 tile, u32 first, float (&sums)[G][4]) {
    u32 lane = threadIdx.x & 31, row = tile * 16 + lane / 4, token = first + lane % 4 * 2, at = p.out_first + row;
    bool has_upper = row < p.rows, has_lower = row + 8 < p.rows;
#pragma unroll
    for (u32 n = 0; n < G; n++) {
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            sums[n][i] *= RESULT_SCALE;
        }
    }
    if (p.bias) {
        float upper = has_upper ? p.bias[at] : 0.0f, lower = has_lower ? p.bias[at + 8] : 0.0f;
#pragma unroll
        for (u32 n = 0; n < G; n++) {
            sums[n][0] += upper, sums[n][1] += upper, sums[n][2] += lower, sums[n][3] += lower;
        }
    }
    float *to = p.out + (u64)token * p.out_stride + at, *next = to + p.out_stride;
    u64 eight_tokens = 8 * (u64)p.out_stride;
#pragma unroll
    for (u32 n = 0; n < G; n++) {
        bool has_first = token + n * 8 < p.tokens, has_second = token + n * 8 + 1 < p.tokens;
        if (has_first && has_upper) {
            to[0] = sums[n][0];
        }
        if (has_second && has_upper) {
            next[0] = sums[n][1];
        }
        if (has_first && has_lower) {
            to[8] = sums[n][2];
        }
        if (has_second && has_lower) {
            next[8] = sums[n][3];
        }
        to += eight_tokens, next += eight_tokens;
    }
}

// A thread's sums of the leaves that it has, in registers, or in shared memory where registers are for more blocks.
template <int G, bool IN_SHARED> struct Sums;
template <int G> struct Sums<G, false> {
    float of_thread[G][4] = {};

    INLINE Sums(void*) {}
    INLINE void add(const float (&leaf)[G][4]) {
#pragma unroll
        for (u32 n = 0; n < G; n++) {
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                of_thread[n][i] += leaf[n][i];
            }
        }
    }
    INLINE void read(float (&sums)[G][4]) const {
#pragma unroll
        for (u32 n = 0; n < G; n++) {
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                sums[n][i] = of_thread[n][i];
            }
        }
    }
};
template <int G> struct Sums<G, true> {
    float4* of_thread;

    INLINE Sums(void* shared) : of_thread((float4*)shared + threadIdx.x) {
#pragma unroll
        for (u32 n = 0; n < G; n++) {
            of_thread[n * WIDE_THREADS] = {0.0f, 0.0f, 0.0f, 0.0f};
        }
    }
    INLINE void add(const float (&leaf)[G][4]) {
#pragma unroll
        for (u32 n = 0; n < G; n++) {
            float4 sum = of_thread[n * WIDE_THREADS];
            of_thread[n * WIDE_THREADS] = {sum.x + leaf[n][0], sum.y + leaf[n][1], sum.z + leaf[n][2], sum.w + leaf[n][3]};
        }
    }
    INLINE void read(float (&sums)[G][4]) const {
#pragma unroll
        for (u32 n = 0; n < G; n++) {
            float4 sum = of_thread[n * WIDE_THREADS];
            sums[n][0] = sum.x, sums[n][1] = sum.y, sums[n][2] = sum.z, sums[n][3] = sum.w;
        }
    }
};

// 128 rows, G times eight tokens, and all leaves or some; a warp takes 16 rows.
// grid: groups of tokens, rows over 128, parts of the leaves.
template <int G, int STAGES, bool SUMS_IN_SHARED> INLINE void wide(const Product& p, const TokenMap& map) {
    extern __shared__ u8 shared[]; // From a multiple of 1024 on: tokens [STAGES][two times 64 columns][G][8][64], and the sums.
    __shared__ __align__(16) u64 barriers[2 * STAGES];
    u8* aligned = shared + (0u - shared_address(shared)) % 1024;
    Stages<G, STAGES> stages{{shared_address(aligned), shared_address(barriers)}};
    u32 tile = blockIdx.y * (WIDE_ROWS / 16) + (threadIdx.x >> 5), first = blockIdx.x * G * 8;
    u32 block = blockIdx.y * gridDim.x + blockIdx.x, chunks = (p.cols + CHUNK - 1) / CHUNK;
    u32 leaf = blockIdx.z * LEAVES / p.splits, end_leaf = (blockIdx.z + 1) * LEAVES / p.splits;
    u32 first_chunk = leaf * chunks / LEAVES, count = end_leaf * chunks / LEAVES - first_chunk;
    Rows rows = rows_of(min_u(tile, (p.rows + 15) / 16 - 1), p.cols);
    Raw upper{}, lower{};
    if (count > 0) {
        load_rows(p.planes, rows, first_chunk, upper, lower);
    }
    u32 boxes = (min_u(p.tokens - first, G * 8) + 31) / 32 * 2;
    stages.make(boxes, WIDE_THREADS / 128);
    await_previous();
    bool brings = threadIdx.x % 32 == 0 && stages.box_of_warp() < boxes;
    auto fill = [&](u32 i) {
        if (brings && i < count) {
            stages.fill(map, first, first_chunk + i, i);
        }
    };
    // What others wrote is for the copy engine to read.
    asm volatile("fence.proxy.async.global;" ::: "memory");
    for (u32 i = 0; i < stages.AHEAD; i++) {
        fill(i);
    }
    Sums<G, SUMS_IN_SHARED> sums(aligned + STAGES * stages.BYTES);
    float products[G][4] = {};
    auto end_of_leaf = [&] {
        if (p.splits == 1) {
            sums.add(products);
        } else {
            store_leaf(p, block, leaf, products);
        }
#pragma unroll
        for (u32 n = 0; n < G; n++) {
            products[n][0] = products[n][1] = products[n][2] = products[n][3] = 0.0f;
        }
        leaf++;
    };
#pragma unroll 1
    for (u32 i = 0; i < count; i++) {
        Prepared of_upper = prepare(upper), of_lower = prepare(lower);
        load_rows(p.planes, rows, first_chunk + min_u(i + 1, count - 1), upper, lower);
        while (first_chunk + i == (leaf + 1) * chunks / LEAVES) {
            end_of_leaf();
        }
        u32 stage = i % STAGES, tokens = stages.at(stage);
        await(stages.filled(stage), i / STAGES & 1);
        step_wide<0>(products, of_upper, of_lower, tokens);
        step_wide<1>(products, of_upper, of_lower, tokens);
        step_wide<2>(products, of_upper, of_lower, tokens);
        step_wide<3>(products, of_upper, of_lower, tokens);
        step_wide<4>(products, of_upper, of_lower, tokens);
        step_wide<5>(products, of_upper, of_lower, tokens);
        step_wide<6>(products, of_upper, of_lower, tokens);
        step_wide<7>(products, of_upper, of_lower, tokens);
        fill(i + stages.AHEAD);
        await_sums(products);
        stages.free(stage);
    }
    while (leaf < end_leaf) {
        end_of_leaf();
    }
    if (p.splits == 1) {
        sums.read(products);
    } else if (!join_leaves<WIDE_THREADS>(p, block, products)) {
        return;
    }
    write_wide(p, tile, first, products);
}

// Blocks of up to 64 tokens share a multiprocessor where registers allow.
#ifdef FLOATS
#define WIDE_BLOCKS 1
#else
#define WIDE_BLOCKS 2
#endif
#define WIDE(TOKENS, STAGES, BLOCKS, SUMS_IN_SHARED)                                                                              \
    KERNEL __launch_bounds__(WIDE_THREADS, BLOCKS)                                                                                \
        product_wide_##TOKENS(const __grid_constant__ Product p, const __grid_constant__ TokenMap map) {                          \
        wide<TOKENS / 8, STAGES, SUMS_IN_SHARED>(p, map);                                                                         \
    }
WIDE(32, 8, WIDE_BLOCKS, false)
WIDE(64, 4, WIDE_BLOCKS, true)

// 128 rows and the most tokens, all leaves or some, by a block with threads of two kinds: the first multiply what the others bring, in
// the stages of a ring. The registers of both are together those of a multiprocessor. grid: groups of tokens, rows over 128, parts of the
// leaves.
template <typename R, int STAGES, int CONSUMER_REGISTERS, int PRODUCER_REGISTERS, typename M, typename B>
INLINE void wide_by_parts(const Product& p, u32 fillers, u32 users, M multiply, B bring) {
    extern __shared__ u8 shared[]; // From a multiple of 1024 on, the stages.
    __shared__ __align__(16) u64 barriers[2 * STAGES];
    R ring{kept(shared_address(shared) + 1023 & ~1023u), kept(shared_address(barriers))};
    ring.make(fillers, users);
    u32 chunks = (p.cols + CHUNK - 1) / CHUNK;
    u32 leaf = blockIdx.z * LEAVES / p.splits, end_leaf = (blockIdx.z + 1) * LEAVES / p.splits;
    if (threadIdx.x < CONSUMERS) {
        take_registers<CONSUMER_REGISTERS>();
        multiply(ring, leaf, end_leaf);
    } else {
        give_registers<PRODUCER_REGISTERS>();
        u32 first_chunk = leaf * chunks / LEAVES;
        bring(ring, first_chunk, end_leaf * chunks / LEAVES - first_chunk);
    }
}
