//! Matrix products and embedding rows in every block format.

use cpu::{CpuBackend, CpuMatrix};
use gguf::Format;
use model::{Backend, Linear, Logits};
use testkit::{Rng, relative_l2};

use super::{Chunk, backend, backends, check_close, check_same, isas, plan, read, weights};

/// Rows on both sides of a tile's 16, and more than two tiles.
const ROWS: [usize; 5] = [1, 15, 16, 17, 40];
/// Every number of tokens that a kernel takes at once (1 to 16), and more than two such groups.
const MAX_TOKENS: usize = 35;

/// Where activations are exact in int8, all that is left is rounding in f32: of the block's scale, of its product with
/// an exact integer and of the sum so far, each half a unit in the last place (6e-8) of numbers that the sum of the
/// terms' magnitudes bounds.
const EXACT_TOLERANCE: f64 = 2.4e-7;

/// Activations in int8 with a scale for 32 are off by `max / 127 / sqrt(12)` each, `max` being about twice their
/// deviation: half a percent.
const INT8_TOLERANCE: f64 = 6e-3;

/// What f32 sums of 768 terms, one after the other, leave of them all together.
const FLOAT_TOLERANCE: f64 = 1e-6;

/// The shortest row, and several blocks; formats without blocks also have odd columns.
fn cols(format: Format) -> &'static [usize] {
    match format.block_len() {
        1 => &[1, 3, 31, 32, 100, 257],
        32 => &[32, 64, 96, 352],
        _ => &[256, 768],
    }
}

/// Calls `each(format, rows, cols)` for every format and shape.
fn for_each_shape(mut each: impl FnMut(Format, usize, usize)) {
    for format in Format::ALL {
        for rows in ROWS {
            for &cols in cols(format) {
                each(format, rows, cols);
            }
        }
    }
}

/// `[tokens, cols]` multiples of 1/32 below 4 whose largest of every 32 is 127/32: quantised with a scale of exactly
/// 1/32, they come back as they were.
fn exact_activations(tokens: usize, cols: usize, rng: &mut Rng) -> Vec<f32> {
    let mut x = Vec::new();
    for _ in 0..tokens {
        let mut row: Vec<i32> = (0..cols).map(|_| rng.below(255) as i32 - 127).collect();
        for block in row.chunks_mut(32) {
            let at = rng.below(block.len() as u32) as usize;
            block[at] = if rng.below(2) == 0 { 127 } else { -127 };
        }
        x.extend(row.into_iter().map(|k| k as f32 / 32.0));
    }
    x
}

fn matmul(
    backend: &CpuBackend,
    x: &[f32],
    cols: usize,
    weight: &Linear<CpuBackend>,
    rows: usize,
) -> Vec<f32> {
    let tokens = x.len() / cols;
    let x = backend.upload(tokens, cols, x).unwrap();
    let mut out = backend.alloc(tokens, rows).unwrap();
    backend.matmul(tokens, &x, weight, &mut out);
    read(backend, &out, tokens * rows)
}

fn linear(matrix: CpuMatrix) -> Linear<CpuBackend> {
    Linear { parts: vec![matrix], bias: None }
}

/// `[tokens, rows]` in float64, by `term(weight, activation)`.
fn sums(w: &[f32], x: &[f32], cols: usize, term: fn(f64, f64) -> f64) -> Vec<f64> {
    let row = |x: &[f32], w: &[f32]| w.iter().zip(x).map(|(&w, &x)| term(w.into(), x.into())).sum();
    x.chunks(cols).flat_map(|x| w.chunks(cols).map(move |w| row(x, w))).collect()
}

#[test]
fn loaded_weights_are_those_of_the_file_bit_for_bit() {
    for backend in backends() {
        for_each_shape(|format, rows, cols| {
            let file = weights(format, rows, cols);
            let tensor = file.tensor("w").unwrap();
            let matrix = backend.load(tensor).unwrap();
            let all_rows = [Chunk { start: 0, len: rows, pages: &[0] }];
            let mut out = backend.alloc(rows, cols).unwrap();
            backend.embed(&plan(&backend, &all_rows, rows, Logits::Skip), &matrix, &mut out);
            let what = format!("{} {format} [{rows}, {cols}]", backend.isa());
            check_same(&what, &read(&backend, &out, rows * cols), &tensor.dequantize());
        });
    }
}

/// Repacked weights take at most a tenth more than the file's, padding of the last rows aside.
#[test]
fn repacked_weights_stay_packed() {
    const SHAPE: (usize, usize) = (64, 512);
    for format in Format::ALL {
        let file = weights(format, SHAPE.0, SHAPE.1);
        let tensor = file.tensor("w").unwrap();
        for backend in backends() {
            let packed = backend.matrix_bytes(&backend.load(tensor).unwrap());
            let limit = tensor.data().len() as u64 * 110 / 100;
            assert!(packed <= limit, "{} {format}: {packed} bytes, expected at most {limit}", backend.isa());
        }
    }
}

#[test]
fn products_of_exact_activations_agree_with_float64() {
    for_each_shape(|format, rows, cols| {
        let file = weights(format, rows, cols);
        let w = file.tensor("w").unwrap().dequantize();
        let x = exact_activations(MAX_TOKENS, cols, &mut Rng::new(7));
        let want = sums(&w, &x, cols, |w, x| w * x);
        let magnitude = sums(&w, &x, cols, |w, x| (w * x).abs());
        for backend in backends() {
            let weight = linear(backend.load(file.tensor("w").unwrap()).unwrap());
            let got = matmul(&backend, &x, cols, &weight, rows);
            let what = format!("{} {format} [{rows}, {cols}]", backend.isa());
            check_close(&what, &got, EXACT_TOLERANCE, |i| want[i], |i| magnitude[i]);
        }
    });
}

