//! Operations on rows: norms, sums and activations.

use model::{Activation, Batch, BatchLimits, BufferRole, QkvShape, Result, Want};

use crate::{Subject, Tally, random, read};

/// Rows and columns: both sides of 16 lanes, one lane's work and several rounds of a workgroup's, odd widths, the tiles'
/// edges.
const SHAPES: [(usize, usize); 13] = [
    (2, 1),
    (3, 2),
    (4, 15),
    (4, 16),
    (4, 17),
    (70, 64),
    (3, 100),
    (17, 171),
    (1, 256),
    (4, 257),
    (5, 2049),
    (3, 8192),
    (2, 8196),
];

const EPS: f32 = 1e-5;

/// `[rows, cols]` normed.
fn normed(x: &[f32], weight: &[f32]) -> Vec<f64> {
    let row = |row: &[f32]| {
        let row = widened(row);
        let mean = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
        let scale = 1.0 / (mean + f64::from(EPS)).sqrt();
        row.into_iter().zip(weight).map(|(x, &w)| x * scale * f64::from(w)).collect::<Vec<_>>()
    };
    x.chunks_exact(weight.len()).flat_map(row).collect()
}

fn widened(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

/// Rows of very different sizes, in the first of which epsilon is as large as the mean of the squares.
fn rows_of_sizes(seed: usize, rows: usize, cols: usize) -> Vec<f32> {
    let size = |i: usize| [3e-3, 1.0, 40.0][i / cols % 3];
    random(seed, rows * cols).into_iter().enumerate().map(|(i, x)| x * size(i)).collect()
}

/// Compares `rows` rows with what is right, and the one beyond with what it was.
fn check_rows(
    tally: &mut Tally,
    what: &str,
    got: &[f32],
    (want, beyond): (&[f64], &[f32]),
    scale: impl Fn(usize) -> f64,
) {
    let (got, rest) = got.split_at(want.len());
    tally.each(|| what.to_owned(), got, want, scale);
    tally.same(|| format!("{what}, the row beyond"), rest, beyond);
}

pub(crate) fn rms_norm<S: Subject>(backend: &S, tally: &mut Tally) -> Result<()> {
    for (rows, cols) in SHAPES {
        let (x, weight) = (rows_of_sizes(1, rows + 1, cols), random(2, cols));
        let (on_device, weight_on) = (backend.upload(rows + 1, cols, &x)?, backend.upload(1, cols, &weight)?);
        let mut out = backend.alloc(rows + 1, cols, BufferRole::MatmulInput)?;
        backend.rms_norm(rows, &on_device, &weight_on, EPS, &mut out);
        let got = read(backend, &out, x.len())?;
        let want = normed(&x[..rows * cols], &weight);
        check_rows(tally, &format!("{rows} x {cols}"), &got, (&want, &vec![0.0; cols]), |i| want[i].abs());
    }
    Ok(())
}

pub(crate) fn add_rms_norm<S: Subject>(backend: &S, tally: &mut Tally) -> Result<()> {
    for (rows, cols) in SHAPES {
        let [x, delta] = [3, 4].map(|seed| rows_of_sizes(seed, rows + 1, cols));
        let weight = random(5, cols);
        let [mut x_on, delta_on] =
            [backend.upload(rows + 1, cols, &x)?, backend.upload(rows + 1, cols, &delta)?];
        let weight_on = backend.upload(1, cols, &weight)?;
        let mut out = backend.alloc(rows + 1, cols, BufferRole::MatmulInput)?;
        backend.add_rms_norm(rows, &mut x_on, &delta_on, &weight_on, EPS, &mut out);
        let sums = sums(&x, &delta, rows * cols);
        let got = read(backend, &x_on, x.len())?;
        tally.same(|| format!("{rows} x {cols}: the sum"), &got, &sums);
        let got = read(backend, &out, x.len())?;
        let want = normed(&sums[..rows * cols], &weight);
        check_rows(tally, &format!("{rows} x {cols}"), &got, (&want, &vec![0.0; cols]), |i| want[i].abs());
    }
    Ok(())
}

/// `x + delta`, of the first `len` values; then `x`. One addition has one right result.
fn sums(x: &[f32], delta: &[f32], len: usize) -> Vec<f32> {
    let sums = x[..len].iter().zip(delta).map(|(x, delta)| x + delta);
    sums.chain(x[len..].iter().copied()).collect()
}

pub(crate) fn add<S: Subject>(backend: &S, tally: &mut Tally) -> Result<()> {
    for (rows, cols) in SHAPES {
        let [x, delta] = [6, 7].map(|seed| rows_of_sizes(seed, rows + 1, cols));
        let [mut x_on, delta_on] =
            [backend.upload(rows + 1, cols, &x)?, backend.upload(rows + 1, cols, &delta)?];
        backend.add(rows, &mut x_on, &delta_on);
        let want = sums(&x, &delta, rows * cols);
        tally.same(|| format!("{rows} x {cols}"), &read(backend, &x_on, x.len())?, &want);
    }
    Ok(())
}

pub(crate) fn gated<S: Subject>(backend: &S, tally: &mut Tally, act: Activation) -> Result<()> {
    for (rows, cols) in SHAPES {
        // Far enough from zero on both sides for the exponential to be large and small, and to overflow.
        let mut gate_up: Vec<f32> = random(8, rows * 2 * cols).iter().map(|x| 6.0 * x).collect();
        gate_up[0] = -100.0;
        gate_up[(rows - 1) * 2 * cols + cols - 1] = 100.0;
        let on_device = backend.upload(rows, 2 * cols, &gate_up)?;
        let mut out = backend.alloc(rows + 1, cols, BufferRole::MatmulInput)?;
        backend.gated(rows, act, &on_device, &mut out);
        let row = |row: &[f32]| {
            let (gate, up) = row.split_at(cols);
            let pairs = gate.iter().zip(up).map(|(&gate, &up)| (f64::from(gate), f64::from(up)));
            pairs.map(|(gate, up)| activated(act, gate, up)).collect::<Vec<_>>()
        };
        let (want, scale): (Vec<f64>, Vec<f64>) = gate_up.chunks_exact(2 * cols).flat_map(row).unzip();
        let got = read(backend, &out, (rows + 1) * cols)?;
        check_rows(tally, &format!("{rows} x {cols}"), &got, (&want, &vec![0.0; cols]), |i| scale[i]);
    }
    Ok(())
}

/// What an activation comes to, and the gate times the other factor.
fn activated(act: Activation, gate: f64, up: f64) -> (f64, f64) {
    match act {
        Activation::Silu => (gate / (1.0 + (-gate).exp()) * up, (gate * up).abs()),
        Activation::GeluTanh => {
            let slope = (2.0 / std::f64::consts::PI).sqrt();
            let inner = slope * (gate + 0.044715 * gate.powi(3));
            (0.5 * gate * (1.0 + inner.tanh()) * up, (gate * up).abs())
        }
        Activation::ClampedSwiglu => {
            let (x, y) = (gate.min(7.0), up.clamp(-7.0, 7.0));
            // One is added to the other factor: near -1 what is left of a rounding counts.
            (x / (1.0 + (-1.702 * x).exp()) * (y + 1.0), x.abs() * (y.abs() + 1.0))
        }
    }
}

/// Values from tiny to a hundred times the cap.
fn of_all_sizes(rows: usize, cols: usize) -> Vec<f32> {
    let size = |i: usize| [1e-3, 1.0, 4.0, 150.0][i % 4];
    random(11, rows * cols).into_iter().enumerate().map(|(i, x)| x * size(i)).collect()
}

/// One multiplication has one right result.
pub(crate) fn scale<S: Subject>(backend: &S, tally: &mut Tally) -> Result<()> {
    for (rows, cols) in SHAPES {
        let mut want = of_all_sizes(rows + 1, cols);
        let mut on_device = backend.upload(rows + 1, cols, &want)?;
        backend.scale(rows, &mut on_device, -0.37);
        want[..rows * cols].iter_mut().for_each(|x| *x *= -0.37);
        tally.same(|| format!("{rows} x {cols}"), &read(backend, &on_device, want.len())?, &want);
    }
    Ok(())
}

pub(crate) fn softcap<S: Subject>(backend: &S, tally: &mut Tally) -> Result<()> {
    const CAP: f64 = 1.5;
    for (rows, cols) in SHAPES {
        let x = of_all_sizes(rows + 1, cols);
        let mut on_device = backend.upload(rows + 1, cols, &x)?;
        backend.softcap(rows, &mut on_device, CAP as f32);
        let (within, beyond) = x.split_at(rows * cols);
        let want: Vec<f64> = within.iter().map(|&x| CAP * (f64::from(x) / CAP).tanh()).collect();
        let got = read(backend, &on_device, x.len())?;
        check_rows(tally, &format!("{rows} x {cols}"), &got, (&want, beyond), |_| CAP);
    }
    Ok(())
}

/// A plan of one sequence of so many tokens, the first at position `start`.
fn plan_of<S: Subject>(backend: &S, start: usize, tokens: usize, shape: QkvShape) -> Result<S::Plan> {
    let limits = BatchLimits { max_tokens: 16, max_seqs: 1, max_logit_rows: 1, max_blocks: 2, num_pages: 2 };
    let mut batch = Batch::new(limits, 16);
    batch.push(&vec![0; tokens], start, &[1, 0], Want::None);
    let mut plan = backend.alloc_plan(limits, &[shape])?;
    backend.plan(&batch, &mut plan)?;
    Ok(plan)
}

/// Norms of heads in rows of queries, keys and values; the values stay, and so does the row beyond.
pub(crate) fn norm_heads<S: Subject>(backend: &S, tally: &mut Tally) -> Result<()> {
    const TOKENS: usize = 5;
    for (num_heads, num_kv_heads, head_dim) in [(4, 2, 64), (3, 1, 18), (2, 2, 128), (6, 2, 256), (4, 2, 16)]
    {
        let shape = QkvShape { num_heads, num_kv_heads, head_dim };
        let plan = plan_of(backend, 0, TOKENS, shape)?;
        let x = rows_of_sizes(12, TOKENS + 1, shape.cols());
        let [q_weight, k_weight] = [13, 14].map(|seed| random(seed, head_dim));
        let weights = (backend.upload(1, head_dim, &q_weight)?, backend.upload(1, head_dim, &k_weight)?);
        let mut on_device = backend.upload(TOKENS + 1, shape.cols(), &x)?;
        backend.norm_heads(&plan, shape, (&weights.0, &weights.1), EPS, &mut on_device);
        let got = read(backend, &on_device, x.len())?;
        let what = format!("{num_heads}/{num_kv_heads} heads of {head_dim}");
        let heads = got.chunks_exact(head_dim).zip(x.chunks_exact(head_dim)).enumerate();
        for (i, (got, x)) in heads {
            let head = i % (num_heads + 2 * num_kv_heads);
            let case = || format!("{what}, head {i}");
            if head >= num_heads + num_kv_heads || i >= TOKENS * (num_heads + 2 * num_kv_heads) {
                tally.same(case, got, x);
                continue;
            }
            let want = normed(x, if head < num_heads { &q_weight } else { &k_weight });
            tally.each(case, got, &want, |i| want[i].abs());
        }
    }
    Ok(())
}

/// Queries are multiplied by the factors of their positions; keys, values and the row beyond stay.
pub(crate) fn scale_queries<S: Subject>(backend: &S, tally: &mut Tally) -> Result<()> {
    const TOKENS: usize = 5;
    const POSITIONS: usize = 32;
    for ((num_heads, num_kv_heads, head_dim), start) in [((4, 2, 64), 0), ((3, 1, 18), 14), ((20, 4, 16), 27)]
    {
        let shape = QkvShape { num_heads, num_kv_heads, head_dim };
        let plan = plan_of(backend, start, TOKENS, shape)?;
        let (factors, mut want) = (random(19, POSITIONS), random(20, (TOKENS + 1) * shape.cols()));
        let factors_on = backend.upload(POSITIONS, 1, &factors)?;
        let mut on_device = backend.upload(TOKENS + 1, shape.cols(), &want)?;
        backend.scale_queries(&plan, shape, &factors_on, &mut on_device);
        for (row, factor) in want.chunks_exact_mut(shape.cols()).zip(&factors[start..start + TOKENS]) {
            row[..shape.q_cols()].iter_mut().for_each(|q| *q *= factor);
        }
        let case = || format!("{num_heads}/{num_kv_heads} heads of {head_dim} from position {start}");
        tally.same(case, &read(backend, &on_device, want.len())?, &want);
    }
    Ok(())
}

/// An operation on rows.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Operation {
    RmsNorm,
    AddRmsNorm,
    NormHeads,
    Scale,
    Softcap,
    Gated(Activation),
    Argmax,
}

