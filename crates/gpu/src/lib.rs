//! The GPU as a device: [`model::Backend`] on wgpu, with kernels in WGSL for Metal, Vulkan and DX12.
//!
//! A kernel is a file of `kernels/`, composed of parts ([`template`]) and compiled for what it was specialised for
//! ([`kernel`]). Operations append dispatches to a list that is submitted once a step ([`recorder`]).

mod attention;
mod buffer;
mod device;
mod kernel;
mod plan;
mod profile;
mod readback;
mod recorder;
mod template;

pub use device::{Capabilities, Gpu, GpuOptions, MatrixUnits, Profile, Subgroups};
