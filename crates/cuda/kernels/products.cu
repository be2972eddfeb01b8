// Embeddings and products of a block format: compiled once for each, with FORMAT the file of `formats`.
//
// One order of sums for every number of tokens. A row's columns are cut into chunks of 128, the chunks into eight leaves (leaf l takes
// chunks l n / 8 .. (l + 1) n / 8). A leaf is one chain of tensor-core products of 16 columns; then the leaves are added, from the
// first on. The kernels differ in which warp takes which leaf, not in what is added to what.
//
// Of a chunk, lane 4 g + j has columns 32 j .. 32 j + 31: of weights those of rows g and g + 8 of a tile of 16 rows, of activations those
// of token g of eight. Step i of a chunk's eight multiplies columns 4 i .. 4 i + 3 of every lane.
#include "block.cuh"
#include "tensor.cuh"
#include FORMAT
#ifndef FLOATS
#include "quantized.cuh"
#endif

#define LEAVES 8

struct Product {
    Planes planes;
    u64 expert_words[4]; // of an expert, in each plane
    const float* x;      // [tokens][cols], of F32 weights
    const u16* half;     // [tokens][stride_of(half_shape)]
    const float* bias;   // or null; of experts [expert][out_stride]
    float* out;          // [tokens][out_stride]
    const u32* order;    // the pairs by expert, or null
    const u32* groups;   // of pairs, as `sort_pairs` writes them
    u32 rows, cols, half_shape, tokens, out_stride, out_first, pairs_per_row;
    u32 splits;     // of the leaves, over blocks (wide kernels)
    float4* leaves; // of tiles, where there are several
    u32* arrivals;  // of the blocks of a tile; zeros between launches
};

// The tokens that a block takes, and the weights.
struct Group {
    u32 first, count, expert;
    Planes planes;
};

INLINE bool group_of(const Product& p, u32 size, Group& g) {
    g.expert = 0;
    g.planes = p.planes;
    if (!p.groups) {
        g.first = blockIdx.y * size;
        g.count = min_u(size, p.tokens - g.first);
        return true;
    }
    if (blockIdx.y >= p.groups[0]) {
        return false;
    }
    const u32* group = p.groups + 1 + 3 * blockIdx.y;
    g.expert = group[0];
    g.first = group[1];
    g.count = group[2];
    g.planes.quants += g.expert * p.expert_words[0];
    g.planes.high += g.expert * p.expert_words[1];
    g.planes.scales += g.expert * p.expert_words[2];
    g.planes.supers += g.expert * p.expert_words[3];
    return true;
}

// The row of activations of a place in the group, and that of the output.
INLINE u32 input_row(const Product& p, const Group& g, u32 place) {
    return p.order ? p.order[g.first + place] / p.pairs_per_row : g.first + place;
}
INLINE u32 output_row(const Product& p, const Group& g, u32 place) {
    return p.order ? p.order[g.first + place] : g.first + place;
}

struct Embedding {
    Planes planes;
    const u32* token_ids;
    float* out; // [tokens][cols]
    u32 cols;
};

template <int I> INLINE void embed_four(const Raw& raw, float* out, u32 col, u32 cols) {
    float w[4];
    four<I>(raw, w);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (col + 4 * I + i < cols) {
            out[col + 4 * I + i] = w[i];
        }
    }
}

// A thread takes a block. grid: blocks over 64, tokens.
KERNEL embed(Embedding e) {
    await_previous();
    u32 block = blockIdx.x * 64 + threadIdx.x, row = e.token_ids[blockIdx.y];
    if (32 * block >= e.cols) {
        return;
    }
    u32 tile = row / 16 * ((e.cols + 63) / 64) + block / 2;
    u32 super_index = (row / 16 * ((e.cols + 255) / 256) + block / 8) * 16 + row % 16;
    Raw raw = load(e.planes, tile, 2 * (row % 16) + block % 2, super_index);
    float* out = e.out + (u64)blockIdx.y * e.cols;
    embed_four<0>(raw, out, 32 * block, e.cols);
    embed_four<1>(raw, out, 32 * block, e.cols);
    embed_four<2>(raw, out, 32 * block, e.cols);
    embed_four<3>(raw, out, 32 * block, e.cols);
    embed_four<4>(raw, out, 32 * block, e.cols);
    embed_four<5>(raw, out, 32 * block, e.cols);
    embed_four<6>(raw, out, 32 * block, e.cols);
    embed_four<7>(raw, out, 32 * block, e.cols);
}

