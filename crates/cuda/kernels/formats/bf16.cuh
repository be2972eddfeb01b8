// BF16: vectors of eight weights, [tile][4][lane]. Products take them as f16, which is exact above 2^-18.
#define FLOATS
#define RESULT_SCALE 1.0f
struct Raw { uint4 q[4]; };
template <typename P> INLINE Raw load(const P& p, u32 tile, u32 lane, u32) {
    const uint4* q = (const uint4*)p.quants + tile * 128 + lane;
    return {{p.get(q), p.get(q + 32), p.get(q + 64), p.get(q + 96)}};
}
template <int I> INLINE void four(const Raw& r, float* out) {
    u32 a = component<2 * I % 4>(r.q[I / 2]), b = component<2 * I % 4 + 1>(r.q[I / 2]);
    out[0] = __uint_as_float(a << 16), out[1] = __uint_as_float(a & 0xffff0000u);
    out[2] = __uint_as_float(b << 16), out[3] = __uint_as_float(b & 0xffff0000u);
}
struct Prepared { Raw raw; };
INLINE Prepared prepare(const Raw& raw) { return {raw}; }
template <int I> INLINE void operands(const Prepared& p, u32& first, u32& second) {
    float w[4];
    four<I>(p.raw, w);
    first = pack_half2(w[0] / HALF_SCALE, w[1] / HALF_SCALE);
    second = pack_half2(w[2] / HALF_SCALE, w[3] / HALF_SCALE);
}
