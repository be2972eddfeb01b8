//! Loaded weights, and what can be made of them: slots for [`LlamaModel`](crate::LlamaModel), or an engine.
//!
//! The one place that picks a backend; beyond it only [`Runner`]s are seen.

use std::sync::Arc;

use cpu::{CpuBackend, CpuOptions, Isa};
use engine::{Engine, EngineHandle, EngineOptions, ModelRunner, PrefixCache, Runner, kv_shape};
use gguf::Gguf;
use gpu::{DeviceMemory, GpuBackend, GpuOptions};
use model::{AttentionMode, Backend, BatchLimits, Llama, LlamaConfig, Roofs};
use tokenizer::Tokenizer;

use crate::gpus::{self, Best};
use crate::room::Demand;
use crate::{Device, Error, Result};

/// How weights are loaded.
#[derive(Default)]
pub struct LoadOptions<'a> {
    /// Where the model runs.
    pub device: Device,
    /// How the CPU is used where [`Device::Auto`] comes to it.
    pub cpu: CpuOptions,
    /// How a GPU is used.
    pub gpu: GpuOptions,
    /// Which attention runs.
    pub attention: AttentionMode,
    /// Bytes of KV pages that the engine will be given ([`EngineConfig::kv_memory`]), so that a GPU without room for them
    /// is refused before the weights are brought to it; those of `batch_size` full sequences when `None`.
    pub kv_memory: Option<u64>,
    /// Told how many of the file's bytes have been loaded, and of how many.
    pub progress: Option<&'a mut dyn FnMut(u64, u64)>,
}

impl LoadOptions<'_> {
    /// The usual choices, on this device.
    pub fn on(device: Device) -> Self {
        Self { device, ..Self::default() }
    }
}

/// The weights of a model on a device. Clones share them.
#[derive(Clone)]
pub struct Weights {
    model: Arc<dyn LoadedModel>,
    attention: AttentionMode,
    device: String,
    /// Why [`Device::Auto`] passed a GPU over.
    note: Option<String>,
    /// The backend once more, if it is a GPU's.
    gpu: Option<Arc<GpuBackend>>,
    isa: Option<Isa>,
}

/// What a kernel has taken of a device's time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KernelTime {
    /// Its name.
    pub name: &'static str,
    /// How often it ran.
    pub dispatches: u64,
    /// How long, all in all.
    pub seconds: f64,
}

/// How an engine uses the weights. What is `None` follows from the model's configuration.
#[derive(Debug, Clone, Copy, Default)]
pub struct EngineConfig {
    /// Bytes of KV pages; as many as `batch_size` sequences of `max_seq_len` take when `None`.
    pub kv_memory: Option<u64>,
    /// Sequences that run together; the configuration's `batch_size` when `None`.
    pub max_num_seqs: Option<usize>,
    /// Most prompt tokens of one sequence in a step; the configuration's `prompt_chunk` when `None`.
    pub max_chunk: Option<usize>,
    /// Whether prompts that begin alike share what was computed.
    pub prefix_cache: PrefixCache,
}

/// A model with its backend's type erased.
trait LoadedModel: Send + Sync {
    fn config(&self) -> &LlamaConfig;
    fn weight_bytes(&self) -> u64;
    fn step_weight_bytes(&self) -> u64;
    fn roofs(&self) -> model::Result<Option<Roofs>>;
    fn runner(
        &self,
        limits: BatchLimits,
        num_pages: usize,
        attention: AttentionMode,
    ) -> Result<Box<dyn Runner>>;
}

struct OnBackend<B: Backend> {
    backend: Arc<B>,
    llama: Arc<Llama<B>>,
}

impl<B: Backend> LoadedModel for OnBackend<B> {
    fn config(&self) -> &LlamaConfig {
        self.llama.config()
    }

    fn weight_bytes(&self) -> u64 {
        self.llama.weight_bytes()
    }

    fn step_weight_bytes(&self) -> u64 {
        self.llama.step_weight_bytes(&self.backend)
    }

    fn roofs(&self) -> model::Result<Option<Roofs>> {
        self.backend.roofs()
    }

