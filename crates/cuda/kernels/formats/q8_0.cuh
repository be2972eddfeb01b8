// Q8_0: (q - 128) * d, the quants being raised to be unsigned. Words 0 .. 3 of all lanes, then the next four.
#define OFFSET 128
#define PLANES {32, 0, 2, false}
struct Raw { uint4 q0, q1; u32 scale; };
template <typename P> INLINE Raw load(const P& p, u32 tile, u32 lane, u32) {
    const uint4* q = (const uint4*)p.quants + tile * 64 + lane;
    return {p.get(q), p.get(q + 32), scale_half(p, tile, lane)};
}
INLINE Affine affine(const Raw& r) { return one(low_half(r.scale)); }
template <int I> INLINE u32 word(const Raw& r) { return component<I % 4>(I < 4 ? r.q0 : r.q1); }
