// Q6_K: (q - 32) * (d * sc).
//
// word j of a block: values 8 j .. 8 j + 3 in the low nibbles, the next four in the high ones
// bits 8 p + 2 (i % 4) and up of high word i / 4: the fifth and sixth of byte p of values 4 i .. 4 i + 3
//@include formats/parts/scale_k_pair
//@include formats/parts/block
alias Quants = vec4<u32>;
alias High = vec2<u32>;

fn setup(local_index: u32) {}

fn values0(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less((raw.q.x & 0x0f0f0f0fu) | ((raw.high.x << 4u) & 0x30303030u), 32.0) * scale.first;
}

fn values1(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less(((raw.q.x >> 4u) & 0x0f0f0f0fu) | ((raw.high.x << 2u) & 0x30303030u), 32.0) * scale.first;
}

fn values2(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less((raw.q.y & 0x0f0f0f0fu) | (raw.high.x & 0x30303030u), 32.0) * scale.first;
}

fn values3(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less(((raw.q.y >> 4u) & 0x0f0f0f0fu) | ((raw.high.x >> 2u) & 0x30303030u), 32.0) * scale.first;
}

fn values4(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less((raw.q.z & 0x0f0f0f0fu) | ((raw.high.y << 4u) & 0x30303030u), 32.0) * scale.second;
}

fn values5(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less(((raw.q.z >> 4u) & 0x0f0f0f0fu) | ((raw.high.y << 2u) & 0x30303030u), 32.0) * scale.second;
}

fn values6(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less((raw.q.w & 0x0f0f0f0fu) | (raw.high.y & 0x30303030u), 32.0) * scale.second;
}

fn values7(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less(((raw.q.w >> 4u) & 0x0f0f0f0fu) | ((raw.high.y >> 2u) & 0x30303030u), 32.0) * scale.second;
}