    fn runner(
        &self,
        limits: BatchLimits,
        num_pages: usize,
        attention: AttentionMode,
    ) -> Result<Box<dyn Runner>> {
        let (backend, llama) = (Arc::clone(&self.backend), Arc::clone(&self.llama));
        Ok(Box::new(ModelRunner::new(backend, llama, limits, num_pages, attention)?))
    }
}

impl Weights {
    /// Loads the weights of `gguf` for the device of `options`.
    ///
    /// # Errors
    /// A configuration that contradicts the file, a malformed model, or a device that is not there, fails its self-test or
    /// cannot hold the model.
    pub fn load(gguf: &Gguf, config: LlamaConfig, mut options: LoadOptions<'_>) -> Result<Self> {
        config.validate()?;
        match options.device {
            Device::Cpu(cpu) => Self::on_cpu(gguf, config, cpu, &mut options),
            Device::Gpu(choice) => {
                let backend = gpus::named(choice, gguf, &config, &options)?;
                Self::on_gpu(gguf, config, backend, &mut options)
            }
            Device::Auto => Self::on_best(gguf, config, &mut options),
        }
    }

    /// On a GPU, if there is one that is fit for the model.
    fn on_best(gguf: &Gguf, config: LlamaConfig, options: &mut LoadOptions<'_>) -> Result<Self> {
        let reason = match gpus::best(gguf, &config, options) {
            Best::None => None,
            Best::Unfit(reason) => Some(reason),
            Best::Gpu(backend) => match Self::on_gpu(gguf, config.clone(), *backend, options) {
                Err(Error::Model(error @ (model::Error::Device(_) | model::Error::OutOfMemory { .. }))) => {
                    Some(error.to_string())
                }
                loaded => return loaded,
            },
        };
        let note = reason.map(|reason| format!("running on the CPU: {reason}"));
        if let Some(note) = &note {
            tracing::warn!("{note}");
        }
        let cpu = options.cpu;
        Ok(Self { note, ..Self::on_cpu(gguf, config, cpu, options)? })
    }

    fn on_cpu(
        gguf: &Gguf,
        config: LlamaConfig,
        cpu: CpuOptions,
        options: &mut LoadOptions<'_>,
    ) -> Result<Self> {
        let backend = CpuBackend::new(cpu)?;
        let isa = backend.isa();
        let device = format!("CPU ({isa}, {} threads)", backend.num_threads());
        let on = Self::on(Arc::new(backend), gguf, config, device, options)?;
        Ok(Self { isa: Some(isa), ..on })
    }

    fn on_gpu(
        gguf: &Gguf,
        config: LlamaConfig,
        backend: GpuBackend,
        options: &mut LoadOptions<'_>,
    ) -> Result<Self> {
        let backend = Arc::new(backend);
        let device = backend.gpu().to_string();
        let on = Self::on(Arc::clone(&backend), gguf, config, device, options)?;
        Ok(Self { gpu: Some(backend), ..on })
    }

    fn on<B: Backend>(
        backend: Arc<B>,
        gguf: &Gguf,
        config: LlamaConfig,
        device: String,
        options: &mut LoadOptions<'_>,
    ) -> Result<Self> {
        let report = |done, total| {
            if let Some(progress) = &mut options.progress {
                progress(done, total);
            }
        };
        let llama = Arc::new(Llama::load(&*backend, gguf, config, report)?);
        let model = Arc::new(OnBackend { backend, llama });
        Ok(Self { model, attention: options.attention, device, note: None, gpu: None, isa: None })
    }

    /// The configuration that the weights were loaded with.
    pub fn config(&self) -> &LlamaConfig {
        self.model.config()
    }

    /// Bytes of the weights on the device.
    pub fn weight_bytes(&self) -> u64 {
        self.model.weight_bytes()
    }

    /// Bytes of the weights that every step reads, if only for one token: all but an embedding table that is not the LM
    /// head as well.
    pub fn step_weight_bytes(&self) -> u64 {
        self.model.step_weight_bytes()
    }

    /// Measures what the device can do at most, which takes about a second; `None` of one that has no measure of itself.
    ///
    /// # Errors
    /// When the device has no memory left for it.
    pub fn measure_roofs(&self) -> Result<Option<Roofs>> {
        Ok(self.model.roofs()?)
    }

