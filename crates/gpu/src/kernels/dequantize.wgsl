//@include enables
// All values of a matrix, as f32: out[row, col], rows padded to 16 and columns to 64. A workgroup takes a tile, a lane a
// block.
//@if F16
//@include values_f16
//@else
//@include values_f32
//@end
//@include ${FORMAT}
@group(0) @binding(${OUT}) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(32)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    setup(lane);
    workgroupBarrier();
    // Chunks of columns by tiles of rows.
    let chunks = groups.x;
    let super_index = (group.y * ((chunks + 3u) / 4u) + group.x / 4u) * 16u + lane / 2u;
    let raw = load_raw(group.y * chunks + group.x, lane, super_index);
    let scale = scale_of(raw);
    let row = group.y * 16u + lane / 2u;
    let first = (row * chunks + group.x) * 16u + (lane & 1u) * 8u;
    //@for i in 8
    out[first + ${i}u] = vec4<f32>(values${i}(raw, scale));
    //@end
}
