//! Loaded weights, and what can be made of them: slots for [`LlamaModel`](crate::LlamaModel), or an engine.
//!
//! The one place that picks a backend; beyond it only [`Runner`]s are seen.

use std::sync::Arc;

use cpu::{CpuBackend, CpuOptions, Isa};
use engine::{Engine, EngineHandle, EngineOptions, ModelRunner, PrefixCache, Runner, kv_shape};
use gguf::Gguf;
use model::{AttentionMode, Backend, BatchLimits, Llama, LlamaConfig, Roofs};
use tokenizer::Tokenizer;

use crate::{Device, Error, Result};

/// How weights are loaded.
#[derive(Default)]
pub struct LoadOptions<'a> {
    /// Where the model runs.
    pub device: Device,
    /// Which attention runs.
    pub attention: AttentionMode,
    /// Told how many of the file's bytes have been loaded, and of how many.
    pub progress: Option<&'a mut dyn FnMut(u64, u64)>,
}

/// The weights of a model on a device. Clones share them.
#[derive(Clone)]
pub struct Weights {
    model: Arc<dyn LoadedModel>,
    attention: AttentionMode,
    device: String,
    isa: Option<Isa>,
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
    /// A configuration that contradicts the file, a malformed model, or a device that cannot hold it.
    pub fn load(gguf: &Gguf, config: LlamaConfig, options: LoadOptions<'_>) -> Result<Self> {
        let LoadOptions { device, attention, mut progress } = options;
        let cpu_options = match device {
            Device::Auto => CpuOptions::default(),
            Device::Cpu(options) => options,
        };
        let backend = CpuBackend::new(cpu_options)?;
        let isa = backend.isa();
        let device = format!("CPU ({isa}, {} threads)", backend.num_threads());
        let report = |done, total| {
            if let Some(progress) = &mut progress {
                progress(done, total);
            }
        };
        let llama = Llama::load(&backend, gguf, config, report)?;
        let model = Arc::new(OnBackend { backend: Arc::new(backend), llama: Arc::new(llama) });
        Ok(Self { model, attention, device, isa: Some(isa) })
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

    /// The instruction set, if the device is a CPU: the one thing about it that results depend on.
    pub fn isa(&self) -> Option<Isa> {
        self.isa
    }

    /// A runner with a cache of `num_slots` sequences of full length, serving as many a step.
    pub(crate) fn slot_runner(&self, num_slots: usize) -> Result<Box<dyn Runner>> {
        let config = self.config();
        let num_pages = checked_pages(config, num_slots)?;
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

fn limits(config: &LlamaConfig, num_seqs: usize) -> BatchLimits {
    let max_tokens = config.max_batch_tokens.max(num_seqs);
    BatchLimits {
        max_tokens,
        max_seqs: num_seqs,
        max_logit_rows: num_seqs.max(SCORED_ROWS.min(max_tokens)),
        max_blocks: config.pages_per_seq(),
    }
}

/// Pages of `num_slots` full sequences.
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
