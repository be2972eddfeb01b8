// Q4_K and Q5_K: a lane's half of a scale word has the 6-bit scale and the 6-bit minimum, a byte each; super: d, dmin.
struct Scale {
    d: V,
    m: V,
}

fn scale_of(raw: Raw) -> Scale {
    let both = raw.scale >> raw.shift;
    let factors = unpack2x16float(raw.factors);
    return Scale(V(factors.x * f32(both & 0xffu)), V(factors.y * f32((both >> 8u) & 0xffu)));
}
