//! The CPU backend: a thread pool, repacked weights, and kernels chosen at start-up for the machine's instructions.
//!
//! Work is split so that one thread computes a whole output element, in an order that the weights fix: results are the
//! same bits for any number of threads, any batch and any instruction set. Within a matrix product a thread takes a run of tiles (16 rows
//! each) and reads each once for all tokens of the batch.

mod activations;
mod aligned;
mod attention;
mod backend;
pub mod check;
mod disjoint;
mod experts;
mod group;
mod heap;
mod kernels;
mod kv_cache;
mod matmul;
mod matrix;
mod pack;
mod peak;
mod pool;
mod tile;

pub use activations::Activations;
pub use attention::CpuPlan;
pub use backend::{CpuBackend, CpuBuffer, CpuOptions};
pub use experts::{CpuExperts, CpuRoutes};
pub use heap::release_freed_memory;
pub use kernels::Isa;
pub use kv_cache::CpuKvCache;
pub use matrix::CpuMatrix;
