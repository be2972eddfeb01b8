// Merges the partials of each row and head in the order of their splits. A workgroup takes a head of a row, a lane two
// neighbouring columns. A head's sink, a score without a value, is added to the sum in the end.
//
//   partials:  [row][head][split][values: head_dim / 2 pairs | max, sum]
//@include plan
@group(0) @binding(0) var<storage, read> plan: array<u32>;
@group(0) @binding(1) var<storage, read> partials: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec2<f32>>;
//@if HALF
@group(0) @binding(3) var<storage, read_write> half_out: array<u32>;
//@include half
//@end
//@if SINKS
@group(0) @binding(${SINKS}) var<storage, read> sinks: array<f32>;
//@end
//@include attention_partials

//@include attention_window
const HEAD_WORDS = ${HEAD_DIM}u / 2u;
const PARTIAL_WORDS = HEAD_WORDS + 1u;

struct Immediates {
    splits: u32,
    half_stride: u32,
}
var<immediate> imm: Immediates;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let splits = plan[plan[PLAN_POSITIONS] + group.y] / ${SPLIT_LEN}u + 1u;
    let head = group.y * groups.x + group.x;
    let first = head * imm.splits * PARTIAL_WORDS;
    for (var word = lane; word < HEAD_WORDS; word += 64u) {
        //@if WINDOW
        let first_split = first_seen(plan[plan[PLAN_POSITIONS] + group.y]) / ${SPLIT_LEN}u;
        //@else
        let first_split = 0u;
        //@end
        let start = first + first_split * PARTIAL_WORDS;
        var values = partials[start + word];
        var largest = partials[start + HEAD_WORDS].x;
        var sum = partials[start + HEAD_WORDS].y;
        for (var split = first_split + 1u; split < splits; split++) {
            let partial = first + split * PARTIAL_WORDS;
            let stats = partials[partial + HEAD_WORDS];
            let factors = merge_factors(largest, stats.x);
            largest = max(largest, stats.x);
            sum = merged_sum(sum, stats.y, factors);
            values = merged_values(values, partials[partial + word], factors);
        }
        //@if SINKS
        sum += exp(sinks[group.x] - largest);
        //@end
        values = values / sum;
        out[head * HEAD_WORDS + word] = values;
        //@if HALF
        half_out[group.y * imm.half_stride + group.x * HEAD_WORDS + word] = half_word(values.x, values.y);
        //@end
    }
}
