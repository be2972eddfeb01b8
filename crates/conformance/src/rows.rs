//! Operations on rows: norms, sums, activations, gathers, and the index of the highest value.

use gguf::random::Rng;
use model::{Activation, Batch, BatchLimits, BufferRole, NO_INDEX, QkvShape, Result, Rows, Want};

use crate::{Subject, Tally, random, read};

/// Rows and columns: one lane's work and several rounds of a workgroup's, odd widths, the tiles' edges.
const SHAPES: [(usize, usize); 8] =
    [(1, 256), (3, 100), (17, 171), (5, 2049), (70, 64), (2, 1), (3, 8192), (2, 8196)];

const EPS: f32 = 1e-5;

/// `[rows, cols]` normed.
fn normed(x: &[f64], weight: &[f32]) -> Vec<f64> {
    let row = |row: &[f64]| {
        let mean = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
        let scale = 1.0 / (mean + f64::from(EPS)).sqrt();
        row.iter().zip(weight).map(|(x, &w)| x * scale * f64::from(w)).collect::<Vec<_>>()
    };
    x.chunks_exact(weight.len()).flat_map(row).collect()
}

fn widened(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

pub(crate) fn rms_norm<S: Subject>(backend: &S, tally: &mut Tally) -> Result<()> {
    for (rows, cols) in SHAPES {
        let (x, weight) = (random(1, rows * cols), random(2, cols));
        let (on_device, weight_on) = (backend.upload(rows, cols, &x)?, backend.upload(1, cols, &weight)?);
        let mut out = backend.alloc(rows, cols, BufferRole::MatmulInput)?;
        backend.rms_norm(rows, &on_device, &weight_on, EPS, &mut out);
        let got = read(backend, &out, rows * cols)?;
        tally.near(|| format!("{rows} x {cols}"), &got, &normed(&widened(&x), &weight));
    }
    Ok(())
}

pub(crate) fn add_rms_norm<S: Subject>(backend: &S, tally: &mut Tally) -> Result<()> {
    for (rows, cols) in SHAPES {
        let [x, delta] = [3, 4].map(|seed| random(seed, rows * cols));
        let weight = random(5, cols);
        let (mut x_on, delta_on) = (backend.upload(rows, cols, &x)?, backend.upload(rows, cols, &delta)?);
        let weight_on = backend.upload(1, cols, &weight)?;
        let mut out = backend.alloc(rows, cols, BufferRole::MatmulInput)?;
        backend.add_rms_norm(rows, &mut x_on, &delta_on, &weight_on, EPS, &mut out);
        let sums: Vec<f64> = x.iter().zip(&delta).map(|(&x, &d)| f64::from(x) + f64::from(d)).collect();
        let got = read(backend, &out, rows * cols)?;
        tally.near(|| format!("{rows} x {cols}"), &got, &normed(&sums, &weight));
        let got = read(backend, &x_on, rows * cols)?;
        tally.near(|| format!("{rows} x {cols}: the sum"), &got, &sums);
    }
    Ok(())
}

pub(crate) fn add<S: Subject>(backend: &S, tally: &mut Tally) -> Result<()> {
    for (rows, cols) in SHAPES {
        let [x, delta] = [6, 7].map(|seed| random(seed, rows * cols));
        let (mut x_on, delta_on) = (backend.upload(rows, cols, &x)?, backend.upload(rows, cols, &delta)?);
        backend.add(rows, &mut x_on, &delta_on);
        let sums: Vec<f64> = x.iter().zip(&delta).map(|(&x, &d)| f64::from(x) + f64::from(d)).collect();
        tally.near(|| format!("{rows} x {cols}"), &read(backend, &x_on, rows * cols)?, &sums);
    }
    Ok(())
}

pub(crate) fn gated<S: Subject>(backend: &S, tally: &mut Tally, act: Activation) -> Result<()> {
    for (rows, cols) in SHAPES {
        // Far enough from zero on both sides for the exponential to be large and small.
        let gate_up: Vec<f32> = random(8, rows * 2 * cols).iter().map(|x| 6.0 * x).collect();
        let on_device = backend.upload(rows, 2 * cols, &gate_up)?;
        let mut out = backend.alloc(rows, cols, BufferRole::MatmulInput)?;
        backend.gated(rows, act, &on_device, &mut out);
        let row = |row: &[f32]| {
            let (gate, up) = row.split_at(cols);
            let pairs = gate.iter().zip(up).map(|(&gate, &up)| (f64::from(gate), f64::from(up)));
            pairs.map(|(gate, up)| activated(act, gate) * up).collect::<Vec<_>>()
        };
        let want: Vec<f64> = gate_up.chunks_exact(2 * cols).flat_map(row).collect();
        tally.near(|| format!("{rows} x {cols}"), &read(backend, &out, rows * cols)?, &want);
    }
    Ok(())
}

fn activated(act: Activation, x: f64) -> f64 {
    match act {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            let slope = (2.0 / std::f64::consts::PI).sqrt();
            0.5 * x * (1.0 + (slope * (x + 0.044715 * x.powi(3))).tanh())
        }
    }
}

