// A block, 32 columns of a row of a matrix, as its format packs it into planes (crate `pack` draws them).
//
// A quantised format's header defines
//   PLANES, the bytes of a block in the planes of quants, high bits and scales, and whether there is one of words for 256 columns;
//   OFFSET, Raw, Raw load(planes, tile, lane, super_index), Affine affine(raw) and word<I>(raw):
//   the bytes q of weights 4 I, 4 I + 2, 4 I + 1, 4 I + 3; a weight is s * (q - OFFSET) + m.
#pragma once
#include "common.cuh"

// Scale and constant of weights 0 .. 15, and of 16 .. 31.
struct Affine {
    float s0, m0, s1, m1;
};

INLINE Affine one(float s, float m = 0.0f) { return {s, m, s, m}; }
INLINE Affine pair(float s0, float s1) { return {s0, 0.0f, s1, 0.0f}; }

INLINE uint4 stream(const uint4* p) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
}
INLINE uint2 stream(const uint2* p) {
    uint2 v;
    asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p));
    return v;
}

// The planes of a matrix in memory.
struct Planes {
    const u32* quants;
    const u32* high;
    const u32* scales;
    const u32* supers;

    INLINE uint4 get(const uint4* p) const { return stream(p); }
    INLINE uint2 get(const uint2* p) const { return stream(p); }
    INLINE u32 get(const u32* p) const { return __ldg(p); }
    INLINE u32 get(const u16* p) const { return __ldg(p); }
    INLINE u32 get(const u8* p) const { return __ldg(p); }
};

// The planes' elements of a lane of a tile.
template <typename P> INLINE uint4 quads(const P& p, u32 tile, u32 lane) { return p.get((const uint4*)p.quants + tile * 32 + lane); }
template <typename P> INLINE uint2 twins(const P& p, u32 tile, u32 lane) { return p.get((const uint2*)p.quants + tile * 32 + lane); }
template <typename P> INLINE u32 high_word(const P& p, u32 tile, u32 lane) { return p.get(p.high + tile * 32 + lane); }
template <typename P> INLINE uint2 high_twins(const P& p, u32 tile, u32 lane) { return p.get((const uint2*)p.high + tile * 32 + lane); }
template <typename P> INLINE u32 scale_byte(const P& p, u32 tile, u32 lane) { return p.get((const u8*)p.scales + tile * 32 + lane); }
template <typename P> INLINE u32 scale_half(const P& p, u32 tile, u32 lane) { return p.get((const u16*)p.scales + tile * 32 + lane); }
template <typename P> INLINE u32 scale_word(const P& p, u32 tile, u32 lane) { return p.get(p.scales + tile * 32 + lane); }
template <typename P> INLINE u32 super(const P& p, u32 super_index) { return p.get(p.supers + super_index); }

template <int I> INLINE u32 component(const uint4& q) { return I == 0 ? q.x : I == 1 ? q.y : I == 2 ? q.z : q.w; }
// Four-bit quants: word I of a block.
template <int I> INLINE u32 nibbles(const uint4& q) {
    u32 word = component<I / 2>(q);
    return (I % 2 ? word >> 4 : word) & 0x0f0f0f0fu;
}
// Two-bit ones.
template <int I> INLINE u32 twos(const uint2& q) { return (I < 4 ? q.x : q.y) >> (2 * (I % 4)) & 0x03030303u; }
// One bit of each weight, to bit TO.
template <int I, int TO> INLINE u32 ones(u32 bits) { return (I > TO ? bits >> (I > TO ? I - TO : 0) : bits << (I > TO ? 0 : TO - I)) & (0x01010101u << TO); }

INLINE float signed_byte(u32 byte) { return (float)(int)(signed char)byte; }

// Of 16 levels, bytes in four words, those that nibbles index: each lookup takes the low three bits of four nibbles.
INLINE u32 levels(u32 indices, u32 l0, u32 l1, u32 l2, u32 l3) {
    // The selector of `prmt` is a nibble a byte.
    u32 low = indices & 0x07070707u;
    u32 packed = (low | low >> 4) & 0x00ff00ffu;
    packed = (packed | packed >> 8) & 0xffffu;
    u32 first = __byte_perm(l0, l1, packed), second = __byte_perm(l2, l3, packed);
    u32 upper = (indices >> 3 & 0x01010101u) * 0xffu;
    return (first & ~upper) | (second & upper);
}
