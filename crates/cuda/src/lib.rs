//! NVIDIA GPUs as a device: [`model::Backend`] on CUDA's driver, which is found when the program runs.
//!
//! Kernels are CUDA C++ (`kernels/*.cu`), compiled ahead of time by `kernels/build.py` and embedded (`modules.rs`). All calls
//! of the driver, and all `unsafe`, are in `driver.rs`.

mod attention;
mod backend;
mod buffer;
mod cards;
pub mod check;
mod driver;
mod experts;
mod footprint;
mod group;
mod kv_cache;
mod matrix;
mod modules;
mod plan;
mod wide;

pub use backend::CudaBackend;
pub use buffer::CudaBuffer;
pub use cards::{Card, CardError, Cards};
pub use experts::{CudaExperts, CudaRoutes};
pub use footprint::weight_bytes;
pub use kv_cache::CudaKvCache;
pub use matrix::CudaMatrix;
pub use plan::CudaPlan;
