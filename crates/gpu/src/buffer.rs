//! Memory of the device.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::{Error, Result};

use crate::device::{Counters, Gpu};

/// Whoever keeps something that refers to buffers.
pub(crate) trait Invalidate: Send + Sync {
    /// Drops all that refers to the buffer of this number.
    fn invalidate(&self, buffer: u64);
}

/// A buffer on the device. Its number tells it from every other; what was recorded over it goes with it.
pub(crate) struct DeviceBuffer {
    pub id: u64,
    pub raw: wgpu::Buffer,
    recorder: Arc<dyn Invalidate>,
}

impl DeviceBuffer {
    /// Bytes that a buffer of `bytes` takes: whole vectors, at least one.
    pub fn rounded(bytes: u64) -> u64 {
        bytes.checked_next_multiple_of(16).unwrap_or(u64::MAX).max(16)
    }

    /// A buffer of `bytes` zeros, at least one word. `what` names it in errors. `recorder` is told when it is dropped.
    ///
    /// # Errors
    /// When it is larger than a binding may be, or the device has no memory left for it.
    pub fn new(gpu: &Gpu, recorder: &Arc<impl Invalidate + 'static>, what: &str, bytes: u64) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let limit = gpu.capabilities().max_binding_bytes;
        if bytes > limit {
            return Err(Error::InvalidValue {
                what: format!("{}: bytes of {what}", gpu.info().name),
                expected: format!("at most {limit}, the largest buffer of the device"),
                found: bytes.to_string(),
            });
        }
        let scopes = [wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Validation]
            .map(|filter| gpu.device.push_error_scope(filter));
        let raw = gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(what),
            size: Self::rounded(bytes),
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        for scope in scopes.into_iter().rev() {
            if let Some(error) = pollster::block_on(scope.pop()) {
                return Err(match error {
                    wgpu::Error::OutOfMemory { .. } => {
                        Error::OutOfMemory { what: what.to_owned(), needed: bytes }
                    }
                    other => Error::Device(format!("{}: {what}: {other}", gpu.info().name)),
                });
            }
        }
        Counters::count(&gpu.counters().buffers);
        gpu.counters().bytes.fetch_add(raw.size(), Ordering::Relaxed);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let recorder = Arc::clone(recorder) as Arc<dyn Invalidate>;
        Ok(Self { id, raw, recorder })
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        self.recorder.invalidate(self.id);
    }
}
