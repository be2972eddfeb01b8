//@include enables
// Multiply-adds of values that stay in registers: the least that a product must do.
//
//   for so many rounds:  each of SUMS sums = sum * factor + addend
//
// With matrix units a sum is a matrix and belongs to a subgroup; else it is a vector of four and belongs to a lane.
@group(0) @binding(0) var<storage, read> factors: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;

struct Immediates {
    rounds: u32,
}
var<immediate> imm: Immediates;

//@if MATRIX
var<workgroup> tile: array<f16, 256>;
var<workgroup> results: array<f32, 256>;
//@end

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    //@if MATRIX
    tile[lane] = f16(factors[lane]);
    workgroupBarrier();
    let left = coopLoadT<coop_mat16x16<f16, A>>(&tile[0], 16u);
    let right = coopLoad<coop_mat16x16<f16, B>>(&tile[0], 16u);
    //@for i in ${SUMS}
    var sums${i} = coop_mat16x16<f32, C>();
    //@end
    for (var round = 0u; round < imm.rounds; round++) {
        //@for i in ${SUMS}
        sums${i} = coopMultiplyAdd(left, right, sums${i});
        //@end
    }
    var total = coop_mat16x16<f32, C>();
    //@for i in ${SUMS}
    total = total + sums${i};
    //@end
    // Every subgroup's are the same.
    coopStoreT(total, &results[0], 16u);
    workgroupBarrier();
    out[group.x * 256u + lane] = results[lane];
    //@else
    let factor = vec4<f32>(factors[lane]);
    let addend = vec4<f32>(factors[255u - lane]);
    //@for i in ${SUMS}
    var sums${i} = vec4<f32>(f32(${i}));
    //@end
    for (var round = 0u; round < imm.rounds; round++) {
        //@for i in ${SUMS}
        sums${i} = fma(sums${i}, factor, addend);
        //@end
    }
    var total = vec4<f32>();
    //@for i in ${SUMS}
    total += sums${i};
    //@end
    out[group.x * 256u + lane] = total.x + total.y + total.z + total.w;
    //@end
}
