// MXFP4: 2^(e - 128) * LEVELS[q], the levels being twice the floats E2M1.
//
// a lane's byte of a scale word: e
//@include formats/parts/nibbles
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

// The levels, in memory that all of a workgroup read.
var<workgroup> mxfp4_levels: array<V, 16>;

fn setup(local_index: u32) {
    if local_index == 0u {
        mxfp4_levels = array<V, 16>(
            0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0,
        );
    }
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

fn mxfp4_levels4(w: u32) -> V4 {
    return V4(
        mxfp4_levels[w & 15u],
        mxfp4_levels[(w >> 16u) & 15u],
        mxfp4_levels[(w >> 8u) & 15u],
        mxfp4_levels[(w >> 24u) & 15u],
    );
}

fn low_quad(w: u32, scale: Scale) -> V4 {
    return mxfp4_levels4(w) * scale.d;
}

fn high_quad(w: u32, scale: Scale) -> V4 {
    return mxfp4_levels4(w >> 4u) * scale.d;
}
