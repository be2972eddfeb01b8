// out[i, j] = silu(gate_up[i, j]) * gate_up[i, n + j]; a lane takes two neighbours.
@group(0) @binding(0) var<storage, read> gate_up: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
//@if HALF
@group(0) @binding(${HALF}) var<storage, read_write> half_out: array<u32>;
//@end

struct Immediates {
    cols: u32,
    half_stride: u32,
}
var<immediate> imm: Immediates;

//@include half

fn silu_times(gate: f32, up: f32) -> f32 {
    return gate / (1.0 + exp(-gate)) * up;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y;
    let col = (group.x * 256u + lane) * 2u;
    if col >= imm.cols {
        return;
    }
    let gate = row * 2u * imm.cols + col;
    let a = silu_times(gate_up[gate], gate_up[gate + imm.cols]);
    var b = 0.0;
    out[row * imm.cols + col] = a;
    if col + 1u < imm.cols {
        b = silu_times(gate_up[gate + 1u], gate_up[gate + imm.cols + 1u]);
        out[row * imm.cols + col + 1u] = b;
    }
    //@if HALF
    half_out[row * imm.half_stride + col / 2u] = half_word(a, b);
    //@end
}
