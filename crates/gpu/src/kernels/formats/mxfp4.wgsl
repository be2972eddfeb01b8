// MXFP4: 2^(e - 128) * LEVELS[q], the levels being twice the floats E2M1.
//
// a lane's byte of a scale word: e
//@include formats/parts/nibbles
//@include formats/parts/level_quads
@group(0) @binding(${QUANTS}) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(${SCALES}) var<storage, read> scales: array<u32>;

struct Raw {
    q: vec4<u32>,
    scale: u32,
    // Where in the word of four lanes this lane's byte starts.
    shift: u32,
}

struct Scale {
    d: V,
}

fn all_levels() -> array<V, 16> {
    return array<V, 16>(
        0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0,
    );
}

fn load_raw(tile: u32, lane: u32, super_index: u32) -> Raw {
    return Raw(quants[tile * 32u + lane], scales[tile * 8u + (lane >> 2u)], (lane & 3u) * 8u);
}

fn scale_of(raw: Raw) -> Scale {
    let e = (raw.scale >> raw.shift) & 255u;
    // The two smallest are subnormal.
    let bits = select((e - 1u) << 23u, 0x00200000u << e, e < 2u);
    return Scale(V(bitcast<f32>(bits)));
}
