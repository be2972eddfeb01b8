//! Products with stacks of matrices, of one format and of several, as the layers of a model have them.

use gguf::{Format, Gguf};
use model::{Backend, Linear, Result};

use crate::products::{exact_inputs, magnitudes, product, products, random_matrix, same_in_batches};
use crate::{Subject, Tally, random};

/// Formats of the stacks below.
pub(crate) const FORMATS: [Format; 4] = [Format::Q4_K, Format::F16, Format::Q6_K, Format::Q8_0];

const COLS: usize = 256;

/// Mixed formats with rows that fill no tile, neighbours of one format that a device may join, and a stack as queries, keys
/// and values make it.
const STACKS: [&[(Format, usize)]; 4] = [
    &[(Format::Q4_K, 40), (Format::F16, 1), (Format::Q6_K, 17), (Format::Q4_K, 16)],
    &[(Format::Q4_K, 32), (Format::Q4_K, 16), (Format::Q6_K, 5)],
    &[(Format::Q8_0, 48), (Format::Q8_0, 16), (Format::Q8_0, 16)],
    &[(Format::F16, 7), (Format::F16, 7)],
];

/// A stack on the host and on the device.
struct Stack<B: Backend> {
    rows: usize,
    weights: Vec<f32>, // [rows, COLS]
    files: Vec<Gguf>,
    bias: Vec<f32>, // [rows]
    linear: Linear<B>,
}

impl<B: Backend> Stack<B> {
    fn new(backend: &B, parts: &[(Format, usize)]) -> Result<Self> {
        let (files, weights): (Vec<Gguf>, Vec<Vec<f32>>) =
            parts.iter().map(|&(format, rows)| random_matrix(format, rows, COLS)).unzip();
        let tensors = files.iter().map(|file| file.tensor("matrix"));
        let tensors = tensors.collect::<std::result::Result<Vec<_>, _>>()?;
        let linear = Linear { parts: backend.load_stack(&tensors)?, bias: None };
        let rows = parts.iter().map(|(_, rows)| rows).sum();
        Ok(Self { rows, weights: weights.concat(), files, bias: random(12, rows), linear })
    }

    fn with_bias(mut self, backend: &B) -> Result<Self> {
        self.linear.bias = Some(backend.upload(1, self.rows, &self.bias)?);
        Ok(self)
    }
}

/// A stack is its parts side by side, and right with and without a bias.
pub(crate) fn right<S: Subject>(backend: &S, tally: &mut Tally) -> Result<()> {
    for parts in STACKS {
        for tokens in [1, 5, 18] {
            let stack = Stack::new(backend, parts)?;
            let x = exact_inputs(11, tokens, COLS);
            let scale = magnitudes(&stack.weights, &x, COLS);
            let mut want = products(&stack.weights, &x, COLS);
            let what = |bias: &str| format!("{} matrices, {tokens} tokens, {bias} bias", parts.len());
            let got = product(backend, &stack.linear, &x, (stack.rows, COLS))?;
            tally.each(|| what("no"), &got, &want, |i| scale[i]);

            let mut first_row = 0;
            for (file, &(_, rows)) in stack.files.iter().zip(parts) {
                let apart = Linear { parts: vec![backend.load(file.tensor("matrix")?)?], bias: None };
                let apart = product(backend, &apart, &x, (rows, COLS))?;
                let of_part = got.chunks_exact(stack.rows).flat_map(|row| &row[first_row..][..rows]);
                let of_part: Vec<f32> = of_part.copied().collect();
                tally.same(|| format!("{}, rows from {first_row} on", what("no")), &of_part, &apart);
                first_row += rows;
            }

            let stack = stack.with_bias(backend)?;
            let got = product(backend, &stack.linear, &x, (stack.rows, COLS))?;
            for row in want.chunks_exact_mut(stack.rows) {
                row.iter_mut().zip(&stack.bias).for_each(|(value, &bias)| *value += f64::from(bias));
            }
            let with_bias = |i: usize| scale[i] + f64::from(stack.bias[i % stack.rows].abs());
            tally.each(|| what("with"), &got, &want, with_bias);
        }
    }
    Ok(())
}

/// Each token alone and in batches, without and with a bias.
pub(crate) fn invariant<S: Subject>(backend: &S, tally: &mut Tally) -> Result<()> {
    for parts in STACKS {
        let plain = Stack::new(backend, parts)?;
        let biased = Stack::new(backend, parts)?.with_bias(backend)?;
        for stack in [plain, biased] {
            let counts = (2..=9).chain([16, 17, 33, 65]);
            same_in_batches(backend, tally, &stack.linear, (stack.rows, COLS), 19, counts)?;
        }
    }
    Ok(())
}
