// Q5_K: q * (d * sc) - (dmin * min).
//
// word j of a block: values 8 j .. 8 j + 3 in the low nibbles, the next four in the high ones
// bit 8 p + i of a block's high word: the fifth bit of byte p of values 4 i .. 4 i + 3
// a lane's half of a scale word: the 6-bit scale and the 6-bit minimum, a byte each; super: d, dmin
@group(0) @binding(${QUANTS}) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(${HIGH}) var<storage, read> high: array<u32>;
@group(0) @binding(${SCALES}) var<storage, read> scales: array<u32>;
@group(0) @binding(${SUPER}) var<storage, read> supers: array<u32>;

struct Raw {
    q: vec4<u32>,
    high: u32,
    scale: u32,
    // Where in the word of two lanes this lane's half starts.
    shift: u32,
    // d and dmin.
    factors: u32,
}

struct Scale {
    d: V,
    m: V,
}

fn setup(local_index: u32) {}

fn load_raw(tile: u32, lane: u32, super_index: u32) -> Raw {
    return Raw(
        quants[tile * 32u + lane],
        high[tile * 32u + lane],
        scales[tile * 16u + (lane >> 1u)],
        (lane & 1u) * 16u,
        supers[super_index],
    );
}

fn scale_of(raw: Raw) -> Scale {
    let both = raw.scale >> raw.shift;
    let factors = unpack2x16float(raw.factors);
    return Scale(V(factors.x * f32(both & 0xffu)), V(factors.y * f32((both >> 8u) & 0xffu)));
}

fn values0(raw: Raw, scale: Scale) -> V4 {
    return fma(bytes4((raw.q.x & 0x0f0f0f0fu) | ((raw.high << 4u) & 0x10101010u)), V4(scale.d), V4(-scale.m));
}

fn values1(raw: Raw, scale: Scale) -> V4 {
    return fma(bytes4(((raw.q.x >> 4u) & 0x0f0f0f0fu) | ((raw.high << 3u) & 0x10101010u)), V4(scale.d), V4(-scale.m));
}

fn values2(raw: Raw, scale: Scale) -> V4 {
    return fma(bytes4((raw.q.y & 0x0f0f0f0fu) | ((raw.high << 2u) & 0x10101010u)), V4(scale.d), V4(-scale.m));
}

fn values3(raw: Raw, scale: Scale) -> V4 {
    return fma(bytes4(((raw.q.y >> 4u) & 0x0f0f0f0fu) | ((raw.high << 1u) & 0x10101010u)), V4(scale.d), V4(-scale.m));
}

fn values4(raw: Raw, scale: Scale) -> V4 {
    return fma(bytes4((raw.q.z & 0x0f0f0f0fu) | (raw.high & 0x10101010u)), V4(scale.d), V4(-scale.m));
}

fn values5(raw: Raw, scale: Scale) -> V4 {
    return fma(bytes4(((raw.q.z >> 4u) & 0x0f0f0f0fu) | ((raw.high >> 1u) & 0x10101010u)), V4(scale.d), V4(-scale.m));
}

fn values6(raw: Raw, scale: Scale) -> V4 {
    return fma(bytes4((raw.q.w & 0x0f0f0f0fu) | ((raw.high >> 2u) & 0x10101010u)), V4(scale.d), V4(-scale.m));
}

fn values7(raw: Raw, scale: Scale) -> V4 {
    return fma(bytes4(((raw.q.w >> 4u) & 0x0f0f0f0fu) | ((raw.high >> 3u) & 0x10101010u)), V4(scale.d), V4(-scale.m));
}
