// Points of lattices taken apart: LEVELS[q] * (d / 8 * sc), the levels being raised by 128; a half of scales has a byte for weights 0 .. 15 and one for
// 16 .. 31. The levels are the format's own.
#define OFFSET 128
#define PLANES {16, 0, 2, true}
struct Raw { uint4 q; u32 scale, factors; };
template <typename P> INLINE Raw load(const P& p, u64 tile, u32 lane, u64 super_index) {
    return {quads(p, tile, lane), scale_half(p, tile, lane), super(p, super_index)};
}
INLINE Affine affine(const Raw& r) {
    float d = low_half(r.factors) * 0.125f;
    return pair(d * (float)(r.scale & 255), d * (float)(r.scale >> 8));
}
