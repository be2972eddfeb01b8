//@include enables
// out[pair] = weight[expert of pair] * x + bias[expert of pair] in f32 multiply-adds, for any device and any format.
//
// A workgroup multiplies a tile row (16 rows of an expert's weight) with a group of up to ${TOKENS} pairs of that expert. The sums
// are those of `matmul_float`: none of their order depends on the group.
//@include values_f32
//@include ${FORMAT}
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@group(0) @binding(${ORDER}) var<storage, read> order: array<u32>;
@group(0) @binding(${GROUPS}) var<storage, read> groups: array<u32>;
//@if BIAS
@group(0) @binding(${BIAS}) var<storage, read> bias: array<f32>;
//@end

struct Immediates {
    chunks: u32,       // of 64 columns
    supers: u32,       // of 256 columns
    cols: u32,
    rows: u32,         // of an expert
    out_stride: u32,
    out_first: u32,    // the matrix's first column of out
    first_expert: u32, // of this slice
    experts: u32,      // of this slice
    pairs_per_row: u32, // pairs that share a row of x
}
var<immediate> imm: Immediates;

// [token][row of 16][lane of 16]
var<workgroup> sums: array<f32, ${TOKENS}u * 256u>;

fn x_value(row: u32, col: u32) -> f32 {
    return select(0.0, x[row * imm.cols + min(col, imm.cols - 1u)], col < imm.cols);
}

fn x_values(row: u32, col: u32) -> vec4<f32> {
    return vec4<f32>(
        x_value(row, col), x_value(row, col + 1u), x_value(row, col + 2u), x_value(row, col + 3u)
    );
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if group.y >= groups[0] {
        return;
    }
    let expert = groups[1u + 3u * group.y];
    let first = groups[2u + 3u * group.y];
    let count = groups[3u + 3u * group.y];
    if expert < imm.first_expert || expert >= imm.first_expert + imm.experts {
        return;
    }
    setup(lane);
    workgroupBarrier();
    let block = lane % 32u;
    let row = block / 2u;
    let tile = (expert - imm.first_expert) * ((imm.rows + 15u) / 16u) + group.x;
    // Past the last pair of the group it is repeated.
    //@for t in ${TOKENS}
    let row${t} = order[first + min(${t}u, count - 1u)] / imm.pairs_per_row;
    //@end
    //@for t in ${TOKENS}
    var sum${t} = vec4<f32>(0.0);
    //@end
    for (var chunk = lane / 32u; chunk < imm.chunks; chunk += 8u) {
        let raw = load_raw(tile * imm.chunks + chunk, block, (tile * imm.supers + chunk / 4u) * 16u + row);
        let scale = scale_of(raw);
        let col = chunk * 64u + (block % 2u) * 32u;
        //@for i in 8
        {
            let w = values${i}(raw, scale);
            //@for t in ${TOKENS}
            sum${t} = fma(w, x_values(row${t}, col + 4u * ${i}u), sum${t});
            //@end
        }
        //@end
    }
    let lane_of_row = (lane / 32u) * 2u + block % 2u;
    //@for t in ${TOKENS}
    sums[${t}u * 256u + row * 16u + lane_of_row] = (sum${t}.x + sum${t}.y) + (sum${t}.z + sum${t}.w);
    //@end
    workgroupBarrier();
    if lane < ${TOKENS}u * 16u {
        let token = lane / 16u;
        let out_row = group.x * 16u + lane % 16u;
        if out_row < imm.rows && token < count {
            var total = 0.0;
            for (var i = 0u; i < 16u; i++) {
                total += sums[lane * 16u + i];
            }
            //@if BIAS
            total += bias[expert * imm.out_stride + imm.out_first + out_row];
            //@end
            out[order[first + token] * imm.out_stride + imm.out_first + out_row] = total;
        }
    }
}
