//! Operations on single rows: norm, residual, activation, softmax.
//!
//! Sums run in 16 lanes that are folded in a fixed tree, so their order depends on the row's length alone.

use model::math::{exp, tanh};

/// Lanes of a sum; a multiple of every vector's width in use.
pub(super) const LANES: usize = 16;

/// Adds the lanes in a fixed tree: 8 + 8, 4 + 4, 2 + 2, 1 + 1.
#[inline(always)]
pub(super) fn fold(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// RMSNorm (arXiv 1910.07467).
#[inline(always)]
pub(super) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    assert!(x.len() == weight.len() && x.len() == out.len(), "rms_norm: lengths differ");
    let (chunks, tail) = x.as_chunks::<LANES>();
    let mut lanes = [0f32; LANES];
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += x * x;
        }
    }
    for (lane, x) in lanes.iter_mut().zip(tail) {
        *lane += x * x;
    }
    let scale = 1.0 / (fold(lanes) / x.len() as f32 + eps).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * scale * weight;
    }
}

#[inline(always)]
pub(super) fn add(x: &mut [f32], delta: &[f32]) {
    assert_eq!(x.len(), delta.len(), "add: lengths differ");
    for (x, delta) in x.iter_mut().zip(delta) {
        *x += delta;
    }
}

/// SwiGLU (arXiv 2002.05202), silu being `x / (1 + e^-x)`.
#[inline(always)]
pub(super) fn swiglu(gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert!(gate.len() == up.len() && gate.len() == out.len(), "swiglu: lengths differ");
    for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
        *out = gate / (1.0 + exp(-gate)) * up;
    }
}

/// GeGLU (arXiv 2002.05202), gelu being `0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`.
#[inline(always)]
pub(super) fn geglu(gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert!(gate.len() == up.len() && gate.len() == out.len(), "geglu: lengths differ");
    // sqrt(2 / pi)
    const SLOPE: f32 = 0.797_884_6;
    for ((out, &x), &up) in out.iter_mut().zip(gate).zip(up) {
        *out = 0.5 * x * (1.0 + tanh(SLOPE * (x + 0.044_715 * x * x * x))) * up;
    }
}

/// The SwiGLU of gpt-oss: `x / (1 + e^-1.702x) * (up + 1)` with `x = min(gate, 7)` and up within 7 of zero.
#[inline(always)]
pub(super) fn clamped_swiglu(gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert!(gate.len() == up.len() && gate.len() == out.len(), "clamped_swiglu: lengths differ");
    for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
        // Not `min` and `clamp` alone: what is no number stays so.
        let x = if gate > 7.0 { 7.0 } else { gate };
        *out = x / (1.0 + exp(-1.702 * x)) * (up.clamp(-7.0, 7.0) + 1.0);
    }
}

/// `x = cap * tanh(x / cap)`.
#[inline(always)]
pub(super) fn softcap(x: &mut [f32], cap: f32) {
    for x in x {
        *x = cap * tanh(*x / cap);
    }
}

/// The specification's three passes: maximum, sum of exponentials, quotient.
#[inline(always)]
pub(super) fn softmax(x: &mut [f32]) {
    let max = x.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    let mut lanes = [0f32; LANES];
    let (chunks, tail) = x.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *x = exp(*x - max);
            *lane += *x;
        }
    }
    for (lane, x) in lanes.iter_mut().zip(tail) {
        *x = exp(*x - max);
        *lane += *x;
    }
    let sum = fold(lanes);
    for x in x {
        *x /= sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative error allowed to f32 sums of up to a few thousand terms in 16 lanes.
    const TOLERANCE: f64 = 2e-6;

    fn row(len: usize, seed: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 500.0 - 2.0).collect()
    }

    fn check(got: &[f32], want: impl Fn(usize) -> f64) {
        for (i, &got) in got.iter().enumerate() {
            let want = want(i);
            assert!(
                (f64::from(got) - want).abs() <= TOLERANCE * (1.0 + want.abs()),
                "[{i}]: {got} and {want}"
            );
        }
    }

    #[test]
    fn rows_agree_with_f64_for_ragged_lengths() {
        for len in [1, 2, 15, 16, 17, 100, 257, 2048] {
            let (x, y) = (row(len, 1), row(len, 2));
            let f = |v: f32| f64::from(v);
            let mut out = vec![0.0; len];

            rms_norm(&x, &y, 1e-5, &mut out);
            let mean = x.iter().map(|&v| f(v) * f(v)).sum::<f64>() / len as f64;
            check(&out, |i| f(x[i]) / (mean + 1e-5).sqrt() * f(y[i]));

            swiglu(&x, &y, &mut out);
            check(&out, |i| f(x[i]) / (1.0 + (-f(x[i])).exp()) * f(y[i]));

            out.copy_from_slice(&x);
            softmax(&mut out);
            let sum: f64 = x.iter().map(|&v| f(v).exp()).sum();
            check(&out, |i| f(x[i]).exp() / sum);

            out.copy_from_slice(&x);
            add(&mut out, &y);
            check(&out, |i| f(x[i]) + f(y[i]));
        }
    }
}
