//! The whole forward pass in float64 over the dequantised weights: what every engine's logits are compared with.
//!
//! Written to be read against the papers, one sequence at a time, every position from scratch: RMSNorm (arXiv
//! 1910.07467), rotary position embedding (see `rope`), grouped-query attention (arXiv 2305.13245), SwiGLU (arXiv
//! 2002.05202), put together as in Llama (arXiv 2302.13971), with what other families add to it (see `traits`). It panics
//! on what it does not understand.
//!
//! An independent check: llama.cpp, with F32 weights and an F32 cache, agrees to 2e-6 on every variation of
//! `testkit::models` (figures in `crates/rustorch/tests/reference`).

use gguf::{Gguf, TensorView};

use crate::traits::{Act, LayerTraits, Routing, Traits};

/// `[vocab]` logits of the last of `tokens`.
pub fn logits(gguf: &Gguf, tokens: &[u32]) -> Vec<f64> {
    Reference::new(gguf).logits(tokens)
}

/// `[tokens.len()][vocab]` logits after each of `tokens`.
pub fn all_logits(gguf: &Gguf, tokens: &[u32]) -> Vec<Vec<f64>> {
    Reference::new(gguf).all_logits(tokens)
}

/// A model with its weights in float64.
pub struct Reference {
    traits: Traits,
    embedding: Matrix, // [vocab, hidden]
    layers: Vec<Layer>,
    output_norm: Vec<f64>, // [hidden]
    /// `[vocab, hidden]`; the embedding table when absent.
    output: Option<Matrix>,
    output_bias: Option<Vec<f64>>, // [vocab]
}

struct Layer {
    attn_norm: Vec<f64>,                    // [hidden]
    q: Matrix,                              // [num_heads * head_dim, hidden]
    k: Matrix,                              // [num_kv_heads * head_dim, hidden]
    v: Matrix,                              // [num_kv_heads * head_dim, hidden]
    qk_norms: Option<(Vec<f64>, Vec<f64>)>, // [head_dim] each
    sinks: Option<Vec<f64>>,                // [num_heads]
    attn_output: Matrix,                    // [hidden, num_heads * head_dim]
    post_attn_norm: Option<Vec<f64>>,       // [hidden]
    ffn_norm: Vec<f64>,                     // [hidden]
    ffn: Ffn,
    post_ffn_norm: Option<Vec<f64>>, // [hidden]
}

/// A feed-forward layer.
enum Ffn {
    Dense(Dense),
    /// The router, `[experts, hidden]`, the experts, and one that every token takes, with its gate, `[1, hidden]`.
    Experts(Matrix, Vec<Dense>, Option<(Dense, Option<Matrix>)>),
}

struct Dense {
    gate: Matrix, // [ffn, hidden]
    up: Matrix,   // [ffn, hidden]
    down: Matrix, // [hidden, ffn]
}

impl Reference {
    /// Reads the metadata and dequantises the weights, for sequences as long as the trained context.
    ///
    /// # Panics
    /// When the file is not a complete model of an architecture that is understood.
    pub fn new(gguf: &Gguf) -> Self {
        let key = format!("{}.context_length", gguf.metadata().architecture().unwrap());
        let context = gguf.metadata().u32(&key).unwrap().unwrap_or_else(|| panic!("{key} is missing"));
        Self::for_context(gguf, context as usize)
    }

    /// As [`new`](Self::new), for sequences of up to `context` tokens.
    ///
    /// # Panics
    /// As `new`.
    pub fn for_context(gguf: &Gguf, context: usize) -> Self {
        let traits = Traits::read(gguf, context);
        let of_layer = |(idx, layer): (usize, &LayerTraits)| Layer::read(gguf, idx, layer, traits.head_dim);
        let layers = traits.layers.iter().enumerate().map(of_layer).collect();
        Self {
            traits,
            embedding: Matrix::read(gguf, "token_embd"),
            layers,
            output_norm: vector(gguf.tensor("output_norm.weight").unwrap()),
            output: gguf.find_tensor("output.weight").map(|_| Matrix::read(gguf, "output")),
            output_bias: gguf.find_tensor("output.bias").map(vector),
        }
    }

    /// `[vocab]` logits of the last of `tokens`.
    pub fn logits(&self, tokens: &[u32]) -> Vec<f64> {
        self.head(self.hidden_states(tokens).last().expect("at least one token"))
    }

