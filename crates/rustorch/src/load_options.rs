//! How weights are loaded.

use std::fmt;
use std::num::NonZeroUsize;

use cpu::CpuOptions;
use devices::GpuOptions;
use model::AttentionMode;

use crate::Device;

/// How weights are loaded. Write what differs from the usual, `..LoadOptions::default()` for the rest: fields are added.
#[derive(Default)]
pub struct LoadOptions<'a> {
    /// Where the model runs.
    pub device: Device,
    /// How the CPU is used where [`Device::Auto`] comes to it, or for [`Devices`](crate::Devices): the threads are then those of all
    /// replicas together.
    pub cpu: CpuOptions,
    /// How a GPU is used.
    pub gpu: GpuOptions,
    /// Which attention runs.
    pub attention: AttentionMode,
    /// Bytes of KV pages that the engine will be given ([`EngineConfig::kv_memory`](crate::EngineConfig::kv_memory)), so that a GPU which cannot hold
    /// them is refused before the weights are brought to it; those of `batch_size` full sequences when `None`.
    pub kv_memory: Option<u64>,
    /// Devices that run the model together, each a part of it; one when `None`. The results are the bits of one.
    pub tensor_parallel: Option<NonZeroUsize>,
    /// Told how many of the file's bytes have been loaded, and of how many.
    pub progress: Option<&'a mut dyn FnMut(u64, u64)>,
}

impl LoadOptions<'_> {
    /// The usual choices, on this device.
    pub fn on(device: Device) -> Self {
        Self { device, ..Self::default() }
    }

    /// Devices that run the model together.
    pub(crate) fn ranks(&self) -> usize {
        self.tensor_parallel.map_or(1, NonZeroUsize::get)
    }
}

impl fmt::Debug for LoadOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadOptions")
            .field("device", &self.device)
            .field("cpu", &self.cpu)
            .field("gpu", &self.gpu)
            .field("attention", &self.attention)
            .field("kv_memory", &self.kv_memory)
            .field("tensor_parallel", &self.tensor_parallel)
            .finish_non_exhaustive()
    }
}
