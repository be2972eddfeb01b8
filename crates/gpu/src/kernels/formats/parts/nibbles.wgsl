// Quants of four bits: word j of a block holds values 8 j .. 8 j + 3 in the low nibbles and the next four in the high ones.
// The format says what the nibbles of a word become: `low_quad` and `high_quad`.

fn values0(raw: Raw, scale: Scale) -> V4 {
    return low_quad(raw.q.x, scale);
}

fn values1(raw: Raw, scale: Scale) -> V4 {
    return high_quad(raw.q.x, scale);
}

fn values2(raw: Raw, scale: Scale) -> V4 {
    return low_quad(raw.q.y, scale);
}

fn values3(raw: Raw, scale: Scale) -> V4 {
    return high_quad(raw.q.y, scale);
}

fn values4(raw: Raw, scale: Scale) -> V4 {
    return low_quad(raw.q.z, scale);
}

fn values5(raw: Raw, scale: Scale) -> V4 {
    return high_quad(raw.q.z, scale);
}

fn values6(raw: Raw, scale: Scale) -> V4 {
    return low_quad(raw.q.w, scale);
}

fn values7(raw: Raw, scale: Scale) -> V4 {
    return high_quad(raw.q.w, scale);
}
