//! Layers with experts: which experts a token takes, their products, and the sum of their outputs.

use gguf::random::{Rng, random_blocks};
use gguf::{Format, Gguf, GgufWriter};
use model::{BufferRole, ExpertInput, ExpertOp, Gating, Result, RoutesShape, Routing, SharedOutput};

use crate::products::products;
use crate::{Subject, Tally, random, read};

/// Formats without blocks, with short and with long ones: what a device reads of a block is that of its other products.
pub(crate) const FORMATS: [Format; 3] = [Format::F32, Format::Q8_0, Format::Q4_K];

/// A number of experts that is no power of two, and as few of them for a token as leave some without any.
const EXPERTS: usize = 11;
const TOP_K: usize = 3;
/// More tokens of an expert than kernels take at a time.
const TOKENS: usize = 90;

const PLAIN: Routing = Routing { top_k: TOP_K, gating: Gating::Softmax, norm: false, scale: 1.0 };

/// What families have, and a scale.
const ROUTINGS: [Routing; 4] = [
    PLAIN,
    Routing { norm: true, ..PLAIN },
    Routing { gating: Gating::SoftmaxOfSelected, ..PLAIN },
    Routing { norm: true, scale: 2.5, ..PLAIN },
];

/// `[tokens, EXPERTS]`: among random ones, rows in which all logits are the same, and some in which few experts come to
/// nearly nothing; the last expert is never taken.
fn logits(tokens: usize) -> Vec<f32> {
    let mut logits: Vec<f32> = random(11, tokens * EXPERTS).iter().map(|x| 2.0 * x).collect();
    for (token, row) in logits.chunks_exact_mut(EXPERTS).enumerate() {
        row[EXPERTS - 1] = -20.0;
        match token % 7 {
            3 => row.fill(0.25),
            5 => row[4] = row[1],
            6 => (row[0], row[1], row[2]) = (60.0, 40.0, 41.0),
            _ => {}
        }
    }
    logits
}

/// A token's experts, by rank, with their weights.
fn routed(logits: &[f32], routing: Routing) -> Vec<(usize, f64)> {
    let exps = |logits: Vec<f64>| -> Vec<f64> {
        let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let exps: Vec<f64> = logits.iter().map(|logit| (logit - max).exp()).collect();
        let sum: f64 = exps.iter().sum();
        exps.into_iter().map(|exp| exp / sum).collect()
    };
    let mut ids: Vec<usize> = (0..logits.len()).collect();
    ids.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    ids.truncate(routing.top_k);
    let all: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
    let mut weights: Vec<f64> = match routing.gating {
        Gating::Softmax => {
            let shares = exps(all);
            ids.iter().map(|&id| shares[id]).collect()
        }
        Gating::SoftmaxOfSelected => exps(ids.iter().map(|&id| all[id]).collect()),
    };
    if routing.norm {
        let sum = weights.iter().sum::<f64>().max(f64::from(Routing::MIN_SUM));
        weights.iter_mut().for_each(|weight| *weight /= sum);
    }
    let scaled = weights.into_iter().map(|weight| weight * f64::from(routing.scale));
    ids.into_iter().zip(scaled).collect()
}

/// The routes of `[tokens, EXPERTS]` logits on the device, and the logits, which must live until results are read.
fn routes<S: Subject>(
    backend: &S,
    logits: &[f32],
    routing: Routing,
    max_cols: usize,
) -> Result<(S::Routes, [S::Buffer; 2])> {
    let tokens = logits.len() / EXPERTS;
    let shape = RoutesShape { max_tokens: tokens + 1, num_experts: EXPERTS, top_k: routing.top_k, max_cols };
    let mut routes = backend.alloc_routes(shape)?;
    // A step before, with other routes of as many tokens as there is room for.
    let other = backend.upload(tokens + 1, EXPERTS, &random(12, (tokens + 1) * EXPERTS))?;
    backend.route(tokens + 1, &other, routing, &mut routes);
    let logits = backend.upload(tokens, EXPERTS, logits)?;
    backend.route(tokens, &logits, routing, &mut routes);
    Ok((routes, [other, logits]))
}

/// `[tokens, cols]`: the outputs `x` of `[tokens * TOP_K]` pairs, with the shared expert's, added up on the device.
fn combined<S: Subject>(
    backend: &S,
    (logits, routing): (&[f32], Routing),
    (x, cols): (&[f32], usize),
    shared: Option<(&[f32], Option<&[f32]>)>,
) -> Result<Vec<f32>> {
    let tokens = logits.len() / EXPERTS;
    let (routes, _logits) = routes(backend, logits, routing, cols)?;
    let on_device = backend.upload(tokens * TOP_K, cols, x)?;
    let values = shared.map(|(values, _)| backend.upload(tokens, cols, values)).transpose()?;
    let gate = shared.and_then(|(_, gate)| gate);
    let gate = gate.map(|gate| backend.upload(tokens, 1, gate)).transpose()?;
    let mut out = backend.alloc(tokens, cols, BufferRole::Values)?;
    let shared = values.as_ref().map(|values| SharedOutput { values, gate: gate.as_ref() });
    backend.combine_experts(&on_device, &routes, shared, &mut out);
    read(backend, &out, tokens * cols)
}

