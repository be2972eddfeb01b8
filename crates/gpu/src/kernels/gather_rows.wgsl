//@include plan
// out[i] = x[wanted_rows[i]].
@group(0) @binding(0) var<storage, read> plan: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

struct Immediates {
    cols: u32,
}
var<immediate> imm: Immediates;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = plan[plan[PLAN_WANTED_ROWS] + group.x];
    for (var col = lane; col < imm.cols; col += 256u) {
        out[group.x * imm.cols + col] = x[row * imm.cols + col];
    }
}
