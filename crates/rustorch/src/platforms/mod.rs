//! The back ends of this build, a file each: it lists the devices that the machine has, and opens a model on one.
//!
//! To add a back end, write such a file and list it in [`platforms`]. Beyond this module nobody knows a back end by its type:
//! there are only [`LoadedModel`]s and [`Runner`](model::Runner)s.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(any(feature = "cuda", feature = "gpu"))]
mod fit;
#[cfg(feature = "gpu")]
mod gpu;
mod loaded;
#[cfg(not(all(feature = "cuda", feature = "gpu")))]
mod missing;
pub(crate) mod several;

use std::sync::Arc;

use conformance::{Finding, Report};
use devices::{GpuDescription, GpuOptions};
use gguf::Gguf;
use model::LlamaConfig;

pub use loaded::KernelTime;
pub(crate) use loaded::LoadedModel;

use crate::{Device, Error, LoadOptions, Result};

/// A kind of device that models run on.
trait Platform {
    /// The devices that the machine has.
    fn list(&self) -> Vec<DeviceInfo>;

    /// Opens the device that is meant, if it is one of this platform; of [`Device::Auto`] the one that suits best, if there
    /// is any.
    ///
    /// # Errors
    /// When the device is not there, cannot hold the model or fails its self-test.
    fn open(
        &self,
        device: Device,
        gguf: &Gguf,
        config: &LlamaConfig,
        options: &LoadOptions<'_>,
    ) -> Result<Option<Box<dyn OpenDevice>>>;

    /// Opens the devices that are meant, at least two, as the ranks of a group, if they are of this platform and can form one.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    fn open_group(
        &self,
        _: &[Device],
        _: &Gguf,
        _: &LlamaConfig,
        _: &LoadOptions<'_>,
    ) -> Result<Option<Box<dyn OpenDevice>>> {
        Ok(None)
    }

    /// Runs the conformance checks on the device that is meant, if it is one of this platform. `found` is told each finding
    /// as it comes.
    ///
    /// # Errors
    /// When the device is not there or cannot be opened. What it computes wrongly is in the report.
    fn check(
        &self,
        device: Device,
        options: GpuOptions,
        model: &Gguf,
        found: &mut dyn FnMut(&Finding),
    ) -> Result<Option<Report>>;
}

/// A device that is fit for a model.
trait OpenDevice: Send {
    /// The device, by its own name.
    fn device(&self) -> Device;

    /// The device, in words.
    fn name(&self) -> String;

    /// Loads the model that it was opened for.
    fn load(
        self: Box<Self>,
        gguf: &Gguf,
        config: LlamaConfig,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Arc<dyn LoadedModel>>;
}

/// A device of this machine.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// The device, as options name it.
    pub device: Device,
    /// What it is.
    pub name: String,
    /// What more is known of a GPU.
    pub gpu: Option<GpuDescription>,
}

/// The platforms, those that [`Device::Auto`] prefers first; it does not take CUDA.
const PLATFORMS: [&dyn Platform; 3] = [CUDA, GPU, &cpu::CpuPlatform];

#[cfg(feature = "cuda")]
const CUDA: &dyn Platform = &cuda::CudaPlatform;
#[cfg(not(feature = "cuda"))]
const CUDA: &dyn Platform = &missing::Missing {
    is_own: |device| matches!(device, Device::Cuda(_)),
    lacks: "has no support for CUDA",
    feature: "cuda",
};

#[cfg(feature = "gpu")]
const GPU: &dyn Platform = &gpu::GpuPlatform;
#[cfg(not(feature = "gpu"))]
const GPU: &dyn Platform = &missing::Missing {
    is_own: |device| matches!(device, Device::Gpu(_)),
    lacks: "reaches no GPU through Vulkan, Metal or DX12",
    feature: "gpu",
};

/// The devices of this machine, those that [`Device::Auto`] prefers last. A GPU appears once for each interface that reaches
/// it.
pub fn devices() -> Vec<DeviceInfo> {
    PLATFORMS.iter().rev().flat_map(|platform| platform.list()).collect()
}