#[test]
fn products_of_any_activations_agree_with_float64_up_to_their_quantisation() {
    let rows = 40;
    for format in Format::ALL {
        let cols = 768;
        let file = weights(format, rows, cols);
        let w = file.tensor("w").unwrap().dequantize();
        let mut rng = Rng::new(8);
        // Blocks of very different sizes, as activations have.
        let x: Vec<f32> = (0..MAX_TOKENS * cols / 32)
            .flat_map(|_| {
                let sigma = rng.uniform(0.01, 2.0);
                rng.normals(32, sigma)
            })
            .collect();
        let want = sums(&w, &x, cols, |w, x| w * x);
        let tolerance = if format.block_len() == 1 { FLOAT_TOLERANCE } else { INT8_TOLERANCE };
        for backend in backends() {
            let weight = linear(backend.load(file.tensor("w").unwrap()).unwrap());
            let error = relative_l2(&matmul(&backend, &x, cols, &weight, rows), &want);
            assert!(error <= tolerance, "{} {format}: {error:e}", backend.isa());
        }
    }
}

#[test]
fn a_tokens_product_is_the_same_bits_in_any_batch() {
    for backend in backends() {
        for_each_shape(|format, rows, cols| {
            let file = weights(format, rows, cols);
            let weight = linear(backend.load(file.tensor("w").unwrap()).unwrap());
            let x = Rng::new(9).normals(MAX_TOKENS * cols, 1.0);
            let alone: Vec<f32> =
                x.chunks(cols).flat_map(|x| matmul(&backend, x, cols, &weight, rows)).collect();
            for tokens in (2..=9).chain([MAX_TOKENS]) {
                for first in [0, (MAX_TOKENS - tokens) / 2, MAX_TOKENS - tokens] {
                    let range = first..first + tokens;
                    let batch = &x[range.start * cols..range.end * cols];
                    let got = matmul(&backend, batch, cols, &weight, rows);
                    let what = format!("{} {format} [{rows}, {cols}] tokens {range:?}", backend.isa());
                    check_same(&what, &got, &alone[range.start * rows..range.end * rows]);
                }
            }
        });
    }
}

#[test]
fn a_product_is_the_same_bits_on_any_number_of_threads() {
    // Enough tiles for tasks of several, and a ragged last one.
    let (rows, cols) = (650, 256);
    for isa in isas() {
        for format in Format::ALL {
            let file = weights(format, rows, cols);
            let x = Rng::new(10).normals(9 * cols, 1.0);
            let on = |threads: usize| {
                let backend = backend(isa, threads);
                assert_eq!(backend.num_threads(), threads);
                let weight = linear(backend.load(file.tensor("w").unwrap()).unwrap());
                matmul(&backend, &x, cols, &weight, rows)
            };
            let one = on(1);
            for threads in [2, 3] {
                check_same(&format!("{isa} {format} on {threads} threads"), &on(threads), &one);
            }
        }
    }
}

#[test]
fn a_stack_of_formats_with_a_bias_is_its_parts_side_by_side() {
    let (cols, tokens) = (256, 5);
    let parts = [(Format::Q4_K, 40), (Format::F16, 1), (Format::Q6_K, 17), (Format::Q4_K, 16)];
    let rows: usize = parts.iter().map(|(_, rows)| rows).sum();
    let x = Rng::new(11).normals(tokens * cols, 1.0);
    let bias = Rng::new(12).normals(rows, 1.0);
    for backend in backends() {
        let load = |&(format, rows)| backend.load(weights(format, rows, cols).tensor("w").unwrap()).unwrap();
        let stack = Linear {
            parts: parts.iter().map(load).collect(),
            bias: Some(backend.upload(1, rows, &bias).unwrap()),
        };
        let apart: Vec<_> = parts
            .iter()
            .map(|part| (part.1, matmul(&backend, &x, cols, &linear(load(part)), part.1)))
            .collect();
        let want: Vec<f32> = (0..tokens)
            .flat_map(|token| apart.iter().flat_map(move |(rows, y)| y[token * rows..][..*rows].to_vec()))
            .zip(bias.iter().cycle())
            .map(|(y, bias)| y + bias)
            .collect();
        check_same(backend.isa().name(), &matmul(&backend, &x, cols, &stack, rows), &want);
    }
}

#[test]
fn an_activation_that_is_not_finite_shows_in_every_output() {
    for backend in backends() {
        for format in Format::ALL {
            let file = weights(format, 17, 256);
            let weight = linear(backend.load(file.tensor("w").unwrap()).unwrap());
            for bad in [f32::NAN, f32::INFINITY] {
                let mut x = vec![1.0; 2 * 256];
                x[40] = bad;
                let y = matmul(&backend, &x, 256, &weight, 17);
                let (spoilt, whole) = y.split_at(17);
                assert!(spoilt.iter().all(|y| !y.is_finite()), "{} {format} {bad}", backend.isa());
                assert!(whole.iter().all(|y| y.is_finite()), "{} {format} {bad}", backend.isa());
            }
        }
    }
}
