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

/// Bytes of a buffer that the host wants.
pub(crate) struct Copy<'a> {
    pub buffer: &'a DeviceBuffer,
    /// A multiple of 4.
    pub first_byte: u64,
    pub out: &'a mut [u8],
}

impl Readback {
    /// Submits what is recorded, waits for it once and copies what is wanted.
    ///
    /// # Errors
    /// When anything has gone wrong on the device.
    ///
    /// # Panics
    /// When a buffer is shorter than what is wanted of it.
    pub fn read(&self, gpu: &Gpu, recorder: &Recorder, copies: &mut [Copy<'_>]) -> Result<()> {
        let len = copies.iter().map(|copy| copy.out.len() as u64).sum::<u64>();
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
        let mut at = 0;
        for Copy { buffer, first_byte, out } in &*copies {
            let len = out.len() as u64;
            assert!(first_byte + len <= buffer.raw.size(), "a read beyond the end of a buffer");
            if len > 0 {
                encoder.copy_buffer_to_buffer(&buffer.raw, *first_byte, readable, at, len);
            }
            at += len;
        }
        recorder.submit(gpu, Some(encoder.finish()));
        readable.map_async(wgpu::MapMode::Read, 0..len, |_| {});
        let copied = gpu.wait().and_then(|()| {
            let view = readable
                .get_mapped_range(0..len)
                .map_err(|error| Error::Device(format!("{}: reading results: {error}", gpu.info().name)))?;
            let mut rest: &[u8] = &view;
            for Copy { out, .. } in copies {
                let (own, others) = rest.split_at(out.len());
                out.copy_from_slice(own);
                rest = others;
            }
            Ok(())
        });
        // Whatever has happened: the next step copies into it.
        readable.unmap();
        recorder.take_times(gpu);
        copied
    }
}
