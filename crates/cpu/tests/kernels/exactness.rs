//! What only this back end promises: how much memory weights take, how far bytes are from activations, exponentials to the last places, and outputs that are
//! not finite where an input is not.

use cpu::{Activations, CpuBackend, CpuBuffer};
use gguf::{Format, Gguf, GgufWriter};
use model::{Activation, Backend, BufferRole, Linear, Read};
use testkit::{Rng, random_blocks, relative_l2};

use super::backends;

/// A file of one tensor, `w`: random weights `[rows, cols]`.
fn weights(format: Format, rows: usize, cols: usize) -> Gguf {
    let mut rng = Rng::new((rows * 1000 + cols) as u64);
    let data = random_blocks(format, rows * cols, 0.05, &mut rng);
    let mut file = GgufWriter::new();
    file.tensor("w", &[cols as u64, rows as u64], format, data);
    file.into_gguf()
}

/// The first `len` values.
fn read(backend: &CpuBackend, buffer: &CpuBuffer, len: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; len];
    backend.read_into(&mut [Read { buffer, first_row: 0, out: &mut out }]).unwrap();
    out
}

/// Repacked weights take at most a tenth more than the file's, padding of the last rows aside; those whose points or digits are
/// taken apart, the bits of an index and their scales.
#[test]
fn repacked_weights_stay_packed() {
    const SHAPE: (usize, usize) = (64, 512);
    for format in Format::ALL {
        let file = weights(format, SHAPE.0, SHAPE.1);
        let tensor = file.tensor("w").unwrap();
        for backend in backends() {
            let packed = backend.matrix_bytes(&backend.load(tensor).unwrap());
            let weights = (SHAPE.0 * SHAPE.1) as u64;
            let limit = match format {
                Format::IQ1_S
                | Format::IQ1_M
                | Format::IQ2_XXS
                | Format::IQ2_XS
                | Format::IQ2_S
                | Format::IQ3_XXS
                | Format::IQ3_S => weights * 4 / 8 + weights / 256 * 18,
                Format::TQ1_0 => weights * 2 / 8 + weights / 256 * 2,
                _ => tensor.data().len() as u64 * 110 / 100,
            };
            assert!(packed <= limit, "{} {format}: {packed} bytes, expected at most {limit}", backend.isa());
        }
    }
}

#[test]
fn an_activation_that_is_not_finite_shows_in_every_output() {
    const SHAPE: (usize, usize) = (17, 256);
    for backend in backends() {
        for format in Format::ALL {
            let file = weights(format, SHAPE.0, SHAPE.1);
            let weight = Linear { parts: vec![backend.load(file.tensor("w").unwrap()).unwrap()], bias: None };
            for bad in [f32::NAN, f32::INFINITY] {
                let mut x = vec![1.0; 2 * SHAPE.1];
                x[40] = bad;
                let x = backend.upload(2, SHAPE.1, &x).unwrap();
                let mut out = backend.alloc(2, SHAPE.0, BufferRole::Values).unwrap();
                backend.matmul(2, &x, &weight, &mut out);
                let y = read(&backend, &out, 2 * SHAPE.0);
                let (spoilt, whole) = y.split_at(SHAPE.0);
                assert!(spoilt.iter().all(|y| !y.is_finite()), "{} {format} {bad}", backend.isa());
                assert!(whole.iter().all(|y| y.is_finite()), "{} {format} {bad}", backend.isa());
            }
        }
    }
}

