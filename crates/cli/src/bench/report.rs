//! A benchmark's results, in the layout of `--json`. Rates are per second, sizes are bytes, shares are fractions of 1.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::ValueEnum;
use clap::builder::PossibleValue;
use rustorch_llama::{Activations, Gguf, LayerSpec, LlamaConfig, Peaks, Weights};
use serde::Serialize;

use super::args::Args;
use super::machine::{self, MachinePeaks};
use super::measure::{Cell, Decode, Gathers, Measured, kv_bytes};
use super::work::Work;

/// All measurements, and what they were made on.
#[derive(Serialize)]
pub struct Report {
    /// Version of this program.
    pub rustorch: &'static str,
    pub model: Model,
    pub machine: Machine,
    pub settings: Settings,
    /// Lengths ascending, and within one batches ascending.
    pub cells: Vec<Row>,
    #[serde(skip)]
    pub work: Work,
}

#[derive(Serialize)]
pub struct Model {
    pub name: String,
    pub parameters: u64,
    pub num_layers: usize,
    pub hidden_size: usize,
    pub num_heads: usize,
    pub num_kv_heads: usize,
    pub head_dim: usize,
    pub intermediate_size: usize,
    pub vocab_size: usize,
    /// Bytes in the file, by block format.
    pub format_bytes: BTreeMap<String, u64>,
    pub bits_per_weight: f64,
    /// Bytes on the device.
    pub weight_bytes: u64,
    /// Of these, what a step of one token reads.
    pub step_weight_bytes: u64,
    /// Of these, the experts'.
    pub expert_weight_bytes: u64,
    pub num_experts: usize,
    pub num_experts_used: usize,
    #[serde(skip)]
    config: LlamaConfig,
}

#[derive(Serialize)]
pub struct Machine {
    pub cpu: Option<String>,
    /// The device that ran the model.
    pub device: String,
    pub peaks: Option<MachinePeaks>,
}

/// How it was measured.
#[derive(Serialize)]
pub struct Settings {
    /// Decode steps of a measurement.
    pub gen_steps: usize,
    /// Measurements of a cell.
    pub repeats: usize,
    pub kv_type: String,
    pub attention: String,
    /// Bits of the activations that quantised weights are multiplied with, on a CPU.
    pub activations: Option<u32>,
    pub page_size: usize,
    pub prompt_chunk: usize,
    pub seed: u64,
}

/// One cell of the grid.
#[derive(Serialize)]
pub struct Row {
    pub length: usize,
    pub batch: usize,
    pub prompt: Prompt,
    pub decode: DecodeRow,
    pub memory: Memory,
}

#[derive(Serialize)]
pub struct Prompt {
    pub tokens_per_s: f64,
    pub macs_per_s: f64,
    /// Time at the machine's arithmetic peaks over time taken.
    pub macs_share: Option<f64>,
    /// The time that gathers take alone, of devices that run the model together, over the time taken.
    pub gathers_share: Option<f64>,
    /// Of each repeat.
    pub seconds: Vec<f64>,
}

#[derive(Serialize)]
pub struct DecodeRow {
    pub tokens_per_s: f64,
    /// Over batch 1 of the same length, if that was measured.
    pub speedup: Option<f64>,
    pub ms_per_token: MsPerToken,
    pub bytes_per_s: f64,
    /// Of the peak rate of reading memory.
    pub bytes_share: Option<f64>,
    pub macs_per_s: f64,
    /// Time at the machine's arithmetic peaks over time taken.
    pub macs_share: Option<f64>,
    /// The time that a step's gathers take alone, of devices that run the model together, over the step's.
    pub gathers_share: Option<f64>,
    /// Of each repeat, all steps together.
    pub seconds: Vec<f64>,
}

/// Time that one sequence waits for a token, over the steps of all repeats.
#[derive(Serialize)]
pub struct MsPerToken {
    pub mean: f64,
    pub p50: f64,
    pub p99: f64,
}

#[derive(Serialize)]
pub struct Memory {
    pub weight_bytes: u64,
    /// Pages that the sequences held at the end.
    pub kv_bytes: u64,
    /// The process's peak of resident memory so far, where the system reports it.
    pub peak_bytes: Option<u64>,
}

impl Report {
    pub fn new(
        name: String,
        gguf: &Gguf,
        weights: &Weights,
        peaks: Option<Peaks>,
        settings: Settings,
    ) -> Self {
        let peaks = peaks.map(MachinePeaks::from);
        Self {
            rustorch: env!("CARGO_PKG_VERSION"),
            model: Model::new(name, gguf, weights),
            machine: Machine { cpu: machine::cpu_name(), device: weights.device(), peaks },
            settings,
            cells: Vec::new(),
            work: Work::new(gguf, weights),
        }
    }

    /// Appends a cell's row.
    pub fn add(
        &mut self,
        cell: Cell,
        measured: &Measured,
        gathers: Option<&Gathers>,
        peak_bytes: Option<u64>,
    ) {
        let row = Row {
            length: cell.length,
            batch: cell.batch,
            prompt: self.prompt(cell, measured, gathers),
            decode: self.decode(cell, measured, gathers),
            memory: self.memory(measured, peak_bytes),
        };
        self.cells.push(row);
    }

    fn prompt(&self, cell: Cell, measured: &Measured, gathers: Option<&Gathers>) -> Prompt {
        let seconds: Vec<f64> = measured.prompts.iter().map(Duration::as_secs_f64).collect();
        let median = median(seconds.clone());
        let macs = self.work.prompt_macs(cell.batch, cell.length);
        Prompt {
            tokens_per_s: (cell.batch * cell.length) as f64 / median,
            macs_per_s: macs.total() / median,
            macs_share: self.machine.peaks.map(|peaks| macs.seconds_at(&peaks) / median),
            gathers_share: gathers.map(|gathers| gathers.prompts.as_secs_f64() / median),
            seconds,
        }
    }

