//! The kernels that work row by row.

use model::{Backend, Batch, BatchLimits, Logits, QkvShape, Result};

use super::{Tally, random, read};
use crate::backend::GpuBackend;

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

pub(super) fn rms_norm(backend: &GpuBackend, tally: &mut Tally) -> Result<()> {
    for (rows, cols) in SHAPES {
        let (x, weight) = (random(1, rows * cols), random(2, cols));
        let (on_device, weight_on) = (backend.upload(rows, cols, &x)?, backend.upload(1, cols, &weight)?);
        let mut out = backend.alloc(rows, cols)?;
        backend.rms_norm(rows, &on_device, &weight_on, EPS, &mut out);
        let got = read(backend, &out, rows * cols)?;
        tally.near(|| format!("{rows} x {cols}"), &got, &normed(&widened(&x), &weight));
    }
    Ok(())
}

pub(super) fn add_rms_norm(backend: &GpuBackend, tally: &mut Tally) -> Result<()> {
    for (rows, cols) in SHAPES {
        let [x, delta] = [3, 4].map(|seed| random(seed, rows * cols));
        let weight = random(5, cols);
        let (mut x_on, delta_on) = (backend.upload(rows, cols, &x)?, backend.upload(rows, cols, &delta)?);
        let weight_on = backend.upload(1, cols, &weight)?;
        let mut out = backend.alloc(rows, cols)?;
        backend.add_rms_norm(rows, &mut x_on, &delta_on, &weight_on, EPS, &mut out);
        let sums: Vec<f64> = x.iter().zip(&delta).map(|(&x, &d)| f64::from(x) + f64::from(d)).collect();
        let got = read(backend, &out, rows * cols)?;
        tally.near(|| format!("{rows} x {cols}"), &got, &normed(&sums, &weight));
        let got = read(backend, &x_on, rows * cols)?;
        tally.near(|| format!("{rows} x {cols}: the sum"), &got, &sums);
    }
    Ok(())
}

pub(super) fn add(backend: &GpuBackend, tally: &mut Tally) -> Result<()> {
    for (rows, cols) in SHAPES {
        let [x, delta] = [6, 7].map(|seed| random(seed, rows * cols));
        let (mut x_on, delta_on) = (backend.upload(rows, cols, &x)?, backend.upload(rows, cols, &delta)?);
        backend.add(rows, &mut x_on, &delta_on);
        let sums: Vec<f64> = x.iter().zip(&delta).map(|(&x, &d)| f64::from(x) + f64::from(d)).collect();
        tally.near(|| format!("{rows} x {cols}"), &read(backend, &x_on, rows * cols)?, &sums);
    }
    Ok(())
}

pub(super) fn swiglu(backend: &GpuBackend, tally: &mut Tally) -> Result<()> {
    for (rows, cols) in SHAPES {
        // Far enough from zero on both sides for the exponential to be large and small.
        let gate_up: Vec<f32> = random(8, rows * 2 * cols).iter().map(|x| 6.0 * x).collect();
        let on_device = backend.upload(rows, 2 * cols, &gate_up)?;
        let mut out = backend.alloc(rows, cols)?;
        backend.swiglu(rows, &on_device, &mut out);
        let row = |row: &[f32]| {
            let (gate, up) = row.split_at(cols);
            let pairs = gate.iter().zip(up).map(|(&gate, &up)| (f64::from(gate), f64::from(up)));
            pairs.map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up).collect::<Vec<_>>()
        };
        let want: Vec<f64> = gate_up.chunks_exact(2 * cols).flat_map(row).collect();
        tally.near(|| format!("{rows} x {cols}"), &read(backend, &out, rows * cols)?, &want);
    }
    Ok(())
}

pub(super) fn gather_rows(backend: &GpuBackend, tally: &mut Tally) -> Result<()> {
    for (_, cols) in SHAPES {
        let limits = BatchLimits { max_tokens: 40, max_seqs: 3, max_logit_rows: 40, max_blocks: 2 };
        let mut batch = Batch::new(limits, 16);
        for (len, logits) in [(5, Logits::Last), (17, Logits::Skip), (8, Logits::All)] {
            batch.push(&vec![0; len], 0, &[0, 1], logits);
        }
        let shape = QkvShape { num_heads: 1, num_kv_heads: 1, head_dim: 2 };
        let mut plan = backend.alloc_plan(limits, shape)?;
        backend.plan(&batch, &mut plan)?;
        let rows = batch.num_logit_rows();
        let x = random(9, batch.num_tokens() * cols);
        let on_device = backend.upload(batch.num_tokens(), cols, &x)?;
        let mut out = backend.alloc(rows, cols)?;
        backend.gather_rows(&plan, &on_device, &mut out);
        let want: Vec<f32> =
            batch.logit_rows().iter().flat_map(|&row| &x[row as usize * cols..][..cols]).copied().collect();
        tally.same(|| format!("{rows} x {cols}"), &read(backend, &out, rows * cols)?, &want);
    }
    Ok(())
}

/// Ties, values that are none, and rows without any.
pub(super) fn argmax(backend: &GpuBackend, tally: &mut Tally) -> Result<()> {
    for (rows, cols) in [(1, 2048), (3, 100), (17, 171), (5, 32_003), (2, 1)] {
        let mut x: Vec<f32> = random(10, rows * cols).iter().map(|x| (4.0 * x).round()).collect();
        for (i, special) in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::NAN].into_iter().enumerate() {
            let at = (i * 7919 + 5) % x.len();
            x[at] = special;
        }
        if rows > 2 {
            x[cols..2 * cols].fill(f32::NEG_INFINITY);
        }
        let on_device = backend.upload(rows, cols, &x)?;
        let mut got = vec![0; rows];
        backend.argmax(&on_device, &mut got).expect("a GPU finds the highest")?;
        let want: Vec<u32> = x.chunks_exact(cols).map(highest).collect();
        tally.equal(|| format!("{rows} x {cols}"), &got, &want);
    }
    Ok(())
}

/// The index of the highest value, of equal ones the first.
fn highest(row: &[f32]) -> u32 {
    let mut best = (f32::NEG_INFINITY, u32::MAX);
    for (i, &value) in row.iter().enumerate() {
        if value > best.0 {
            best = (value, i as u32);
        }
    }
    best.1
}
