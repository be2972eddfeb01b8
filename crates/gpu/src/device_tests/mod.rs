//! Kernels on a device: any that the machine has, a software rasteriser if there is no other.
//!
//! ```text
//! cargo test -p rustorch-gpu --features device-tests
//! ```

mod attention;
mod formats;
mod steps;

use std::sync::Arc;

use devices::{GpuChoice, GpuOptions};
use model::{Backend, Read};

use crate::activations::GpuBuffer;
use crate::adapters::Adapters;
use crate::backend::GpuBackend;
use crate::buffer::DeviceBuffer;
use crate::kernel::{Kernel, KernelSpec};

/// Opens a device, real ones first.
///
/// # Panics
/// When there is none: a test that has nothing to run on has failed.
fn open(options: GpuOptions) -> GpuBackend {
    let adapters = Adapters::find();
    let adapter = adapters.choose(GpuChoice::Any).or_else(|_| adapters.choose(GpuChoice::Index(0)));
    let adapter = adapter.expect("tests of kernels need a device, a software rasteriser at least");
    GpuBackend::new(adapter.open(options).expect("the device opens"))
}

/// An open device, for kernels by themselves.
struct TestDevice(GpuBackend);

impl TestDevice {
    fn open() -> Self {
        Self(open(GpuOptions::default()))
    }

    fn kernel(&self, spec: &KernelSpec) -> Arc<Kernel> {
        self.0.kernels.get(&self.0.gpu, spec)
    }

    /// A buffer that begins with these bytes.
    fn upload(&self, bytes: &[u8]) -> DeviceBuffer {
        let Self(backend) = self;
        let size = bytes.len() as u64;
        let buffer =
            DeviceBuffer::new(&backend.gpu, &backend.recorder, "test", size).expect("small buffers fit");
        backend.gpu.queue.write_buffer(&buffer.raw, 0, bytes);
        buffer
    }

    /// Runs a kernel by itself.
    fn run(&self, kernel: &Arc<Kernel>, buffers: &[&DeviceBuffer], immediates: &[u32], grid: [u32; 3]) {
        let Self(backend) = self;
        backend.recorder.dispatch(&backend.gpu, kernel, buffers, immediates, grid);
        backend.recorder.submit(&backend.gpu, None);
        backend.gpu.wait().expect("the kernel runs");
    }
}

/// The first `len` values of a buffer.
fn read(backend: &GpuBackend, buffer: &GpuBuffer, len: usize) -> Vec<f32> {
    let mut values = vec![0.0; len];
    let read = Read { buffer, first_row: 0, out: &mut values };
    backend.read_into(&mut [read]).expect("the values");
    values
}
