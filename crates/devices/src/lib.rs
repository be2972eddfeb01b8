//! Names, options and descriptions of devices.
//!
//! Plain data, without any driver: back ends are driven by it, and a build without them can still parse an option and say
//! what it lacks.
#![forbid(unsafe_code)]

mod choice;
mod gpu;

pub use choice::GpuChoice;
pub use gpu::{DeviceMemory, GpuDescription, GpuOptions, MatrixUnits, Profile, Subgroups};
