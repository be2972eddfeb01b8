// out[t, h] = sum over p of scores[t, h, p] * v[p]; a workgroup takes a head of a row, a lane two neighbouring columns.
//@include plan
@group(0) @binding(0) var<storage, read> plan: array<u32>;
@group(0) @binding(1) var<storage, read> scores: array<f32>;
@group(0) @binding(2) var<storage, read> v_pages: array<CachedPair>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
//@if HALF
@group(0) @binding(4) var<storage, read_write> half_out: array<u32>;
//@include half
//@end
//@include attention_pages

struct Immediates {
    context: u32,      // columns of a head's scores
    half_stride: u32,
}
var<immediate> imm: Immediates;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let head = group.x;
    let row = group.y;
    let seq = plan[plan[PLAN_SEQ_OF_ROW] + row];
    let len = plan[plan[PLAN_POSITIONS] + row] + 1u;
    for (var word = lane; word < HEAD_WORDS; word += 64u) {
        var sum = vec2<f32>();
        for (var p = 0u; p < len; p++) {
            let weight = scores[(row * NUM_HEADS + head) * imm.context + p];
            let v = cached(v_pages[cached_row(seq, head / GROUP, p) * HEAD_WORDS + word]);
            sum = fma(vec2<f32>(weight), v, sum);
        }
        let at = row * NUM_HEADS * HEAD_WORDS + head * HEAD_WORDS + word;
        out[2u * at] = sum.x;
        out[2u * at + 1u] = sum.y;
        //@if HALF
        half_out[row * imm.half_stride + head * HEAD_WORDS + word] = half_word(sum.x, sum.y);
        //@end
    }
}
