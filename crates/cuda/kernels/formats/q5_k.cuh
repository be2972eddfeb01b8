// Q5_K: q * (d * sc) - dmin * min.
#define OFFSET 0
#define PLANES {16, 4, 2, true}
struct Raw { uint4 q; u32 high, scale, factors; };
template <typename P> INLINE Raw load(const P& p, u32 tile, u32 lane, u32 super_index) {
    return {quads(p, tile, lane), high_word(p, tile, lane), scale_half(p, tile, lane), super(p, super_index)};
}
INLINE Affine affine(const Raw& r) {
    return one(low_half(r.factors) * (float)(r.scale & 255), -high_half(r.factors) * (float)(r.scale >> 8));
}
template <int I> INLINE u32 word(const Raw& r) { return nibbles<I>(r.q) | ones<I, 4>(r.high); }
