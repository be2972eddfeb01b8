//! The CPU.

use std::sync::Arc;

use conformance::{Finding, Report};
use cpu::{Activations, CpuBackend, CpuOptions, Isa};
use devices::GpuOptions;
use gguf::Gguf;
use model::LlamaConfig;

use super::loaded::{Described, Opened};
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
            Device::Gpu(_) | Device::Cuda(_) => return Ok(None),
        };
        let backend = Arc::new(CpuBackend::new(cpu)?);
        Ok(Some(Box::new(Opened { device: Device::Cpu(cpu), backend })))
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
            Device::Gpu(_) | Device::Cuda(_) => return Ok(None),
        };
        Ok(Some(cpu::check::run(options, model, found)?))
    }
}

impl Described for CpuBackend {
    fn describe(&self) -> String {
        let activations = match CpuBackend::activations(self) {
            Activations::Bits8 => String::new(),
            other => format!(", {other}-bit activations"),
        };
        format!("CPU ({}{activations}, {} threads)", CpuBackend::isa(self), self.num_threads())
    }

    fn isa(&self) -> Option<Isa> {
        Some(CpuBackend::isa(self))
    }

    fn activations(&self) -> Option<Activations> {
        Some(CpuBackend::activations(self))
    }
}
