//! The GPU that tests run on: a real one if there is one, else a software rasteriser. Without either they fail.

use rustorch_llama::{Device, GpuDescription, devices};

pub fn device() -> Device {
    let is_real = |gpu: &GpuDescription| gpu.kind != "software";
    let gpus: Vec<_> = devices().into_iter().filter(|device| device.gpu.is_some()).collect();
    let real = gpus.iter().find(|device| device.gpu.as_ref().is_some_and(is_real));
    real.or(gpus.first()).expect("tests on a GPU need one, a software rasteriser at least").device
}