#ifndef RESULT_SCALE

// F32: a warp takes a row and four tokens at a time, a lane four columns of each 128; lanes are added in a tree of fixed shape.
// grid: rows over 8, groups of `size` tokens.
KERNEL float_product(Product p, u32 size) {
    await_previous();
    Group g;
    u32 row = blockIdx.x * 8 + (threadIdx.x >> 5), lane = threadIdx.x & 31;
    if (!group_of(p, size, g) || row >= p.rows) {
        return;
    }
    u32 tiles = (p.cols + 63) / 64;
    // Column 4 (lane % 16) of tile 2 c + lane / 16: of the tile's half (lane % 16) / 8, vector lane % 8.
    u32 half = lane % 16 / 8, vector = lane % 8;
    for (u32 first = 0; first < g.count; first += 4) {
        float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        const float* x[4];
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            x[i] = p.x + (u64)input_row(p, g, min_u(first + i, g.count - 1)) * p.cols;
        }
        for (u32 tile = lane / 16; tile < tiles; tile += 2) {
            u32 col = 64 * tile + 4 * (lane % 16);
            if (col >= p.cols) {
                break;
            }
            u64 at = ((u64)(row / 16) * tiles + tile) * 256 + 32 * vector + 2 * (row % 16) + half;
            float4 w = __ldg((const float4*)g.planes.quants + at);
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                float sum = fmaf(w.x, x[i][col], sums[i]);
                sum = col + 1 < p.cols ? fmaf(w.y, x[i][col + 1], sum) : sum;
                sum = col + 2 < p.cols ? fmaf(w.z, x[i][col + 2], sum) : sum;
                sums[i] = col + 3 < p.cols ? fmaf(w.w, x[i][col + 3], sum) : sum;
            }
        }
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            float sum = warp_sum(sums[i]);
            if (lane == 0 && first + i < g.count) {
                u32 at = p.out_first + row;
                sum = p.bias ? sum + p.bias[(u64)g.expert * p.out_stride + at] : sum;
                p.out[(u64)output_row(p, g, first + i) * p.out_stride + at] = sum;
            }
        }
    }
}

#else

// The operand of a chunk's step: 16 rows of 16 columns.
template <int I> INLINE void step_operands(const Prepared& upper, const Prepared& lower, u32 (&a)[4]) {
    operands<I>(upper, a[0], a[2]);
    operands<I>(lower, a[1], a[3]);
}

// Steps 2 J and 2 J + 1 of a chunk, with 16 rows and N times eight tokens.
template <int J, int N> INLINE void two_steps(float (*sums)[4], const Prepared& upper, const Prepared& lower, const uint4* x) {
    u32 a[4];
    step_operands<2 * J>(upper, lower, a);
#pragma unroll
    for (int n = 0; n < N; n++) {
        multiply(sums[n], a, x[n].x, x[n].y);
    }
    step_operands<2 * J + 1>(upper, lower, a);
#pragma unroll
    for (int n = 0; n < N; n++) {
        multiply(sums[n], a, x[n].z, x[n].w);
    }
}

// Where a warp's weights of a row tile lie.
struct Rows {
    u32 first_tile, first_super, tiles, lane;
};

INLINE Rows rows_of(u32 row_tile, u32 cols) {
    u32 lane = threadIdx.x & 31, tiles = (cols + 63) / 64;
    return {row_tile * tiles, row_tile * ((cols + 255) / 256), tiles, lane};
}

// A lane's blocks of rows g and g + 8 in a chunk; zeros beyond the row.
INLINE void load_rows(const Planes& p, const Rows& r, u32 chunk, Raw& upper, Raw& lower) {
    u32 g = r.lane >> 2, tile = 2 * chunk + (r.lane >> 1 & 1), half = r.lane & 1;
    if (tile < r.tiles) {
        u32 super_index = (r.first_super + tile / 4) * 16 + g;
        upper = load(p, r.first_tile + tile, 2 * g + half, super_index);
        lower = load(p, r.first_tile + tile, 2 * g + 16 + half, super_index + 8);
    } else {
        upper = Raw{};
        lower = Raw{};
    }
}

// A lane's columns of steps 2 J and 2 J + 1 of a token's chunk, from where it reads first.
template <int J, bool LIE_BY_STEPS> INLINE uint4 activations(const u16* x) {
    if (LIE_BY_STEPS) {
        const u32* words = (const u32*)(x + 32 * J);
        return {words[0], words[4], words[8], words[12]};
    }
    return *(const uint4*)(x + 32 * J);
}