    fn decode(&self, cell: Cell, measured: &Measured, gathers: Option<&Gathers>) -> DecodeRow {
        let seconds = |steps: &[Duration]| steps.iter().sum::<Duration>().as_secs_f64();
        // Repeats may differ a little in the bytes of their steps, so each rate uses its own.
        let median_of = |of: &dyn Fn(&Decode) -> f64| {
            median(measured.decodes.iter().map(|decode| of(decode) / seconds(&decode.steps)).collect())
        };
        let tokens_per_s = median_of(&|decode| (decode.steps.len() * cell.batch) as f64);
        let bytes_per_s = median_of(&|decode| self.work.decode_bytes(decode));
        let peaks = self.machine.peaks;
        DecodeRow {
            tokens_per_s,
            speedup: self.single_rate(cell, tokens_per_s).map(|single| tokens_per_s / single),
            ms_per_token: MsPerToken::of(measured.decodes.iter().flat_map(|decode| &decode.steps)),
            bytes_per_s,
            bytes_share: peaks.map(|peaks| bytes_per_s / peaks.read_bytes_per_s),
            macs_per_s: median_of(&|decode| self.work.decode_macs(decode).total()),
            macs_share: peaks
                .map(|peaks| median_of(&|decode| self.work.decode_macs(decode).seconds_at(&peaks))),
            gathers_share: gathers.map(|gathers| {
                median_of(&|decode| gathers.decode_step.as_secs_f64() * decode.steps.len() as f64)
            }),
            seconds: measured.decodes.iter().map(|decode| seconds(&decode.steps)).collect(),
        }
    }

    /// Decode rate of batch 1 at the cell's length.
    fn single_rate(&self, cell: Cell, own_rate: f64) -> Option<f64> {
        if cell.batch == 1 {
            return Some(own_rate);
        }
        let single = self.cells.iter().find(|row| row.length == cell.length && row.batch == 1)?;
        Some(single.decode.tokens_per_s)
    }

    fn memory(&self, measured: &Measured, peak_bytes: Option<u64>) -> Memory {
        let held = |decode: &Decode| -> u64 {
            let tokens = decode.contexts.iter().map(|context| context + decode.steps.len());
            tokens.map(|tokens| kv_bytes(&self.model.config, tokens)).sum()
        };
        Memory {
            weight_bytes: self.model.weight_bytes,
            kv_bytes: measured.decodes.iter().map(held).max().unwrap_or(0),
            peak_bytes,
        }
    }
}

impl Settings {
    pub fn new(args: &Args, weights: &Weights) -> Self {
        let name =
            |value: Option<PossibleValue>| value.map_or(String::new(), |value| value.get_name().to_owned());
        Self {
            gen_steps: args.r#gen.get(),
            repeats: args.repeat.get(),
            kv_type: name(args.run.kv_type.to_possible_value()),
            attention: name(args.run.attention.to_possible_value()),
            activations: weights.activations().map(Activations::bits),
            page_size: args.run.page_size.get(),
            prompt_chunk: args.run.chunk.get(),
            seed: args.run.seed.value,
        }
    }
}

impl Model {
    fn new(name: String, gguf: &Gguf, weights: &Weights) -> Self {
        let config = weights.config();
        let LayerSpec { attn, ffn, .. } = &config.spec.layers[0];
        let mut format_bytes: BTreeMap<String, u64> = BTreeMap::new();
        let (mut parameters, mut bytes) = (0, 0);
        for tensor in gguf.tensors() {
            let len = tensor.data().len() as u64;
            *format_bytes.entry(tensor.format().to_string()).or_default() += len;
            parameters += tensor.dims().iter().product::<u64>();
            bytes += len;
        }
        Self {
            name,
            parameters,
            num_layers: config.num_layers(),
            hidden_size: config.hidden_size(),
            num_heads: attn.num_heads,
            num_kv_heads: attn.num_kv_heads,
            head_dim: attn.head_dim,
            intermediate_size: ffn.inner(),
            vocab_size: config.vocab_size(),
            format_bytes,
            bits_per_weight: 8.0 * bytes as f64 / parameters as f64,
            weight_bytes: weights.weight_bytes(),
            step_weight_bytes: weights.step_weight_bytes(),
            expert_weight_bytes: weights.expert_weight_bytes(),
            num_experts: config.spec.experts().map_or(0, |experts| experts.num_experts),
            num_experts_used: config.spec.experts().map_or(0, |experts| experts.routing.top_k),
            config: config.clone(),
        }
    }
}

impl MsPerToken {
    fn of<'a>(steps: impl Iterator<Item = &'a Duration>) -> Self {
        let mut ms: Vec<f64> = steps.map(|step| 1e3 * step.as_secs_f64()).collect();
        ms.sort_by(f64::total_cmp);
        let mean = ms.iter().sum::<f64>() / ms.len() as f64;
        Self { mean, p50: percentile(&ms, 50), p99: percentile(&ms, 99) }
    }
}

/// The smallest value that is not exceeded by `percent` percent of the sorted values.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1]
}

/// The middle value, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_tail() {
        for (values, expect) in
            [(vec![3.0], 3.0), (vec![5.0, 1.0, 2.0], 2.0), (vec![4.0, 1.0, 2.0, 9.0], 3.0)]
        {
            assert_eq!(median(values.clone()), expect, "{values:?}");
        }
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        for (percent, expect) in [(50, 50.0), (99, 99.0), (100, 100.0)] {
            assert_eq!(percentile(&hundred, percent), expect);
        }
        assert_eq!(percentile(&[7.0], 99), 7.0);
    }
}
