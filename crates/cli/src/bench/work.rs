//! Bytes and multiply-adds of a cell, counted from the model's shape.
//!
//! Multiply-adds: the weights of every matrix, once a token (the LM head only for tokens whose logits are wanted, the
//! embedding table never), and attention's two products. Bytes of a decode step: the weights once, and the keys and values
//! of every sequence once.

use rustorch_llama::{Format, Gguf, LlamaConfig, Weights};

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
    /// Bytes of the weights that a step reads.
    weight_bytes: f64,
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
        for tensor in gguf.tensors().filter(|tensor| tensor.dims().len() == 2) {
            let macs = (tensor.rows() * tensor.cols()) as f64;
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
        Self {
            layers,
            head,
            attention: attention_macs(config),
            weight_bytes: weights.step_weight_bytes() as f64,
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
        self.weight_bytes * decode.steps.len() as f64 + self.kv_bytes * positions_read(decode)
    }

    /// Bytes that a step of `batch` sequences reads, with `context` tokens cached of each.
    pub fn step_bytes(&self, batch: f64, context: f64) -> f64 {
        self.weight_bytes + self.kv_bytes * context * batch
    }

    /// Multiply-adds of a decoded token with `context` tokens cached.
    pub fn token_macs(&self, context: f64) -> Macs {
        let attention = Macs { quantized: 0.0, float: self.attention * context };
        self.layers.plus(self.head).plus(attention)
    }
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
        let config = LlamaConfig::from_gguf(&gguf).unwrap().with_max_seq_len(64);
        Work::new(
            &gguf,
            &Weights::load(&gguf, config, LoadOptions::on(Device::Cpu(CpuOptions::default()))).unwrap(),
        )
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
}
