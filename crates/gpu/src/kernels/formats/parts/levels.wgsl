// Quants that are indices of four bits into 16 levels: (d / 8 * sc) * LEVELS[q]. The format says what the levels are.
//
// a lane's half of a scale word: the scales of values 0 .. 15 and 16 .. 31, a byte each; super: d
//@include formats/parts/block
//@include formats/parts/level_table
alias Quants = vec4<u32>;

struct Scale {
    // Of values 0 .. 15.
    first: V,
    // Of values 16 .. 31.
    second: V,
}

fn scale_of(raw: Raw) -> Scale {
    let both = raw.scale >> raw.shift;
    let d = unpack2x16float(raw.factors).x * 0.125;
    return Scale(V(d * f32(both & 255u)), V(d * f32((both >> 8u) & 255u)));
}

fn values0(raw: Raw, scale: Scale) -> V4 {
    return levels4(raw.q.x) * scale.first;
}

fn values1(raw: Raw, scale: Scale) -> V4 {
    return levels4(raw.q.x >> 4u) * scale.first;
}

fn values2(raw: Raw, scale: Scale) -> V4 {
    return levels4(raw.q.y) * scale.first;
}

fn values3(raw: Raw, scale: Scale) -> V4 {
    return levels4(raw.q.y >> 4u) * scale.first;
}

fn values4(raw: Raw, scale: Scale) -> V4 {
    return levels4(raw.q.z) * scale.second;
}

fn values5(raw: Raw, scale: Scale) -> V4 {
    return levels4(raw.q.z >> 4u) * scale.second;
}

fn values6(raw: Raw, scale: Scale) -> V4 {
    return levels4(raw.q.w) * scale.second;
}

fn values7(raw: Raw, scale: Scale) -> V4 {
    return levels4(raw.q.w >> 4u) * scale.second;
}
