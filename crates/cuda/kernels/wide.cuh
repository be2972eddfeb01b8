// Products with many tokens on cards whose tensor cores read tokens from shared memory themselves (compute capability 9.0). The
// order of sums is that of the other kernels: a step's 16 products and the sum so far are added in the same way by both
// instructions.
#pragma once

#define WIDE_ROWS 128
#define WIDE_THREADS 256

// Where a matrix of 16 columns and tokens of eight lies in shared memory: of a step, columns 0 .. 7 of all tokens, then columns
// 8 .. 15, each as pieces of eight tokens of 16 bytes.
INLINE u64 step_descriptor(u32 address, u32 tokens) {
    u64 between_halves = tokens * 16, between_pieces = 128;
    return (u64)(address >> 4 & 0x3fff) | (between_halves >> 4) << 16 | (between_pieces >> 4) << 32;
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
INLINE void multiply_wide(float (&c)[16][4], const u32* a, u64 tokens) {
    asm volatile(
        "{\n"
        ".reg .pred adds;\n"
        "setp.ne.b32 adds, 1, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
        "{%64, %65, %66, %67}, %68, adds, 1, 1, 0;\n"
        "}\n"
        : SUMS_OF_4(0), SUMS_OF_4(4), SUMS_OF_4(8), SUMS_OF_4(12)
        : WEIGHTS_AND_TOKENS);
}

// Step I of a chunk, queued: its weights and sums are not to be touched before `wide_wait`.
template <int I, int G>
INLINE void step_wide(float (&sums)[G][4], const Prepared& upper, const Prepared& lower, u32 stage) {
    u32 a[4];
    operands<I>(upper, a[0], a[2]);
    operands<I>(lower, a[1], a[3]);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
    multiply_wide(sums, a, step_descriptor(stage + I * G * 8 * 32, G * 8));
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

template <int G> INLINE void wide_wait(float (&sums)[G][4]) {
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
    for (int n = 0; n < G; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            asm volatile("" : "+f"(sums[n][i])::"memory");
        }
    }
}

// A warp's part of a chunk of G times eight tokens: pieces of eight tokens and 32 columns each.
template <int G> struct Pieces {
    static constexpr int COUNT = G / 2;
    uint4 words[COUNT];
    const u16* from;
    u32 token, tokens, stride;

    INLINE Pieces(const Product& p, u32 first) {
        u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
        token = first + warp / 4 * 8 + lane / 4;
        tokens = p.tokens;
        stride = p.half_stride;
        from = p.half + (u64)token * stride + warp % 4 * 32 + lane % 4 * 8;
    }
    INLINE void load(u32 chunk) {
#pragma unroll
        for (u32 i = 0; i < COUNT; i++) {
            bool is_there = token + 16 * i < tokens;
            words[i] = is_there ? *(const uint4*)(from + (u64)(16 * i) * stride + chunk * CHUNK) : uint4{0, 0, 0, 0};
        }
    }
    // A lane's words are two columns each of four matrices of eight tokens and eight columns.
    INLINE void store(u32 stage) const {
        u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
        u32 to = stage + ((warp % 4 * 4 + lane / 8) * G + warp / 4) * 128 + lane % 8 * 16;
#pragma unroll
        for (u32 i = 0; i < COUNT; i++) {
            asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to + i * 256),
                         "r"(words[i].x), "r"(words[i].y), "r"(words[i].z), "r"(words[i].w)
                         : "memory");
        }
        // What was written is for tensor cores to read.
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    }
};

template <int G> INLINE void store_leaf(const Product& p, u32 block, u32 leaf, const float (&sums)[G][4]) {
    float4* to = p.leaves + ((u64)block * LEAVES + leaf) * G * WIDE_THREADS + threadIdx.x;
#pragma unroll
    for (u32 n = 0; n < G; n++) {
        to[n * WIDE_THREADS] = {sums[n][0], sums[n][1], sums[n][2], sums[n][3]};
    }
}

// Adds the leaves of a tile, that several blocks have: the last of them to come here does.
template <int G> INLINE bool join_leaves(const Product& p, u32 tile, float (&sums)[G][4]) {
    __shared__ bool is_last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        is_last = atomicAdd(p.arrivals + tile, 1u) == p.splits - 1;
    }
    __syncthreads();
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

