// Q5_1: q * d + m.
//
// word j of a block: values 8 j .. 8 j + 3 in the low nibbles, the next four in the high ones
// bit 8 p + i of a block's high word: the fifth bit of byte p of values 4 i .. 4 i + 3
@group(0) @binding(${QUANTS}) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(${HIGH}) var<storage, read> high: array<u32>;
@group(0) @binding(${SCALES}) var<storage, read> scales: array<u32>;

struct Raw {
    q: vec4<u32>,
    high: u32,
    scale: u32,
}

struct Scale {
    d: V,
    m: V,
}

fn setup(local_index: u32) {}

fn load_raw(tile: u32, lane: u32, super_index: u32) -> Raw {
    return Raw(quants[tile * 32u + lane], high[tile * 32u + lane], scales[tile * 32u + lane]);
}

fn scale_of(raw: Raw) -> Scale {
    let dm = half2(raw.scale);
    return Scale(dm.x, dm.y);
}

fn values0(raw: Raw, scale: Scale) -> V4 {
    return fma(bytes4((raw.q.x & 0x0f0f0f0fu) | ((raw.high << 4u) & 0x10101010u)), V4(scale.d), V4(scale.m));
}

fn values1(raw: Raw, scale: Scale) -> V4 {
    return fma(bytes4(((raw.q.x >> 4u) & 0x0f0f0f0fu) | ((raw.high << 3u) & 0x10101010u)), V4(scale.d), V4(scale.m));
}

fn values2(raw: Raw, scale: Scale) -> V4 {
    return fma(bytes4((raw.q.y & 0x0f0f0f0fu) | ((raw.high << 2u) & 0x10101010u)), V4(scale.d), V4(scale.m));
}

fn values3(raw: Raw, scale: Scale) -> V4 {
    return fma(bytes4(((raw.q.y >> 4u) & 0x0f0f0f0fu) | ((raw.high << 1u) & 0x10101010u)), V4(scale.d), V4(scale.m));
}

fn values4(raw: Raw, scale: Scale) -> V4 {
    return fma(bytes4((raw.q.z & 0x0f0f0f0fu) | (raw.high & 0x10101010u)), V4(scale.d), V4(scale.m));
}

fn values5(raw: Raw, scale: Scale) -> V4 {
    return fma(bytes4(((raw.q.z >> 4u) & 0x0f0f0f0fu) | ((raw.high >> 1u) & 0x10101010u)), V4(scale.d), V4(scale.m));
}

fn values6(raw: Raw, scale: Scale) -> V4 {
    return fma(bytes4((raw.q.w & 0x0f0f0f0fu) | ((raw.high >> 2u) & 0x10101010u)), V4(scale.d), V4(scale.m));
}

fn values7(raw: Raw, scale: Scale) -> V4 {
    return fma(bytes4(((raw.q.w >> 4u) & 0x0f0f0f0fu) | ((raw.high >> 3u) & 0x10101010u)), V4(scale.d), V4(scale.m));
}
