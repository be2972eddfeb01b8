// What all kernels share: fixed-width types, f16 arithmetic without headers, and how activations lie as f16.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define INLINE __device__ __forceinline__
#define KERNEL extern "C" __global__ void

// Activations are kept as f16 of a sixteenth, so that the largest of real models (some 10^5) stay in range.
#define HALF_SCALE 0.0625f
#define HALF_MAX 65504.0f
// Columns that a warp multiplies at a time; rows of f16 activations are padded with zeros to whole chunks.
#define CHUNK 128

// A kernel may start while the one before it in the queue runs (compute capability 9.0): it must wait before it touches what others
// write. Until then it can load weights. It lets the next one start at once.
INLINE void await_previous() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

INLINE float min_f(float a, float b) { return a < b ? a : b; }
INLINE float max_f(float a, float b) { return a > b ? a : b; }
INLINE u32 min_u(u32 a, u32 b) { return a < b ? a : b; }

// The upper and the lower half of a word of f16, from f32.
INLINE u32 pack_half2(float low, float high) {
    u32 word;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
}
INLINE u16 to_half(float value) {
    u16 half;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
    return half;
}
INLINE float from_half(u16 half) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
    return value;
}
INLINE float low_half(u32 word) { return from_half((u16)word); }
INLINE float high_half(u32 word) { return from_half((u16)(word >> 16)); }

// An activation as f16, clamped to what f16 holds. NaN stays NaN.
INLINE u16 activation(float value) {
    float x = value * HALF_SCALE;
    x = x > HALF_MAX ? HALF_MAX : x;
    x = x < -HALF_MAX ? -HALF_MAX : x;
    return to_half(x);
}

// How rows of f16 activations lie: the halves of a row, and in the highest bit whether those of a step are together.
#define BY_STEPS 0x80000000u
INLINE u32 stride_of(u32 half_shape) { return half_shape & ~BY_STEPS; }

// Where a column lies in a row. Of a chunk's four blocks of 32 columns, a step of tensor cores multiplies four columns of each.
// By lanes: eight columns of each block in turn, so that the four lanes that share a token read neighbours. By steps: first two
// columns of each block, then two more: as tensor cores read them from shared memory.
INLINE u32 activation_at(u32 col, u32 half_shape) {
    u32 block = col >> 5 & 3;
    u32 by_lanes = (col >> 3 & 3) << 5 | block << 3 | (col & 7);
    u32 by_steps = (col >> 2 & 7) << 4 | (col >> 1 & 1) << 3 | block << 1 | (col & 1);
    return (col & ~127u) | (half_shape & BY_STEPS ? by_steps : by_lanes);
}

// Sums over the warp, the same in every lane: a tree of fixed shape.
INLINE float warp_sum(float value) {
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) {
        value += __shfl_xor_sync(0xffffffffu, value, step);
    }
    return value;
}
INLINE float warp_max(float value) {
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) {
        value = max_f(value, __shfl_xor_sync(0xffffffffu, value, step));
    }
    return value;
}
