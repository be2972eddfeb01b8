// IQ4_NL: d * LEVELS[q].
//
// word j of a block: values 8 j .. 8 j + 3 in the low nibbles, the next four in the high ones
@group(0) @binding(${QUANTS}) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(${SCALES}) var<storage, read> scales: array<u32>;

struct Raw {
    q: vec4<u32>,
    scale: u32,
    // Where in the word of two lanes this lane's half starts.
    shift: u32,
}

struct Scale {
    d: V,
}

//@include iq4_levels

fn load_raw(tile: u32, lane: u32, super_index: u32) -> Raw {
    return Raw(quants[tile * 32u + lane], scales[tile * 16u + (lane >> 1u)], (lane & 1u) * 16u);
}

fn scale_of(raw: Raw) -> Scale {
    return Scale(half2(raw.scale >> raw.shift).x);
}

fn values0(raw: Raw, scale: Scale) -> V4 {
    return iq4_levels4(raw.q.x) * scale.d;
}

fn values1(raw: Raw, scale: Scale) -> V4 {
    return iq4_levels4(raw.q.x >> 4u) * scale.d;
}

fn values2(raw: Raw, scale: Scale) -> V4 {
    return iq4_levels4(raw.q.y) * scale.d;
}

fn values3(raw: Raw, scale: Scale) -> V4 {
    return iq4_levels4(raw.q.y >> 4u) * scale.d;
}

fn values4(raw: Raw, scale: Scale) -> V4 {
    return iq4_levels4(raw.q.z) * scale.d;
}

fn values5(raw: Raw, scale: Scale) -> V4 {
    return iq4_levels4(raw.q.z >> 4u) * scale.d;
}

fn values6(raw: Raw, scale: Scale) -> V4 {
    return iq4_levels4(raw.q.w) * scale.d;
}

fn values7(raw: Raw, scale: Scale) -> V4 {
    return iq4_levels4(raw.q.w >> 4u) * scale.d;
}
