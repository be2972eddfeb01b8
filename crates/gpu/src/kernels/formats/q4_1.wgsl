// Q4_1: q * d + m.
//@include formats/parts/nibbles
//@include formats/parts/scale_d_m
@group(0) @binding(${QUANTS}) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(${SCALES}) var<storage, read> scales: array<u32>;

struct Raw {
    q: vec4<u32>,
    scale: u32,
}

fn setup(local_index: u32) {}

fn load_raw(tile: u32, lane: u32, super_index: u32) -> Raw {
    return Raw(quants[tile * 32u + lane], scales[tile * 32u + lane]);
}

fn low_quad(w: u32, scale: Scale) -> V4 {
    return fma(low_nibbles4_less(w, 0.0), V4(scale.d), V4(scale.m));
}

fn high_quad(w: u32, scale: Scale) -> V4 {
    return fma(high_nibbles4_less(w, 0.0), V4(scale.d), V4(scale.m));
}
