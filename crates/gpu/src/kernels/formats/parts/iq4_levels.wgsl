// The 16 levels of IQ4_NL and IQ4_XS, in memory that all of a workgroup read: 16 neighbours lie in as many banks, so that
// no two lanes wait for each other.
var<workgroup> iq4_levels: array<V, 16>;

fn setup(local_index: u32) {
    if local_index == 0u {
        iq4_levels = array<V, 16>(
            -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0,
        );
    }
}

// The levels of the low nibbles of the bytes of a word.
fn iq4_levels4(w: u32) -> V4 {
    return V4(
        iq4_levels[w & 15u],
        iq4_levels[(w >> 16u) & 15u],
        iq4_levels[(w >> 8u) & 15u],
        iq4_levels[(w >> 24u) & 15u],
    );
}

fn low_quad(w: u32, scale: Scale) -> V4 {
    return iq4_levels4(w) * scale.d;
}

fn high_quad(w: u32, scale: Scale) -> V4 {
    return iq4_levels4(w >> 4u) * scale.d;
}
