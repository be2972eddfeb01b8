// Q2_K: q * (d * sc) - dmin * min. A half of scales has nibbles: scale and minimum of weights 0 .. 15, then of 16 .. 31.
#define OFFSET 0
#define PLANES {8, 0, 2, true}
struct Raw { uint2 q; u32 scale, factors; };
template <typename P> INLINE Raw load(const P& p, u32 tile, u32 lane, u32 super_index) {
    return {twins(p, tile, lane), scale_half(p, tile, lane), super(p, super_index)};
}
INLINE Affine affine(const Raw& r) {
    float d = low_half(r.factors), dmin = high_half(r.factors);
    return {d * (float)(r.scale & 15), -dmin * (float)(r.scale >> 4 & 15), d * (float)(r.scale >> 8 & 15),
            -dmin * (float)(r.scale >> 12 & 15)};
}
template <int I> INLINE u32 word(const Raw& r) { return twos<I>(r.q); }
