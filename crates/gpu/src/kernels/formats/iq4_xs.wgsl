// IQ4_XS: (d * sc) * LEVELS[q].
//
// a lane's byte of a scale word: the signed scale; super: d
//@include formats/parts/nibbles
//@include formats/parts/iq4_levels
@group(0) @binding(${QUANTS}) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(${SCALES}) var<storage, read> scales: array<u32>;
@group(0) @binding(${SUPER}) var<storage, read> supers: array<u32>;

struct Raw {
    q: vec4<u32>,
    scale: u32,
    // Where in the word of four lanes this lane's byte starts.
    shift: u32,
    // d and nothing.
    factors: u32,
}

struct Scale {
    d: V,
}

fn load_raw(tile: u32, lane: u32, super_index: u32) -> Raw {
    return Raw(
        quants[tile * 32u + lane],
        scales[tile * 8u + (lane >> 2u)],
        (lane & 3u) * 8u,
        supers[super_index],
    );
}

fn scale_of(raw: Raw) -> Scale {
    let sc = i32((raw.scale >> raw.shift) << 24u) >> 24u;
    return Scale(V(unpack2x16float(raw.factors).x * f32(sc)));
}
