//@include enables
// `rms_norm` for rows of whole vectors that a workgroup holds in registers: ${VECTORS} of four columns a lane. Every load
// is under way before the first is used, and made once.
//@if ADD
@group(0) @binding(0) var<storage, read_write> x: array<vec4<f32>>;
//@else
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
//@end
@group(0) @binding(1) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;
//@if ADD
@group(0) @binding(3) var<storage, read> delta: array<vec4<f32>>;
//@end
//@if HALF
@group(0) @binding(${HALF}) var<storage, read_write> half_out: array<vec2<u32>>;
//@end

struct Immediates {
    cols: u32,
    half_stride: u32,
    eps: f32,
}
var<immediate> imm: Immediates;

//@include reduce
//@include half

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
//@if SUBGROUP
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane_of_subgroup: u32,
//@end
) {
    let vectors = imm.cols / 4u;
    let first = group.x * vectors;
    //@for i in ${VECTORS}
    let is_in${i} = lane + 256u * ${i}u < vectors;
    var value${i} = vec4<f32>(0.0);
    var scale${i} = vec4<f32>(0.0);
    if is_in${i} {
        value${i} = x[first + lane + 256u * ${i}u];
        scale${i} = weight[lane + 256u * ${i}u];
        //@if ADD
        value${i} += delta[first + lane + 256u * ${i}u];
        //@end
    }
    //@end
    var squares = vec4<f32>(0.0);
    //@for i in ${VECTORS}
    squares = fma(value${i}, value${i}, squares);
    //@end
    let of_lane = (squares.x + squares.y) + (squares.z + squares.w);
    //@if SUBGROUP
    let sum = workgroup_sum(of_lane, subgroup, lane_of_subgroup);
    //@else
    let sum = workgroup_sum(of_lane, lane);
    //@end
    let scale = 1.0 / sqrt(sum / f32(imm.cols) + imm.eps);
    //@for i in ${VECTORS}
    if is_in${i} {
        let vector = lane + 256u * ${i}u;
        //@if ADD
        x[first + vector] = value${i};
        //@end
        let normed = value${i} * scale * scale${i};
        out[first + vector] = normed;
        //@if HALF
        half_out[group.x * (imm.half_stride / 2u) + vector] =
            vec2<u32>(half_word(normed.x, normed.y), half_word(normed.z, normed.w));
        //@end
    }
    //@end
}
