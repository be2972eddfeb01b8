//! Bytes and multiply-adds of a cell, counted from the model's shape.
//!
//! Multiply-adds: the weights of every matrix, once a token (the LM head only for tokens whose logits are wanted, the
//! embedding table never), and attention's two products. Bytes of a decode step: the weights once, and the keys and values
//! of every sequence once.
//!
//! Of experts, a token is multiplied with its own, and a step reads those that any of its tokens takes: on average, if the
//! router gave tokens to all experts alike and independently, all but the `(1 - used / experts)^batch`-th part.

use rustorch_llama::{ExpertsSpec, Format, Gguf, LlamaConfig, Weights};

use super::machine::MachinePeaks;
use super::measure::Decode;

/// The work that a model's tokens take.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// Multiply-adds of a token in the layers' matrices.
    layers: Macs,
    /// Multiply-adds of a row of logits.
    head: Macs,
    /// Multiply-adds of attention for each cached position.
    attention: f64,
    /// Bytes of the weights that a step reads, without those of experts.
    weight_bytes: f64,
    /// Devices, each of which reads its weights for its part of the sequences.
    num_replicas: f64,
    /// Bytes of the weights of all experts.
    expert_bytes: f64,
    /// The part of the experts that a token takes; 1 without experts.
    expert_share: f64,
    /// Bytes of K and V for each cached position.
    kv_bytes: f64,
}

/// Multiply-adds, by the kind of arithmetic.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Macs {
    /// With quantised weights.
    pub quantized: f64,
    /// With float weights, and in attention.
    pub float: f64,
}

impl Macs {
    pub fn total(self) -> f64 {
        self.quantized + self.float
    }

    /// The time that they take at the machine's peaks.
    pub fn seconds_at(self, peaks: &MachinePeaks) -> f64 {
        self.quantized / peaks.quantized_macs_per_s + self.float / peaks.float_macs_per_s
    }

    fn times(self, by: f64) -> Macs {
        Macs { quantized: self.quantized * by, float: self.float * by }
    }

    fn plus(self, other: Macs) -> Macs {
        Macs { quantized: self.quantized + other.quantized, float: self.float + other.float }
    }
}

impl Work {
    pub fn new(gguf: &Gguf, weights: &Weights) -> Self {
        let config = weights.config();
        let (mut layers, mut head) = (Macs::default(), Macs::default());
        let head_name =
            if gguf.find_tensor("output.weight").is_some() { "output.weight" } else { "token_embd.weight" };
        let experts = config.spec.experts();
        let share = |experts: &ExpertsSpec| experts.routing.top_k as f64 / experts.num_experts as f64;
        let expert_share = experts.map_or(1.0, share);
        for tensor in gguf.tensors().filter(|tensor| tensor.dims().len() >= 2) {
            let share = if is_of_experts(tensor.name()) { expert_share } else { 1.0 };
            let macs = share * (tensor.rows() * tensor.cols()) as f64;
            let macs = match tensor.format() {
                Format::F32 | Format::F16 | Format::BF16 => Macs { quantized: 0.0, float: macs },
                _ => Macs { quantized: macs, float: 0.0 },
            };
            if tensor.name() == head_name {
                head = macs;
            } else if tensor.name() != "token_embd.weight" {
                layers = layers.plus(macs);
            }
        }
        let expert_bytes = weights.expert_weight_bytes() as f64;
        let of_a_token = if experts.is_some() { expert_bytes * expert_share } else { 0.0 };
        Self {
            layers,
            head,
            attention: attention_macs(config),
            weight_bytes: weights.step_weight_bytes() as f64 - of_a_token,
            num_replicas: weights.num_replicas() as f64,
            expert_bytes,
            expert_share,
            kv_bytes: config.kv_bytes_per_token() as f64,
        }
    }

    /// Multiply-adds of `batch` prompts of `length` tokens, each with one row of logits.
    pub fn prompt_macs(&self, batch: usize, length: usize) -> Macs {
        let (batch, length) = (batch as f64, length as f64);
        let positions = length * (length + 1.0) / 2.0;
        let attention = Macs { quantized: 0.0, float: self.attention * positions };
        self.layers.times(length).plus(self.head).plus(attention).times(batch)
    }

    /// Multiply-adds of all steps of a measurement.
    pub fn decode_macs(&self, decode: &Decode) -> Macs {
        let tokens = (decode.steps.len() * decode.contexts.len()) as f64;
        let attention = Macs { quantized: 0.0, float: self.attention * positions_read(decode) };
        self.layers.plus(self.head).times(tokens).plus(attention)
    }

    /// Bytes that all steps of a measurement read.
    pub fn decode_bytes(&self, decode: &Decode) -> f64 {
        let weights = self.weights_read(decode.contexts.len() as f64);
        weights * decode.steps.len() as f64 + self.kv_bytes * positions_read(decode)
    }

    /// Bytes of the weights that a step of `batch` tokens reads.
    fn weights_read(&self, batch: f64) -> f64 {
        let num_reading = self.num_replicas.min(batch);
        let experts_read = 1.0 - (1.0 - self.expert_share).powf(batch / num_reading);
        num_reading * (self.weight_bytes + self.expert_bytes * experts_read)
    }

    /// Bytes that a step of `batch` sequences reads, with `context` tokens cached of each.
    pub fn step_bytes(&self, batch: f64, context: f64) -> f64 {
        self.weights_read(batch) + self.kv_bytes * context * batch
    }