template <int G> INLINE void write_wide(const Product& p, u32 tile, u32 first, const float (&sums)[G][4]) {
    u32 lane = threadIdx.x & 31, row = tile * 16 + lane / 4, token = first + lane % 4 * 2;
#pragma unroll
    for (u32 n = 0; n < G; n++) {
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            u32 at = row + i / 2 * 8, to = token + n * 8 + i % 2;
            if (at < p.rows && to < p.tokens) {
                float sum = sums[n][i] * RESULT_SCALE;
                sum = p.bias ? sum + p.bias[p.out_first + at] : sum;
                p.out[(u64)to * p.out_stride + p.out_first + at] = sum;
            }
        }
    }
}

// A thread's sums of the leaves that it has, in shared memory between leaves.
template <int G> struct Sums {
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
template <int G> INLINE void wide(const Product& p) {
    constexpr u32 STAGE = G * 8 * CHUNK * 2;
    // Tokens are loaded two chunks ahead, where registers hold them.
    constexpr bool AHEAD = G != 8;
    extern __shared__ __align__(128) u8 shared[]; // Of tokens [2][CHUNK / 8][G][8][8], of sums [G][threads][4].
    u32 tile = blockIdx.y * (WIDE_ROWS / 16) + (threadIdx.x >> 5), first = blockIdx.x * G * 8;
    u32 block = blockIdx.y * gridDim.x + blockIdx.x, chunks = (p.cols + CHUNK - 1) / CHUNK;
    u32 leaf = blockIdx.z * LEAVES / p.splits, end_leaf = (blockIdx.z + 1) * LEAVES / p.splits;
    u32 chunk = leaf * chunks / LEAVES, end = end_leaf * chunks / LEAVES;
    Rows rows = rows_of(min_u(tile, (p.rows + 15) / 16 - 1), p.cols);
    Raw upper, lower;
    if (chunk < end) {
        load_rows(p.planes, rows, chunk, upper, lower);
    }
    await_previous();
    Pieces<G> pieces(p, first);
    Sums<G> sums(shared + 2 * STAGE);
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
    u32 stage = (u32)__cvta_generic_to_shared(shared), other = stage + STAGE;
    if (chunk < end) {
        pieces.load(chunk);
        pieces.store(stage);
    }
    if (AHEAD && chunk + 1 < end) {
        pieces.load(chunk + 1);
    }
    __syncthreads();
#pragma unroll(AHEAD ? 2 : 1)
    for (; chunk < end; chunk++) {
        Prepared of_upper = prepare(upper), of_lower = prepare(lower);
        bool is_more = chunk + 1 < end;
        if constexpr (AHEAD) {
            pieces.store(other);
            load_rows(p.planes, rows, min_u(chunk + 1, end - 1), upper, lower);
            pieces.load(min_u(chunk + 2, end - 1));
        } else if (is_more) {
            load_rows(p.planes, rows, chunk + 1, upper, lower);
            pieces.load(chunk + 1);
        }
        while (chunk == (leaf + 1) * chunks / LEAVES) {
            end_of_leaf();
        }
        step_wide<0>(products, of_upper, of_lower, stage);
        step_wide<1>(products, of_upper, of_lower, stage);
        step_wide<2>(products, of_upper, of_lower, stage);
        step_wide<3>(products, of_upper, of_lower, stage);
        step_wide<4>(products, of_upper, of_lower, stage);
        step_wide<5>(products, of_upper, of_lower, stage);
        step_wide<6>(products, of_upper, of_lower, stage);
        step_wide<7>(products, of_upper, of_lower, stage);
        if (!AHEAD && is_more) {
            pieces.store(other);
        }
        wide_wait(products);
        __syncthreads();
        u32 used = stage;
        stage = other;
        other = used;
    }
    while (leaf < end_leaf) {
        end_of_leaf();
    }
    if (p.splits == 1) {
        sums.read(products);
    } else if (!join_leaves(p, block, products)) {
        return;
    }
    write_wide(p, tile, first, products);
}

// Blocks of 64 tokens share a multiprocessor where registers allow.
#ifdef FLOATS
#define WIDE_BLOCKS 1
#else
#define WIDE_BLOCKS 2
#endif
KERNEL __launch_bounds__(WIDE_THREADS, WIDE_BLOCKS) product_wide_32(Product p) { wide<4>(p); }
KERNEL __launch_bounds__(WIDE_THREADS, WIDE_BLOCKS) product_wide_64(Product p) { wide<8>(p); }
KERNEL __launch_bounds__(WIDE_THREADS, 1) product_wide_128(Product p) { wide<16>(p); }
