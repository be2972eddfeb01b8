// F32, as it is.
//
// word j of a block: value j; words 0 .. 3 of all lanes, then the next four
@group(0) @binding(${QUANTS}) var<storage, read> quants: array<vec4<u32>>;

struct Raw {
    q0: vec4<u32>,
    q1: vec4<u32>,
    q2: vec4<u32>,
    q3: vec4<u32>,
    q4: vec4<u32>,
    q5: vec4<u32>,
    q6: vec4<u32>,
    q7: vec4<u32>,
}

struct Scale {
    // A struct has fields.
    unused: V,
}

fn setup(local_index: u32) {}

fn load_raw(tile: u32, lane: u32, super_index: u32) -> Raw {
    return Raw(
        quants[tile * 256u + lane],
        quants[tile * 256u + 32u + lane],
        quants[tile * 256u + 64u + lane],
        quants[tile * 256u + 96u + lane],
        quants[tile * 256u + 128u + lane],
        quants[tile * 256u + 160u + lane],
        quants[tile * 256u + 192u + lane],
        quants[tile * 256u + 224u + lane],
    );
}

fn scale_of(raw: Raw) -> Scale {
    return Scale(1.0);
}

fn values0(raw: Raw, scale: Scale) -> V4 {
    return V4(bitcast<vec4<f32>>(raw.q0));
}

fn values1(raw: Raw, scale: Scale) -> V4 {
    return V4(bitcast<vec4<f32>>(raw.q1));
}

fn values2(raw: Raw, scale: Scale) -> V4 {
    return V4(bitcast<vec4<f32>>(raw.q2));
}

fn values3(raw: Raw, scale: Scale) -> V4 {
    return V4(bitcast<vec4<f32>>(raw.q3));
}

fn values4(raw: Raw, scale: Scale) -> V4 {
    return V4(bitcast<vec4<f32>>(raw.q4));
}

fn values5(raw: Raw, scale: Scale) -> V4 {
    return V4(bitcast<vec4<f32>>(raw.q5));
}

fn values6(raw: Raw, scale: Scale) -> V4 {
    return V4(bitcast<vec4<f32>>(raw.q6));
}

fn values7(raw: Raw, scale: Scale) -> V4 {
    return V4(bitcast<vec4<f32>>(raw.q7));
}
