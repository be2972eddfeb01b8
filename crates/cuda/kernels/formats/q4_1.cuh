// Q4_1: q * d + m.
#define OFFSET 0
#define PLANES {16, 0, 4, false}
struct Raw { uint4 q; u32 scale; };
template <typename P> INLINE Raw load(const P& p, u32 tile, u32 lane, u32) { return {quads(p, tile, lane), scale_word(p, tile, lane)}; }
INLINE Affine affine(const Raw& r) { return one(low_half(r.scale), high_half(r.scale)); }
template <int I> INLINE u32 word(const Raw& r) { return nibbles<I>(r.q); }
