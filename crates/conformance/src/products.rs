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

impl<B: Backend> Matrix<B> {
    fn new(backend: &B, format: Format, rows: usize, cols: usize) -> Result<Self> {
        let bytes = random_blocks(format, rows * cols, 0.1, &mut Rng::new((rows + cols) as u64));
        let mut weights = vec![0.0; rows * cols];
        format.dequantize(&bytes, &mut weights);
        let mut writer = GgufWriter::new();
        writer.tensor("matrix", &[cols as u64, rows as u64], format, bytes);
        let linear = loaded(backend, &writer.into_gguf())?;
        Ok(Self { cols, weights, linear })
    }

    /// `[x rows, rows]` in float64.
    fn product(&self, x: &[f32]) -> Vec<f64> {
        let dot = |x: &[f32], weights: &[f32]| -> f64 {
            x.iter().zip(weights).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum()
        };
        let rows = |x| self.weights.chunks_exact(self.cols).map(move |weights| dot(x, weights));
        x.chunks_exact(self.cols).flat_map(rows).collect()
    }
}

fn loaded<B: Backend>(backend: &B, gguf: &Gguf) -> Result<Linear<B>> {
    Ok(Linear { parts: vec![backend.load(gguf.tensor("matrix")?)?], bias: None })
}

/// `[x rows, rows]` on the device.
fn product<B: Backend>(
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

/// Against float64, without and with a bias.
pub(crate) fn right<S: Subject>(backend: &S, tally: &mut Tally, format: Format) -> Result<()> {
    for (rows, cols) in shapes(format) {
        let mut matrix = Matrix::new(backend, format, rows, cols)?;
        let x = random(1, TOKENS * cols);
        for tokens in [1, 3, 7, 17, 40, TOKENS] {
            let x = &x[..tokens * cols];
            let got = product(backend, &matrix.linear, x, (rows, cols))?;
            tally.near(|| format!("{rows} x {cols}, {tokens} tokens"), &got, &matrix.product(x));
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

/// Each token alone, and in batches of 1 to 65 and more tokens, at every position of a tile.
pub(crate) fn invariant<S: Subject>(backend: &S, tally: &mut Tally, format: Format) -> Result<()> {
    let (rows, cols) = shapes(format)[0];
    let Matrix { linear, .. } = Matrix::new(backend, format, rows, cols)?;
    let x = random(3, DIFFERENT * cols);
    let tokens = x.chunks_exact(cols).map(|x| product(backend, &linear, x, (rows, cols)));
    let alone: Vec<Vec<f32>> = tokens.collect::<Result<_>>()?;
    for count in (1..=65).chain([128, TOKENS]) {
        let picked: Vec<usize> = (0..count).map(|i| (7 * count + i) % DIFFERENT).collect();
        let batch: Vec<f32> = picked.iter().flat_map(|&i| &x[i * cols..][..cols]).copied().collect();
        let want: Vec<f32> = picked.iter().flat_map(|&i| &alone[i]).copied().collect();
        let got = product(backend, &linear, &batch, (rows, cols))?;
        tally.same(|| format!("{rows} x {cols}, {count} tokens"), &got, &want);
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

/// Rows of a table.
pub(crate) fn embed<S: Subject>(backend: &S, tally: &mut Tally, format: Format) -> Result<()> {
    for (rows, cols) in shapes(format) {
        let Matrix { weights, linear, .. } = Matrix::new(backend, format, rows, cols)?;
        let tokens: Vec<u32> = (0..23).map(|i| (i * 7 % rows) as u32).collect();
        let limits =
            BatchLimits { max_tokens: 23, max_seqs: 1, max_logit_rows: 1, max_blocks: 2, num_pages: 2 };
        let mut batch = Batch::new(limits, 16);
        batch.push(&tokens, 0, &[0, 1], Want::None);
        let mut plan =
            backend.alloc_plan(limits, &[QkvShape { num_heads: 1, num_kv_heads: 1, head_dim: 2 }])?;
        backend.plan(&batch, &mut plan)?;
        let mut out = backend.alloc(tokens.len(), cols, BufferRole::Values)?;
        backend.embed(&plan, &linear.parts[0], &mut out);
        let row =
            |&token: &u32| weights[token as usize * cols..][..cols].iter().map(|&value| f64::from(value));
        let want: Vec<f64> = tokens.iter().flat_map(row).collect();
        tally.near(|| format!("{rows} x {cols}"), &read(backend, &out, tokens.len() * cols)?, &want);
    }
    Ok(())
}
