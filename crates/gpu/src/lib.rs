//! The GPU as a device: [`model::Backend`] on wgpu, with kernels in WGSL for Metal, Vulkan and DX12.
//!
//! A kernel is a file of `kernels/`, composed of parts ([`template`]) and compiled for what it was specialised for
//! ([`kernel`]). Operations append dispatches to a list that is submitted once a step ([`recorder`]).

mod buffer;
mod device;
#[cfg(all(test, feature = "device-tests"))]
mod device_tests;
mod kernel;
mod pack;
mod profile;
mod recorder;
mod template;

pub use device::{Capabilities, Gpu, GpuOptions, MatrixUnits, Profile, Subgroups};
