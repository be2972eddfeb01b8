//! The GPU as a device: [`model::Backend`] on wgpu, with kernels in WGSL for Metal, Vulkan and DX12.
//!
//! A kernel is a file of `kernels/`, composed of parts (`template.rs`) and compiled for what it was specialised for
//! (`kernel.rs`). Operations append dispatches to a list that is submitted once a step (`recorder.rs`).

mod activations;
mod adapters;
mod attention;
mod backend;
mod buffer;
pub mod check;
mod device;
#[cfg(all(test, feature = "device-tests"))]
mod device_tests;
mod experts;
mod footprint;
mod kernel;
mod kv_cache;
mod matrix;
mod memory;
mod peak;
mod plan;
mod plan_layout;
mod planes;
mod product;
mod profile;
mod readback;
mod recorder;
mod template;
mod tiling;
#[cfg(test)]
mod translation;

pub use activations::GpuBuffer;
pub use adapters::{Adapter, Adapters};
pub use backend::GpuBackend;
pub use device::{Capabilities, Gpu};
pub use experts::{GpuExperts, GpuRoutes};
pub use footprint::weight_bytes;
pub use kv_cache::GpuKvCache;
pub use matrix::GpuMatrix;
pub use plan::GpuPlan;
