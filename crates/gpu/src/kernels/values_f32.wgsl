// Weights and scales as f32: every format's values are those of its definition, to the bit.
alias V = f32;
alias V4 = vec4<f32>;

// The two f16 of a word.
fn half2(w: u32) -> vec2<V> {
    return unpack2x16float(w);
}

// Words of four bytes hold the values in the order 0, 2, 1, 3: so that a mask leaves two neighbours as halves.
fn bytes4(w: u32) -> V4 {
    return V4(V(w & 0xffu), V((w >> 16u) & 0xffu), V((w >> 8u) & 0xffu), V(w >> 24u));
}

// The bytes of a word, less `offset`.
fn bytes4_less(w: u32, offset: V) -> V4 {
    return bytes4(w) - offset;
}

// The low or the high nibbles of the bytes of a word, less `offset`.
fn low_nibbles4_less(w: u32, offset: V) -> V4 {
    return bytes4(w & 0x0f0f0f0fu) - offset;
}
fn high_nibbles4_less(w: u32, offset: V) -> V4 {
    return bytes4((w >> 4u) & 0x0f0f0f0fu) - offset;
}
