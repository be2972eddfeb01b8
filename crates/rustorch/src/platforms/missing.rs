//! A back end that this build leaves out.

use conformance::{Finding, Report};
use devices::GpuOptions;
use gguf::Gguf;
use model::LlamaConfig;

use super::{DeviceInfo, OpenDevice, Platform};
use crate::{Device, Error, LoadOptions, Result};

/// It has no device, and refuses those that are asked for by name.
pub(super) struct Missing {
    /// Whether a device would be its own.
    pub is_own: fn(Device) -> bool,
    /// What the build lacks.
    pub lacks: &'static str,
    /// The feature that brings it.
    pub feature: &'static str,
}

impl Platform for Missing {
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
        self.refuse(device).map(|()| None)
    }

    fn open_group(
        &self,
        devices: &[Device],
        _: &Gguf,
        _: &LlamaConfig,
        _: &LoadOptions<'_>,
    ) -> Result<Option<Box<dyn OpenDevice>>> {
        self.refuse(devices[0]).map(|()| None)
    }

    fn check(
        &self,
        device: Device,
        _: GpuOptions,
        _: &Gguf,
        _: &mut dyn FnMut(&Finding),
    ) -> Result<Option<Report>> {
        self.refuse(device).map(|()| None)
    }
}

impl Missing {
    fn refuse(&self, device: Device) -> Result<()> {
        if !(self.is_own)(device) {
            return Ok(());
        }
        let Self { lacks, feature, .. } = self;
        Err(Error::Model(model::Error::Device(format!(
            "{device}: expected another device, as this build {lacks}\n\
             hint: build with the feature {feature}, which is on by default"
        ))))
    }
}