pub(crate) fn scale<S: Subject>(backend: &S, tally: &mut Tally) -> Result<()> {
    each_element(backend, tally, |rows, x| backend.scale(rows, x, -0.37), |x| x * f64::from(-0.37_f32))
}

pub(crate) fn softcap<S: Subject>(backend: &S, tally: &mut Tally) -> Result<()> {
    each_element(backend, tally, |rows, x| backend.softcap(rows, x, 1.5), |x| 1.5 * (x / 1.5).tanh())
}

/// An operation on every element, of values from tiny to a hundred times the cap, which leaves further rows alone.
fn each_element<S: Subject>(
    backend: &S,
    tally: &mut Tally,
    run: impl Fn(usize, &mut S::Buffer),
    want: impl Fn(f64) -> f64,
) -> Result<()> {
    for (rows, cols) in SHAPES {
        let mut rng = Rng::new(11);
        let magnitude = |i: usize| [1e-3, 1.0, 4.0, 150.0][i % 4];
        let normals = rng.normals((rows + 1) * cols, 1.0).into_iter().enumerate();
        let x: Vec<f32> = normals.map(|(i, x)| x * magnitude(i)).collect();
        let mut on_device = backend.upload(rows + 1, cols, &x)?;
        run(rows, &mut on_device);
        let got = read(backend, &on_device, x.len())?;
        let (got, beyond) = got.split_at(rows * cols);
        let want: Vec<f64> = x[..got.len()].iter().map(|&x| want(f64::from(x))).collect();
        tally.near(|| format!("{rows} x {cols}"), got, &want);
        tally.same(|| format!("{rows} x {cols}, the row beyond"), beyond, &x[rows * cols..]);
    }
    Ok(())
}

/// Norms of heads in rows of queries, keys and values; the values stay.
pub(crate) fn norm_heads<S: Subject>(backend: &S, tally: &mut Tally) -> Result<()> {
    for (num_heads, num_kv_heads, head_dim) in [(4, 2, 64), (3, 1, 18), (2, 2, 128), (6, 2, 256)] {
        let shape = QkvShape { num_heads, num_kv_heads, head_dim };
        let tokens = 5;
        let limits =
            BatchLimits { max_tokens: 8, max_seqs: 1, max_logit_rows: 1, max_blocks: 1, num_pages: 1 };
        let mut batch = Batch::new(limits, 16);
        batch.push(&vec![0; tokens], 0, &[0], Want::None);
        let mut plan = backend.alloc_plan(limits, &[shape])?;
        backend.plan(&batch, &mut plan)?;
        let x = random(12, tokens * shape.cols());
        let [q_weight, k_weight] = [13, 14].map(|seed| random(seed, head_dim));
        let weights = (backend.upload(1, head_dim, &q_weight)?, backend.upload(1, head_dim, &k_weight)?);
        let mut on_device = backend.upload(tokens, shape.cols(), &x)?;
        backend.norm_heads(&plan, shape, (&weights.0, &weights.1), EPS, &mut on_device);
        let want: Vec<f64> = x
            .chunks_exact(head_dim)
            .enumerate()
            .flat_map(|(i, head)| match i % (num_heads + 2 * num_kv_heads) {
                of_q if of_q < num_heads => normed(&widened(head), &q_weight),
                of_k if of_k < num_heads + num_kv_heads => normed(&widened(head), &k_weight),
                _ => widened(head),
            })
            .collect();
        tally.near(
            || format!("{num_heads}/{num_kv_heads} heads of {head_dim}"),
            &read(backend, &on_device, x.len())?,
            &want,
        );
    }
    Ok(())
}

