// A format's 16 levels, `all_levels()`, in memory that all of a workgroup read: 16 neighbours lie in as many banks, so that no two
// lanes wait for each other.
var<workgroup> levels: array<V, 16>;

fn setup(local_index: u32) {
    if local_index == 0u {
        levels = all_levels();
    }
}

// The levels of the low nibbles of the bytes of a word.
fn levels4(w: u32) -> V4 {
    return V4(levels[w & 15u], levels[(w >> 16u) & 15u], levels[(w >> 8u) & 15u], levels[(w >> 24u) & 15u]);
}
