//! Products and rows of quantised matrices.

use std::sync::Arc;

use gguf::random::{Rng, random_blocks};
use gguf::{Format, Gguf, GgufWriter};
use model::{Backend, Batch, BatchLimits, BufferRole, Linear, QkvShape, Result, Want};

use crate::{Subject, Tally, random, read};

/// Tokens of which every batch is made.
const TOKENS: usize = 130;
/// Of these, in batches: a prime, so that a token comes to every position of a tile.
const DIFFERENT: usize = 31;
/// Rows of a pattern that a tall matrix repeats.
const PATTERN_ROWS: usize = 32;

/// A random matrix on the host and on the device.
struct Matrix<B: Backend> {
    cols: usize,
    weights: Vec<f32>, // [rows, cols]
    linear: Linear<B>,
}

/// A file of one random matrix, and its values.
pub(crate) fn random_matrix(format: Format, rows: usize, cols: usize) -> (Gguf, Vec<f32>) {
    let bytes = random_blocks(format, rows * cols, 0.1, &mut Rng::new((rows + cols) as u64));
    let mut weights = vec![0.0; rows * cols];
    format.dequantize(&bytes, &mut weights);
    let mut writer = GgufWriter::new();
    writer.tensor("matrix", &[cols as u64, rows as u64], format, bytes);
    (writer.into_gguf(), weights)
}

impl<B: Backend> Matrix<B> {
    fn new(backend: &B, format: Format, rows: usize, cols: usize) -> Result<Self> {
        let (gguf, weights) = random_matrix(format, rows, cols);
        let linear = loaded(backend, &gguf)?;
        Ok(Self { cols, weights, linear })
    }

    /// `[x rows, rows]` in float64.
    fn product(&self, x: &[f32]) -> Vec<f64> {
        products(&self.weights, x, self.cols)
    }

    /// `[x rows, rows]`: the sums of the terms' magnitudes.
    fn magnitudes(&self, x: &[f32]) -> Vec<f64> {
        magnitudes(&self.weights, x, self.cols)
    }
}

/// `[x rows, weights rows]` in float64.
pub(crate) fn products(weights: &[f32], x: &[f32], cols: usize) -> Vec<f64> {
    sums(weights, x, cols, |w, x| w * x)
}

/// `[x rows, weights rows]`: the sums of the terms' magnitudes.
pub(crate) fn magnitudes(weights: &[f32], x: &[f32], cols: usize) -> Vec<f64> {
    sums(weights, x, cols, |w, x| (w * x).abs())
}

/// For each pair of rows the sum of `term(weight, x)`.
fn sums(weights: &[f32], x: &[f32], cols: usize, term: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    /// Sums beside one another: one alone waits for each of its additions, and the checks' time is mostly this.
    const LANES: usize = 8;
    let term = |(&w, &x): (&f32, &f32)| term(f64::from(w), f64::from(x));
    let dot = |x: &[f32], weights: &[f32]| -> f64 {
        let (x, x_rest) = x.as_chunks::<LANES>();
        let (weights, weights_rest) = weights.as_chunks::<LANES>();
        let mut sums = [0.0; LANES];
        for (weights, x) in weights.iter().zip(x) {
            for (sum, pair) in sums.iter_mut().zip(weights.iter().zip(x)) {
                *sum += term(pair);
            }
        }
        sums.into_iter().chain(weights_rest.iter().zip(x_rest).map(term)).sum()
    };
    let mut out = Vec::with_capacity(weights.len() / cols * (x.len() / cols));
    for x in x.chunks_exact(cols) {
        out.extend(weights.chunks_exact(cols).map(|weights| dot(x, weights)));
    }
    out
}

/// `[rows, cols]` values as [`Inputs::Exact`](crate::Inputs::Exact) has them.
pub(crate) fn exact_inputs(seed: usize, rows: usize, cols: usize) -> Vec<f32> {
    let mut rng = Rng::new(seed as u64);
    let mut x = Vec::with_capacity(rows * cols);
    for _ in 0..rows {
        let mut row: Vec<i32> = (0..cols).map(|_| rng.below(255) as i32 - 127).collect();
        for block in row.chunks_mut(32) {
            let at = rng.below(block.len() as u32) as usize;
            block[at] = if rng.below(2) == 0 { 127 } else { -127 };
        }
        x.extend(row.into_iter().map(|value| value as f32 / 32.0));
    }
    x
}

fn loaded<B: Backend>(backend: &B, gguf: &Gguf) -> Result<Linear<B>> {
    Ok(Linear { parts: vec![backend.load(gguf.tensor("matrix")?)?], bias: None })
}

