//! Loaded weights, and what can be made of them: slots for [`LlamaModel`](crate::LlamaModel), or an engine.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cpu::{Activations, Isa};
use engine::{Engine, EngineHandle, EngineOptions, PrefixCache};
use gguf::Gguf;
use model::{AttentionMode, LlamaConfig, Peaks, Runner};
use tokenizer::Tokenizer;

use crate::batch_size::{self, BatchSize};
use crate::load_options::LoadOptions;
use crate::platforms::{self, KernelTime, LoadedModel, several};
use crate::sizes::{checked_pages, limits, page_bytes};
use crate::{Device, Devices, Error, Result};

/// The weights of a model on a device, or on several with a copy on each. Clones share them.
#[derive(Clone)]
pub struct Weights {
    model: Arc<dyn LoadedModel>,
    /// The same model on each device, the first one included, with the device's name.
    replicas: Vec<(String, Arc<dyn LoadedModel>)>,
    attention: AttentionMode,
    /// Why [`Device::Auto`] passed a GPU over.
    note: Option<String>,
}

/// How an engine uses the weights. What is `None` follows from the model's configuration. Of weights on several devices, sizes are those
/// of each; of a group, of the one that takes the most.
#[derive(Debug, Clone, Copy, Default)]
pub struct EngineConfig {
    /// Bytes of KV pages; as many as `batch_size` sequences of `max_seq_len` take when `None`.
    pub kv_memory: Option<u64>,
    /// Sequences that run together; the configuration's `batch_size` when `None`.
    pub max_num_seqs: Option<usize>,
    /// Most prompt tokens of one sequence in a step; the configuration's `prompt_chunk` when `None`.
    pub max_chunk: Option<usize>,
    /// Time wanted between two tokens of a sequence, which bounds what prompts take of a step; without it they take as much
    /// as there is room for, which is best for throughput.
    pub itl_target: Option<Duration>,
    /// Whether prompts that begin alike share what was computed.
    pub prefix_cache: PrefixCache,
}

impl fmt::Debug for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Weights")
            .field("devices", &self.devices())
            .field("config", self.config())
            .finish_non_exhaustive()
    }
}

impl Weights {
    /// Loads the weights of `gguf` for the device of `options`.
    ///
    /// # Errors
    /// A configuration that contradicts the file, a malformed model, or a device that is not there, fails its self-test or
    /// cannot hold the model.
    pub fn load(gguf: &Gguf, config: LlamaConfig, mut options: LoadOptions<'_>) -> Result<Self> {
        if options.ranks() > 1 {
            if let Device::Cpu(cpu) = options.device {
                options.cpu = cpu;
            }
            return Self::load_on(&options.device.into(), gguf, config, options);
        }
        config.validate()?;
        let (model, note) = platforms::load(gguf, config, &mut options)?;
        let replicas = vec![(options.device.to_string(), Arc::clone(&model))];
        Ok(Self { model, replicas, attention: options.attention, note })
    }

    /// Loads the weights of `gguf` for these devices instead of that of `options`, each, or each group of
    /// [`tensor_parallel`](LoadOptions::tensor_parallel) devices, with a copy of its own, all at the same time.
    /// [`start_engine`](Self::start_engine) then starts a replica on each; [`LlamaModel`](crate::LlamaModel) uses the first one.
    ///
    /// # Errors
    /// As [`load`](Self::load), naming the device; also if two devices do not compute the same bits.
    pub fn load_on(
        devices: &Devices,
        gguf: &Gguf,
        config: LlamaConfig,
        mut options: LoadOptions<'_>,
    ) -> Result<Self> {
        config.validate()?;
        // Before threads are started and devices opened for ranks that the model has nothing for.
        let _ = page_bytes(&config, options.ranks())?;
        let groups = devices.groups(options.cpu, num_cpus::get_physical(), options.ranks())?;
        if let [(_, devices)] = &groups[..]
            && let [device] = devices[..]
        {
            return Self::load(gguf, config, LoadOptions { device, ..options });
        }
        let models = several::load(gguf, &config, &mut options, &groups)?;
        let replicas: Vec<_> = groups.into_iter().map(|(name, _)| name).zip(models).collect();
        Ok(Self { model: Arc::clone(&replicas[0].1), replicas, attention: options.attention, note: None })
    }

