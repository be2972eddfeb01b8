//! NVIDIA GPUs through CUDA, in a build without them.

use conformance::{Finding, Report};
use devices::GpuOptions;
use gguf::Gguf;
use model::LlamaConfig;

use super::{DeviceInfo, OpenDevice, Platform};
use crate::{Device, Error, LoadOptions, Result};

pub(super) struct CudaPlatform;

impl Platform for CudaPlatform {
    fn list(&self) -> Vec<DeviceInfo> {
        Vec::new()
    }

    fn open(
        &self,
        device: Device,
        _: &Gguf,
        _: &LlamaConfig,
        _: &LoadOptions<'_>,
    ) -> Result<Option<Box<dyn OpenDevice>>> {
        refuse(device).map(|()| None)
    }

    fn check(
        &self,
        device: Device,
        _: GpuOptions,
        _: &Gguf,
        _: &mut dyn FnMut(&Finding),
    ) -> Result<Option<Report>> {
        refuse(device).map(|()| None)
    }
}

/// Refuses a device that is asked for by name.
fn refuse(device: Device) -> Result<()> {
    match device {
        Device::Auto | Device::Cpu(_) | Device::Gpu(_) => Ok(()),
        Device::Cuda(_) => Err(Error::Model(model::Error::Device(format!(
            "{device}: expected another device, as this build has no support for CUDA\n\
             hint: build with the feature cuda, which is on by default"
        )))),
    }
}
