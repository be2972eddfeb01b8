//@include plan
// Rotates the queries in place and stores the rotated keys and the values in their pages.
//
//   row of qkv:  [q: num_heads * head_dim | k: num_kv_heads * head_dim | v: the same]
//   cache:       [page][kv_head][page_size][head_dim]
//   table:       [position][pair](cos, sin)
//
// A lane takes a rotated pair of q, or two neighbouring elements of k or of v, which share a word of f16.
@group(0) @binding(0) var<storage, read> plan: array<u32>;
@group(0) @binding(1) var<storage, read> table: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> qkv: array<f32>;
//@if KV_F32
@group(0) @binding(3) var<storage, read_write> k_pages: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read_write> v_pages: array<vec2<f32>>;
//@else
@group(0) @binding(3) var<storage, read_write> k_pages: array<u32>;
@group(0) @binding(4) var<storage, read_write> v_pages: array<u32>;
//@end

struct Immediates {
    num_heads: u32,
    num_kv_heads: u32,
    head_dim: u32,
    rope_dim: u32,
}
var<immediate> imm: Immediates;

struct Pair {
    first: u32,
    second: u32,
}

// The elements of a head that pair up.
fn pair_elements(pair: u32) -> Pair {
    //@if INTERLEAVED
    return Pair(2u * pair, 2u * pair + 1u);
    //@else
    return Pair(pair, pair + imm.rope_dim / 2u);
    //@end
}

fn rotate(a: f32, b: f32, rotation: vec2<f32>) -> vec2<f32> {
    return vec2<f32>(fma(a, rotation.x, -(b * rotation.y)), fma(a, rotation.y, b * rotation.x));
}

// Element `e` of a head that starts at `head`, rotated.
fn rotated(head: u32, e: u32, position: u32) -> f32 {
    if e >= imm.rope_dim {
        return qkv[head + e];
    }
    //@if INTERLEAVED
    let pair = e / 2u;
    //@else
    let pair = e % (imm.rope_dim / 2u);
    //@end
    let elements = pair_elements(pair);
    let rotation = table[position * (imm.rope_dim / 2u) + pair];
    let both = rotate(qkv[head + elements.first], qkv[head + elements.second], rotation);
    return select(both.y, both.x, e == elements.first);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y;
    let item = group.x * 64u + lane;
    let position = plan[plan[PLAN_POSITIONS] + row];
    let row_first = row * (imm.num_heads + 2u * imm.num_kv_heads) * imm.head_dim;
    let q_items = imm.num_heads * (imm.rope_dim / 2u);
    if item < q_items {
        let head = row_first + item / (imm.rope_dim / 2u) * imm.head_dim;
        let pair = item % (imm.rope_dim / 2u);
        let elements = pair_elements(pair);
        let rotation = table[position * (imm.rope_dim / 2u) + pair];
        let both = rotate(qkv[head + elements.first], qkv[head + elements.second], rotation);
        qkv[head + elements.first] = both.x;
        qkv[head + elements.second] = both.y;
        return;
    }
    let words = imm.head_dim / 2u;
    let kv_items = imm.num_kv_heads * words;
    let kv_item = item - q_items;
    if kv_item >= 2u * kv_items {
        return;
    }
    let is_key = kv_item < kv_items;
    let of_kind = kv_item % kv_items;
    let kv_head = of_kind / words;
    let word = of_kind % words;
    let first_head = select(imm.num_heads + imm.num_kv_heads, imm.num_heads, is_key);
    let head = row_first + (first_head + kv_head) * imm.head_dim;
    let page_size = plan[PLAN_PAGE_SIZE];
    let slot = plan[plan[PLAN_SLOT_MAPPING] + row];
    let page = slot / page_size;
    let target_row = (page * imm.num_kv_heads + kv_head) * page_size + slot % page_size;
    if is_key {
        let pair = vec2<f32>(rotated(head, 2u * word, position), rotated(head, 2u * word + 1u, position));
        k_pages[target_row * words + word] = stored(pair);
    } else {
        v_pages[target_row * words + word] = stored(vec2<f32>(qkv[head + 2u * word], qkv[head + 2u * word + 1u]));
    }
}

//@if KV_F32
fn stored(pair: vec2<f32>) -> vec2<f32> {
    return pair;
}
//@else
fn stored(pair: vec2<f32>) -> u32 {
    return pack2x16float(pair);
}
//@end
