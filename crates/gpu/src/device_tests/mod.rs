//! Kernels on a device: any that the machine has, a software rasteriser if there is no other.
//!
//! ```text
//! cargo test -p rustorch-gpu --features device-tests
//! ```

mod formats;
mod steps;

use std::sync::Arc;

use devices::GpuOptions;

use crate::buffer::DeviceBuffer;
use crate::device::Gpu;
use crate::kernel::{Kernel, KernelSpec, Kernels};
use crate::recorder::Recorder;

/// An open device and what drives it.
struct TestDevice {
    gpu: Gpu,
    kernels: Kernels,
    recorder: Arc<Recorder>,
}

impl TestDevice {
    /// Opens a device, real ones first.
    ///
    /// # Panics
    /// When there is none: a test that has nothing to run on has failed.
    fn open() -> Self {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let mut adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY));
        adapters.sort_by_key(|adapter| adapter.get_info().device_type == wgpu::DeviceType::Cpu);
        let adapter =
            adapters.first().expect("tests of kernels need a device, a software rasteriser at least");
        let gpu = Gpu::open(adapter, GpuOptions::default()).expect("the device opens");
        Self { gpu, kernels: Kernels::default(), recorder: Arc::default() }
    }

    fn kernel(&self, spec: &KernelSpec) -> Arc<Kernel> {
        self.kernels.get(&self.gpu, spec)
    }

    /// A buffer of zeros.
    fn zeros(&self, words: usize) -> DeviceBuffer {
        DeviceBuffer::new(&self.gpu, &self.recorder, "test", words as u64 * 4).expect("small buffers fit")
    }

    fn upload(&self, words: &[u32]) -> DeviceBuffer {
        let buffer = self.zeros(words.len());
        self.gpu.queue.write_buffer(&buffer.raw, 0, bytemuck::cast_slice(words));
        buffer
    }

    /// Runs a kernel by itself.
    fn run(&self, kernel: &Arc<Kernel>, buffers: &[&DeviceBuffer], immediates: &[u32], grid: [u32; 3]) {
        self.recorder.dispatch(&self.gpu, kernel, buffers, immediates, grid);
        self.recorder.submit(&self.gpu, None);
        self.gpu.wait().expect("the kernel runs");
    }

    /// The first `words` words of a buffer.
    fn read(&self, buffer: &DeviceBuffer, words: usize) -> Vec<u32> {
        let bytes = words as u64 * 4;
        let readable = self.gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("test read"),
            size: bytes,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(&buffer.raw, 0, &readable, 0, bytes);
        self.gpu.queue.submit([encoder.finish()]);
        readable.map_async(wgpu::MapMode::Read, .., |mapped| mapped.expect("the buffer maps"));
        self.gpu.wait().expect("the copy runs");
        let mapped = readable.get_mapped_range(..).expect("the buffer is mapped");
        bytemuck::cast_slice(&mapped).to_vec()
    }
}
