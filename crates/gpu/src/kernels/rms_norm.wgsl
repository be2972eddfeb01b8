//@include enables
// out[i] = x[i] / sqrt(mean(x[i]^2) + eps) * weight, a row for each workgroup.
//@if ADD
// x += delta comes first.
//@end
//@if ADD
@group(0) @binding(0) var<storage, read_write> x: array<f32>;
//@else
@group(0) @binding(0) var<storage, read> x: array<f32>;
//@end
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
//@if ADD
@group(0) @binding(3) var<storage, read> delta: array<f32>;
//@end
//@if HALF
@group(0) @binding(${HALF}) var<storage, read_write> half_out: array<u32>;
//@end

struct Immediates {
    cols: u32,
    half_stride: u32,
    eps: f32,
}
var<immediate> imm: Immediates;

//@include reduce
//@include half

fn square_added(squares: f32, first: u32, col: u32) -> f32 {
    //@if ADD
    let value = x[first + col] + delta[first + col];
    x[first + col] = value;
    //@else
    let value = x[first + col];
    //@end
    return fma(value, value, squares);
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
//@if SUBGROUP
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane_of_subgroup: u32,
//@end
) {
    let first = group.x * imm.cols;
    // A lane takes two neighbours, which share a word of the f16 copy.
    var squares = 0.0;
    for (var col = 2u * lane; col < imm.cols; col += 512u) {
        squares = square_added(squares, first, col);
        if col + 1u < imm.cols {
            squares = square_added(squares, first, col + 1u);
        }
    }
    //@if SUBGROUP
    let sum = workgroup_sum(squares, subgroup, lane_of_subgroup);
    //@else
    let sum = workgroup_sum(squares, lane);
    //@end
    let scale = 1.0 / sqrt(sum / f32(imm.cols) + imm.eps);
    for (var col = 2u * lane; col < imm.cols; col += 512u) {
        let a = x[first + col] * scale * weight[col];
        var b = 0.0;
        out[first + col] = a;
        if col + 1u < imm.cols {
            b = x[first + col + 1u] * scale * weight[col + 1u];
            out[first + col + 1u] = b;
        }
        //@if HALF
        half_out[group.x * imm.half_stride + col / 2u] = half_word(a, b);
        //@end
    }
}