    /// `[tokens.len()][vocab]` logits after each of `tokens`.
    pub fn all_logits(&self, tokens: &[u32]) -> Vec<Vec<f64>> {
        self.hidden_states(tokens).iter().map(|x| self.head(x)).collect()
    }

    /// `[tokens.len()][hidden]` states after each of `tokens`, past the final norm: what the logits are made of.
    pub fn normed_states(&self, tokens: &[u32]) -> Vec<Vec<f64>> {
        self.hidden_states(tokens).iter().map(|x| self.rms_norm(x, &self.output_norm)).collect()
    }

    /// `[tokens.len()]`: how far, in the layer where it is the least, the logit of the last expert that a token takes is above
    /// the highest of those that it does not take. Where this is little, rounding decides who is taken. Infinite without
    /// experts, and where all logits are exactly the same.
    pub fn routing_gaps(&self, tokens: &[u32]) -> Vec<f64> {
        let mut gaps = vec![f64::INFINITY; tokens.len()];
        self.run(tokens, |position, gap| gaps[position] = gaps[position].min(gap));
        gaps
    }

    fn head(&self, x: &[f64]) -> Vec<f64> {
        let normed = self.rms_norm(x, &self.output_norm);
        let mut logits = match &self.output {
            Some(output) => output.times(&normed),
            None => {
                let mut logits = self.embedding.times(&normed);
                self.output_bias.iter().for_each(|bias| add(&mut logits, bias));
                logits
            }
        };
        for logit in &mut logits {
            *logit = capped(*logit * self.traits.logit_scale, self.traits.final_cap);
        }
        logits
    }

    /// `[tokens.len()][hidden]`, after the last layer.
    fn hidden_states(&self, tokens: &[u32]) -> Vec<Vec<f64>> {
        self.run(tokens, |_, _| {})
    }

    /// The hidden states; `found` is told the gap of each position in each layer.
    fn run(&self, tokens: &[u32], mut found: impl FnMut(usize, f64)) -> Vec<Vec<f64>> {
        let embed = |&id: &u32| self.embedding.row(id as usize).iter().map(|x| x * self.traits.embed_scale);
        let mut states: Vec<Vec<f64>> = tokens.iter().map(|id| embed(id).collect()).collect();
        for (layer, traits) in self.layers.iter().zip(&self.traits.layers) {
            let attended = self.attention(layer, traits, &states);
            for (x, attended) in states.iter_mut().zip(&attended) {
                self.add_branch(x, layer.attn_output.times(attended), layer.post_attn_norm.as_deref());
            }
            for (position, x) in states.iter_mut().enumerate() {
                let normed = self.rms_norm(x, &layer.ffn_norm);
                found(position, layer.ffn.gap(&normed, self.traits.routing.as_ref()));
                let fed = layer.ffn.times(&normed, self.traits.act, self.traits.routing.as_ref());
                self.add_branch(x, fed, layer.post_ffn_norm.as_deref());
            }
        }
        states
    }

    fn add_branch(&self, x: &mut [f64], mut branch: Vec<f64>, norm: Option<&[f64]>) {
        if let Some(norm) = norm {
            branch = self.rms_norm(&branch, norm);
        }
        branch.iter_mut().for_each(|value| *value *= self.traits.residual_scale);
        add(x, &branch);
    }

    /// `[tokens][num_heads * head_dim]`: causal attention of every position over itself and those before it that its window
    /// holds.
    fn attention(&self, layer: &Layer, traits: &LayerTraits, states: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let head_dim = self.traits.head_dim;
        let normed: Vec<_> = states.iter().map(|x| self.rms_norm(x, &layer.attn_norm)).collect();
        let rotated = |matrix: &Matrix, norm: Option<&Vec<f64>>| -> Vec<Vec<f64>> {
            let rows = normed.iter().enumerate().map(|(position, x)| {
                let mut heads = matrix.times(x);
                for head in heads.chunks_exact_mut(head_dim) {
                    if let Some(norm) = norm {
                        head.copy_from_slice(&self.rms_norm(head, norm));
                    }
                    traits.rope.iter().for_each(|rope| rope.rotate(head, position));
                }
                heads
            });
            rows.collect()
        };
        let (q_norm, k_norm) = layer.qk_norms.as_ref().map(|(q, k)| (q, k)).unzip();
        let (queries, keys) = (rotated(&layer.q, q_norm), rotated(&layer.k, k_norm));
        let values: Vec<_> = normed.iter().map(|x| layer.v.times(x)).collect();
        let group = traits.num_heads / traits.num_kv_heads;
        let attend = |position: usize| -> Vec<f64> {
            let mut out = vec![0.0; traits.num_heads * head_dim];
            let first = traits.window.map_or(0, |window| (position + 1).saturating_sub(window));
            let scale = traits.scale * temperature(traits, position);
            for (head, out) in out.chunks_exact_mut(head_dim).enumerate() {
                let of_head = |head: usize| head * head_dim..(head + 1) * head_dim;
                let (query, kv) = (&queries[position][of_head(head)], of_head(head / group));
                let score = |key: &Vec<f64>| capped(dot(query, &key[kv.clone()]) * scale, traits.cap);
                let scores = keys[first..=position].iter().map(score);
                // A sink is a last score, whose weight goes to no value (arXiv 2309.17453).
                let sink = layer.sinks.as_ref().map(|sinks| sinks[head]);
                for (weight, value) in
                    softmax(scores.chain(sink).collect()).into_iter().zip(&values[first..=position])
                {
                    out.iter_mut().zip(&value[kv.clone()]).for_each(|(out, v)| *out += weight * v);
                }
            }
            out
        };
        (0..states.len()).map(attend).collect()
    }

