//! GPUs that Vulkan, Metal or DX12 reach.

use std::sync::Arc;

use conformance::{Finding, Report};
use devices::{GpuChoice, GpuOptions};
use gguf::Gguf;
use gpu::check::Part;
use gpu::{Adapter, Adapters, GpuBackend};
use model::LlamaConfig;

use super::loaded::{Described, KernelTime, Opened};
use super::{DeviceInfo, OpenDevice, Platform, fit};
use crate::memory_fit::Limits;
use crate::{Device, LoadOptions, Result};

pub(super) struct GpuPlatform;

impl Platform for GpuPlatform {
    fn list(&self) -> Vec<DeviceInfo> {
        let info = |adapter: &Adapter| DeviceInfo {
            device: device_of(adapter),
            name: adapter.name().to_owned(),
            gpu: Some(adapter.describe()),
        };
        Adapters::find().iter().map(info).collect()
    }

    fn open(
        &self,
        device: Device,
        gguf: &Gguf,
        config: &LlamaConfig,
        options: &LoadOptions<'_>,
    ) -> Result<Option<Box<dyn OpenDevice>>> {
        match device {
            Device::Cpu(_) | Device::Cuda(_) => Ok(None),
            Device::Gpu(choice) => open(Adapters::find().choose(choice)?, gguf, config, options).map(Some),
            Device::Auto => match Adapters::find_real().choose(GpuChoice::Any) {
                Ok(adapter) => open(adapter, gguf, config, options).map(Some),
                Err(_) => Ok(None),
            },
        }
    }

    fn check(
        &self,
        device: Device,
        options: GpuOptions,
        model: &Gguf,
        found: &mut dyn FnMut(&Finding),
    ) -> Result<Option<Report>> {
        let choice = match device {
            Device::Cpu(_) | Device::Cuda(_) => return Ok(None),
            Device::Gpu(choice) => choice,
            Device::Auto => GpuChoice::Any,
        };
        Ok(Some(gpu::check::run(Adapters::find().choose(choice)?, options, model, Part::All, found)?))
    }
}

fn device_of(adapter: &Adapter) -> Device {
    Device::Gpu(GpuChoice::Index(adapter.index()))
}

/// Opens a GPU, if the model fits its memory and it passes the self-test with the model's shapes.
fn open(
    adapter: &Adapter,
    gguf: &Gguf,
    config: &LlamaConfig,
    options: &LoadOptions<'_>,
) -> Result<Box<dyn OpenDevice>> {
    let backend = Arc::new(GpuBackend::new(adapter.open(options.gpu)?));
    let limits = Limits { memory: adapter.memory(), ..backend.limits() };
    fit::check(&backend, &limits, gpu::weight_bytes(gguf, config), gguf, config, options)?;
    Ok(Box::new(Opened::one(device_of(adapter), backend)))
}

impl Described for GpuBackend {
    fn describe(&self) -> String {
        self.gpu().to_string()
    }

    fn times_kernels(&self) -> bool {
        self.gpu().times_kernels()
    }

    fn kernel_times(&self) -> Vec<KernelTime> {
        let time = |(name, dispatches, seconds)| KernelTime { name, dispatches, seconds };
        GpuBackend::kernel_times(self).into_iter().map(time).collect()
    }

    fn limits(&self) -> Limits {
        Limits {
            device: self.gpu().info().name.clone(),
            max_buffer_bytes: self.gpu().capabilities().max_binding_bytes,
            memory: self.gpu().memory(),
        }
    }
}
