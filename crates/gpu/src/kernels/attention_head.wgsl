// What both fused kernels begin with. They say what the rows of q, k and v are arrays of: `QkvItem` and `CachedItem`.
//@include plan
@group(0) @binding(0) var<storage, read> plan: array<u32>;
@group(0) @binding(1) var<storage, read> qkv: array<QkvItem>;
@group(0) @binding(2) var<storage, read> k_pages: array<CachedItem>;
@group(0) @binding(3) var<storage, read> v_pages: array<CachedItem>;
@group(0) @binding(4) var<storage, read_write> out: array<vec2<f32>>;
//@if HALF
@group(0) @binding(5) var<storage, read_write> half_out: array<u32>;
//@include half
//@end
//@if SINKS
@group(0) @binding(${SINKS}) var<storage, read> sinks: array<f32>;
//@end
//@include attention_pages
//@include attention_partials
//@include attention_tile
//@include attention_out

struct Immediates {
    splits: u32,        // of the longest context
    half_stride: u32,
}
var<immediate> imm: Immediates;

// Keys (0) and values (1), for code that stands once for both.
fn pages0(at: u32) -> CachedItem {
    return k_pages[at];
}

fn pages1(at: u32) -> CachedItem {
    return v_pages[at];
}
