//! The CPU.

use std::sync::Arc;

use conformance::{Finding, Report};
use cpu::{CpuBackend, CpuOptions, Isa};
use devices::GpuOptions;
use gguf::Gguf;
use model::LlamaConfig;

use super::loaded::{Described, LoadedModel, OnBackend};
use super::{DeviceInfo, OpenDevice, Platform};
use crate::{Device, LoadOptions, Result};

pub(super) struct CpuPlatform;

impl Platform for CpuPlatform {
    fn list(&self) -> Vec<DeviceInfo> {
        let name = format!("CPU ({}, {})", std::env::consts::ARCH, Isa::detect());
        vec![DeviceInfo { device: Device::Cpu(CpuOptions::default()), name, gpu: None }]
    }

    fn open(
        &self,
        device: Device,
        _: &Gguf,
        _: &LlamaConfig,
        options: &LoadOptions<'_>,
    ) -> Result<Option<Box<dyn OpenDevice>>> {
        let cpu = match device {
            Device::Auto => options.cpu,
            Device::Cpu(cpu) => cpu,
            Device::Gpu(_) => return Ok(None),
        };
        Ok(Some(Box::new(OpenCpu { options: cpu, backend: CpuBackend::new(cpu)? })))
    }

    fn check(
        &self,
        device: Device,
        _: GpuOptions,
        model: &Gguf,
        found: &mut dyn FnMut(&Finding),
    ) -> Result<Option<Report>> {
        let options = match device {
            Device::Auto => CpuOptions::default(),
            Device::Cpu(cpu) => cpu,
            Device::Gpu(_) => return Ok(None),
        };
        Ok(Some(cpu::check::run(options, model, found)?))
    }
}

/// The threads, started.
struct OpenCpu {
    options: CpuOptions,
    backend: CpuBackend,
}

impl OpenDevice for OpenCpu {
    fn device(&self) -> Device {
        Device::Cpu(self.options)
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
        OnBackend::load(Arc::new(self.backend), gguf, config, progress)
    }
}

impl Described for CpuBackend {
    fn describe(&self) -> String {
        format!("CPU ({}, {} threads)", CpuBackend::isa(self), self.num_threads())
    }

    fn isa(&self) -> Option<Isa> {
        Some(CpuBackend::isa(self))
    }
}
