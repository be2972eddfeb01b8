// Q3_K: (q - 4) * (d * sc). A half of scales has a signed byte for weights 0 .. 15 and one for 16 .. 31.
#define OFFSET 4
#define PLANES {8, 4, 2, true}
struct Raw { uint2 q; u32 high, scale, factors; };
template <typename P> INLINE Raw load(const P& p, u32 tile, u32 lane, u32 super_index) {
    return {twins(p, tile, lane), high_word(p, tile, lane), scale_half(p, tile, lane), super(p, super_index)};
}
INLINE Affine affine(const Raw& r) {
    float d = low_half(r.factors);
    return pair(d * signed_byte(r.scale), d * signed_byte(r.scale >> 8));
}
template <int I> INLINE u32 word(const Raw& r) { return twos<I>(r.q) | ones<I, 2>(r.high); }
