//! A GPU, opened: the device and its queue, what of it the kernels use, and what went wrong on it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use devices::{DeviceMemory, GpuOptions, MatrixUnits, Profile, Subgroups};
use model::{Error, Result};

use crate::memory;

/// What kernels may use of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Side of the matrices that its matrix units multiply (f16 operands, f32 sums), if they are used.
    pub matrix_tile: Option<u32>,
    /// Lanes of a subgroup, if all subgroups have as many and sums may be formed across them.
    pub subgroup_size: Option<u32>,
    /// Whether kernels may compute in f16.
    pub f16: bool,
    /// Largest binding, in bytes.
    pub max_binding_bytes: u64,
    /// Most bytes of a workgroup's memory.
    pub max_workgroup_bytes: u32,
}

impl Capabilities {
    /// Whether kernels multiply on matrix units: they are written for matrices of 16 x 16.
    pub(crate) fn has_matrix_units(&self) -> bool {
        self.matrix_tile == Some(16)
    }
}

/// A GPU, opened.
pub struct Gpu {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    adapter: wgpu::Adapter,
    info: wgpu::AdapterInfo,
    capabilities: Capabilities,
    options: GpuOptions,
    fault: Arc<Fault>,
    counters: Counters,
}

/// How many objects of the API have been made. None may be made in a step, once steps of its shape have run.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub buffers: AtomicU64,
    /// Bytes of the buffers that kernels use.
    pub bytes: AtomicU64,
    pub bind_groups: AtomicU64,
    pub pipelines: AtomicU64,
    pub submissions: AtomicU64,
}

impl Counters {
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The first thing that went wrong on a device outside of any call that could have returned it.
#[derive(Debug, Default)]
struct Fault(Mutex<Option<String>>);

impl Fault {
    fn set(&self, message: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(message);
    }

    fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Gpu {
    /// Opens an adapter.
    ///
    /// # Errors
    /// When it lacks what every kernel needs, or its driver refuses.
    pub fn open(adapter: &wgpu::Adapter, options: GpuOptions) -> Result<Self> {
        let info = adapter.get_info();
        let features = wanted_features(adapter, options);
        if !features.contains(wgpu::Features::IMMEDIATES) {
            return Err(Error::Device(format!("{}: expected support for immediates, found none", info.name)));
        }
        let can_time = features.contains(TIMESTAMPS);
        if options.profile == Profile::Kernels && !can_time {
            return Err(Error::Device(format!("{}: expected timestamps in passes, found none", info.name)));
        }
        let experimental = features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX);
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("rustorch"),
            required_features: features,
            required_limits: adapter.limits(),
            experimental_features: match experimental {
                // SAFETY: cooperative matrices are the one experimental feature asked for. Kernels use them in shapes
                // and types that the device lists, with whole subgroups, as their specification demands.
                true => unsafe { wgpu::ExperimentalFeatures::enabled() },
                false => wgpu::ExperimentalFeatures::disabled(),
            },
            memory_hints: wgpu::MemoryHints::Performance,
            trace: wgpu::Trace::Off,
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
            .map_err(|error| Error::Device(format!("{}: {error}", info.name)))?;
        let fault = Arc::new(Fault::default());
        let uncaptured = Arc::clone(&fault);
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| uncaptured.set(error.to_string())));
        let lost = Arc::clone(&fault);
        device.set_device_lost_callback(move |reason, message| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                lost.set(format!("the device was lost: {message}"));
            }
        });
        let capabilities = capabilities(adapter, features, &device.limits());
        tracing::debug!(device = info.name, ?capabilities, "opened");
        let adapter = adapter.clone();
        Ok(Self { device, queue, adapter, info, capabilities, options, fault, counters: Counters::default() })
    }

    /// What the driver says of the device.
    pub fn info(&self) -> &wgpu::AdapterInfo {
        &self.info
    }

    /// The device's memory, where its driver tells.
    pub fn memory(&self) -> Option<DeviceMemory> {
        memory::of(&self.adapter)
    }

    /// What kernels use of the device.
    pub fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// Whether matrices are loaded from vectors, which Metal's functions do not take.
    pub(crate) fn loads_vectors(&self) -> bool {
        self.info.backend == wgpu::Backend::Vulkan
    }

    /// Whether the time of every kernel is measured.
    pub fn times_kernels(&self) -> bool {
        self.options.profile == Profile::Kernels
    }

    /// Lowers the largest binding.
    #[cfg(all(test, feature = "device-tests"))]
    pub(crate) fn limit_bindings(&mut self, bytes: u64) {
        self.capabilities.max_binding_bytes = bytes;
    }

    pub(crate) fn options(&self) -> GpuOptions {
        self.options
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Reports what has gone wrong since the last call, if anything has.
    ///
    /// # Errors
    /// That.
    pub(crate) fn check(&self) -> Result<()> {
        self.fault
            .take()
            .map_or(Ok(()), |message| Err(Error::Device(format!("{}: {message}", self.info.name))))
    }

    /// Waits until everything that was submitted has run.
    ///
    /// # Errors
    /// When the device was lost or something has gone wrong on it.
    pub(crate) fn wait(&self) -> Result<()> {
        let polled = self.device.poll(wgpu::PollType::wait_indefinitely());
        self.check()?;
        polled.map(|_| ()).map_err(|error| Error::Device(format!("{}: {error}", self.info.name)))
    }
}

