// The experts of each token, by rank: the highest logits, of equal ones the first; and their weights. A workgroup takes a
// token.
@group(0) @binding(0) var<storage, read> logits: array<f32>;         // [T, experts]
@group(0) @binding(1) var<storage, read_write> ids: array<u32>;      // [T, top_k]
@group(0) @binding(2) var<storage, read_write> weights: array<f32>;  // [T, top_k]

struct Immediates {
    experts: u32,
    top_k: u32,
    min_sum: f32,
    scale: f32,
}
var<immediate> imm: Immediates;

//@include key

var<workgroup> keys: array<u32, 64>;
var<workgroup> indices: array<u32, 64>;
var<workgroup> sums: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = group.x * imm.experts;
    let out = group.x * imm.top_k;
    // What was taken last: all that is left comes after it. No key is as high as this.
    var last_key = 0xffffffffu;
    var last = 0u;
    var highest = 0u;
    for (var rank = 0u; rank < imm.top_k; rank++) {
        var best = 0u;
        var index = 0u;
        for (var expert = lane; expert < imm.experts; expert += 64u) {
            let key = key_of(logits[first + expert]);
            let is_left = key < last_key || (key == last_key && expert > last);
            if is_left && key > best {
                best = key;
                index = expert;
            }
        }
        keys[lane] = best;
        indices[lane] = index;
        for (var step = 32u; step > 0u; step >>= 1u) {
            workgroupBarrier();
            if lane < step {
                let key = keys[lane + step];
                let other = indices[lane + step];
                if key > keys[lane] || (key == keys[lane] && other < indices[lane]) {
                    keys[lane] = key;
                    indices[lane] = other;
                }
            }
        }
        workgroupBarrier();
        last_key = keys[0];
        last = indices[0];
        highest = select(highest, last, rank == 0u);
        if lane == 0u {
            ids[out + rank] = last;
        }
        workgroupBarrier();
    }
    let max_logit = logits[first + highest];
    //@if SELECTED
    //@else
    var sum = 0.0;
    for (var expert = lane; expert < imm.experts; expert += 64u) {
        sum += exp(logits[first + expert] - max_logit);
    }
    sums[lane] = sum;
    for (var step = 32u; step > 0u; step >>= 1u) {
        workgroupBarrier();
        if lane < step {
            sums[lane] += sums[lane + step];
        }
    }
    //@end
    if lane == 0u {
        //@if SELECTED
        var divisor = 0.0;
        for (var rank = 0u; rank < imm.top_k; rank++) {
            divisor += exp(logits[first + ids[out + rank]] - max_logit);
        }
        //@else
        let divisor = sums[0];
        //@end
        var total = 0.0;
        for (var rank = 0u; rank < imm.top_k; rank++) {
            let weight = exp(logits[first + ids[out + rank]] - max_logit) / divisor;
            total += weight;
            weights[out + rank] = weight;
        }
        //@if NORM
        total = max(total, imm.min_sum);
        //@else
        total = 1.0;
        //@end
        for (var rank = 0u; rank < imm.top_k; rank++) {
            weights[out + rank] = weights[out + rank] / total * imm.scale;
        }
    }
}
