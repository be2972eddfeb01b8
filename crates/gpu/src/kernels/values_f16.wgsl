// Weights and scales as f16, for matrix units: a block's scales are rounded once, its values once more. A kernel that
// includes this enables f16.
alias V = f16;
alias V4 = vec4<f16>;

// The two f16 of a word. A bitcast in effect, as compilers drop the detour by f32; naga knows none from u32 to f16.
fn half2(w: u32) -> vec2<V> {
    return vec2<V>(unpack2x16float(w));
}

// 1024 plus each of the two numbers below 1024 in the halves of a word: 0x6400 is 1024, whose last digit is worth 1.
fn above_1024(w: u32) -> vec2<V> {
    return half2(w | 0x64006400u);
}

// Words of four bytes hold the values in the order 0, 2, 1, 3: so that a mask leaves two neighbours as halves.
fn bytes4(w: u32) -> V4 {
    return bytes4_less(w, 0.0h);
}

// The bytes of a word, less `offset`, a whole number: exact, as all numbers on the way are whole and below 2048.
fn bytes4_less(w: u32, offset: V) -> V4 {
    let base = vec2<V>(1024.0h + offset);
    return V4(above_1024(w & 0x00ff00ffu) - base, above_1024((w >> 8u) & 0x00ff00ffu) - base);
}

// The low nibbles of the bytes of a word, less `offset`.
fn low_nibbles4_less(w: u32, offset: V) -> V4 {
    let base = vec2<V>(1024.0h + offset);
    return V4(above_1024(w & 0x000f000fu) - base, above_1024((w >> 8u) & 0x000f000fu) - base);
}

// The high nibbles, likewise. They are left where they are, sixteenfold: 1024 + 16 q is exact, and so is its sixteenth.
fn high_nibbles4_less(w: u32, offset: V) -> V4 {
    let base = vec2<V>(-64.0h - offset);
    let sixteenth = vec2<V>(0.0625h);
    return V4(
        fma(above_1024(w & 0x00f000f0u), sixteenth, base),
        fma(above_1024((w >> 8u) & 0x00f000f0u), sixteenth, base),
    );
}
