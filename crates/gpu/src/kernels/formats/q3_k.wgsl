// Q3_K: (q - 4) * (d * sc).
//
// bits 8 p + 2 (i % 4) and up of word i / 4 of a block: the first two of byte p of values 4 i .. 4 i + 3
// bit 8 p + i of a block's high word: the third bit of byte p of values 4 i .. 4 i + 3
// a lane's half of a scale word: the signed scales of values 0 .. 15 and 16 .. 31, a byte each; super: d
@group(0) @binding(${QUANTS}) var<storage, read> quants: array<vec2<u32>>;
@group(0) @binding(${HIGH}) var<storage, read> high: array<u32>;
@group(0) @binding(${SCALES}) var<storage, read> scales: array<u32>;
@group(0) @binding(${SUPER}) var<storage, read> supers: array<u32>;

struct Raw {
    q: vec2<u32>,
    high: u32,
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
    return bytes4_less((raw.q.x & 0x03030303u) | ((raw.high << 2u) & 0x04040404u), 4.0) * scale.first;
}

fn values1(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less(((raw.q.x >> 2u) & 0x03030303u) | ((raw.high << 1u) & 0x04040404u), 4.0) * scale.first;
}

fn values2(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less(((raw.q.x >> 4u) & 0x03030303u) | (raw.high & 0x04040404u), 4.0) * scale.first;
}

fn values3(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less(((raw.q.x >> 6u) & 0x03030303u) | ((raw.high >> 1u) & 0x04040404u), 4.0) * scale.first;
}

fn values4(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less((raw.q.y & 0x03030303u) | ((raw.high >> 2u) & 0x04040404u), 4.0) * scale.second;
}

fn values5(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less(((raw.q.y >> 2u) & 0x03030303u) | ((raw.high >> 3u) & 0x04040404u), 4.0) * scale.second;
}

fn values6(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less(((raw.q.y >> 4u) & 0x03030303u) | ((raw.high >> 4u) & 0x04040404u), 4.0) * scale.second;
}

fn values7(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less(((raw.q.y >> 6u) & 0x03030303u) | ((raw.high >> 5u) & 0x04040404u), 4.0) * scale.second;
}
