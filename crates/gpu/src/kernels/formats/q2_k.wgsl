// Q2_K: q * (d * sc) - (dmin * min).
//
// bits 8 p + 2 (i % 4) and up of word i / 4 of a block: the first two of byte p of values 4 i .. 4 i + 3
// a lane's half of a scale word, nibbles from the lowest: scale and minimum of values 0 .. 15, then of 16 .. 31;
// super: d, dmin
//@include formats/parts/block
alias Quants = vec2<u32>;

struct Scale {
    // Of values 0 .. 15.
    first_d: V,
    first_m: V,
    // Of values 16 .. 31.
    second_d: V,
    second_m: V,
}

fn setup(local_index: u32) {}

fn scale_of(raw: Raw) -> Scale {
    let four = raw.scale >> raw.shift;
    let factors = unpack2x16float(raw.factors);
    return Scale(
        V(factors.x * f32(four & 15u)),
        V(factors.y * f32((four >> 4u) & 15u)),
        V(factors.x * f32((four >> 8u) & 15u)),
        V(factors.y * f32((four >> 12u) & 15u)),
    );
}

fn values0(raw: Raw, scale: Scale) -> V4 {
    return fma(bytes4(raw.q.x & 0x03030303u), V4(scale.first_d), V4(-scale.first_m));
}

fn values1(raw: Raw, scale: Scale) -> V4 {
    return fma(bytes4((raw.q.x >> 2u) & 0x03030303u), V4(scale.first_d), V4(-scale.first_m));
}

fn values2(raw: Raw, scale: Scale) -> V4 {
    return fma(bytes4((raw.q.x >> 4u) & 0x03030303u), V4(scale.first_d), V4(-scale.first_m));
}

fn values3(raw: Raw, scale: Scale) -> V4 {
    return fma(bytes4((raw.q.x >> 6u) & 0x03030303u), V4(scale.first_d), V4(-scale.first_m));
}

fn values4(raw: Raw, scale: Scale) -> V4 {
    return fma(bytes4(raw.q.y & 0x03030303u), V4(scale.second_d), V4(-scale.second_m));
}

fn values5(raw: Raw, scale: Scale) -> V4 {
    return fma(bytes4((raw.q.y >> 2u) & 0x03030303u), V4(scale.second_d), V4(-scale.second_m));
}

fn values6(raw: Raw, scale: Scale) -> V4 {
    return fma(bytes4((raw.q.y >> 4u) & 0x03030303u), V4(scale.second_d), V4(-scale.second_m));
}

fn values7(raw: Raw, scale: Scale) -> V4 {
    return fma(bytes4((raw.q.y >> 6u) & 0x03030303u), V4(scale.second_d), V4(-scale.second_m));
}
