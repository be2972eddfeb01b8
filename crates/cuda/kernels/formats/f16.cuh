// F16, as it is: vectors of eight weights, [tile][4][lane].
#define FLOATS
#define RESULT_SCALE (1.0f / HALF_SCALE)
struct Raw { uint4 q[4]; };
template <typename P> INLINE Raw load(const P& p, u32 tile, u32 lane, u32) {
    const uint4* q = (const uint4*)p.quants + tile * 128 + lane;
    return {{p.get(q), p.get(q + 32), p.get(q + 64), p.get(q + 96)}};
}
template <int I> INLINE void four(const Raw& r, float* out) {
    u32 a = component<2 * I % 4>(r.q[I / 2]), b = component<2 * I % 4 + 1>(r.q[I / 2]);
    out[0] = low_half(a), out[1] = high_half(a), out[2] = low_half(b), out[3] = high_half(b);
}
struct Prepared { Raw raw; };
INLINE Prepared prepare(const Raw& raw) { return {raw}; }
template <int I> INLINE void operands(const Prepared& p, u32& first, u32& second) {
    first = component<2 * I % 4>(p.raw.q[I / 2]);
    second = component<2 * I % 4 + 1>(p.raw.q[I / 2]);
}
