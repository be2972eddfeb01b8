// scores[t, h, p] = q[t, h] . k[p] / sqrt(head_dim) for positions p up to the row's own; a lane takes a position.
//@include plan
@group(0) @binding(0) var<storage, read> plan: array<u32>;
@group(0) @binding(1) var<storage, read> qkv: array<f32>;
@group(0) @binding(2) var<storage, read> k_pages: array<CachedPair>;
@group(0) @binding(3) var<storage, read_write> scores: array<f32>;
//@include attention_pages

struct Immediates {
    context: u32,      // columns of a head's scores
}
var<immediate> imm: Immediates;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y;
    let kv_head = group.z;
    let position = group.x * 64u + lane;
    if position > plan[plan[PLAN_POSITIONS] + row] {
        return;
    }
    //@if WINDOW
    if position < first_seen(plan[plan[PLAN_POSITIONS] + row]) {
        for (var head = kv_head * GROUP; head < (kv_head + 1u) * GROUP; head++) {
            // So low that its weight is zero.
            scores[(row * NUM_HEADS + head) * imm.context + position] = -3.4028234e38;
        }
        return;
    }
    //@end
    let first = cached_row(plan[plan[PLAN_SEQ_OF_ROW] + row], kv_head, position) * HEAD_WORDS;
    for (var head = kv_head * GROUP; head < (kv_head + 1u) * GROUP; head++) {
        let q = row * QKV_COLS + head * HEAD_DIM;
        var sum = 0.0;
        for (var word = 0u; word < HEAD_WORDS; word++) {
            let k = cached(k_pages[first + word]);
            sum = fma(qkv[q + 2u * word], k.x, sum);
            sum = fma(qkv[q + 2u * word + 1u], k.y, sum);
        }
        //@if SOFTCAP
        scores[(row * NUM_HEADS + head) * imm.context + position] = capped(sum * SCALE);
        //@else
        scores[(row * NUM_HEADS + head) * imm.context + position] = sum * SCALE;
        //@end
    }
}