/// `[x rows, rows]` on the device.
pub(crate) fn product<B: Backend>(
    backend: &B,
    linear: &Linear<B>,
    x: &[f32],
    (rows, cols): (usize, usize),
) -> Result<Vec<f32>> {
    let tokens = x.len() / cols;
    let on_device = backend.upload(tokens, cols, x)?;
    let mut out = backend.alloc(tokens, rows, BufferRole::Values)?;
    backend.matmul(tokens, &on_device, linear, &mut out);
    read(backend, &out, tokens * rows)
}

/// Rows and columns: the edges of tiles of 16 rows and 64 columns, and several of each.
fn shapes(format: Format) -> [(usize, usize); 3] {
    match format.block_len() {
        1 => [(40, 171), (16, 20), (33, 576)],
        32 => [(40, 160), (16, 32), (33, 576)],
        _ => [(40, 512), (16, 256), (33, 768)],
    }
}

/// Rows on both sides of a tile's 16, and more than two tiles.
const RAGGED_ROWS: [usize; 5] = [1, 15, 16, 17, 40];

/// Columns: the shortest row, and several blocks; formats without blocks also have odd ones.
fn ragged_cols(format: Format) -> &'static [usize] {
    match format.block_len() {
        1 => &[1, 3, 31, 32, 100, 257],
        32 => &[32, 64, 96, 352],
        _ => &[256, 768],
    }
}

fn ragged_shapes(format: Format) -> impl Iterator<Item = (usize, usize)> {
    RAGGED_ROWS.into_iter().flat_map(move |rows| ragged_cols(format).iter().map(move |&cols| (rows, cols)))
}

/// Each element against float64, over every ragged shape, and over one of enough tiles for several threads, the last of
/// them ragged.
pub(crate) fn exact<S: Subject>(backend: &S, tally: &mut Tally, format: Format) -> Result<()> {
    /// Every number of tokens that a kernel takes at once, and more than two such groups.
    const MANY: usize = 35;
    let shapes = ragged_shapes(format).map(|shape| (shape, MANY)).chain([((650, 256), 9)]);
    for ((rows, cols), tokens) in shapes {
        let matrix = Matrix::new(backend, format, rows, cols)?;
        let x = exact_inputs(7, tokens, cols);
        let (want, scale) = (matrix.product(&x), matrix.magnitudes(&x));
        let got = product(backend, &matrix.linear, &x, (rows, cols))?;
        tally.each(|| format!("{rows} x {cols}, {tokens} tokens"), &got, &want, |i| scale[i]);
    }
    Ok(())
}

/// Against float64, without and with a bias.
pub(crate) fn right<S: Subject>(backend: &S, tally: &mut Tally, format: Format) -> Result<()> {
    for (rows, cols) in shapes(format) {
        let mut matrix = Matrix::new(backend, format, rows, cols)?;
        let x = random(1, TOKENS * cols);
        let want = matrix.product(&x);
        for tokens in [1, 3, 7, 17, 40, TOKENS] {
            let got = product(backend, &matrix.linear, &x[..tokens * cols], (rows, cols))?;
            tally.near(|| format!("{rows} x {cols}, {tokens} tokens"), &got, &want[..tokens * rows]);
        }
        let bias = random(2, rows);
        matrix.linear.bias = Some(backend.upload(1, rows, &bias)?);
        let x = &x[..5 * cols];
        let want: Vec<f64> = matrix.product(x).chunks_exact(rows).flat_map(|row| added(row, &bias)).collect();
        let got = product(backend, &matrix.linear, x, (rows, cols))?;
        tally.near(|| format!("{rows} x {cols} with a bias"), &got, &want);
    }
    Ok(())
}

fn added(row: &[f64], bias: &[f32]) -> Vec<f64> {
    row.iter().zip(bias).map(|(value, &bias)| value + f64::from(bias)).collect()
}

/// Each token alone, and in batches: of every number from 1 to 65 and more tokens of one shape, at every position of a
/// tile; of fewer numbers over every ragged shape.
pub(crate) fn invariant<S: Subject>(backend: &S, tally: &mut Tally, format: Format) -> Result<()> {
    for shape in ragged_shapes(format) {
        let Matrix { linear, .. } = Matrix::new(backend, format, shape.0, shape.1)?;
        same_in_batches(backend, tally, &linear, shape, 19, (2..=9).chain([16, 19, 35]))?;
        same_beside_damage(backend, tally, &linear, shape)?;
    }
    let shape = shapes(format)[0];
    let Matrix { linear, .. } = Matrix::new(backend, format, shape.0, shape.1)?;
    same_in_batches(backend, tally, &linear, shape, DIFFERENT, (1..=65).chain([128, TOKENS]))
}