/// Activations in int8 with a scale for 32 are off by `max / 127 / sqrt(12)` each, `max` being about twice their
/// deviation: half a percent, over many blocks. In 16 bits they are off by a 256th of that.
#[test]
fn products_are_as_good_as_the_quantisation_of_their_inputs() {
    const INT8_TOLERANCE: f64 = 6e-3;
    // What f32 sums of 768 terms, one after the other, leave of them all together.
    const FLOAT_TOLERANCE: f64 = 1e-6;
    let (rows, cols, tokens) = (40, 768, 35);
    for format in Format::ALL {
        let file = weights(format, rows, cols);
        let w = file.tensor("w").unwrap().dequantize();
        let mut rng = Rng::new(8);
        // Blocks of very different sizes, as activations have.
        let x: Vec<f32> = (0..tokens * cols / 32)
            .flat_map(|_| {
                let sigma = rng.uniform(0.01, 2.0);
                rng.normals(32, sigma)
            })
            .collect();
        let dot = |x: &[f32], w: &[f32]| -> f64 {
            w.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum()
        };
        let want: Vec<f64> = x.chunks(cols).flat_map(|x| w.chunks(cols).map(move |w| dot(x, w))).collect();
        for backend in backends() {
            let tolerance = match (format.block_len(), backend.activations()) {
                (1, _) => FLOAT_TOLERANCE,
                (_, Activations::Bits8) => INT8_TOLERANCE,
                (_, Activations::Bits16) => INT8_TOLERANCE / 256.0,
            };
            let weight = Linear { parts: vec![backend.load(file.tensor("w").unwrap()).unwrap()], bias: None };
            let x = backend.upload(tokens, cols, &x).unwrap();
            let mut out = backend.alloc(tokens, rows, BufferRole::Values).unwrap();
            backend.matmul(tokens, &x, &weight, &mut out);
            let error = relative_l2(&read(&backend, &out, tokens * rows), &want);
            let (isa, activations) = (backend.isa(), backend.activations());
            assert!(error <= tolerance, "{isa}, {activations} bits, {format}: {error:e}");
        }
    }
}

/// The largest weights and integer scales of Q6_K with the largest activations, of one sign: products of two halves are
/// as large as they can be.
#[test]
fn the_largest_integers_fit() {
    const BLOCKS: usize = 2;
    // Quants of 0 stand for -32; scales of -128; `d` of 1.
    let mut block = vec![0; Format::Q6_K.block_bytes()];
    block[192..208].fill(0x80);
    block[208..].copy_from_slice(&0x3c00u16.to_le_bytes());
    let mut file = GgufWriter::new();
    file.tensor("w", &[(BLOCKS * 256) as u64, 16], Format::Q6_K, block.repeat(16 * BLOCKS));
    let file = file.into_gguf();
    for backend in backends() {
        let weight = Linear { parts: vec![backend.load(file.tensor("w").unwrap()).unwrap()], bias: None };
        for value in [1.0, -1.0] {
            let x = backend.upload(1, BLOCKS * 256, &[value; BLOCKS * 256]).unwrap();
            let mut out = backend.alloc(1, 16, BufferRole::Values).unwrap();
            backend.matmul(1, &x, &weight, &mut out);
            let want = value * (32 * 128 * 256 * BLOCKS) as f32;
            for got in read(&backend, &out, 16) {
                let (isa, bits) = (backend.isa(), backend.activations());
                assert!((got / want - 1.0).abs() < 1e-6, "{isa}, {bits} bits: {got}, expected {want}");
            }
        }
    }
}

/// A quotient, two products, and an exponential that is good to two units in the last place: relative to the result, also
/// where it is small.
#[test]
fn swiglu_is_good_to_the_last_places() {
    const TOLERANCE: f64 = 6e-7;
    const ROWS: usize = 5;
    // Both sides of a vector's 16 lanes.
    for cols in [1, 2, 15, 16, 17, 100, 257] {
        let mut gate_up = Rng::new(cols as u64).normals(ROWS * 2 * cols, 4.0);
        gate_up[0] = -100.0; // The exponential overflows.
        gate_up[2 * cols] = 100.0;
        for backend in backends() {
            let x = backend.upload(ROWS, 2 * cols, &gate_up).unwrap();
            let mut out = backend.alloc(ROWS, cols, BufferRole::MatmulInput).unwrap();
            backend.gated(ROWS, Activation::Silu, &x, &mut out);
            let got = read(&backend, &out, ROWS * cols);
            for (got, row) in got.chunks(cols).zip(gate_up.chunks(2 * cols)) {
                for (col, got) in got.iter().enumerate() {
                    let (gate, up) = (f64::from(row[col]), f64::from(row[cols + col]));
                    let want = gate / (1.0 + (-gate).exp()) * up;
                    // At a gate of -100 the answer is nothing in f32, or close to it.
                    let allowed = TOLERANCE * want.abs().max(1e-30);
                    let error = (f64::from(*got) - want).abs();
                    assert!(
                        error <= allowed,
                        "{} {cols} columns [{col}]: {got}, expected {want}",
                        backend.isa()
                    );
                }
            }
        }
    }
}