    fn rms_norm(&self, x: &[f64], weight: &[f64]) -> Vec<f64> {
        let scale = 1.0 / (dot(x, x) / x.len() as f64 + self.traits.norm_eps).sqrt();
        x.iter().zip(weight).map(|(x, weight)| x * scale * weight).collect()
    }
}

impl Layer {
    fn read(gguf: &Gguf, layer: usize, traits: &LayerTraits, head_dim: usize) -> Self {
        let name = |part: &str| format!("blk.{layer}.{part}");
        let matrix = |part: &str| Matrix::read(gguf, &name(part));
        let find_norm = |part: &str| gguf.find_tensor(&name(&format!("{part}.weight"))).map(vector);
        let norm = |part: &str| find_norm(part).unwrap_or_else(|| panic!("{} is missing", name(part)));
        let has = |part: &str| gguf.find_tensor(&name(&format!("{part}.weight"))).is_some();
        let (q_rows, kv_rows) = (traits.num_heads * head_dim, traits.num_kv_heads * head_dim);
        let (q, k, v) = if has("attn_qkv") {
            let all = matrix("attn_qkv");
            let (q, kv) = all.split(q_rows);
            let (k, v) = kv.split(kv_rows);
            (q, k, v)
        } else {
            (matrix("attn_q"), matrix("attn_k"), matrix("attn_v"))
        };
        Self {
            attn_norm: norm("attn_norm"),
            q,
            k,
            v,
            sinks: find_norm("attn_sinks"),
            qk_norms: find_norm("attn_q_norm").zip(find_norm("attn_k_norm")),
            attn_output: matrix("attn_output"),
            post_attn_norm: find_norm("post_attention_norm").filter(|_| !traits.renamed_ffn_norm),
            ffn_norm: norm(if traits.renamed_ffn_norm { "post_attention_norm" } else { "ffn_norm" }),
            ffn: Ffn::read(gguf, layer),
            post_ffn_norm: find_norm("post_ffw_norm"),
        }
    }
}

impl Ffn {
    fn read(gguf: &Gguf, layer: usize) -> Self {
        let name = |part: &str| format!("blk.{layer}.{part}");
        let has = |part: &str| gguf.find_tensor(&name(&format!("{part}.weight"))).is_some();
        let matrix = |part: &str| Matrix::read(gguf, &name(part));
        let halves = |both: Matrix| both.split(both.rows() / 2);
        if !has("ffn_gate_inp") {
            let (gate, up) = match has("ffn_gate") {
                true => (matrix("ffn_gate"), matrix("ffn_up")),
                false => halves(matrix("ffn_up")),
            };
            return Ffn::Dense(Dense { gate, up, down: matrix("ffn_down") });
        }
        let router = matrix("ffn_gate_inp");
        // All matrices of a tensor, or of a tensor for each expert.
        let all = |part: &str| -> Vec<Matrix> {
            match has(&format!("{part}_exps")) {
                true => matrix(&format!("{part}_exps")).pieces(router.rows()),
                false => (0..router.rows()).map(|expert| matrix(&format!("{part}.{expert}"))).collect(),
            }
        };
        let gates: Vec<(Matrix, Matrix)> = match has("ffn_gate_up_exps") {
            true => all("ffn_gate_up").into_iter().map(halves).collect(),
            false => all("ffn_gate").into_iter().zip(all("ffn_up")).collect(),
        };
        let of_expert = |((gate, up), down): ((Matrix, Matrix), Matrix)| Dense { gate, up, down };
        let experts = gates.into_iter().zip(all("ffn_down")).map(of_expert).collect();
        let shared = has("ffn_up_shexp").then(|| {
            let (gate, up) = (matrix("ffn_gate_shexp"), matrix("ffn_up_shexp"));
            let router = has("ffn_gate_inp_shexp").then(|| matrix("ffn_gate_inp_shexp"));
            (Dense { gate, up, down: matrix("ffn_down_shexp") }, router)
        });
        Ffn::Experts(router, experts, shared)
    }