/// Compares `different` tokens, each alone, with batches of `counts` of them.
pub(crate) fn same_in_batches<S: Subject>(
    backend: &S,
    tally: &mut Tally,
    linear: &Linear<S>,
    (rows, cols): (usize, usize),
    different: usize,
    counts: impl Iterator<Item = usize>,
) -> Result<()> {
    let x = random(3, different * cols);
    let tokens = x.chunks_exact(cols).map(|x| product(backend, linear, x, (rows, cols)));
    let alone: Vec<Vec<f32>> = tokens.collect::<Result<_>>()?;
    for count in counts {
        let picked: Vec<usize> = (0..count).map(|i| (7 * count + i) % different).collect();
        let batch: Vec<f32> = picked.iter().flat_map(|&i| &x[i * cols..][..cols]).copied().collect();
        let want: Vec<f32> = picked.iter().flat_map(|&i| &alone[i]).copied().collect();
        let got = product(backend, linear, &batch, (rows, cols))?;
        tally.same(|| format!("{rows} x {cols}, {count} tokens"), &got, &want);
    }
    Ok(())
}

/// Tokens between others that hold no numbers: a kernel that reads past a row's end must not multiply what it finds there,
/// not even with weights of 0.
fn same_beside_damage<S: Subject>(
    backend: &S,
    tally: &mut Tally,
    linear: &Linear<S>,
    (rows, cols): (usize, usize),
) -> Result<()> {
    let x = random(6, cols);
    let alone = product(backend, linear, &x, (rows, cols))?;
    for damage in [f32::NAN, f32::INFINITY] {
        let damaged = vec![damage; cols];
        let batch = [&damaged, &x, &damaged, &damaged, &x, &damaged].map(Vec::as_slice).concat();
        let got = product(backend, linear, &batch, (rows, cols))?;
        for token in [1, 4] {
            let got = &got[token * rows..][..rows];
            tally.same(|| format!("{rows} x {cols}, token {token} beside {damage}"), got, &alone);
        }
    }
    Ok(())
}

/// Rows of a matrix of so many that kernels take several tiles of them at a time, against those of a small one.
pub(crate) fn tall<S: Subject>(backend: &S, tally: &mut Tally, format: Format) -> Result<()> {
    const COLS: usize = 256;
    let pattern: Arc<[u8]> = random_blocks(format, PATTERN_ROWS * COLS, 0.1, &mut Rng::new(4)).into();
    let with_rows = |rows: usize| {
        let mut writer = GgufWriter::new();
        writer.patterned_tensor("matrix", &[COLS as u64, rows as u64], format, &pattern);
        loaded(backend, &writer.into_gguf())
    };
    let x = random(5, 33 * COLS);
    for tokens in [1, 17, 33] {
        let x = &x[..tokens * COLS];
        let few = product(backend, &with_rows(PATTERN_ROWS)?, x, (PATTERN_ROWS, COLS))?;
        for rows in [16_400, 65_560] {
            let got = product(backend, &with_rows(rows)?, x, (rows, COLS))?;
            let want: Vec<f32> = few
                .chunks_exact(PATTERN_ROWS)
                .flat_map(|row| row.iter().cycle().take(rows))
                .copied()
                .collect();
            tally.same(|| format!("{rows} x {COLS}, {tokens} tokens"), &got, &want);
        }
    }
    Ok(())
}

/// Every row of tables of every shape.
pub(crate) fn embed<S: Subject>(backend: &S, tally: &mut Tally, format: Format) -> Result<()> {
    const MOST: usize = 40;
    let limits =
        BatchLimits { max_tokens: MOST, max_seqs: 1, max_logit_rows: 1, max_blocks: 1, num_pages: 1 };
    let mut batch = Batch::new(limits, MOST);
    let mut plan = backend.alloc_plan(limits, &[QkvShape { num_heads: 1, num_kv_heads: 1, head_dim: 2 }])?;
    for (rows, cols) in ragged_shapes(format).chain(shapes(format)) {
        let Matrix { weights, linear, .. } = Matrix::new(backend, format, rows, cols)?;
        // In no order, some twice.
        let tokens: Vec<u32> = (0..MOST - 1).map(|i| (i * 7 % rows) as u32).collect();
        batch.clear();
        batch.push(&tokens, 0, &[0], Want::None);
        backend.plan(&batch, &mut plan)?;
        let mut out = backend.alloc(MOST, cols, BufferRole::Values)?;
        backend.embed(&plan, &linear.parts[0], &mut out);
        let row =
            |&token: &u32| weights[token as usize * cols..][..cols].iter().map(|&value| f64::from(value));
        let want: Vec<f64> = tokens.iter().flat_map(row).collect();
        let got = read(backend, &out, MOST * cols)?;
        let (got, beyond) = got.split_at(want.len());
        tally.near(|| format!("{rows} x {cols}"), got, &want);
        tally.same(|| format!("{rows} x {cols}, the row beyond"), beyond, &vec![0.0; cols]);
    }
    Ok(())
}