    /// The device, in words.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Why [`Device::Auto`] passed a GPU over, if it did.
    pub fn device_note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// What each kernel has taken of a GPU's time since the last call, the slowest first. Empty unless the weights were
    /// loaded for a GPU with [`Profile::Kernels`](gpu::Profile::Kernels).
    pub fn kernel_times(&self) -> Vec<KernelTime> {
        let times = self.gpu.iter().flat_map(|gpu| gpu.kernel_times());
        times.map(|(name, dispatches, seconds)| KernelTime { name, dispatches, seconds }).collect()
    }

    /// Whether [`kernel_times`](Self::kernel_times) has something to tell.
    pub fn times_kernels(&self) -> bool {
        self.gpu.as_ref().is_some_and(|backend| backend.gpu().times_kernels())
    }

    /// Refuses a runner that the GPU has no room for.
    fn check_room(&self, num_seqs: usize, kv_memory: Option<u64>) -> Result<()> {
        let Some(gpu) = self.gpu.as_ref().map(|backend| backend.gpu()) else { return Ok(()) };
        // Drivers that do not count say that all is there.
        let memory = gpu.memory().map(|memory| DeviceMemory {
            available: memory.available.min(memory.total.saturating_sub(self.weight_bytes())),
            ..memory
        });
        let demand =
            Demand { config: self.config(), attention: self.attention, num_seqs, kv_memory, weights: 0 };
        demand.check(&gpu.info().name, gpu.capabilities(), memory)
    }

    /// The instruction set, if the device is a CPU: the one thing about it that results depend on.
    pub fn isa(&self) -> Option<Isa> {
        self.isa
    }

    /// A runner with a cache of `num_slots` sequences of full length, serving as many a step.
    pub(crate) fn slot_runner(&self, num_slots: usize) -> Result<Box<dyn Runner>> {
        let config = self.config();
        let num_pages = checked_pages(config, num_slots)?;
        self.check_room(num_slots, None)?;
        self.model.runner(limits(config, num_slots), num_pages, self.attention)
    }

    /// Starts an engine with KV pages of its own. It stops when the last clone of its handle is dropped.
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
                let page_bytes = kv_shape(config, 1).bytes();
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
        self.check_room(max_num_seqs, options.kv_memory)?;
        let runner = self.model.runner(limits(config, max_num_seqs), num_pages, self.attention)?;
        let options = EngineOptions {
            max_num_seqs: Some(max_num_seqs),
            token_budget: None,
            max_chunk: options.max_chunk,
            prefix_cache: options.prefix_cache,
        };
        Ok(Engine::start(runner, tokenizer, options)?)
    }
}

/// Rows of logits that a step yields when a whole sequence is scored.
const SCORED_ROWS: usize = 32;

/// The largest step of so many sequences.
pub(crate) fn limits(config: &LlamaConfig, num_seqs: usize) -> BatchLimits {
    let max_tokens = config.max_batch_tokens.max(num_seqs);
    BatchLimits {
        max_tokens,
        max_seqs: num_seqs,
        max_logit_rows: num_seqs.max(SCORED_ROWS.min(max_tokens)),
        max_blocks: config.pages_per_seq(),
    }
}

/// Pages of `num_slots` full sequences, however many.
pub(crate) fn pages_of(config: &LlamaConfig, num_slots: usize) -> usize {
    num_slots.saturating_mul(config.pages_per_seq())
}

/// Pages of `num_slots` full sequences, if slots can number them.
fn checked_pages(config: &LlamaConfig, num_slots: usize) -> Result<usize> {
    let tokens = num_slots.checked_mul(config.pages_per_seq() * config.page_size);
    match tokens {
        Some(tokens) if num_slots > 0 && u32::try_from(tokens).is_ok() => {
            Ok(num_slots * config.pages_per_seq())
        }
        _ => Err(Error::InvalidValue {
            what: "batch size",
            expected: format!("1 to {}", u32::MAX as usize / (config.pages_per_seq() * config.page_size)),
            found: num_slots.to_string(),
        }),
    }
}
