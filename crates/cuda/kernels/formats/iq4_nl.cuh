// IQ4_NL: LEVELS[q] * d; the levels are raised by 128.
#define OFFSET 128
#define PLANES {16, 0, 2, false}
struct Raw { uint4 q; u32 scale; };
template <typename P> INLINE Raw load(const P& p, u32 tile, u32 lane, u32) { return {quads(p, tile, lane), scale_half(p, tile, lane)}; }
INLINE Affine affine(const Raw& r) { return one(low_half(r.scale)); }
template <int I> INLINE u32 word(const Raw& r) {
    return levels(nibbles<I>(r.q), 0x3f2d1801u, 0x766a5d4fu, 0xa6998d81u, 0xf1d9c5b5u);
}