/// The shape of the rows of [`invariant`].
const HEADS: QkvShape = QkvShape { num_heads: 3, num_kv_heads: 1, head_dim: 34 };

/// Takes rows of [`HEADS`]'s width through an operation; the results have as many values for each row.
fn run<S: Subject>(backend: &S, operation: Operation, rows: usize, values: &[f32]) -> Result<Vec<f32>> {
    let cols = HEADS.cols();
    let mut x = backend.upload(rows, cols, values)?;
    let mut out = backend.alloc(rows, cols, BufferRole::MatmulInput)?;
    let weight = backend.upload(1, cols, &random(15, cols))?;
    match operation {
        Operation::RmsNorm => backend.rms_norm(rows, &x, &weight, EPS, &mut out),
        Operation::AddRmsNorm => {
            let delta: Vec<f32> = values.iter().map(|x| 0.3 * x).collect();
            let delta = backend.upload(rows, cols, &delta)?;
            backend.add_rms_norm(rows, &mut x, &delta, &weight, EPS, &mut out);
            return read(backend, &out, rows * cols);
        }
        Operation::NormHeads => {
            let plan = plan_of(backend, 0, rows, HEADS)?;
            let weight = |seed| backend.upload(1, HEADS.head_dim, &random(seed, HEADS.head_dim));
            let (q_weight, k_weight) = (weight(16)?, weight(17)?);
            backend.norm_heads(&plan, HEADS, (&q_weight, &k_weight), EPS, &mut x);
            return read(backend, &x, rows * cols);
        }
        Operation::Scale => {
            backend.scale(rows, &mut x, 0.7);
            return read(backend, &x, rows * cols);
        }
        Operation::Softcap => {
            backend.softcap(rows, &mut x, 0.9);
            return read(backend, &x, rows * cols);
        }
        Operation::Gated(act) => {
            let mut out = backend.alloc(rows, cols / 2, BufferRole::MatmulInput)?;
            backend.gated(rows, act, &x, &mut out);
            return read(backend, &out, rows * cols / 2);
        }
        Operation::Argmax => {
            let mut out = backend.alloc(rows, 1, BufferRole::Values)?;
            backend.argmax(0..rows, &x, &mut out);
            return read(backend, &out, rows);
        }
    }
    read(backend, &out, rows * cols)
}

/// Every operation, of many rows together and of each alone.
pub(crate) fn invariant<S: Subject>(backend: &S, tally: &mut Tally) -> Result<()> {
    const ROWS: usize = 13;
    let cols = HEADS.cols();
    let x: Vec<f32> = random(18, ROWS * cols).iter().map(|x| 2.0 * x).collect();
    for operation in [
        Operation::RmsNorm,
        Operation::AddRmsNorm,
        Operation::NormHeads,
        Operation::Scale,
        Operation::Softcap,
        Operation::Gated(Activation::Silu),
        Operation::Gated(Activation::GeluTanh),
        Operation::Gated(Activation::ClampedSwiglu),
        Operation::Argmax,
    ] {
        let rows = x.chunks_exact(cols).map(|row| run(backend, operation, 1, row));
        let alone = rows.collect::<Result<Vec<_>>>()?.concat();
        for (first, count) in [(0, ROWS), (3, 8), (11, 2)] {
            let got = run(backend, operation, count, &x[first * cols..][..count * cols])?;
            let width = got.len() / count;
            let want = &alone[first * width..][..count * width];
            tally.same(|| format!("{operation:?} of {count} rows"), &got, want);
        }
    }
    Ok(())
}
