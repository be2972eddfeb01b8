// Joins the spans of each row and head in order; a workgroup takes a head of a row, a lane two neighbouring columns.
//
//   parts:  [row][head][span][values: head_dim / 2 pairs | max, sum]
//@include plan
@group(0) @binding(0) var<storage, read> plan: array<u32>;
@group(0) @binding(1) var<storage, read> parts: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec2<f32>>;
//@if HALF
@group(0) @binding(3) var<storage, read_write> half_out: array<u32>;
//@include half
//@end
//@include attention_joined

const HEAD_WORDS = ${HEAD_DIM}u / 2u;
const PART = HEAD_WORDS + 1u;

struct Immediates {
    spans: u32,
    half_stride: u32,
}
var<immediate> imm: Immediates;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let spans = plan[plan[PLAN_POSITIONS] + group.y] / ${SPAN}u + 1u;
    let head = group.y * groups.x + group.x;
    let first = head * imm.spans * PART;
    for (var word = lane; word < HEAD_WORDS; word += 64u) {
        var values = parts[first + word];
        var largest = parts[first + HEAD_WORDS].x;
        var sum = parts[first + HEAD_WORDS].y;
        for (var span = 1u; span < spans; span++) {
            let part = first + span * PART;
            let of_part = parts[part + HEAD_WORDS];
            let factors = join_factors(largest, of_part.x);
            largest = max(largest, of_part.x);
            sum = joined_sum(sum, of_part.y, factors);
            values = joined_values(values, parts[part + word], factors);
        }
        values = values / sum;
        out[head * HEAD_WORDS + word] = values;
        //@if HALF
        half_out[group.y * imm.half_stride + group.x * HEAD_WORDS + word] = half_word(values.x, values.y);
        //@end
    }
}
