//! A model on a device, with the back end's type erased.

use std::sync::Arc;

use cpu::{Activations, Isa};
use gguf::Gguf;
use model::{AttentionMode, Backend, BatchLimits, Decoder, LlamaConfig, ModelRunner, Peaks, Runner};

use super::OpenDevice;
use crate::memory_fit::{Demand, Limits};
use crate::{Device, Result};

/// How much of a device's time a kernel has taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KernelTime {
    /// Its name.
    pub name: &'static str,
    /// How often it ran.
    pub dispatches: u64,
    /// How long, all in all.
    pub seconds: f64,
}

/// What a back end says of itself.
pub(super) trait Described: Backend {
    /// The device, in words.
    fn describe(&self) -> String;

    /// The instruction set, of a CPU.
    fn isa(&self) -> Option<Isa> {
        None
    }

    /// The precision of activations, of a CPU.
    fn activations(&self) -> Option<Activations> {
        None
    }

    /// Whether kernels are timed.
    fn times_kernels(&self) -> bool {
        false
    }

    /// The times of all kernels since the last call, the slowest first.
    fn kernel_times(&self) -> Vec<KernelTime> {
        Vec::new()
    }

    /// How much the device holds.
    fn limits(&self) -> Limits {
        Limits::NONE
    }
}

/// A model on a device.
pub(crate) trait LoadedModel: Send + Sync {
    fn config(&self) -> &LlamaConfig;
    fn device(&self) -> String;
    fn isa(&self) -> Option<Isa>;
    fn activations(&self) -> Option<Activations>;
    fn times_kernels(&self) -> bool;
    fn kernel_times(&self) -> Vec<KernelTime>;
    fn weight_bytes(&self) -> u64;
    fn step_weight_bytes(&self) -> u64;
    fn expert_weight_bytes(&self) -> u64;
    fn peaks(&self) -> Result<Option<Peaks>>;

    /// Refuses a runner that does not fit the device's memory beside the weights.
    fn check_fit(&self, attention: AttentionMode, num_seqs: usize, kv_memory: Option<u64>) -> Result<()>;

    fn runner(&self, limits: BatchLimits, attention: AttentionMode) -> Result<Box<dyn Runner>>;
}

/// A device that is fit for a model, opened.
pub(super) struct Opened<B> {
    /// By its own name.
    pub device: Device,
    pub backend: Arc<B>,
}

impl<B: Described> OpenDevice for Opened<B> {
    fn device(&self) -> Device {
        self.device
    }

    fn name(&self) -> String {
        self.backend.describe()
    }

    fn load(
        self: Box<Self>,
        gguf: &Gguf,
        config: LlamaConfig,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Arc<dyn LoadedModel>> {
        let backend = self.backend;
        let decoder = Arc::new(Decoder::load(&*backend, gguf, config, progress)?);
        Ok(Arc::new(OnBackend { backend, decoder }))
    }
}

/// A model on a back end.
struct OnBackend<B: Backend> {
    backend: Arc<B>,
    decoder: Arc<Decoder<B>>,
}

impl<B: Described> LoadedModel for OnBackend<B> {
    fn config(&self) -> &LlamaConfig {
        self.decoder.config()
    }

    fn device(&self) -> String {
        self.backend.describe()
    }

    fn isa(&self) -> Option<Isa> {
        self.backend.isa()
    }

    fn activations(&self) -> Option<Activations> {
        self.backend.activations()
    }

    fn times_kernels(&self) -> bool {
        self.backend.times_kernels()
    }

    fn kernel_times(&self) -> Vec<KernelTime> {
        self.backend.kernel_times()
    }

    fn weight_bytes(&self) -> u64 {
        self.decoder.weight_bytes()
    }

    fn step_weight_bytes(&self) -> u64 {
        self.decoder.step_weight_bytes(&self.backend)
    }

    fn expert_weight_bytes(&self) -> u64 {
        self.decoder.expert_weight_bytes()
    }

    fn peaks(&self) -> Result<Option<Peaks>> {
        Ok(self.backend.peaks()?)
    }

    fn check_fit(&self, attention: AttentionMode, num_seqs: usize, kv_memory: Option<u64>) -> Result<()> {
        let limits = self.backend.limits();
        // Drivers that do not count say that all of the memory is available.
        let memory = limits.memory.map(|mut memory| {
            memory.available = memory.available.min(memory.total.saturating_sub(self.weight_bytes()));
            memory
        });
        let demand = Demand { config: self.config(), attention, num_seqs, kv_memory, weights: 0 };
        let footprint = |layout: &_| self.backend.footprint(layout);
        demand.check(&Limits { memory, ..limits }, &footprint)
    }

    fn runner(&self, limits: BatchLimits, attention: AttentionMode) -> Result<Box<dyn Runner>> {
        let (backend, decoder) = (Arc::clone(&self.backend), Arc::clone(&self.decoder));
        Ok(Box::new(ModelRunner::new(backend, decoder, limits, attention)?))
    }
}
