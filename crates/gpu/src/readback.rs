//! Bringing results to the host.

use std::sync::{Mutex, PoisonError};

use model::{Backend, Error, Read, Result};

use crate::activations::GpuBuffer;
use crate::device::{Counters, Gpu};
use crate::recorder::Recorder;

/// A buffer that the host can map, as large as the largest read so far.
#[derive(Default)]
pub(crate) struct Readback {
    buffer: Mutex<Option<wgpu::Buffer>>,
}

impl Readback {
    /// Submits what is recorded, waits for it once and copies what is wanted.
    ///
    /// # Errors
    /// When anything has gone wrong on the device.
    pub fn read<B: Backend<Buffer = GpuBuffer>>(
        &self,
        gpu: &Gpu,
        recorder: &Recorder,
        reads: &mut [Read<'_, B>],
    ) -> Result<()> {
        let len = reads.iter().map(|read| size_of_val(read.out) as u64).sum::<u64>();
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
        for Read { buffer, first_row, out } in &*reads {
            let (first, len) = ((first_row * buffer.cols * 4) as u64, size_of_val(*out) as u64);
            assert!(first + len <= buffer.values.raw.size(), "a read beyond the end of a buffer");
            if len > 0 {
                encoder.copy_buffer_to_buffer(&buffer.values.raw, first, readable, at, len);
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
            for Read { out, .. } in reads {
                let (own, others) = rest.split_at(size_of_val(*out));
                bytemuck::cast_slice_mut(out).copy_from_slice(own);
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
