// From a quantised block to f32, and to the operands of tensor cores.
#pragma once
#include "block.cuh"

// Weights become f16 of their sixteenfold, which undoes the scale of activations and keeps small scales normal.
#define RESULT_SCALE 1.0f

// Weights 4 I .. 4 I + 3.
template <int I> INLINE void four(const Raw& raw, float* out) {
    Affine a = affine(raw);
    float s = I < 4 ? a.s0 : a.s1, m = I < 4 ? a.m0 : a.m1;
    u32 bytes = word<I>(raw);
    const u32 q[4] = {bytes & 255, bytes >> 16 & 255, bytes >> 8 & 255, bytes >> 24};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        out[i] = fmaf(s, (float)((int)q[i] - OFFSET), m);
    }
}

// A block and its scales as pairs of f16.
struct Prepared {
    Raw raw;
    u32 s0, m0, s1, m1;
};

INLINE Prepared prepare(const Raw& raw) {
    Affine a = affine(raw);
    const float up = 1.0f / HALF_SCALE;
    return {raw, pack_half2(a.s0 * up, a.s0 * up), pack_half2(a.m0 * up, a.m0 * up), pack_half2(a.s1 * up, a.s1 * up),
            pack_half2(a.m1 * up, a.m1 * up)};
}

// Two bytes behind 0x64 are 1024 + q as f16.
INLINE u32 scaled(u32 q, u32 s, u32 m) {
    constexpr u32 half = 0x6400u + OFFSET;
    u32 out;
    asm("sub.f16x2 %0, %1, %2;" : "=r"(out) : "r"(q), "r"(half << 16 | half));
    asm("fma.rn.f16x2 %0, %0, %1, %2;" : "+r"(out) : "r"(s), "r"(m));
    return out;
}

// Weights 4 I and 4 I + 1, and the two after them.
template <int I> INLINE void operands(const Prepared& p, u32& first, u32& second) {
    u32 bytes = word<I>(p.raw), s = I < 4 ? p.s0 : p.s1, m = I < 4 ? p.m0 : p.m1;
    first = scaled(__byte_perm(bytes, 0x64646464u, 0x4240), s, m);
    second = scaled(__byte_perm(bytes, 0x64646464u, 0x4341), s, m);
}
