//! What a device can do at most: the bounds that a benchmark compares with.
//!
//! Memory is measured by a kernel that copies a large buffer (drivers' own copies may be slower), arithmetic by multiply-adds
//! of values that stay in registers, with the instructions that products use. A rate is the best of several passes, since
//! whatever disturbs a pass can only make it slower.

use std::sync::Arc;
use std::time::{Duration, Instant};

use model::{Peaks, Result};

use crate::buffer::DeviceBuffer;
use crate::device::Gpu;
use crate::kernel::{KernelSpec, Kernels};
use crate::recorder::Recorder;

/// Far more than the caches of any device.
const COPIED_BYTES: u64 = 1 << 30;
/// Workgroups that copy.
const COPY_WORKGROUPS: u32 = 8192;
/// Workgroups of 256 lanes: some for every multiprocessor of the largest devices.
const WORKGROUPS: u32 = 1024;
/// Sums of a lane or a subgroup that do not wait for one another.
const SUMS: usize = 8;
/// Long beside the time that a submission takes.
const PASS: Duration = Duration::from_millis(20);
/// How long passes go on, of which the best counts: the clocks of a device that has idled take their time to rise.
const MEASURING: Duration = Duration::from_millis(600);

/// Measures memory and arithmetic.
pub(crate) fn measure(gpu: &Gpu, kernels: &Kernels, recorder: &Arc<Recorder>) -> Result<Peaks> {
    let macs_per_s = macs_per_s(gpu, kernels, recorder)?;
    Ok(Peaks {
        read_bytes_per_s: copied_bytes_per_s(gpu, kernels, recorder)?,
        // Weights of every format become what the units multiply.
        quantized_macs_per_s: macs_per_s,
        float_macs_per_s: macs_per_s,
    })
}

/// Bytes read and bytes written, of which a copy has as many.
fn copied_bytes_per_s(gpu: &Gpu, kernels: &Kernels, recorder: &Arc<Recorder>) -> Result<f64> {
    let spare = gpu.memory().map_or(u64::MAX, |memory| memory.available / 4);
    // Whole rounds of a workgroup: 1024 vectors of 16 bytes.
    let bytes = COPIED_BYTES.min(gpu.capabilities().max_binding_bytes).min(spare) / 16384 * 16384;
    let buffer = || DeviceBuffer::new(gpu, recorder, "measuring memory", bytes);
    let (from, to) = (buffer()?, buffer()?);
    let kernel = kernels.get(gpu, &KernelSpec::new("copy"));
    let pass = |copies: usize| {
        for _ in 0..copies {
            let len = (bytes / 16) as u32;
            recorder.dispatch(gpu, &kernel, &[&from, &to], &[len], [COPY_WORKGROUPS, 1, 1]);
        }
        recorder.submit(gpu, None);
        gpu.wait()
    };
    Ok(2.0 * bytes as f64 * best_rate(pass)?)
}

fn macs_per_s(gpu: &Gpu, kernels: &Kernels, recorder: &Arc<Recorder>) -> Result<f64> {
    let kernel = kernels.get(gpu, &spec(gpu.capabilities().has_matrix_units()));
    let factors = DeviceBuffer::new(gpu, recorder, "measuring arithmetic", 256 * 4)?;
    let values: Vec<f32> = (0..256).map(|i| 1.0 / (i + 2) as f32).collect();
    gpu.queue.write_buffer(&factors.raw, 0, bytemuck::cast_slice(&values));
    let bytes = u64::from(WORKGROUPS) * 256 * 4;
    let out = DeviceBuffer::new(gpu, recorder, "measuring arithmetic", bytes)?;
    let pass = |rounds: usize| {
        let grid = [WORKGROUPS, 1, 1];
        recorder.dispatch(gpu, &kernel, &[&factors, &out], &[rounds as u32], grid);
        recorder.submit(gpu, None);
        gpu.wait()
    };
    Ok(macs_of_round(gpu) * best_rate(pass)?)
}

/// Multiply-adds of a round of all workgroups.
fn macs_of_round(gpu: &Gpu) -> f64 {
    let of_workgroup = match gpu.capabilities().has_matrix_units() {
        // Eight subgroups of 32 lanes.
        true => 8 * 16 * 16 * 16,
        false => 256 * 4,
    };
    f64::from(WORKGROUPS) * f64::from(of_workgroup) * SUMS as f64
}

/// Repetitions a second, of passes with as many as take a while.
fn best_rate(mut pass: impl FnMut(usize) -> Result<()>) -> Result<f64> {
    let mut timed = |count: usize| {
        let started = Instant::now();
        pass(count)?;
        Ok::<_, model::Error>(started.elapsed())
    };
    let mut count = 1;
    timed(count)?;
    while timed(count)? < PASS && count < 1 << 24 {
        count *= 2;
    }
    let mut best = Duration::MAX;
    let started = Instant::now();
    while started.elapsed() < MEASURING {
        best = best.min(timed(count)?);
    }
    Ok(count as f64 / best.as_secs_f64())
}

/// The kernel of the arithmetic that products use.
pub(crate) fn spec(matrix_units: bool) -> KernelSpec {
    let spec = KernelSpec::new("peak").with("SUMS", SUMS);
    spec.with_flag("F16", matrix_units).with_flag("MATRIX", matrix_units)
}