    /// How many devices have all of them, or how many groups.
    pub fn num_replicas(&self) -> usize {
        self.replicas.len()
    }

    /// How many devices have them together ([`LoadOptions::tensor_parallel`]).
    pub fn num_ranks(&self) -> usize {
        self.model.num_ranks()
    }

    /// The configuration that the weights were loaded with.
    pub fn config(&self) -> &LlamaConfig {
        self.model.config()
    }

    /// Bytes of the weights on a device, or on all devices of a group.
    pub fn weight_bytes(&self) -> u64 {
        self.model.weight_bytes()
    }

    /// Bytes of the weights that every step reads, if only for one token: all but an embedding table that is not the LM
    /// head as well, and the experts that the token does not take.
    pub fn step_weight_bytes(&self) -> u64 {
        self.model.step_weight_bytes()
    }

    /// Bytes of the weights of all experts; 0 of a model without. A step reads those that its tokens take.
    pub fn expert_weight_bytes(&self) -> u64 {
        self.model.expert_weight_bytes()
    }

    /// Measures the peak rates of the first device, for about a second; `None` of one that has no measure of itself. Of several
    /// devices they are taken together to have as many times as much.
    ///
    /// # Errors
    /// When the device has no memory left for it.
    pub fn measure_peaks(&self) -> Result<Option<Peaks>> {
        let times = (self.num_replicas() * self.num_ranks()) as f64;
        let of_all = |peaks: Peaks| Peaks {
            read_bytes_per_s: times * peaks.read_bytes_per_s,
            quantized_macs_per_s: times * peaks.quantized_macs_per_s,
            float_macs_per_s: times * peaks.float_macs_per_s,
        };
        Ok(self.model.peaks()?.map(of_all))
    }

    /// The device, in words, or all of them.
    pub fn device(&self) -> String {
        self.devices().join(", ")
    }

    /// Each device, in words.
    pub fn devices(&self) -> Vec<String> {
        match &self.replicas[..] {
            [(_, model)] => vec![model.device()],
            replicas => replicas.iter().map(|(name, model)| format!("{name}: {}", model.device())).collect(),
        }
    }

    /// Why [`Device::Auto`] passed a GPU over, if it did.
    pub fn device_note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// How much of a GPU's time, of several that of the first, each kernel has taken since the last call, the slowest first. Empty unless
    /// the weights were loaded for a GPU with [`Profile::Kernels`](devices::Profile::Kernels).
    pub fn kernel_times(&self) -> Vec<KernelTime> {
        self.model.kernel_times()
    }

    /// Whether [`kernel_times`](Self::kernel_times) has something to tell.
    pub fn times_kernels(&self) -> bool {
        self.model.times_kernels()
    }

    /// The time that the gathers of a step of so many tokens take alone, on the devices that run the model together
    /// ([`LoadOptions::tensor_parallel`]), if `head_rows` of the tokens yield logits. None on one device.
    ///
    /// # Errors
    /// When a device cannot hold the rows, or fails.
    pub fn time_gathers(&self, tokens: usize, head_rows: usize) -> Result<Option<Duration>> {
        self.model.time_gathers(tokens, head_rows)
    }

    /// The instruction set, if the device is a CPU. Results do not depend on it.
    pub fn isa(&self) -> Option<Isa> {
        self.model.isa()
    }

    /// What results depend on of the device, beside [`activations`](Self::activations): `cpu` on every processor, or the
    /// device itself.
    pub fn numeric_path(&self) -> String {
        if self.isa().is_some() { "cpu".to_owned() } else { self.model.first_device() }
    }

