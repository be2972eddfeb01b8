// TQ1_0 and TQ2_0: (q - 1) * d.
#define OFFSET 1
#define PLANES {8, 0, 0, true}
struct Raw { uint2 q; u32 factors; };
template <typename P> INLINE Raw load(const P& p, u32 tile, u32 lane, u32 super_index) { return {twins(p, tile, lane), super(p, super_index)}; }
INLINE Affine affine(const Raw& r) { return one(low_half(r.factors)); }
template <int I> INLINE u32 word(const Raw& r) { return twos<I>(r.q); }
