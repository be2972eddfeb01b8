//! How long each kernel takes, by timestamps around every dispatch.

use std::collections::HashMap;

use crate::device::Gpu;

/// Most dispatches of a submission that are measured.
const MAX_MARKS: u32 = 4096;

/// Times of kernels by name.
#[derive(Default)]
pub(crate) struct Timings {
    queries: Option<Queries>,
    /// Names of the dispatches of the submission under way.
    names: Vec<&'static str>,
    totals: HashMap<&'static str, (u64, f64)>,
}

struct Queries {
    set: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    readable: wgpu::Buffer,
}

impl Timings {
    /// Starts a submission of dispatches of these names.
    pub fn begin(&mut self, gpu: &Gpu, names: impl Iterator<Item = &'static str>) {
        self.names.clear();
        self.names.extend(names.take(MAX_MARKS as usize - 1));
        self.queries.get_or_insert_with(|| {
            let buffer = |usage| {
                gpu.device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("timestamps"),
                    size: u64::from(MAX_MARKS) * 8,
                    usage,
                    mapped_at_creation: false,
                })
            };
            Queries {
                set: gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
                    label: Some("timestamps"),
                    ty: wgpu::QueryType::Timestamp,
                    count: MAX_MARKS,
                }),
                resolved: buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC),
                readable: buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST),
            }
        });
    }

    /// Marks the time before dispatch `idx`, or after the last.
    pub fn mark(&self, pass: &mut wgpu::ComputePass<'_>, idx: usize) {
        if let Some(queries) = self.queries.as_ref().filter(|_| idx <= self.names.len()) {
            pass.write_timestamp(&queries.set, idx as u32);
        }
    }

    /// Makes the marks readable once the submission has run.
    pub fn resolve(&self, encoder: &mut wgpu::CommandEncoder) {
        let Some(queries) = &self.queries else { return };
        let marks = self.names.len() as u32 + 1;
        encoder.resolve_query_set(&queries.set, 0..marks, &queries.resolved, 0);
        encoder.copy_buffer_to_buffer(&queries.resolved, 0, &queries.readable, 0, u64::from(marks) * 8);
    }

    /// Adds the times of a submission that has run.
    pub fn collect(&mut self, gpu: &Gpu) {
        let Some(queries) = self.queries.as_ref().filter(|_| !self.names.is_empty()) else { return };
        let len = (self.names.len() as u64 + 1) * 8;
        queries.readable.map_async(wgpu::MapMode::Read, 0..len, |_| {});
        if gpu.wait().is_ok()
            && let Ok(view) = queries.readable.get_mapped_range(0..len)
        {
            let marks: Vec<u64> =
                view.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().expect("8"))).collect();
            let period = f64::from(gpu.queue.get_timestamp_period()) * 1e-9;
            for (name, pair) in self.names.iter().zip(marks.windows(2)) {
                let (count, seconds) = self.totals.entry(name).or_default();
                *count += 1;
                *seconds += pair[1].saturating_sub(pair[0]) as f64 * period;
            }
        }
        queries.readable.unmap();
        self.names.clear();
    }

    /// Name, dispatches and seconds of every kernel since the last call, the slowest first.
    pub fn take(&mut self) -> Vec<(&'static str, u64, f64)> {
        let mut totals: Vec<_> =
            self.totals.drain().map(|(name, (count, seconds))| (name, count, seconds)).collect();
        totals.sort_by(|a, b| b.2.total_cmp(&a.2));
        totals
    }
}
