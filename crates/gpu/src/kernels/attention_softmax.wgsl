// Each row of scores, up to the row's own position, becomes exp(s - max) / sum(exp(s - max)), with its head's sink in the
// sum; a workgroup takes a row.
//@include plan
@group(0) @binding(0) var<storage, read> plan: array<u32>;
@group(0) @binding(1) var<storage, read_write> scores: array<f32>;
//@if SINKS
@group(0) @binding(${SINKS}) var<storage, read> sinks: array<f32>;
//@end

struct Immediates {
    context: u32,      // columns of a head's scores
}
var<immediate> imm: Immediates;

const LANES = 128u;
var<workgroup> of_lanes: array<f32, LANES>;

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = (group.y * groups.x + group.x) * imm.context;
    let len = plan[plan[PLAN_POSITIONS] + group.y] + 1u;
    // The first score stands in for those that a lane lacks.
    var largest = scores[first];
    for (var p = lane; p < len; p += LANES) {
        largest = max(largest, scores[first + p]);
    }
    of_lanes[lane] = largest;
    for (var step = LANES / 2u; step > 0u; step >>= 1u) {
        workgroupBarrier();
        if lane < step {
            of_lanes[lane] = max(of_lanes[lane], of_lanes[lane + step]);
        }
    }
    workgroupBarrier();
    largest = of_lanes[0];
    workgroupBarrier();
    var sum = 0.0;
    for (var p = lane; p < len; p += LANES) {
        let weight = exp(scores[first + p] - largest);
        scores[first + p] = weight;
        sum += weight;
    }
    of_lanes[lane] = sum;
    for (var step = LANES / 2u; step > 0u; step >>= 1u) {
        workgroupBarrier();
        if lane < step {
            of_lanes[lane] += of_lanes[lane + step];
        }
    }
    workgroupBarrier();
    //@if SINKS
    sum = of_lanes[0] + exp(sinks[group.x] - largest);
    //@else
    sum = of_lanes[0];
    //@end
    for (var p = lane; p < len; p += LANES) {
        scores[first + p] /= sum;
    }
}
