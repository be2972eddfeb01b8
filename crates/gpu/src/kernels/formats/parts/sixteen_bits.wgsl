// Values of sixteen bits without a scale.
//
// word j of a block: values 2 j and 2 j + 1; words 0 .. 3 of all lanes, then the next four
// The format says what two words become: `quad`.
@group(0) @binding(${QUANTS}) var<storage, read> quants: array<vec4<u32>>;

struct Raw {
    q0: vec4<u32>,
    q1: vec4<u32>,
    q2: vec4<u32>,
    q3: vec4<u32>,
}

struct Scale {
    // A struct has fields.
    unused: V,
}

fn setup(local_index: u32) {}

fn load_raw(tile: u32, lane: u32, super_index: u32) -> Raw {
    return Raw(
        quants[tile * 128u + lane],
        quants[tile * 128u + 32u + lane],
        quants[tile * 128u + 64u + lane],
        quants[tile * 128u + 96u + lane],
    );
}

fn scale_of(raw: Raw) -> Scale {
    return Scale(1.0);
}

fn values0(raw: Raw, scale: Scale) -> V4 {
    return quad(raw.q0.x, raw.q0.y);
}

fn values1(raw: Raw, scale: Scale) -> V4 {
    return quad(raw.q0.z, raw.q0.w);
}

fn values2(raw: Raw, scale: Scale) -> V4 {
    return quad(raw.q1.x, raw.q1.y);
}

fn values3(raw: Raw, scale: Scale) -> V4 {
    return quad(raw.q1.z, raw.q1.w);
}

fn values4(raw: Raw, scale: Scale) -> V4 {
    return quad(raw.q2.x, raw.q2.y);
}

fn values5(raw: Raw, scale: Scale) -> V4 {
    return quad(raw.q2.z, raw.q2.w);
}

fn values6(raw: Raw, scale: Scale) -> V4 {
    return quad(raw.q3.x, raw.q3.y);
}

fn values7(raw: Raw, scale: Scale) -> V4 {
    return quad(raw.q3.z, raw.q3.w);
}
