// Q8_0: (q - 128) * d, the bytes of the file raised by 128.
//
// word j of a block: values 4 j .. 4 j + 3; words 0 .. 3, then words 4 .. 7 of all lanes
//@include formats/parts/scale_d
@group(0) @binding(${QUANTS}) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(${SCALES}) var<storage, read> scales: array<u32>;

struct Raw {
    q0: vec4<u32>,
    q1: vec4<u32>,
    scale: u32,
    // Where in the word of two lanes this lane's half starts.
    shift: u32,
}

fn setup(local_index: u32) {}

fn load_raw(tile: u32, lane: u32, super_index: u32) -> Raw {
    return Raw(
        quants[tile * 64u + lane],
        quants[tile * 64u + 32u + lane],
        scales[tile * 16u + (lane >> 1u)],
        (lane & 1u) * 16u,
    );
}

fn values0(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less(raw.q0.x, 128.0) * scale.d;
}

fn values1(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less(raw.q0.y, 128.0) * scale.d;
}

fn values2(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less(raw.q0.z, 128.0) * scale.d;
}

fn values3(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less(raw.q0.w, 128.0) * scale.d;
}

fn values4(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less(raw.q1.x, 128.0) * scale.d;
}

fn values5(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less(raw.q1.y, 128.0) * scale.d;
}

fn values6(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less(raw.q1.z, 128.0) * scale.d;
}

fn values7(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less(raw.q1.w, 128.0) * scale.d;
}