/// The rows that sequences of every kind want, in the order of kinds.
pub(crate) fn gather_rows<S: Subject>(backend: &S, tally: &mut Tally) -> Result<()> {
    for (_, cols) in SHAPES {
        let limits =
            BatchLimits { max_tokens: 40, max_seqs: 4, max_logit_rows: 40, max_blocks: 2, num_pages: 8 };
        let mut batch = Batch::new(limits, 16);
        let wants = [
            (5, Want::Logits(Rows::Last)),
            (17, Want::None),
            (8, Want::Hidden(Rows::All)),
            (6, Want::Argmax(Rows::LastN(3))),
        ];
        for (seq, (len, want)) in (0..).zip(wants) {
            batch.push(&vec![0; len], 0, &[2 * seq, 2 * seq + 1], want);
        }
        let shape = QkvShape { num_heads: 1, num_kv_heads: 1, head_dim: 2 };
        let mut plan = backend.alloc_plan(limits, &[shape])?;
        backend.plan(&batch, &mut plan)?;
        let rows = batch.size().wanted_rows();
        let x = random(9, batch.num_tokens() * cols);
        let on_device = backend.upload(batch.num_tokens(), cols, &x)?;
        let mut out = backend.alloc(rows, cols, BufferRole::Values)?;
        backend.gather_rows(&plan, &on_device, &mut out);
        let want: Vec<f32> =
            batch.wanted_rows().iter().flat_map(|&row| &x[row as usize * cols..][..cols]).copied().collect();
        tally.same(|| format!("{rows} x {cols}"), &read(backend, &out, rows * cols)?, &want);
    }
    Ok(())
}

/// Ties, values that are none, rows without any, and rows in the middle of a buffer.
pub(crate) fn argmax<S: Subject>(backend: &S, tally: &mut Tally) -> Result<()> {
    for (rows, cols) in [(1, 2048), (3, 100), (17, 171), (5, 32_003), (2, 1)] {
        let mut x: Vec<f32> = random(10, rows * cols).iter().map(|x| (4.0 * x).round()).collect();
        for (i, special) in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::NAN].into_iter().enumerate() {
            let at = (i * 7919 + 5) % x.len();
            x[at] = special;
        }
        if rows > 2 {
            x[cols..2 * cols].fill(f32::NEG_INFINITY);
            x[2 * cols + 3] = f32::MAX;
            x[2 * cols + 4] = f32::INFINITY;
        }
        let on_device = backend.upload(rows, cols, &x)?;
        let all: Vec<u32> = x.chunks_exact(cols).map(highest).collect();
        for first in [0, rows / 2] {
            let count = rows - first;
            let mut out = backend.alloc(rows, 1, BufferRole::Values)?;
            backend.argmax(first..rows, &on_device, &mut out);
            let got: Vec<u32> = read(backend, &out, count)?.iter().map(|bits| bits.to_bits()).collect();
            tally.equal(|| format!("rows {first} to {rows} of {cols}"), &got, &all[first..]);
        }
    }
    Ok(())
}

/// The index of the highest value, of equal ones the first.
fn highest(row: &[f32]) -> u32 {
    let mut best = (f32::NEG_INFINITY, NO_INDEX);
    for (i, &value) in (0..).zip(row) {
        let value = if value == f32::INFINITY { f32::MAX } else { value };
        if value > best.0 {
            best = (value, i);
        }
    }
    best.1
}
