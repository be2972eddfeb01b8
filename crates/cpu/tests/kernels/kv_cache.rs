//! Rotation and the paged cache: what is stored, where, and how it is rounded.

use cpu::{CpuBackend, CpuKvCache};
use gguf::half::{f16_to_f32, f32_to_f16};
use model::{Backend, KvDtype, KvShape, Logits, QkvShape, RopeShape, RopeStyle};
use testkit::Rng;

use super::{Chunk, backends, check_close, check_same, plan, read};

/// Two products and a sum in f32.
const TOLERANCE: f64 = 2e-7;
/// Half a unit in the last place of binary16, and that of f32 before it.
const F16_TOLERANCE: f64 = 4.9e-4;

const HEADS: QkvShape = QkvShape { num_heads: 4, num_kv_heads: 2, head_dim: 16 };
const LAYERS: usize = 2;
const PAGE_SIZE: usize = 4;
const NUM_PAGES: usize = 8;
/// Pages of two sequences, in no order, sharing none.
const PAGES: [[u32; 3]; 2] = [[6, 0, 3], [1, 7, 4]];

fn new_cache(backend: &CpuBackend, dtype: KvDtype) -> CpuKvCache {
    let QkvShape { num_kv_heads, head_dim, .. } = HEADS;
    let shape = KvShape {
        num_layers: LAYERS,
        num_pages: NUM_PAGES,
        page_size: PAGE_SIZE,
        num_kv_heads,
        head_dim,
        dtype,
    };
    backend.alloc_kv_cache(shape).unwrap()
}

/// One position of one layer of the cache, `[num_kv_heads, head_dim]` K and V, read through the reference attention:
/// unit queries pick the dimensions of K, a weight of 1 picks V. Exact, `head_dim` being a power of 4.
fn stored(
    backend: &CpuBackend,
    cache: &CpuKvCache,
    layer: usize,
    pages: &[u32],
    position: usize,
) -> [Vec<f32>; 2] {
    let QkvShape { num_kv_heads, head_dim, .. } = HEADS;
    let shape = QkvShape { num_heads: num_kv_heads * head_dim, num_kv_heads, head_dim };
    let context = position + 1;
    let plan = plan(backend, &[Chunk { start: position, len: 1, pages }], PAGE_SIZE, Logits::Skip);

    let mut queries = vec![0.0; shape.cols()];
    for head in 0..shape.num_heads {
        queries[head * head_dim + head % head_dim] = (head_dim as f32).sqrt();
    }
    let queries = backend.upload(1, shape.cols(), &queries).unwrap();
    let mut scores = backend.alloc(1, shape.num_heads * context).unwrap();
    backend.attention_scores(&plan, shape, &queries, cache, layer, &mut scores);
    let scores = read(backend, &scores, shape.num_heads * context);
    let keys = scores.chunks(context).map(|scores| scores[position]).collect();

    let shape = QkvShape { num_heads: num_kv_heads, ..shape };
    let mut weights = vec![0.0; num_kv_heads * context];
    weights.iter_mut().skip(position).step_by(context).for_each(|weight| *weight = 1.0);
    let weights = backend.upload(1, weights.len(), &weights).unwrap();
    let mut values = backend.alloc(1, num_kv_heads * head_dim).unwrap();
    backend.attention_values(&plan, shape, &weights, cache, layer, &mut values);
    [keys, read(backend, &values, num_kv_heads * head_dim)]
}

/// `[positions, dim]` of `(cos, sin)`.
fn rope_table(positions: usize, dim: usize, angle: impl Fn(usize, usize) -> f64) -> Vec<f32> {
    (0..positions)
        .flat_map(|position| (0..dim / 2).map(move |pair| (position, pair)))
        .flat_map(|(position, pair)| {
            let (sin, cos) = angle(position, pair).sin_cos();
            [cos as f32, sin as f32]
        })
        .collect()
}

#[test]
fn keys_and_values_are_stored_in_their_pages_rounded_to_the_caches_type() {
    let chunks = [Chunk { start: 2, len: 9, pages: &PAGES[0] }, Chunk { start: 0, len: 5, pages: &PAGES[1] }];
    let tokens = 14;
    let qkv = Rng::new(1).normals(tokens * HEADS.cols(), 1.0);
    let rope = RopeShape { dim: 16, style: RopeStyle::Interleaved };
    for backend in backends() {
        for dtype in [KvDtype::F16, KvDtype::F32] {
            let table = backend.upload(11, 16, &rope_table(11, 16, |_, _| 0.0)).unwrap();
            let mut cache = new_cache(&backend, dtype);
            let mut buffer = backend.upload(tokens, HEADS.cols(), &qkv).unwrap();
            let plan = plan(&backend, &chunks, PAGE_SIZE, Logits::Skip);
            backend.rope_store_kv(&plan, HEADS, rope, &table, &mut buffer, &mut cache, 1);
            let narrow = |values: &[f32]| -> Vec<f32> {
                match dtype {
                    KvDtype::F16 => values.iter().map(|&value| f16_to_f32(f32_to_f16(value))).collect(),
                    KvDtype::F32 => values.to_vec(),
                }
            };
            let mut rows = qkv.chunks(HEADS.cols());
            for Chunk { start, len, pages } in &chunks {
                for position in *start..start + len {
                    let (_, kv) = rows.next().unwrap().split_at(HEADS.q_cols());
                    let (k, v) = kv.split_at(kv.len() / 2);
                    let what = format!("{} {dtype:?} position {position}", backend.isa());
                    let [keys, values] = stored(&backend, &cache, 1, pages, position);
                    check_same(&format!("{what} K"), &keys, &narrow(k));
                    check_same(&format!("{what} V"), &values, &narrow(v));
                }
            }
            for position in 0..11 {
                let other_layer = stored(&backend, &cache, 0, &PAGES[0], position);
                assert_eq!(other_layer, [vec![0.0; 32], vec![0.0; 32]]);
            }
        }
    }
}

