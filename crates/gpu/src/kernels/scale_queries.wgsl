//@include plan
// Multiplies the queries of each row by the factor of its position; a lane takes an element.
//
//   row of qkv:  [q: num_heads * head_dim | k: num_kv_heads * head_dim | v: the same]
@group(0) @binding(0) var<storage, read> plan: array<u32>;
@group(0) @binding(1) var<storage, read> factors: array<f32>;
@group(0) @binding(2) var<storage, read_write> qkv: array<f32>;

struct Immediates {
    q_cols: u32,
    cols: u32,
}
var<immediate> imm: Immediates;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let col = group.x * 256u + lane;
    if col < imm.q_cols {
        qkv[group.y * imm.cols + col] *= factors[plan[plan[PLAN_POSITIONS] + group.y]];
    }
}
