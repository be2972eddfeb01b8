//! GPUs that Vulkan, Metal or DX12 reach.

use std::sync::Arc;

use conformance::{Finding, Report};
use devices::{GpuChoice, GpuOptions};
use gguf::{Format, Gguf};
use gpu::check::Part;
use gpu::{Adapter, Adapters, GpuBackend};
use model::{AttentionOp, Backend, LlamaConfig};

use super::loaded::{Described, KernelTime, Opened};
use super::{DeviceInfo, OpenDevice, Platform};
use crate::memory_fit::{Demand, Limits};
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
            Device::Cpu(_) => Ok(None),
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
            Device::Cpu(_) => return Ok(None),
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
    let demand = Demand {
        config,
        attention: options.attention,
        num_seqs: config.batch_size,
        kv_memory: options.kv_memory,
        weights: gpu::weight_bytes(gguf, config),
    };
    let limits = Limits { memory: adapter.memory(), ..backend.limits() };
    demand.check(&limits, &|layout| backend.footprint(layout))?;
    backend.check_spec(&config.spec)?;
    let op = AttentionOp::new(&config.spec.layers[0].attn, 0);
    conformance::self_test(&backend, main_format(gguf), op, config.kv_dtype)?;
    Ok(Box::new(Opened { device: device_of(adapter), backend }))
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

/// The format of most of a file's bytes.
fn main_format(gguf: &Gguf) -> Format {
    let bytes_of = |format: Format| {
        let tensors = gguf.tensors().filter(|tensor| tensor.format() == format && tensor.dims().len() == 2);
        tensors.map(|tensor| tensor.data().len()).sum::<usize>()
    };
    Format::ALL.into_iter().max_by_key(|&format| bytes_of(format)).unwrap_or(Format::F32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo;

    #[test]
    fn the_demo_model_is_of_its_main_format() {
        let gguf = demo::gguf();
        assert_eq!(main_format(&gguf), gguf.tensor("blk.0.ffn_up.weight").unwrap().format());
    }
}