// 16 rows, N times eight tokens; each of eight warps takes a leaf. grid: row tiles, groups of tokens.
template <int N, bool LIE_BY_STEPS> INLINE void few_of(const Product& p, float (&leaves)[LEAVES][N * 8][16]) {
    Group g;
    if (p.groups) {
        await_previous();
    }
    if (!group_of(p, N * 8, g)) {
        return;
    }
    u32 leaf = threadIdx.x >> 5, lane = threadIdx.x & 31;
    u32 chunks = (p.cols + CHUNK - 1) / CHUNK;
    u32 chunk = leaf * chunks / LEAVES, end = (leaf + 1) * chunks / LEAVES;
    Rows rows = rows_of(blockIdx.x, p.cols);
    Raw upper, lower;
    if (chunk < end) {
        load_rows(g.planes, rows, chunk, upper, lower);
    }
    await_previous();
    const u16* x[N];
#pragma unroll
    for (u32 n = 0; n < N; n++) {
        u32 place = n * 8 + (lane >> 2);
        x[n] = place < g.count ? p.half + (u64)input_row(p, g, place) * stride_of(p.half_shape) + (LIE_BY_STEPS ? 2 : 8) * (lane & 3) : nullptr;
    }
    float sums[N][4] = {};
    for (; chunk < end; chunk++) {
        Prepared of_upper = prepare(upper), of_lower = prepare(lower);
        if (chunk + 1 < end) {
            load_rows(g.planes, rows, chunk + 1, upper, lower);
        }
#define STEPS(J)                                                                                                                  \
    {                                                                                                                             \
        uint4 b[N];                                                                                                               \
        _Pragma("unroll") for (u32 n = 0; n < N; n++) {                                                                           \
            b[n] = x[n] ? activations<J, LIE_BY_STEPS>(x[n] + chunk * CHUNK) : uint4{0, 0, 0, 0};                                  \
        }                                                                                                                         \
        two_steps<J, N>(sums, of_upper, of_lower, b);                                                                             \
    }
        STEPS(0) STEPS(1) STEPS(2) STEPS(3)
#undef STEPS
    }
    u32 row = lane >> 2, token = 2 * (lane & 3);
#pragma unroll
    for (u32 n = 0; n < N; n++) {
        leaves[leaf][n * 8 + token][row] = sums[n][0];
        leaves[leaf][n * 8 + token + 1][row] = sums[n][1];
        leaves[leaf][n * 8 + token][row + 8] = sums[n][2];
        leaves[leaf][n * 8 + token + 1][row + 8] = sums[n][3];
    }
    __syncthreads();
    for (u32 i = threadIdx.x; i < g.count * 16; i += 32 * LEAVES) {
        u32 place = i / 16, at = blockIdx.x * 16 + i % 16;
        if (at < p.rows) {
            float sum = 0.0f;
#pragma unroll
            for (u32 l = 0; l < LEAVES; l++) {
                sum += leaves[l][place][i % 16];
            }
            sum *= RESULT_SCALE;
            sum = p.bias ? sum + p.bias[(u64)g.expert * p.out_stride + p.out_first + at] : sum;
            p.out[(u64)output_row(p, g, place) * p.out_stride + p.out_first + at] = sum;
        }
    }
}

template <int N> INLINE void few(const Product& p) {
    __shared__ float leaves[LEAVES][N * 8][16];
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    // Of experts: the same activations may be for a wide kernel too.
    if (p.half_shape & BY_STEPS) {
        few_of<N, true>(p, leaves);
        return;
    }
#endif
    few_of<N, false>(p, leaves);
}

// As many blocks on a multiprocessor as registers allow without spills.
#ifdef FLOATS
#define BLOCKS 2
#else
#define BLOCKS 3
#endif
KERNEL __launch_bounds__(256, BLOCKS) product_8(Product p) { few<1>(p); }
KERNEL __launch_bounds__(256, 2) product_16(Product p) { few<2>(p); }
KERNEL __launch_bounds__(256, 2) product_32(Product p) { few<4>(p); }
KERNEL __launch_bounds__(256, 1) product_64(Product p) { few<8>(p); }

#define TOKENS 128
// Halves of a token's chunk in shared memory: so that the lanes that read together do so from different banks.
#define STRIDE (CHUNK + 32)

