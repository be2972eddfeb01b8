// Quants of five bits.
//
// word j of a block: the low bits of values 8 j .. 8 j + 3 in the low nibbles, of the next four in the high ones
// bit 8 p + i of a block's high word: the fifth bit of byte p of values 4 i .. 4 i + 3
// The format says what the bytes of a word become: `quad`.

fn values0(raw: Raw, scale: Scale) -> V4 {
    return quad((raw.q.x & 0x0f0f0f0fu) | ((raw.high << 4u) & 0x10101010u), scale);
}

fn values1(raw: Raw, scale: Scale) -> V4 {
    return quad(((raw.q.x >> 4u) & 0x0f0f0f0fu) | ((raw.high << 3u) & 0x10101010u), scale);
}

fn values2(raw: Raw, scale: Scale) -> V4 {
    return quad((raw.q.y & 0x0f0f0f0fu) | ((raw.high << 2u) & 0x10101010u), scale);
}

fn values3(raw: Raw, scale: Scale) -> V4 {
    return quad(((raw.q.y >> 4u) & 0x0f0f0f0fu) | ((raw.high << 1u) & 0x10101010u), scale);
}

fn values4(raw: Raw, scale: Scale) -> V4 {
    return quad((raw.q.z & 0x0f0f0f0fu) | (raw.high & 0x10101010u), scale);
}

fn values5(raw: Raw, scale: Scale) -> V4 {
    return quad(((raw.q.z >> 4u) & 0x0f0f0f0fu) | ((raw.high >> 1u) & 0x10101010u), scale);
}

fn values6(raw: Raw, scale: Scale) -> V4 {
    return quad((raw.q.w & 0x0f0f0f0fu) | ((raw.high >> 2u) & 0x10101010u), scale);
}

fn values7(raw: Raw, scale: Scale) -> V4 {
    return quad(((raw.q.w >> 4u) & 0x0f0f0f0fu) | ((raw.high >> 3u) & 0x10101010u), scale);
}
