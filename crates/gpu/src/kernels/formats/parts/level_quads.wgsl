// Nibbles that are indices of levels, all of a block with one scale.
//@include formats/parts/level_table

fn low_quad(w: u32, scale: Scale) -> V4 {
    return levels4(w) * scale.d;
}

fn high_quad(w: u32, scale: Scale) -> V4 {
    return levels4(w >> 4u) * scale.d;
}
