// A block has one scale, and a word of scales is shared by two lanes.
struct Scale {
    d: V,
}

fn scale_of(raw: Raw) -> Scale {
    return Scale(half2(raw.scale >> raw.shift).x);
}
