// The sum over a workgroup of 256, the same for every lane. The order of additions is fixed: a tree over the lanes, or a
// subgroup's own sum and then the subgroups in order.
//@if SUBGROUP
var<workgroup> subgroup_sums: array<f32, 256u / ${SUBGROUP}u>;

fn workgroup_sum(value: f32, subgroup: u32, lane_of_subgroup: u32) -> f32 {
    let sum = subgroupAdd(value);
    if lane_of_subgroup == 0u {
        subgroup_sums[subgroup] = sum;
    }
    workgroupBarrier();
    var total = 0.0;
    for (var i = 0u; i < 256u / ${SUBGROUP}u; i++) {
        total += subgroup_sums[i];
    }
    return total;
}
//@else
var<workgroup> lane_sums: array<f32, 256>;

fn workgroup_sum(value: f32, lane: u32) -> f32 {
    lane_sums[lane] = value;
    for (var step = 128u; step > 0u; step >>= 1u) {
        workgroupBarrier();
        if lane < step {
            lane_sums[lane] += lane_sums[lane + step];
        }
    }
    workgroupBarrier();
    return lane_sums[0];
}
//@end
