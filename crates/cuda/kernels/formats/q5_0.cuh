// Q5_0: (q - 16) * d.
#define OFFSET 16
#define PLANES {16, 4, 2, false}
struct Raw { uint4 q; u32 high, scale; };
template <typename P> INLINE Raw load(const P& p, u32 tile, u32 lane, u32) {
    return {quads(p, tile, lane), high_word(p, tile, lane), scale_half(p, tile, lane)};
}
INLINE Affine affine(const Raw& r) { return one(low_half(r.scale)); }
template <int I> INLINE u32 word(const Raw& r) { return nibbles<I>(r.q) | ones<I, 4>(r.high); }
