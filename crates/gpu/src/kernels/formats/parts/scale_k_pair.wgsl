// Q3_K and Q6_K: a lane's half of a scale word has the signed scales of values 0 .. 15 and 16 .. 31, a byte each; super: d.
struct Scale {
    // Of values 0 .. 15.
    first: V,
    // Of values 16 .. 31.
    second: V,
}

fn scale_of(raw: Raw) -> Scale {
    let both = raw.scale >> raw.shift;
    let d = unpack2x16float(raw.factors).x;
    let first = d * f32(i32(both << 24u) >> 24u);
    let second = d * f32(i32(both << 16u) >> 24u);
    return Scale(V(first), V(second));
}
