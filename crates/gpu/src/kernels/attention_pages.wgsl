// The cached rows of a sequence: position p is row `cached_row(..)` of [page][kv_head][page_size] rows of head_dim.
const HEAD_DIM = ${HEAD_DIM}u;
const HEAD_WORDS = HEAD_DIM / 2u;
const NUM_HEADS = ${NUM_HEADS}u;
const NUM_KV_HEADS = ${NUM_KV_HEADS}u;
const GROUP = NUM_HEADS / NUM_KV_HEADS;
const Q_COLS = NUM_HEADS * HEAD_DIM;
const QKV_COLS = Q_COLS + 2u * NUM_KV_HEADS * HEAD_DIM;
const SCALE = f32(${SCALE});
//@include attention_window
//@if SOFTCAP

// cap * tanh(score / cap). Beyond 15 the hyperbolic tangent is 1 in f32.
fn capped(score: f32) -> f32 {
    let x = clamp(score / f32(${SOFTCAP}), -15.0, 15.0);
    return f32(${SOFTCAP}) * (1.0 - 2.0 / (exp(2.0 * x) + 1.0));
}
//@end

fn cached_row(seq: u32, kv_head: u32, position: u32) -> u32 {
    let page_size = plan[PLAN_PAGE_SIZE];
    let block_table = plan[PLAN_BLOCK_TABLES] + seq * plan[PLAN_NUM_BLOCKS];
    let page = plan[block_table + position / page_size];
    return (page * NUM_KV_HEADS + kv_head) * page_size + position % page_size;
}

//@if KV_F32
alias CachedPair = vec2<f32>;
fn cached(pair: CachedPair) -> vec2<f32> {
    return pair;
}
//@else
alias CachedPair = u32;
fn cached(pair: CachedPair) -> vec2<f32> {
    return unpack2x16float(pair);
}
//@end
