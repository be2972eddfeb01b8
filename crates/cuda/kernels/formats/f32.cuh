// F32: vectors of four weights, [tile][8][lane]. Products are sums of f32 multiply-adds.
#define FLOATS
struct Raw { float4 q[8]; };
template <typename P> INLINE Raw load(const P& p, u32 tile, u32 lane, u32) {
    Raw raw;
    for (int i = 0; i < 8; i++) {
        raw.q[i] = __ldg((const float4*)p.quants + tile * 256 + 32 * i + lane);
    }
    return raw;
}
template <int I> INLINE void four(const Raw& r, float* out) {
    out[0] = r.q[I].x, out[1] = r.q[I].y, out[2] = r.q[I].z, out[3] = r.q[I].w;
}