#[test]
fn queries_and_keys_rotate_by_the_table_and_values_do_not() {
    let len = 10;
    let chunks = [Chunk { start: 0, len, pages: &PAGES[0] }];
    let angle = |position: usize, pair: usize| position as f64 * 0.7f64.powi(pair as i32);
    let qkv = Rng::new(2).normals(len * HEADS.cols(), 1.0);
    for style in [RopeStyle::Interleaved, RopeStyle::Halves] {
        for dim in [16, 6] {
            let want = rotated(&qkv, RopeShape { dim, style }, angle);
            for backend in backends() {
                let table = backend.upload(len, dim, &rope_table(len, dim, angle)).unwrap();
                let mut cache = new_cache(&backend, KvDtype::F16);
                let mut buffer = backend.upload(len, HEADS.cols(), &qkv).unwrap();
                let plan = plan(&backend, &chunks, PAGE_SIZE, Logits::Skip);
                let rope = RopeShape { dim, style };
                backend.rope_store_kv(&plan, HEADS, rope, &table, &mut buffer, &mut cache, 0);
                let queries = read(&backend, &buffer, qkv.len());
                for position in 0..len {
                    let want = &want[position * HEADS.cols()..][..HEADS.cols()];
                    let (want_q, want_kv) = want.split_at(HEADS.q_cols());
                    let (want_k, want_v) = want_kv.split_at(want_kv.len() / 2);
                    let what = format!("{} {style:?} {dim} position {position}", backend.isa());
                    // A pair's length bounds its two members' errors.
                    let check = |part: &str, got: &[f32], tolerance: f64, want: &[f64]| {
                        check_close(&format!("{what} {part}"), got, tolerance, |i| want[i], |_| 4.0);
                    };
                    let row = &queries[position * HEADS.cols()..][..HEADS.q_cols()];
                    check("Q", row, TOLERANCE, want_q);
                    let [keys, values] = stored(&backend, &cache, 0, &PAGES[0], position);
                    check("K", &keys, F16_TOLERANCE, want_k);
                    check("V", &values, F16_TOLERANCE, want_v);
                }
            }
        }
    }
}

/// The heads of neighbouring slots would overlap, and threads write them at once.
#[test]
#[should_panic(expected = "keys and values have the cache's shape")]
fn heads_of_another_width_than_the_caches_are_refused() {
    let backend = backends().next().unwrap();
    let shape = QkvShape { head_dim: 2 * HEADS.head_dim, ..HEADS };
    let rope = RopeShape { dim: 0, style: RopeStyle::Interleaved };
    let table = backend.upload(4, 16, &[0.0; 4 * 16]).unwrap();
    let mut cache = new_cache(&backend, KvDtype::F32);
    let mut buffer = backend.alloc(4, shape.cols()).unwrap();
    let plan = plan(&backend, &[Chunk { start: 0, len: 4, pages: &PAGES[0] }], PAGE_SIZE, Logits::Skip);
    backend.rope_store_kv(&plan, shape, rope, &table, &mut buffer, &mut cache, 0);
}

/// Rows of Q, K and V at positions 0, 1, .., with Q and K rotated in float64.
fn rotated(qkv: &[f32], rope: RopeShape, angle: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    let mut out: Vec<f64> = qkv.iter().map(|&value| value.into()).collect();
    let (rotated_cols, half) = ((HEADS.num_heads + HEADS.num_kv_heads) * HEADS.head_dim, rope.dim / 2);
    for (position, row) in out.chunks_mut(HEADS.cols()).enumerate() {
        for head in row[..rotated_cols].chunks_mut(HEADS.head_dim) {
            for pair in 0..half {
                let (a, b) = match rope.style {
                    RopeStyle::Interleaved => (2 * pair, 2 * pair + 1),
                    RopeStyle::Halves => (pair, pair + half),
                };
                let (sin, cos) = angle(position, pair).sin_cos();
                (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[a] * sin + head[b] * cos);
            }
        }
    }
    out
}
