// Q6_K: (q - 32) * (d * sc). Bits 2 (i % 4) and up of the bytes of high word i / 4 are the fifth and sixth of word i.
#define OFFSET 32
#define PLANES {16, 8, 2, true}
struct Raw { uint4 q; uint2 high; u32 scale, factors; };
template <typename P> INLINE Raw load(const P& p, u32 tile, u32 lane, u32 super_index) {
    return {quads(p, tile, lane), high_twins(p, tile, lane), scale_half(p, tile, lane), super(p, super_index)};
}
INLINE Affine affine(const Raw& r) {
    float d = low_half(r.factors);
    return pair(d * signed_byte(r.scale), d * signed_byte(r.scale >> 8));
}
template <int I> INLINE u32 word(const Raw& r) { return nibbles<I>(r.q) | twos<I>(r.high) << 4; }
