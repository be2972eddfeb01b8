// Q4_0: (q - 8) * d.
#define OFFSET 8
#define PLANES {16, 0, 2, false}
struct Raw { uint4 q; u32 scale; };
template <typename P> INLINE Raw load(const P& p, u32 tile, u32 lane, u32) { return {quads(p, tile, lane), scale_half(p, tile, lane)}; }
INLINE Affine affine(const Raw& r) { return one(low_half(r.scale)); }
template <int I> INLINE u32 word(const Raw& r) { return nibbles<I>(r.q); }
