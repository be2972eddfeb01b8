//! The GPU as a device: [`model::Backend`] on wgpu, with kernels in WGSL for Metal, Vulkan and DX12.
//!
//! A kernel is a file of `kernels/`, composed of parts (`template.rs`) and compiled for what it was specialised for
//! (`kernel.rs`). Operations append dispatches to a list that is submitted once a step (`recorder.rs`).

mod adapters;
mod attention;
mod backend;
mod buffer;
pub mod check;
mod device;
#[cfg(all(test, feature = "device-tests"))]
mod device_tests;
mod kernel;
mod kv_cache;
mod matrix;
mod memory;
mod pack;
mod plan;
mod product;
mod profile;
mod readback;
mod recorder;
mod roof;
mod template;
#[cfg(test)]
mod translation;

pub use adapters::{Adapter, Adapters};
pub use backend::{GpuBackend, GpuBuffer};
pub use device::{Capabilities, Gpu};
pub use kv_cache::GpuKvCache;
pub use matrix::GpuMatrix;
pub use memory::weight_bytes;
pub use plan::GpuPlan;
