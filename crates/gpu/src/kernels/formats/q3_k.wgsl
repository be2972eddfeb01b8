// Q3_K: (q - 4) * (d * sc).
//
// bits 8 p + 2 (i % 4) and up of word i / 4 of a block: the first two of byte p of values 4 i .. 4 i + 3
// bit 8 p + i of a block's high word: the third bit of byte p of values 4 i .. 4 i + 3
//@include formats/parts/scale_k_pair
//@include formats/parts/block
alias Quants = vec2<u32>;
alias High = u32;

fn setup(local_index: u32) {}

fn values0(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less((raw.q.x & 0x03030303u) | ((raw.high << 2u) & 0x04040404u), 4.0) * scale.first;
}

fn values1(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less(((raw.q.x >> 2u) & 0x03030303u) | ((raw.high << 1u) & 0x04040404u), 4.0) * scale.first;
}

fn values2(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less(((raw.q.x >> 4u) & 0x03030303u) | (raw.high & 0x04040404u), 4.0) * scale.first;
}

fn values3(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less(((raw.q.x >> 6u) & 0x03030303u) | ((raw.high >> 1u) & 0x04040404u), 4.0) * scale.first;
}

fn values4(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less((raw.q.y & 0x03030303u) | ((raw.high >> 2u) & 0x04040404u), 4.0) * scale.second;
}

fn values5(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less(((raw.q.y >> 2u) & 0x03030303u) | ((raw.high >> 3u) & 0x04040404u), 4.0) * scale.second;
}

fn values6(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less(((raw.q.y >> 4u) & 0x03030303u) | ((raw.high >> 4u) & 0x04040404u), 4.0) * scale.second;
}

fn values7(raw: Raw, scale: Scale) -> V4 {
    return bytes4_less(((raw.q.y >> 6u) & 0x03030303u) | ((raw.high >> 5u) & 0x04040404u), 4.0) * scale.second;
}
