// A block has a word: its scale and its minimum.
struct Scale {
    d: V,
    m: V,
}

fn scale_of(raw: Raw) -> Scale {
    let dm = half2(raw.scale);
    return Scale(dm.x, dm.y);
}
