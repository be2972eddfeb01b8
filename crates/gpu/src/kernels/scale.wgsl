// x *= factor; a lane takes an element.
@group(0) @binding(0) var<storage, read_write> x: array<f32>;

struct Immediates {
    len: u32,
    factor: f32,
}
var<immediate> imm: Immediates;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (group.y * groups.x + group.x) * 256u + lane;
    if i < imm.len {
        x[i] *= imm.factor;
    }
}
