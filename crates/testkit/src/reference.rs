//! The whole forward pass in float64 over the dequantised weights: what every engine's logits are compared with.
//!
//! Written to be read against the papers, one sequence at a time, every position from scratch: RMSNorm (arXiv
//! 1910.07467), rotary position embedding (see `rope`), grouped-query attention (arXiv 2305.13245), SwiGLU (arXiv
//! 2002.05202), put together as in Llama (arXiv 2302.13971). It panics on what it does not understand.
//!
//! An independent check: llama.cpp, with F32 weights and an F32 cache, agrees to 2e-6 on every variation of
//! `testkit::models` (figures in `crates/rustorch/tests/reference`).

use gguf::{Gguf, TensorView};

use crate::rope::Rope;

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
    num_heads: usize,
    num_kv_heads: usize,
    head_dim: usize,
    norm_eps: f64,
    rope: Rope,
    embedding: Matrix, // [vocab, hidden]
    layers: Vec<Layer>,
    output_norm: Vec<f64>, // [hidden]
    /// `[vocab, hidden]`; the embedding table when absent.
    output: Option<Matrix>,
}

struct Layer {
    attn_norm: Vec<f64>, // [hidden]
    q: Matrix,           // [num_heads * head_dim, hidden]
    k: Matrix,           // [num_kv_heads * head_dim, hidden]
    v: Matrix,           // [num_kv_heads * head_dim, hidden]
    attn_output: Matrix, // [hidden, num_heads * head_dim]
    ffn_norm: Vec<f64>,  // [hidden]
    gate: Matrix,        // [ffn, hidden]
    up: Matrix,          // [ffn, hidden]
    down: Matrix,        // [hidden, ffn]
}

impl Reference {
    /// Reads the metadata and dequantises the weights.
    ///
    /// # Panics
    /// When the file is not a complete model of the `llama` architecture.
    pub fn new(gguf: &Gguf) -> Self {
        let metadata = gguf.metadata();
        assert_eq!(metadata.architecture().unwrap(), "llama");
        let find = |key: &str| metadata.u32(&format!("llama.{key}")).unwrap().map(|value| value as usize);
        let count = |key: &str| find(key).unwrap_or_else(|| panic!("llama.{key} is missing"));
        let num_heads = count("attention.head_count");
        let head_dim = find("attention.key_length").unwrap_or_else(|| count("embedding_length") / num_heads);
        let norm_eps = metadata.f32("llama.attention.layer_norm_rms_epsilon").unwrap();
        Self {
            num_heads,
            num_kv_heads: find("attention.head_count_kv").unwrap_or(num_heads),
            head_dim,
            norm_eps: f64::from(norm_eps.expect("llama.attention.layer_norm_rms_epsilon")),
            rope: Rope::from_gguf(gguf, head_dim),
            embedding: Matrix::read(gguf, "token_embd"),
            layers: (0..count("block_count")).map(|layer| Layer::read(gguf, layer)).collect(),
            output_norm: vector(gguf.tensor("output_norm.weight").unwrap()),
            output: gguf.find_tensor("output.weight").map(|_| Matrix::read(gguf, "output")),
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

    fn head(&self, x: &[f64]) -> Vec<f64> {
        self.output.as_ref().unwrap_or(&self.embedding).times(&self.rms_norm(x, &self.output_norm))
    }

    /// `[tokens.len()][hidden]`, after the last layer.
    fn hidden_states(&self, tokens: &[u32]) -> Vec<Vec<f64>> {
        let mut states: Vec<Vec<f64>> =
            tokens.iter().map(|&id| self.embedding.row(id as usize).to_vec()).collect();
        for layer in &self.layers {
            let attended = self.attention(layer, &states);
            for (x, attended) in states.iter_mut().zip(&attended) {
                add(x, &layer.attn_output.times(attended));
            }
            for x in &mut states {
                let fed = layer.feed_forward(&self.rms_norm(x, &layer.ffn_norm));
                add(x, &fed);
            }
        }
        states
    }

    /// `[tokens][num_heads * head_dim]`: causal attention of every position over itself and those before it.
    fn attention(&self, layer: &Layer, states: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let normed: Vec<_> = states.iter().map(|x| self.rms_norm(x, &layer.attn_norm)).collect();
        let rotated = |matrix: &Matrix| -> Vec<Vec<f64>> {
            let rows = normed.iter().enumerate().map(|(position, x)| {
                let mut heads = matrix.times(x);
                heads.chunks_exact_mut(self.head_dim).for_each(|head| self.rope.rotate(head, position));
                heads
            });
            rows.collect()
        };
        let (queries, keys) = (rotated(&layer.q), rotated(&layer.k));
        let values: Vec<_> = normed.iter().map(|x| layer.v.times(x)).collect();
        let group = self.num_heads / self.num_kv_heads;
        let attend = |position: usize| -> Vec<f64> {
            let mut out = vec![0.0; self.num_heads * self.head_dim];
            for (head, out) in out.chunks_exact_mut(self.head_dim).enumerate() {
                let of_head = |head: usize| head * self.head_dim..(head + 1) * self.head_dim;
                let (query, kv) = (&queries[position][of_head(head)], of_head(head / group));
                let scale = (self.head_dim as f64).sqrt();
                let scores = keys[..=position].iter().map(|key| dot(query, &key[kv.clone()]) / scale);
                for (weight, value) in softmax(scores.collect()).into_iter().zip(&values) {
                    out.iter_mut().zip(&value[kv.clone()]).for_each(|(out, v)| *out += weight * v);
                }
            }
            out
        };
        (0..states.len()).map(attend).collect()
    }

    fn rms_norm(&self, x: &[f64], weight: &[f64]) -> Vec<f64> {
        let scale = 1.0 / (dot(x, x) / x.len() as f64 + self.norm_eps).sqrt();
        x.iter().zip(weight).map(|(x, weight)| x * scale * weight).collect()
    }
}

impl Layer {
    fn read(gguf: &Gguf, layer: usize) -> Self {
        let matrix = |name: &str| Matrix::read(gguf, &format!("blk.{layer}.{name}"));
        let norm = |name: &str| vector(gguf.tensor(&format!("blk.{layer}.{name}.weight")).unwrap());
        Self {
            attn_norm: norm("attn_norm"),
            q: matrix("attn_q"),
            k: matrix("attn_k"),
            v: matrix("attn_v"),
            attn_output: matrix("attn_output"),
            ffn_norm: norm("ffn_norm"),
            gate: matrix("ffn_gate"),
            up: matrix("ffn_up"),
            down: matrix("ffn_down"),
        }
    }

    /// SwiGLU.
    fn feed_forward(&self, x: &[f64]) -> Vec<f64> {
        let (gate, up) = (self.gate.times(x), self.up.times(x));
        let inner: Vec<f64> =
            gate.iter().zip(up).map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up).collect();
        self.down.times(&inner)
    }
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
