// Q6_K: (q - 32) * (d * sc).
//
// word j of a block: values 8 j .. 8 j + 3 in the low nibbles, the next four in the high ones
// bits 8 p + 2 (i % 4) and up of high word i / 4: the fifth and sixth of byte p of values 4 i .. 4 i + 3
// a lane's half of a scale word: the signed scales of values 0 .. 15 and 16 .. 31, a byte each; super: d
@group(0) @binding(${QUANTS}) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(${HIGH}) var<storage, read> high: array<vec2<u32>>;
@group(0) @binding(${SCALES}) var<storage, read> scales: array<u32>;
@group(0) @binding(${SUPER}) var<storage, read> supers: array<u32>;

struct Raw {
    q: vec4<u32>,
    high: vec2<u32>,
    scale: u32,
    // Where in the word of two lanes this lane's half starts.
    shift: u32,
    // d and nothing.
    factors: u32,
}

struct Scale {
    // Of values 0 .. 15.
    first: V,
    // Of values 16 .. 31.
    second: V,
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
    let d = unpack2x16float(raw.factors).x;
    let first = d * f32(i32(both << 24u) >> 24u);
    let second = d * f32(i32(both << 16u) >> 24u);
    return Scale(V(first), V(second));
}

fn values0(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less((raw.q.x & 0x0f0f0f0fu) | ((raw.high.x << 4u) & 0x30303030u), 32.0) * scale.first;
}

fn values1(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less(((raw.q.x >> 4u) & 0x0f0f0f0fu) | ((raw.high.x << 2u) & 0x30303030u), 32.0) * scale.first;
}

fn values2(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less((raw.q.y & 0x0f0f0f0fu) | (raw.high.x & 0x30303030u), 32.0) * scale.first;
}

fn values3(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less(((raw.q.y >> 4u) & 0x0f0f0f0fu) | ((raw.high.x >> 2u) & 0x30303030u), 32.0) * scale.first;
}

fn values4(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less((raw.q.z & 0x0f0f0f0fu) | ((raw.high.y << 4u) & 0x30303030u), 32.0) * scale.second;
}

fn values5(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less(((raw.q.z >> 4u) & 0x0f0f0f0fu) | ((raw.high.y << 2u) & 0x30303030u), 32.0) * scale.second;
}

fn values6(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less((raw.q.w & 0x0f0f0f0fu) | (raw.high.y & 0x30303030u), 32.0) * scale.second;
}

fn values7(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less(((raw.q.w >> 4u) & 0x0f0f0f0fu) | ((raw.high.y >> 2u) & 0x30303030u), 32.0) * scale.second;
}
