// The f16 copy of activations that came from the host.
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> half_out: array<u32>;

struct Immediates {
    cols: u32,
    half_stride: u32,
}
var<immediate> imm: Immediates;

//@include half

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = group.y * imm.cols;
    let col = (group.x * 256u + lane) * 2u;
    if col >= imm.cols {
        return;
    }
    var b = 0.0;
    if col + 1u < imm.cols {
        b = x[first + col + 1u];
    }
    half_out[group.y * imm.half_stride + col / 2u] = half_word(x[first + col], b);
}