    /// See [`Reference::routing_gaps`].
    fn gap(&self, x: &[f64], routing: Option<&Routing>) -> f64 {
        let (Ffn::Experts(router, ..), Some(&Routing { used, .. })) = (self, routing) else {
            return f64::INFINITY;
        };
        let mut logits = router.times(x);
        logits.sort_by(|a, b| b.total_cmp(a));
        let is_tied = logits.first() == logits.last();
        if is_tied || used == logits.len() { f64::INFINITY } else { logits[used - 1] - logits[used] }
    }

    fn times(&self, x: &[f64], act: Act, routing: Option<&Routing>) -> Vec<f64> {
        let (router, experts, shared) = match self {
            Ffn::Dense(dense) => return dense.times(x, act),
            Ffn::Experts(router, experts, shared) => (router, experts, shared),
        };
        let Routing { used, of_selected, norm, scale } = *routing.expect("expert_used_count");
        let logits = router.times(x);
        let mut ids: Vec<usize> = (0..experts.len()).collect();
        // Stable: of equal ones the first.
        ids.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        ids.truncate(used);
        let of_ids = |values: &[f64]| -> Vec<f64> { ids.iter().map(|&id| values[id]).collect() };
        let shares = match of_selected {
            true => softmax(of_ids(&logits)),
            false => of_ids(&softmax(logits)),
        };
        let sum: f64 = shares.iter().sum();
        // The smallest normal number of f16, as llama.cpp has it.
        let divisor = if norm { sum.max(6.103515625e-5) } else { 1.0 };
        let mut out = vec![0.0; x.len()];
        let mut take = |weight: f64, values: Vec<f64>| {
            out.iter_mut().zip(values).for_each(|(out, value)| *out += weight * value);
        };
        for (id, share) in ids.into_iter().zip(shares) {
            take(share / divisor * scale, experts[id].times(x, act));
        }
        if let Some((dense, gate)) = shared {
            let gate = gate.as_ref().map_or(1.0, |gate| 1.0 / (1.0 + (-gate.times(x)[0]).exp()));
            take(gate, dense.times(x, act));
        }
        out
    }
}

impl Dense {
    /// SwiGLU, GeGLU by the approximation with tanh (arXiv 1606.08415), or gpt-oss's SwiGLU.
    fn times(&self, x: &[f64], act: Act) -> Vec<f64> {
        let (gate, up) = (self.gate.times(x), self.up.times(x));
        let act = |(x, up): (f64, f64)| match act {
            Act::Swiglu => x / (1.0 + (-x).exp()) * up,
            Act::Geglu => {
                let slope = (2.0 / std::f64::consts::PI).sqrt();
                0.5 * x * (1.0 + (slope * (x + 0.044715 * x.powi(3))).tanh()) * up
            }
            Act::ClampedSwiglu => {
                let x = x.min(7.0);
                x / (1.0 + (-1.702 * x).exp()) * (up.clamp(-7.0, 7.0) + 1.0)
            }
        };
        let inner: Vec<f64> = gate.into_iter().zip(up).map(act).collect();
        self.down.times(&inner)
    }
}

/// The factor on a position's queries.
fn temperature(traits: &LayerTraits, position: usize) -> f64 {
    let factor = |(beta, length): (f64, f64)| 1.0 + beta * ((position as f64 / length).floor() + 1.0).ln();
    traits.temperature.map_or(1.0, factor)
}

/// `cap * tanh(x / cap)`, if there is a cap.
fn capped(x: f64, cap: Option<f64>) -> f64 {
    cap.map_or(x, |cap| cap * (x / cap).tanh())
}

/// Weights and, where the file has one, a bias.
struct Matrix {
    cols: usize,
    values: Vec<f64>,       // [rows, cols]
    bias: Option<Vec<f64>>, // [rows]
}