INLINE void copy_async(u16* to, const u16* from, bool is_there) {
    u32 address = (u32)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(is_there ? 16 : 0));
}

INLINE void copy_tokens(const Product& p, u16* to, u32 first, u32 chunk) {
#pragma unroll
    for (u32 i = 0; i < TOKENS * CHUNK / 8 / 256; i++) {
        u32 piece = i * 256 + threadIdx.x, token = piece / 16, col = piece % 16 * 8;
        bool is_there = first + token < p.tokens;
        u32 row = is_there ? first + token : 0;
        copy_async(to + token * STRIDE + col, p.half + (u64)row * stride_of(p.half_shape) + chunk * CHUNK + col, is_there);
    }
    asm volatile("cp.async.commit_group;");
}

// 128 rows and 128 tokens; a warp takes 32 rows and 64 tokens, and one leaf after the other. grid: groups of tokens, rows over 128.
KERNEL __launch_bounds__(256, 1) product_many(Product p) {
    extern __shared__ __align__(16) u16 stages[]; // [2][TOKENS][STRIDE]
    await_previous();
    u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    u32 first = blockIdx.x * TOKENS, first_tile = blockIdx.y * 8 + 2 * (warp & 3);
    u32 last_tile = (p.rows + 15) / 16 - 1, chunks = (p.cols + CHUNK - 1) / CHUNK;
    Rows rows[2] = {rows_of(min_u(first_tile, last_tile), p.cols), rows_of(min_u(first_tile + 1, last_tile), p.cols)};
    const u16* x = stages + ((warp >> 2) * 64 + (lane >> 2)) * STRIDE + 8 * (lane & 3);
    float sums[2][8][4] = {}, leaf[2][8][4] = {};
    u32 next_leaf = 1;
    copy_tokens(p, stages, first, 0);
    for (u32 chunk = 0; chunk < chunks; chunk++) {
        Prepared of_upper[2], of_lower[2];
#pragma unroll
        for (u32 m = 0; m < 2; m++) {
            Raw upper, lower;
            load_rows(p.planes, rows[m], chunk, upper, lower);
            of_upper[m] = prepare(upper);
            of_lower[m] = prepare(lower);
        }
        asm volatile("cp.async.wait_group 0;");
        __syncthreads();
        if (chunk + 1 < chunks) {
            copy_tokens(p, stages + (chunk + 1) % 2 * TOKENS * STRIDE, first, chunk + 1);
        }
        while (chunk == next_leaf * chunks / LEAVES) {
            // The next leaf begins.
#pragma unroll
            for (u32 m = 0; m < 2; m++) {
#pragma unroll
                for (u32 n = 0; n < 8; n++) {
#pragma unroll
                    for (u32 i = 0; i < 4; i++) {
                        sums[m][n][i] += leaf[m][n][i];
                        leaf[m][n][i] = 0.0f;
                    }
                }
            }
            next_leaf++;
        }
        const u16* of_chunk = x + chunk % 2 * TOKENS * STRIDE;
#define STEPS(J)                                                                                                                  \
    {                                                                                                                             \
        uint4 b[8];                                                                                                               \
        _Pragma("unroll") for (u32 n = 0; n < 8; n++) { b[n] = *(const uint4*)(of_chunk + n * 8 * STRIDE + 32 * J); }             \
        two_steps<J, 8>(leaf[0], of_upper[0], of_lower[0], b);                                                                    \
        two_steps<J, 8>(leaf[1], of_upper[1], of_lower[1], b);                                                                    \
    }
        STEPS(0) STEPS(1) STEPS(2) STEPS(3)
#undef STEPS
    }
    u32 token = first + (warp >> 2) * 64 + 2 * (lane & 3);
#pragma unroll
    for (u32 m = 0; m < 2; m++) {
#pragma unroll
        for (u32 n = 0; n < 8; n++) {
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                u32 row = (first_tile + m) * 16 + (lane >> 2) + i / 2 * 8, to = token + n * 8 + i % 2;
                if (row < p.rows && to < p.tokens) {
                    float sum = (sums[m][n][i] + leaf[m][n][i]) * RESULT_SCALE;
                    sum = p.bias ? sum + p.bias[p.out_first + row] : sum;
                    p.out[(u64)to * p.out_stride + p.out_first + row] = sum;
                }
            }
        }
    }
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#ifdef FLOATS
#include "wide_floats.cuh"
#else
#include "wide_quantized.cuh"
#endif
#endif

#endif