/// Sums against float64, each element as a part of its terms' magnitudes.
pub(crate) fn routes_and_sums<S: Subject>(backend: &S, tally: &mut Tally) -> Result<()> {
    for (tokens, cols) in [(1, 1), (9, 3), (TOKENS, 100), (5, 257)] {
        let logits = logits(tokens);
        let x = random(13, tokens * TOP_K * cols);
        let (values, gates) = (random(14, tokens * cols), random(15, tokens));
        for (case, routing) in ROUTINGS.into_iter().enumerate() {
            // Without a shared expert, with one, and with one that has a gate.
            let shared = [None, Some((&*values, None)), Some((&*values, Some(&*gates))), None][case];
            let got = combined(backend, (&logits, routing), (&x, cols), shared)?;
            let term = |i: usize| {
                let (token, col) = (i / cols, i % cols);
                let routed = routed(&logits[token * EXPERTS..][..EXPERTS], routing);
                let mut terms: Vec<f64> = (0..TOP_K)
                    .map(|rank| routed[rank].1 * f64::from(x[(token * TOP_K + rank) * cols + col]))
                    .collect();
                terms.extend(shared.map(|(values, gate)| {
                    let gate = gate.map_or(1.0, |gate| 1.0 / (1.0 + (-f64::from(gate[token])).exp()));
                    gate * f64::from(values[i])
                }));
                terms
            };
            let terms: Vec<Vec<f64>> = (0..tokens * cols).map(term).collect();
            let want: Vec<f64> = terms.iter().map(|terms| terms.iter().sum()).collect();
            let magnitudes = |i: usize| terms[i].iter().map(|term| term.abs()).sum();
            tally.each(|| format!("{tokens} x {cols}, {routing:?}"), &got, &want, magnitudes);
        }
    }
    Ok(())
}

/// Each token alone against all of them together.
pub(crate) fn routes_invariant<S: Subject>(backend: &S, tally: &mut Tally) -> Result<()> {
    const COLS: usize = 37;
    let logits = logits(TOKENS);
    let x = random(16, TOKENS * TOP_K * COLS);
    for routing in ROUTINGS {
        let together = combined(backend, (&logits, routing), (&x, COLS), None)?;
        for token in (0..TOKENS).step_by(4) {
            let logits = &logits[token * EXPERTS..][..EXPERTS];
            let x = &x[token * TOP_K * COLS..][..TOP_K * COLS];
            let alone = combined(backend, (logits, routing), (x, COLS), None)?;
            tally.same(|| format!("token {token}, {routing:?}"), &together[token * COLS..][..COLS], &alone);
        }
    }
    Ok(())
}

/// Experts whose product is a stack of two random matrices.
struct Experts {
    gguf: Gguf,
    rows: [usize; 2],
    cols: usize,
    weights: [Vec<f32>; 2], // [EXPERTS, rows, cols] each
    bias: Vec<f32>,         // [EXPERTS, both rows]
}

impl Experts {
    fn new(format: Format, rows: [usize; 2], cols: usize) -> Self {
        let mut writer = GgufWriter::new();
        let weights = [0, 1].map(|part| {
            let len = EXPERTS * rows[part] * cols;
            let bytes = random_blocks(format, len, 0.1, &mut Rng::new((21 + part) as u64));
            let mut weights = vec![0.0; len];
            format.dequantize(&bytes, &mut weights);
            let dims = [cols as u64, rows[part] as u64, EXPERTS as u64];
            writer.tensor(&format!("part {part}"), &dims, format, bytes);
            weights
        });
        let bias = random(23, EXPERTS * (rows[0] + rows[1]));
        Self { gguf: writer.into_gguf(), rows, cols, weights, bias }
    }

    fn out_rows(&self) -> usize {
        self.rows[0] + self.rows[1]
    }

    fn load<S: Subject>(&self, backend: &S) -> Result<S::Experts> {
        let parts = [self.gguf.tensor("part 0")?, self.gguf.tensor("part 1")?];
        let expert = |expert: usize| {
            let part = |part: usize| {
                let rows = self.rows[part];
                parts[part].slice_rows(expert * rows..(expert + 1) * rows)
            };
            vec![part(0), part(1)]
        };
        backend.load_experts(&(0..EXPERTS).map(expert).collect::<Vec<_>>())
    }

