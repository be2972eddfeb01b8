//@include enables
//@include plan
// out[t] = table[token_ids[t]], for the tokens whose rows are in this slice of the table.
//@include values_f32
//@include ${FORMAT}
@group(0) @binding(0) var<storage, read> plan: array<u32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;

struct Immediates {
    chunks: u32,       // of 64 columns
    supers: u32,       // of 256 columns
    cols: u32,
    first_row: u32,    // of this slice
    rows: u32,         // of this slice
}
var<immediate> imm: Immediates;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    setup(lane);
    workgroupBarrier();
    let token = group.y;
    let id = plan[plan[PLAN_TOKEN_IDS] + token];
    let half_chunk = group.x * 64u + lane;
    let chunk = half_chunk / 2u;
    if id < imm.first_row || id >= imm.first_row + imm.rows || chunk >= imm.chunks {
        return;
    }
    let row = id - imm.first_row;
    let tile = row / 16u;
    let raw = load_raw(
        tile * imm.chunks + chunk, (row % 16u) * 2u + half_chunk % 2u,
        (tile * imm.supers + chunk / 4u) * 16u + row % 16u
    );
    let scale = scale_of(raw);
    let first_col = half_chunk * 32u;
    //@for i in 8
    put(token, first_col + 4u * ${i}u, values${i}(raw, scale));
    //@end
}

fn put(token: u32, col: u32, values: vec4<f32>) {
    for (var i = 0u; i < 4u; i++) {
        if col + i < imm.cols {
            out[token * imm.cols + col + i] = values[i];
        }
    }
}
