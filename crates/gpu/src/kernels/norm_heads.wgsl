// Norms each head of the queries and of the keys in place: head / sqrt(mean(head^2) + eps) * weight.
//
//   row of qkv:  [q: num_heads * head_dim | k: num_kv_heads * head_dim | v: the same]
//
// A workgroup takes a head of a row.
@group(0) @binding(0) var<storage, read_write> qkv: array<f32>;
@group(0) @binding(1) var<storage, read> q_weight: array<f32>;
@group(0) @binding(2) var<storage, read> k_weight: array<f32>;

struct Immediates {
    num_heads: u32,
    num_kv_heads: u32,
    head_dim: u32,
    eps: f32,
}
var<immediate> imm: Immediates;

var<workgroup> sums: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let head = group.x;
    let cols = (imm.num_heads + 2u * imm.num_kv_heads) * imm.head_dim;
    let first = group.y * cols + head * imm.head_dim;
    var sum = 0.0;
    for (var col = lane; col < imm.head_dim; col += 64u) {
        let value = qkv[first + col];
        sum = fma(value, value, sum);
    }
    sums[lane] = sum;
    for (var step = 32u; step > 0u; step >>= 1u) {
        workgroupBarrier();
        if lane < step {
            sums[lane] += sums[lane + step];
        }
    }
    workgroupBarrier();
    let factor = 1.0 / sqrt(sums[0] / f32(imm.head_dim) + imm.eps);
    for (var col = lane; col < imm.head_dim; col += 64u) {
        let weight = select(k_weight[col], q_weight[col], head < imm.num_heads);
        qkv[first + col] = qkv[first + col] * factor * weight;
    }
}
