// A copy of vectors, a few of them under way for each lane: as fast as memory goes.
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> out: array<vec4<u32>>;

struct Immediates {
    len: u32,          // in vectors, a multiple of 1024
}
var<immediate> imm: Immediates;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var first = group.x * 1024u; first < imm.len; first += groups.x * 1024u) {
        //@for i in 4
        let value${i} = x[first + ${i}u * 256u + lane];
        //@end
        //@for i in 4
        out[first + ${i}u * 256u + lane] = value${i};
        //@end
    }
}