/// `NVIDIA H100 (Vulkan, matrix units of 16, subgroups of 32)`
impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}", self.info.name, interface_name(self.info.backend))?;
        if let Some(side) = self.capabilities.matrix_tile {
            write!(f, ", matrix units of {side}")?;
        }
        if let Some(size) = self.capabilities.subgroup_size {
            write!(f, ", subgroups of {size}")?;
        }
        f.write_str(")")
    }
}

/// What an interface is called.
pub(crate) fn interface_name(backend: wgpu::Backend) -> &'static str {
    match backend {
        wgpu::Backend::Vulkan => "Vulkan",
        wgpu::Backend::Metal => "Metal",
        wgpu::Backend::Dx12 => "DX12",
        _ => "other",
    }
}

/// What timing kernels takes.
const TIMESTAMPS: wgpu::Features =
    wgpu::Features::TIMESTAMP_QUERY.union(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES);

fn wanted_features(adapter: &wgpu::Adapter, options: GpuOptions) -> wgpu::Features {
    let mut wanted = wgpu::Features::IMMEDIATES | wgpu::Features::SHADER_F16;
    if options.profile == Profile::Kernels {
        wanted |= TIMESTAMPS;
    }
    if options.subgroups == Subgroups::Auto {
        wanted |= wgpu::Features::SUBGROUP | wgpu::Features::SUBGROUP_BARRIER;
    }
    if options.matrix_units == MatrixUnits::Auto && matrix_tile(adapter).is_some() {
        wanted |= wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
        wanted |= wgpu::Features::SUBGROUP | wgpu::Features::SUBGROUP_BARRIER;
    }
    adapter.features() & wanted
}

/// The side of the square matrices, f16 in and f32 out, that the adapter multiplies: 16 where it can, or 8.
fn matrix_tile(adapter: &wgpu::Adapter) -> Option<u32> {
    let properties = adapter.cooperative_matrix_properties();
    let supports = |side: &u32| {
        properties.iter().any(|shape| {
            (shape.m_size, shape.n_size, shape.k_size) == (*side, *side, *side)
                && shape.ab_type == wgpu::CooperativeScalarType::F16
                && shape.cr_type == wgpu::CooperativeScalarType::F32
        })
    };
    [16, 8].into_iter().find(supports)
}

fn capabilities(adapter: &wgpu::Adapter, features: wgpu::Features, limits: &wgpu::Limits) -> Capabilities {
    let info = adapter.get_info();
    let fixed = (info.subgroup_min_size == info.subgroup_max_size).then_some(info.subgroup_min_size);
    let subgroup_size = fixed.filter(|_| features.contains(wgpu::Features::SUBGROUP));
    let has_matrices =
        features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX | wgpu::Features::SHADER_F16);
    Capabilities {
        // The kernels give a matrix to a subgroup of 32 lanes.
        matrix_tile: matrix_tile(adapter).filter(|_| has_matrices && subgroup_size == Some(32)),
        subgroup_size,
        f16: features.contains(wgpu::Features::SHADER_F16),
        max_binding_bytes: limits.max_storage_buffer_binding_size.min(limits.max_buffer_size),
        max_workgroup_bytes: limits.max_compute_workgroup_storage_size,
    }
}
