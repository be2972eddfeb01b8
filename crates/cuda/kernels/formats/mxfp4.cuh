// MXFP4: LEVELS[q] * 2^(e - 128), the levels being twice the floats E2M1, raised by 128.
#define OFFSET 128
#define PLANES {16, 0, 1, false}
struct Raw { uint4 q; u32 scale; };
template <typename P> INLINE Raw load(const P& p, u32 tile, u32 lane, u32) { return {quads(p, tile, lane), scale_byte(p, tile, lane)}; }
INLINE Affine affine(const Raw& r) {
    // The two smallest are subnormal.
    return one(__uint_as_float(r.scale < 2 ? 0x00200000u << r.scale : (r.scale - 1) << 23));
}
template <int I> INLINE u32 word(const Raw& r) {
    return levels(nibbles<I>(r.q), 0x83828180u, 0x8c888684u, 0x7d7e7f80u, 0x74787a7cu);
}
