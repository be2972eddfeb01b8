//! The GPU that tests run on: a real one if there is one, else a software rasteriser. Without either they fail.

use rustorch_llama::{Device, GpuChoice, gpus};

pub fn device() -> Device {
    let gpus = gpus();
    let real = gpus.iter().find(|gpu| gpu.kind != "software");
    let gpu = real.or(gpus.first()).expect("tests on a GPU need one, a software rasteriser at least");
    Device::Gpu(GpuChoice::Index(gpu.index))
}