impl Matrix {
    fn read(gguf: &Gguf, name: &str) -> Self {
        let weight = gguf.tensor(&format!("{name}.weight")).unwrap();
        let bias = gguf.find_tensor(&format!("{name}.bias")).map(vector);
        Self { cols: weight.cols(), values: vector(weight), bias }
    }

    fn rows(&self) -> usize {
        self.values.len() / self.cols
    }

    /// The first rows, and the rest.
    fn split(&self, rows: usize) -> (Self, Self) {
        let (first, rest) = self.values.split_at(rows * self.cols);
        let biases = self.bias.as_ref().map(|bias| bias.split_at(rows));
        let of = |values: &[f64], bias: Option<&[f64]>| Self {
            cols: self.cols,
            values: values.to_vec(),
            bias: bias.map(<[f64]>::to_vec),
        };
        (of(first, biases.map(|(first, _)| first)), of(rest, biases.map(|(_, rest)| rest)))
    }

    /// As many matrices as are stacked in it.
    fn pieces(&self, count: usize) -> Vec<Self> {
        let rows = self.rows() / count;
        let piece = |(idx, values): (usize, &[f64])| Self {
            cols: self.cols,
            values: values.to_vec(),
            bias: self.bias.as_ref().map(|bias| bias[idx * rows..][..rows].to_vec()),
        };
        self.values.chunks_exact(rows * self.cols).enumerate().map(piece).collect()
    }

    fn row(&self, row: usize) -> &[f64] {
        &self.values[row * self.cols..][..self.cols]
    }

    /// `[rows]`: weight times `x`, plus bias.
    fn times(&self, x: &[f64]) -> Vec<f64> {
        assert_eq!(x.len(), self.cols);
        let mut out: Vec<f64> = self.values.chunks_exact(self.cols).map(|row| dot(row, x)).collect();
        if let Some(bias) = &self.bias {
            add(&mut out, bias);
        }
        out
    }
}

fn vector(tensor: TensorView<'_>) -> Vec<f64> {
    tensor.dequantize().into_iter().map(f64::from).collect()
}

fn softmax(scores: Vec<f64>) -> Vec<f64> {
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exps: Vec<f64> = scores.into_iter().map(|score| (score - max).exp()).collect();
    let sum: f64 = exps.iter().sum();
    exps.into_iter().map(|exp| exp / sum).collect()
}

fn add(x: &mut [f64], delta: &[f64]) {
    x.iter_mut().zip(delta).for_each(|(x, delta)| *x += delta);
}

/// In eight lanes, for speed; the order of a float64 sum is of no account here.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let ((a, a_tail), (b, b_tail)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut lanes = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for i in 0..8 {
            lanes[i] += a[i] * b[i];
        }
    }
    let tail: f64 = a_tail.iter().zip(b_tail).map(|(a, b)| a * b).sum();
    lanes.iter().sum::<f64>() + tail
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ModelSpec;

    fn model() -> Gguf {
        Gguf::from_vec(
            ModelSpec { hidden: 32, head_dim: 8, ffn: 32, vocab: 50, ..ModelSpec::default() }.to_gguf(),
        )
        .unwrap()
    }

    #[test]
    fn later_tokens_do_not_reach_earlier_logits() {
        let (gguf, tokens) = (model(), [3, 49, 7, 7, 0]);
        let all = all_logits(&gguf, &tokens);
        for (i, row) in all.iter().enumerate() {
            assert_eq!(*row, logits(&gguf, &tokens[..=i]));
        }
        assert_ne!(all[2], all[3], "the same token at another position has other logits");
    }

    #[test]
    fn without_layers_logits_are_the_head_times_the_normed_embedding() {
        let spec = ModelSpec { hidden: 32, layers: 0, vocab: 50, ..ModelSpec::default() };
        let gguf = Gguf::from_vec(spec.to_gguf()).unwrap();
        let values = |name: &str| vector(gguf.tensor(name).unwrap());
        let (embedding, norm, head) =
            (values("token_embd.weight"), values("output_norm.weight"), values("output.weight"));
        let x = &embedding[32 * 5..][..32];
        let mean_square = x.iter().map(|x| x * x).sum::<f64>() / 32.0;
        for (got, row) in logits(&gguf, &[5]).into_iter().zip(head.chunks(32)) {
            let sum: f64 = (0..32).map(|i| row[i] * x[i] * norm[i]).sum();
            let want = sum / (mean_square + f64::from(spec.norm_eps)).sqrt();
            assert!((got - want).abs() < 1e-12, "{got} and {want}");
        }
    }
}
