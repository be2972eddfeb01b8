// out[t, j] is the sum over the ranks, in order, of weights[t, rank] * x[t * top_k + rank, j], and then of the shared expert's
// output, times the sigmoid of its gate.
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weights: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
//@if SHARED
@group(0) @binding(3) var<storage, read> shared_out: array<f32>;
//@end
//@if GATE
@group(0) @binding(4) var<storage, read> gate: array<f32>;
//@end

struct Immediates {
    cols: u32,
    top_k: u32,
}
var<immediate> imm: Immediates;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let token = group.y;
    let col = group.x * 256u + lane;
    if col >= imm.cols {
        return;
    }
    var sum = 0.0;
    for (var rank = 0u; rank < imm.top_k; rank++) {
        let pair = token * imm.top_k + rank;
        sum += weights[pair] * x[pair * imm.cols + col];
    }
    //@if SHARED
    //@if GATE
    sum += shared_out[token * imm.cols + col] / (1.0 + exp(-gate[token]));
    //@else
    sum += shared_out[token * imm.cols + col];
    //@end
    //@end
    out[token * imm.cols + col] = sum;
}
