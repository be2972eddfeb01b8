//! Bringing results to the host.

use std::sync::{Mutex, PoisonError};

use model::{Error, Result};

use crate::buffer::DeviceBuffer;
use crate::device::{Counters, Gpu};
use crate::recorder::Recorder;

/// A buffer that the host can map, as large as the largest read so far.
#[derive(Default)]
pub(crate) struct Readback {
    buffer: Mutex<Option<wgpu::Buffer>>,
}

impl Readback {
    /// Submits what is recorded, waits for it and copies the first `out.len()` bytes of `buffer`.
    ///
    /// # Errors
    /// When anything has gone wrong on the device.
    pub fn read(&self, gpu: &Gpu, recorder: &Recorder, buffer: &DeviceBuffer, out: &mut [u8]) -> Result<()> {
        let len = out.len() as u64;
        if len == 0 {
            recorder.submit(gpu, None);
            gpu.wait()?;
            recorder.take_times(gpu);
            return Ok(());
        }
        let mut readable = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        let readable = match &mut *readable {
            Some(readable) if readable.size() >= len => readable,
            slot => {
                Counters::count(&gpu.counters().buffers);
                slot.insert(gpu.device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("results"),
                    size: len.next_power_of_two(),
                    usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                    mapped_at_creation: false,
                }))
            }
        };
        let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(&buffer.raw, 0, readable, 0, len);
        recorder.submit(gpu, Some(encoder.finish()));
        readable.map_async(wgpu::MapMode::Read, 0..len, |_| {});
        let copied = gpu.wait().and_then(|()| {
            let view = readable
                .get_mapped_range(0..len)
                .map_err(|error| Error::Device(format!("{}: reading results: {error}", gpu.info().name)))?;
            out.copy_from_slice(&view);
            Ok(())
        });
        // Whatever has happened: the next step copies into it.
        readable.unmap();
        recorder.take_times(gpu);
        copied
    }
}
