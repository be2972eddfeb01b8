//! Operations on rows: norm, residual, activation, gather.

use cpu::CpuBackend;
use model::{Backend, Logits};
use testkit::Rng;

use super::{Chunk, backends, check_close, check_same, plan, read};

/// Sums of a few hundred squares in 16 lanes, a root, a quotient, and an exponential that is good to two units in the
/// last place.
const TOLERANCE: f64 = 6e-7;
const EPS: f32 = 1e-3;

/// Lengths on both sides of a vector's and a sum's 16 lanes.
const COLS: [usize; 7] = [1, 2, 15, 16, 17, 100, 257];
const ROWS: usize = 5;

/// Calls `each` with every backend and row length, and a generator.
fn for_each_row_length(mut each: impl FnMut(&CpuBackend, usize, Rng)) {
    for backend in backends() {
        for cols in COLS {
            each(&backend, cols, Rng::new(cols as u64));
        }
    }
}

fn rms_norm(x: &[f32], weight: &[f32]) -> Vec<f64> {
    let mean = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / x.len() as f64;
    let scale = 1.0 / (mean + f64::from(EPS)).sqrt();
    x.iter().zip(weight).map(|(&x, &weight)| f64::from(x) * scale * f64::from(weight)).collect()
}

#[test]
fn norm_and_residual_agree_with_float64_and_touch_no_further_row() {
    for_each_row_length(|backend, cols, mut rng| {
        let (values, delta) = (rng.normals(ROWS * cols, 2.0), rng.normals(ROWS * cols, 1.0));
        let weight = rng.normals(cols, 1.0);
        let what = format!("{} {cols} columns", backend.isa());
        let upload = |values: &[f32]| backend.upload(values.len() / cols, cols, values).unwrap();
        let check_norm = |what: &str, got: &[f32], x: &[f32]| {
            let (got, beyond) = got.split_at((ROWS - 1) * cols);
            let want: Vec<f64> = x.chunks(cols).flat_map(|x| rms_norm(x, &weight)).collect();
            check_close(what, got, TOLERANCE, |i| want[i], |i| want[i].abs());
            check_same(what, beyond, &vec![0.0; cols]);
        };

        let (mut x, mut out) = (upload(&values), backend.alloc(ROWS, cols).unwrap());
        backend.rms_norm(ROWS - 1, &x, &upload(&weight), EPS, &mut out);
        check_norm(&format!("{what}, rms_norm"), &read(backend, &out, ROWS * cols), &values);

        backend.add(ROWS - 1, &mut x, &upload(&delta));
        let mut sum: Vec<f32> = values.iter().zip(&delta).map(|(x, delta)| x + delta).collect();
        sum[(ROWS - 1) * cols..].copy_from_slice(&values[(ROWS - 1) * cols..]);
        check_same(&format!("{what}, add"), &read(backend, &x, ROWS * cols), &sum);

        let (mut x, mut out) = (upload(&values), backend.alloc(ROWS, cols).unwrap());
        backend.add_rms_norm(ROWS - 1, &mut x, &upload(&delta), &upload(&weight), EPS, &mut out);
        check_same(&format!("{what}, add_rms_norm"), &read(backend, &x, ROWS * cols), &sum);
        check_norm(&format!("{what}, add_rms_norm"), &read(backend, &out, ROWS * cols), &sum);
    });
}

#[test]
fn swiglu_agrees_with_float64() {
    for_each_row_length(|backend, cols, mut rng| {
        let mut gate_up = rng.normals(ROWS * 2 * cols, 4.0);
        gate_up[0] = -100.0; // The exponential overflows.
        gate_up[2 * cols] = 100.0;
        let mut out = backend.alloc(ROWS, cols).unwrap();
        backend.swiglu(ROWS, &backend.upload(ROWS, 2 * cols, &gate_up).unwrap(), &mut out);
        let want: Vec<f64> = gate_up
            .chunks(2 * cols)
            .flat_map(|row| {
                let (gate, up) = row.split_at(cols);
                gate.iter().zip(up).map(|(&gate, &up)| (f64::from(gate), f64::from(up)))
            })
            .map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up)
            .collect();
        let what = format!("{} {cols} columns", backend.isa());
        // At a gate of -100 the answer is nothing in f32, or close to it.
        let scale = |i: usize| want[i].abs().max(1e-30);
        check_close(&what, &read(backend, &out, ROWS * cols), TOLERANCE, |i| want[i], scale);
    });
}

#[test]
fn gathered_rows_are_the_wanted_ones() {
    let pages = [[0], [1], [2]];
    let chunk = |seq: usize, start: usize, len: usize| Chunk { start, len, pages: &pages[seq] };
    let chunks = [chunk(0, 0, 3), chunk(1, 4, 1), chunk(2, 2, 4)];
    for_each_row_length(|backend, cols, mut rng| {
        let x = rng.normals(8 * cols, 1.0);
        for (logits, rows) in [(Logits::Last, vec![2, 3, 7]), (Logits::All, (0..8).collect())] {
            let mut out = backend.alloc(rows.len(), cols).unwrap();
            let plan = plan(backend, &chunks, 16, logits);
            backend.gather_rows(&plan, &backend.upload(8, cols, &x).unwrap(), &mut out);
            let want: Vec<f32> =
                rows.iter().flat_map(|row| x[row * cols..][..cols].iter().copied()).collect();
            check_same(backend.isa().name(), &read(backend, &out, rows.len() * cols), &want);
        }
    });
}