/// What [`Device::Auto`] comes to for a model, and why.
///
/// # Errors
/// A configuration that is invalid in itself.
pub fn what_auto_takes(
    gguf: &Gguf,
    config: &LlamaConfig,
    options: &LoadOptions<'_>,
) -> Result<(Device, String)> {
    config.validate()?;
    let mut reason = "there is no GPU but software".to_owned();
    for platform in PLATFORMS {
        match platform.open(Device::Auto, gguf, config, options) {
            Ok(None) => {}
            Ok(Some(opened)) => match opened.device() {
                device @ Device::Cpu(_) => return Ok((device, reason)),
                device => {
                    let reason = format!("{} holds the model and passes the self-test", opened.name());
                    return Ok((device, reason));
                }
            },
            Err(error) => reason = error.to_string(),
        }
    }
    Err(not_of_this_build(Device::Auto))
}

/// Checks a device: every operation against plain code in float64, and the demo model alone and in batches, which must give
/// the same bits. `found` is told each finding as it comes.
///
/// # Errors
/// When there is no such device or it cannot be opened, and in builds without feature `demo-model`. What it computes wrongly is in the
/// report.
pub fn check_device(device: Device, options: GpuOptions, mut found: impl FnMut(&Finding)) -> Result<Report> {
    let model = checked_model()?;
    for platform in PLATFORMS {
        if let Some(report) = platform.check(device, options, &model, &mut found)? {
            return Ok(report);
        }
    }
    Err(not_of_this_build(device))
}

#[cfg(any(test, feature = "demo-model"))]
fn checked_model() -> Result<Gguf> {
    Ok(crate::demo::gguf())
}

#[cfg(not(any(test, feature = "demo-model")))]
fn checked_model() -> Result<Gguf> {
    Err(Error::NoDemoModel)
}

/// A model, and why [`Device::Auto`] passed a better device over, if it did.
type Loaded = (Arc<dyn LoadedModel>, Option<String>);

/// Loads a model on the device that is meant.
///
/// # Errors
/// As [`Weights::load`](crate::Weights::load).
pub(crate) fn load(gguf: &Gguf, config: LlamaConfig, options: &mut LoadOptions<'_>) -> Result<Loaded> {
    let device = options.device;
    let mut note = None;
    for platform in PLATFORMS {
        let error = match platform.open(device, gguf, &config, options) {
            Ok(None) => continue,
            Ok(Some(opened)) => {
                let mut report = |done, total| {
                    if let Some(progress) = &mut options.progress {
                        progress(done, total);
                    }
                };
                match opened.load(gguf, config.clone(), &mut report) {
                    Ok(model) => return Ok((model, note)),
                    Err(error) if is_about_the_device(&error) => error,
                    Err(error) => return Err(error),
                }
            }
            Err(error) => error,
        };
        if device != Device::Auto {
            return Err(error);
        }
        let reason = format!("running on the CPU: {error}");
        tracing::warn!("{reason}");
        note = Some(reason);
    }
    Err(not_of_this_build(device))
}

/// Opens a device that is named, or several as a group.
fn open(
    devices: &[Device],
    gguf: &Gguf,
    config: &LlamaConfig,
    options: &LoadOptions<'_>,
) -> Result<Box<dyn OpenDevice>> {
    for platform in PLATFORMS {
        let opened = match devices {
            [device] => platform.open(*device, gguf, config, options)?,
            devices => platform.open_group(devices, gguf, config, options)?,
        };
        if let Some(opened) = opened {
            return Ok(opened);
        }
    }
    Err(match devices {
        [Device::Gpu(_), _, ..] => no_group(devices),
        devices => not_of_this_build(devices[0]),
    })
}

/// That GPUs which CUDA does not reach do not run a model together.
fn no_group(devices: &[Device]) -> Error {
    Error::InvalidValue {
        what: "tensor parallel",
        expected:
            "CUDA devices or CPUs, as GPUs that Vulkan, Metal or DX12 reach do not run a model together"
                .to_owned(),
        found: devices.iter().map(Device::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// Whether another device may do better.
fn is_about_the_device(error: &Error) -> bool {
    matches!(error, Error::Model(model::Error::Device(_) | model::Error::OutOfMemory { .. }))
}

fn not_of_this_build(device: Device) -> Error {
    Error::Model(model::Error::Device(format!("{device}: expected a device of this build, found none")))
}
