//! What a step dispatches, gathered into one submission.
//!
//! Operations append dispatches to a list; [`Recorder::submit`] encodes and submits it. Decoding repeats itself: the list of
//! a step is mostly that of the step before, since all that changes is in the plan's buffer. So while the device runs a
//! step, the host encodes the same list once more, and the next step, if its list is equal, is submitted at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use devices::Profile;

use crate::buffer::{DeviceBuffer, Invalidate};
use crate::device::{Counters, Gpu};
use crate::kernel::{Kernel, MAX_IMMEDIATES};
use crate::profile::Timings;

/// One kernel over a grid of workgroups.
#[derive(Clone, PartialEq)]
struct Dispatch {
    kernel: Arc<Kernel>,
    /// Number of its bind group.
    bind_group: usize,
    immediates: [u32; MAX_IMMEDIATES],
    grid: [u32; 3],
}

/// Gathers dispatches and submits them.
#[derive(Default)]
pub(crate) struct Recorder {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What has been recorded since the last submission.
    list: Vec<Dispatch>,
    bind_groups: BindGroups,
    /// A list that was encoded while the device was busy with the same.
    ahead: Option<(Vec<Dispatch>, wgpu::CommandBuffer)>,
    timings: Timings,
}

/// Bind groups by kernel and buffers. A kernel's number comes first, its buffers' follow.
#[derive(Default)]
struct BindGroups {
    by_buffers: HashMap<Vec<u64>, usize>,
    by_number: HashMap<usize, wgpu::BindGroup>,
    next: usize,
    key: Vec<u64>,
}

impl Recorder {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a dispatch of `grid` workgroups over `buffers`, in the order of the kernel's bindings.
    ///
    /// # Panics
    /// When there are more immediates than the kernel declares, or the grid has more than 65535 workgroups in a
    /// dimension.
    pub fn dispatch(
        &self,
        gpu: &Gpu,
        kernel: &Arc<Kernel>,
        buffers: &[&DeviceBuffer],
        values: &[u32],
        grid: [u32; 3],
    ) {
        assert_eq!(values.len() as u32 * 4, kernel.immediates, "{}: immediates", kernel.name);
        assert!(grid.iter().all(|&size| size <= 65535), "{}: grid {grid:?}", kernel.name);
        if grid.contains(&0) {
            return;
        }
        let mut immediates = [0; MAX_IMMEDIATES];
        immediates[..values.len()].copy_from_slice(values);
        let mut state = self.state();
        let bind_group = state.bind_groups.get(gpu, kernel, buffers);
        state.list.push(Dispatch { kernel: Arc::clone(kernel), bind_group, immediates, grid });
    }

    /// Submits what has been recorded, then `then`.
    pub fn submit(&self, gpu: &Gpu, then: Option<wgpu::CommandBuffer>) {
        let mut state = self.state();
        let state = &mut *state;
        let commands = match state.ahead.take() {
            Some((list, commands)) if list == state.list => commands,
            _ => state.encode(gpu),
        };
        gpu.queue.submit([commands].into_iter().chain(then));
        Counters::count(&gpu.counters().submissions);
        if gpu.options().profile == Profile::Off && !state.list.is_empty() {
            let commands = state.encode(gpu);
            state.ahead = Some((std::mem::take(&mut state.list), commands));
        }
        state.list.clear();
    }

    /// Takes in the times of the last submission, which has run.
    pub fn take_times(&self, gpu: &Gpu) {
        if gpu.options().profile == Profile::Kernels {
            self.state().timings.collect(gpu);
        }
    }

    /// The times of all kernels since the last call.
    pub fn timings(&self, gpu: &Gpu) -> Vec<(&'static str, u64, f64)> {
        self.take_times(gpu);
        self.state().timings.take()
    }
}

/// What was recorded over a buffer must have been submitted before the buffer is dropped.
impl Invalidate for Recorder {
    fn invalidate(&self, buffer: u64) {
        let mut state = self.state();
        state.ahead = None;
        let BindGroups { by_buffers, by_number, .. } = &mut state.bind_groups;
        by_buffers.retain(|key, number| {
            let keep = !key[1..].contains(&buffer);
            if !keep {
                by_number.remove(number);
            }
            keep
        });
    }
}

impl State {
    fn encode(&mut self, gpu: &Gpu) -> wgpu::CommandBuffer {
        let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let profiled = gpu.options().profile == Profile::Kernels;
        if profiled {
            self.timings.begin(gpu, self.list.iter().map(|dispatch| dispatch.kernel.name));
        }
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            let mut current = None;
            for (idx, dispatch) in self.list.iter().enumerate() {
                if current != Some(dispatch.kernel.id) {
                    pass.set_pipeline(&dispatch.kernel.pipeline);
                    current = Some(dispatch.kernel.id);
                }
                pass.set_bind_group(0, &self.bind_groups.by_number[&dispatch.bind_group], &[]);
                if dispatch.kernel.immediates > 0 {
                    let bytes: &[u8] = bytemuck::cast_slice(&dispatch.immediates);
                    pass.set_immediates(0, &bytes[..dispatch.kernel.immediates as usize]);
                }
                let [x, y, z] = dispatch.grid;
                if profiled {
                    self.timings.mark(&mut pass, idx);
                }
                pass.dispatch_workgroups(x, y, z);
            }
            if profiled {
                self.timings.mark(&mut pass, self.list.len());
            }
        }
        if profiled {
            self.timings.resolve(&mut encoder);
        }
        encoder.finish()
    }
}

impl BindGroups {
    /// The number of the bind group of these buffers.
    fn get(&mut self, gpu: &Gpu, kernel: &Kernel, buffers: &[&DeviceBuffer]) -> usize {
        self.key.clear();
        self.key.push(kernel.id as u64);
        self.key.extend(buffers.iter().map(|buffer| buffer.id));
        if let Some(&number) = self.by_buffers.get(&self.key) {
            return number;
        }
        let entries: Vec<wgpu::BindGroupEntry<'_>> = (0..)
            .zip(buffers)
            .map(|(binding, buffer)| wgpu::BindGroupEntry {
                binding,
                resource: buffer.raw.as_entire_binding(),
            })
            .collect();
        let bind_group = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(kernel.name),
            layout: &kernel.bindings,
            entries: &entries,
        });
        Counters::count(&gpu.counters().bind_groups);
        let number = self.next;
        self.next += 1;
        self.by_number.insert(number, bind_group);
        self.by_buffers.insert(self.key.clone(), number);
        number
    }
}