    /// `[both rows]` of one expert.
    fn product(&self, expert: usize, x: &[f32], has_bias: bool) -> Vec<f64> {
        let mut out = Vec::new();
        for (weights, rows) in self.weights.iter().zip(self.rows) {
            let weights = &weights[expert * rows * self.cols..][..rows * self.cols];
            out.extend(products(weights, x, self.cols));
        }
        if has_bias {
            let bias = &self.bias[expert * self.out_rows()..];
            out.iter_mut().zip(bias).for_each(|(out, &bias)| *out += f64::from(bias));
        }
        out
    }
}

/// `[pairs, both rows]` on the device; `x` has a row for each token or pair.
fn product<S: Subject>(
    backend: &S,
    (experts, weights): (&Experts, &S::Experts),
    logits: &[f32],
    (x, input): (&[f32], ExpertInput),
    has_bias: bool,
) -> Result<Vec<f32>> {
    let pairs = logits.len() / EXPERTS * TOP_K;
    let (routes, _logits) = routes(backend, logits, PLAIN, experts.cols)?;
    let on_device = backend.upload(x.len() / experts.cols, experts.cols, x)?;
    let bias = backend.upload(EXPERTS, experts.out_rows(), &experts.bias)?;
    let mut out = backend.alloc(pairs, experts.out_rows(), BufferRole::Values)?;
    let op = ExpertOp { weights, bias: has_bias.then_some(&bias), input };
    backend.matmul_experts(&on_device, op, &routes, &mut out);
    read(backend, &out, pairs * experts.out_rows())
}

/// Rows of both matrices, and columns: none a multiple of a tile's 16, and both.
fn shapes(format: Format) -> [([usize; 2], usize); 2] {
    match format.block_len() {
        1 => [([33, 7], 75), ([16, 48], 64)],
        32 => [([33, 7], 96), ([16, 48], 64)],
        _ => [([33, 7], 256), ([16, 48], 512)],
    }
}

/// Products against float64, of rows of tokens and of pairs, without a bias and with one.
pub(crate) fn right<S: Subject>(backend: &S, tally: &mut Tally, format: Format) -> Result<()> {
    for (rows, cols) in shapes(format) {
        let experts = Experts::new(format, rows, cols);
        let weights = experts.load(backend)?;
        for tokens in [1, 6, TOKENS] {
            let logits = logits(tokens);
            for input in [ExpertInput::Tokens, ExpertInput::Pairs] {
                let of_pairs = input == ExpertInput::Pairs;
                let has_bias = of_pairs && tokens == TOKENS;
                let x_rows = if of_pairs { tokens * TOP_K } else { tokens };
                let x = random(24, x_rows * cols);
                let got = product(backend, (&experts, &weights), &logits, (&x, input), has_bias)?;
                let mut want = Vec::new();
                for (token, logits) in logits.chunks_exact(EXPERTS).enumerate() {
                    for (rank, (expert, _)) in routed(logits, PLAIN).into_iter().enumerate() {
                        let row = if of_pairs { token * TOP_K + rank } else { token };
                        want.extend(experts.product(expert, &x[row * cols..][..cols], has_bias));
                    }
                }
                tally.near(|| format!("{rows:?} x {cols}, {tokens} tokens, {input:?}"), &got, &want);
            }
        }
    }
    Ok(())
}

/// Each token alone against batches of several numbers of them.
pub(crate) fn invariant<S: Subject>(backend: &S, tally: &mut Tally, format: Format) -> Result<()> {
    let (rows, cols) = shapes(format)[0];
    let experts = Experts::new(format, rows, cols);
    let weights = experts.load(backend)?;
    let (logits, x) = (logits(TOKENS), random(25, TOKENS * cols));
    let of = |tokens: std::ops::Range<usize>| {
        let logits = &logits[tokens.start * EXPERTS..tokens.end * EXPERTS];
        let x = &x[tokens.start * cols..tokens.end * cols];
        product(backend, (&experts, &weights), logits, (x, ExpertInput::Tokens), true)
    };
    let some = (1..TOKENS).step_by(4);
    let alone: Vec<Vec<f32>> = some.clone().map(|token| of(token..token + 1)).collect::<Result<_>>()?;
    let width = TOP_K * experts.out_rows();
    for tokens in [0..2, 1..18, 3..67, 0..TOKENS] {
        let together = of(tokens.clone())?;
        for (token, alone) in some.clone().zip(&alone).filter(|(token, _)| tokens.contains(token)) {
            let got = &together[(token - tokens.start) * width..][..width];
            tally.same(|| format!("token {token} among {tokens:?}"), got, alone);
        }
    }
    Ok(())
}