    /// Multiply-adds of a decoded token with `context` tokens cached.
    pub fn token_macs(&self, context: f64) -> Macs {
        let attention = Macs { quantized: 0.0, float: self.attention * context };
        self.layers.plus(self.head).plus(attention)
    }
}

/// Whether a tensor holds the weights of experts: of all of them (`ffn_up_exps`), or of one (`ffn_up.3`).
fn is_of_experts(name: &str) -> bool {
    let Some(name) = name.strip_suffix(".weight") else { return false };
    let is_of_one = name
        .rsplit_once('.')
        .is_some_and(|(rest, expert)| rest.contains(".ffn_") && expert.bytes().all(|b| b.is_ascii_digit()));
    name.ends_with("_exps") || is_of_one
}

/// Cached positions that all steps of a measurement attend to: a token's own is the last of its context.
fn positions_read(decode: &Decode) -> f64 {
    let steps = decode.steps.len();
    let of_sequence = |context: &usize| (context * steps + steps * (steps + 1) / 2) as f64;
    decode.contexts.iter().map(of_sequence).sum()
}

/// Scores and weighted values, in all layers.
fn attention_macs(config: &LlamaConfig) -> f64 {
    config.spec.layers.iter().map(|layer| 2 * layer.attn.q_dim()).sum::<usize>() as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustorch_llama::{CpuOptions, Device, LoadOptions, demo};

    use super::*;

    /// Of the demo model: a layer's Q, K, V, output, gate, up and down; five of them; the table that is also the head.
    const LAYER: usize = 256 * 256 + 2 * 128 * 256 + 256 * 256 + 3 * 512 * 256;
    const LAYERS: f64 = (5 * LAYER) as f64;
    const HEAD: f64 = (2048 * 256) as f64;
    /// Scores and values of 4 heads of 64 in 5 layers, for a cached position.
    const ATTENTION: f64 = (2 * 256 * 5) as f64;
    /// K and V of 2 heads of 64 in 5 layers, in two bytes.
    const KV: f64 = (2 * 128 * 5 * 2) as f64;

    fn work() -> Work {
        let gguf = demo::gguf();
        Work::new(&gguf, &weights(&gguf))
    }

    fn weights(gguf: &Gguf) -> Weights {
        let config = LlamaConfig::from_gguf(gguf).unwrap().with_max_seq_len(64);
        Weights::load(gguf, config, LoadOptions::on(Device::Cpu(CpuOptions::default()))).unwrap()
    }

    #[test]
    fn prompts_need_the_head_once_and_attend_to_what_came_before() {
        let macs = work().prompt_macs(2, 3);
        assert_eq!(macs.quantized, 2.0 * (3.0 * LAYERS + HEAD));
        assert_eq!(macs.float, 2.0 * (1.0 + 2.0 + 3.0) * ATTENTION);
    }

    #[test]
    fn a_step_reads_the_weights_once_and_every_context() {
        let decode = Decode { steps: vec![Duration::from_secs(1); 2], contexts: vec![3, 7, 9] };
        // Each token's own position is the last of its context.
        let positions = f64::from((4 + 5) + (8 + 9) + (10 + 11));
        let (work, weight_bytes) = (work(), 3_701_760.0);
        assert_eq!(work.decode_bytes(&decode), 2.0 * weight_bytes + positions * KV);
        let macs = work.decode_macs(&decode);
        assert_eq!((macs.quantized, macs.float), (6.0 * (LAYERS + HEAD), positions * ATTENTION));
        assert_eq!(work.step_bytes(3.0, 8.0), weight_bytes + 24.0 * KV);
        assert_eq!(work.token_macs(8.0), Macs { quantized: LAYERS + HEAD, float: 8.0 * ATTENTION });
    }

    /// 7 experts, 3 a token, as one tensor and as one for each; 2 layers of hidden size 100, experts of width 35.
    #[test]
    fn a_step_reads_the_experts_that_its_tokens_take() {
        for name in ["mixtral", "mixtral_split"] {
            let mut models = testkit::models::families().into_iter();
            let gguf =
                Gguf::from_vec(models.find(|model| model.name == name).unwrap().spec.to_gguf()).unwrap();
            let weights = weights(&gguf);
            let work = Work::new(&gguf, &weights);
            let experts = weights.expert_weight_bytes() as f64;
            let others = (weights.weight_bytes() as f64 - experts) - (301 * 100 * 4) as f64;
            // Rows are padded to whole tiles, and the embedding table's to 304.
            let others = others - (3 * 100 * 4) as f64;
            let read = |batch: f64| work.step_bytes(batch, 0.0) - others;
            assert!((read(1.0) / experts - 3.0 / 7.0).abs() < 1e-9, "{name}: {}", read(1.0) / experts);
            assert!((read(2.0) / experts - (1.0 - 16.0 / 49.0)).abs() < 1e-9, "{name}");
            assert!((read(200.0) / experts - 1.0).abs() < 1e-9, "{name}");
            assert_eq!(weights.step_weight_bytes() as f64, work.step_bytes(1.0, 0.0), "{name}");
            let attention = 2 * (100 * 6 * 18 + 2 * 100 * 2 * 18 + 100 * 6 * 18);
            let of_experts = 2 * 3 * (3 * 35 * 100);
            let macs =
                work.token_macs(0.0).total() - (attention + of_experts + 2 * 7 * 100 + 301 * 100) as f64;
            assert!(macs.abs() < 1e-6, "{name}: {macs}");
        }
    }
}
