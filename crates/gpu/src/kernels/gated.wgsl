// out[i, j] = act(gate_up[i, j], gate_up[i, n + j]); a lane takes two neighbours.
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

//@if CLAMPED
fn act_times(gate: f32, up: f32) -> f32 {
    let x = min(gate, 7.0);
    return x / (1.0 + exp(-1.702 * x)) * (clamp(up, -7.0, 7.0) + 1.0);
}
//@else
//@if GELU
// 0.5 x (1 + tanh(y)) with y = sqrt(2 / pi) (x + 0.044715 x^3) is x / (1 + exp(-2 y)).
fn act_times(gate: f32, up: f32) -> f32 {
    let y = 0.7978845608 * (gate + 0.044715 * gate * gate * gate);
    return gate / (1.0 + exp(-2.0 * y)) * up;
}
//@else
fn act_times(gate: f32, up: f32) -> f32 {
    return gate / (1.0 + exp(-gate)) * up;
}
//@end
//@end

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y;
    let col = (group.x * 256u + lane) * 2u;
    if col >= imm.cols {
        return;
    }
    let gate = row * 2u * imm.cols + col;
    let a = act_times(gate_up[gate], gate_up[gate + imm.cols]);
    var b = 0.0;
    out[row * imm.cols + col] = a;
    if col + 1u < imm.cols {
        b = act_times(gate_up[gate + 1u], gate_up[gate + imm.cols + 1u]);
        out[row * imm.cols + col + 1u] = b;
    }
    //@if HALF
    half_out[row * imm.half_stride + col / 2u] = half_word(a, b);
    //@end
}
