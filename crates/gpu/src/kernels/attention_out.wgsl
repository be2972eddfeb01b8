// Where a tile's rows go. Words are pairs of neighbouring columns of a head.
//@if SPLIT
// A row has a partial in each split that it reaches.
fn put_partial(tile: Tile, row: u32, split: u32, word: u32, pair: vec2<f32>) {
    if row < tile.rows && row_position(tile, row) >= split * SPLIT_LEN && word < HEAD_WORDS {
        out[(row_and_head(tile, row) * imm.splits + split) * (HEAD_WORDS + 1u) + word] = pair;
    }
}

// The largest score and the sum of weights.
fn put_stats(tile: Tile, row: u32, split: u32, largest: f32, sum: f32) {
    if row < tile.rows && row_position(tile, row) >= split * SPLIT_LEN {
        out[(row_and_head(tile, row) * imm.splits + split) * (HEAD_WORDS + 1u) + HEAD_WORDS] = vec2<f32>(largest, sum);
    }
}
//@else
fn put_out(tile: Tile, row: u32, word: u32, pair: vec2<f32>) {
    if row < tile.rows && word < HEAD_WORDS {
        let at = row_and_head(tile, row);
        out[at * HEAD_WORDS + word] = pair;
        //@if HALF
        half_out[at / NUM_HEADS * imm.half_stride + at % NUM_HEADS * HEAD_WORDS + word] = half_word(pair.x, pair.y);
        //@end
    }
}
//@end
