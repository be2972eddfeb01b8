// TQ1_0 and TQ2_0: (q - 1) * d.
//
// bits 8 p + 2 (i % 4) and up of word i / 4 of a block: those of byte p of values 4 i .. 4 i + 3
// super: d
@group(0) @binding(${QUANTS}) var<storage, read> quants: array<vec2<u32>>;
@group(0) @binding(${SUPER}) var<storage, read> supers: array<u32>;

struct Raw {
    q: vec2<u32>,
    // d and nothing.
    factors: u32,
}

struct Scale {
    d: V,
}

fn setup(local_index: u32) {}

fn load_raw(tile: u32, lane: u32, super_index: u32) -> Raw {
    return Raw(quants[tile * 32u + lane], supers[super_index]);
}

fn scale_of(raw: Raw) -> Scale {
    return Scale(V(unpack2x16float(raw.factors).x));
}

fn values0(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less(raw.q.x & 0x03030303u, 1.0) * scale.d;
}

fn values1(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less((raw.q.x >> 2u) & 0x03030303u, 1.0) * scale.d;
}

fn values2(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less((raw.q.x >> 4u) & 0x03030303u, 1.0) * scale.d;
}

fn values3(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less((raw.q.x >> 6u) & 0x03030303u, 1.0) * scale.d;
}

fn values4(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less(raw.q.y & 0x03030303u, 1.0) * scale.d;
}

fn values5(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less((raw.q.y >> 2u) & 0x03030303u, 1.0) * scale.d;
}

fn values6(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less((raw.q.y >> 4u) & 0x03030303u, 1.0) * scale.d;
}

fn values7(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less((raw.q.y >> 6u) & 0x03030303u, 1.0) * scale.d;
}