    /// The precision of the activations that quantised weights are multiplied with, if the device is a CPU.
    pub fn activations(&self) -> Option<Activations> {
        self.model.activations()
    }

    /// Chooses how many sequences an engine runs together and what their KV pages take, by the device and its memory. At most
    /// `kv_memory` bytes are for pages, if that is given. Of several devices, it is the choice for each.
    pub fn choose_batch_size(&self, kv_memory: Option<u64>) -> BatchSize {
        let shard = self.model.shard_config();
        match self.isa() {
            Some(_) => batch_size::on_cpu(&shard, kv_memory, (self.num_replicas() * self.num_ranks()) as u64),
            None => batch_size::on_gpu(&shard, kv_memory, |num_seqs, bytes| {
                let fits =
                    |model: &dyn LoadedModel| model.check_fit(self.attention, num_seqs, Some(bytes)).is_ok();
                self.replicas.iter().all(|(_, model)| fits(&**model))
            }),
        }
    }

    /// Bytes of K and V in so many pages, of all ranks together.
    pub(crate) fn kv_bytes(&self, num_pages: usize, page_size: usize) -> u64 {
        self.model.kv_bytes(num_pages, page_size)
    }

    /// A runner with a cache of `num_slots` sequences of full length, serving as many a step.
    pub(crate) fn slot_runner(&self, num_slots: usize) -> Result<Box<dyn Runner>> {
        let config = self.config();
        let num_pages = checked_pages(config, num_slots)?;
        self.model.check_fit(self.attention, num_slots, None)?;
        self.model.runner(limits(config, num_slots, num_pages), self.attention)
    }

    /// Starts an engine with KV pages of its own. It stops when the last clone of its handle is dropped. Of weights on several
    /// devices it has a replica on each: a request runs on any of them, with the same result.
    ///
    /// Without a tokenizer it generates tokens but no text.
    ///
    /// # Errors
    /// When the pages do not fit the device or `kv_memory` is less than one page.
    pub fn start_engine(
        &self,
        tokenizer: Option<Arc<Tokenizer>>,
        options: EngineConfig,
    ) -> Result<EngineHandle> {
        let config = self.config();
        let max_num_seqs = options.max_num_seqs.unwrap_or(config.batch_size);
        let num_pages = match options.kv_memory {
            None => checked_pages(config, max_num_seqs)?,
            Some(bytes) => {
                let page_bytes = page_bytes(config, self.num_ranks())?;
                // More pages than all sequences can fill would never be used.
                let pages = ((bytes / page_bytes) as usize).min(checked_pages(config, max_num_seqs)?);
                if pages == 0 {
                    return Err(Error::InvalidValue {
                        what: "KV memory",
                        expected: format!(
                            "at least {page_bytes} bytes, a page of {} tokens",
                            config.page_size
                        ),
                        found: format!("{bytes} bytes"),
                    });
                }
                pages
            }
        };
        let limits = limits(config, max_num_seqs, num_pages);
        let runner = |model: &dyn LoadedModel| {
            model.check_fit(self.attention, max_num_seqs, options.kv_memory)?;
            model.runner(limits, self.attention)
        };
        let mut runners = Vec::new();
        for (device, (name, model)) in self.devices().into_iter().zip(&self.replicas) {
            let runner = runner(&**model).map_err(|source| match self.num_replicas() {
                1 => source,
                _ => Error::OnDevice { device: name.clone(), source: Box::new(source) },
            })?;
            runners.push((device, runner));
        }
        let options = EngineOptions {
            max_num_seqs: Some(max_num_seqs),
            token_budget: None,
            max_chunk: Some(options.max_chunk.unwrap_or(config.prompt_chunk)),
            itl_target: options.itl_target,
            prefix_cache: options.prefix_cache,
        };
        Ok(Engine::start_replicas(runners, tokenizer, options)?)
    }
}
