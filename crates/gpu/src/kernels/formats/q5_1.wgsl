// Q5_1: q * d + m.
//@include formats/parts/five_bits
//@include formats/parts/scale_d_m
@group(0) @binding(${QUANTS}) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(${HIGH}) var<storage, read> high: array<u32>;
@group(0) @binding(${SCALES}) var<storage, read> scales: array<u32>;

struct Raw {
    q: vec4<u32>,
    high: u32,
    scale: u32,
}

fn setup(local_index: u32) {}

fn load_raw(tile: u32, lane: u32, super_index: u32) -> Raw {
    return Raw(quants[tile * 32u + lane], high[tile * 32u + lane], scales[tile * 32u + lane]);
}

fn quad(bytes: u32, scale: Scale) -> V4 {
    return fma(bytes4(bytes), V4(scale.d), V4(scale.m));
}
