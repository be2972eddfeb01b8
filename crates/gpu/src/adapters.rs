//! The GPUs of this machine: what they are, and which one is meant.
//!
//! A GPU may appear several times, once for each interface that reaches it. A software rasteriser appears too: it runs every
//! kernel, slowly, and is taken only when it is asked for.

use std::fmt;

use devices::{DeviceMemory, GpuChoice, GpuDescription, GpuOptions};
use model::{Error, Result};

use crate::device::{Gpu, interface_name};
use crate::memory;

/// The GPUs that this machine's drivers report.
pub struct Adapters {
    all: Vec<Adapter>,
}

/// A GPU as one interface reaches it.
pub struct Adapter {
    index: usize,
    raw: wgpu::Adapter,
    info: wgpu::AdapterInfo,
}

impl Adapters {
    /// Asks the drivers of all interfaces.
    pub fn find() -> Self {
        let backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            backends,
            // No validation layers: kernels are checked where they are made, and layers cost time.
            flags: wgpu::InstanceFlags::empty(),
            ..wgpu::InstanceDescriptor::new_without_display_handle()
        });
        let found = pollster::block_on(instance.enumerate_adapters(backends));
        let adapter = |(index, raw): (usize, wgpu::Adapter)| Adapter { index, info: raw.get_info(), raw };
        Self { all: found.into_iter().enumerate().map(adapter).collect() }
    }

    /// As [`find`](Self::find), but without asking where the system shows no GPU at all: a driver that only plays one takes
    /// long to load. On Linux, GPUs are device files.
    pub fn find_real() -> Self {
        if may_have_gpu() { Self::find() } else { Self { all: Vec::new() } }
    }

    /// All of them, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &Adapter> {
        self.all.iter()
    }

    /// The one that is meant.
    ///
    /// # Errors
    /// When there is none; the message lists those that there are.
    pub fn choose(&self, choice: GpuChoice) -> Result<&Adapter> {
        let chosen = match choice {
            GpuChoice::Index(index) => self.all.get(index),
            GpuChoice::Any => self.best(|adapter| !adapter.is_software()),
            _ => self.best(|adapter| Some(adapter.info.backend) == backend_of(choice)),
        };
        chosen.ok_or_else(|| Error::Device(self.none_is(choice)))
    }

    /// The most capable of some: software last, separate memory first, then the interface with more to offer; of equals
    /// the first.
    fn best(&self, is_eligible: impl Fn(&Adapter) -> bool) -> Option<&Adapter> {
        let rank =
            |adapter: &&Adapter| (kind_rank(adapter.info.device_type), interface_rank(adapter.info.backend));
        self.all.iter().filter(|adapter| is_eligible(adapter)).min_by_key(rank)
    }

    fn none_is(&self, choice: GpuChoice) -> String {
        if self.all.is_empty() {
            return format!(
                "{choice}: expected a GPU, found none\nhint: install the GPU's driver (on Linux its Vulkan driver and \
                 libvulkan1; in a container, pass the device and driver in), or use --device cpu"
            );
        }
        let list: Vec<String> = self.all.iter().map(Adapter::to_string).collect();
        let expected = match choice {
            GpuChoice::Index(_) => format!("a number below {}", self.all.len()),
            GpuChoice::Any => "a GPU that is not software".to_owned(),
            _ => format!("a GPU that {} reaches", interface_name(backend_of(choice).expect("an interface"))),
        };
        format!("{choice}: expected {expected}, found {}", list.join(", "))
    }
}

impl Adapter {
    /// Its number in the list.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.info.name
    }

    /// Whether it is a CPU that plays a GPU.
    pub fn is_software(&self) -> bool {
        self.info.device_type == wgpu::DeviceType::Cpu
    }

    /// Its memory, where the driver tells.
    pub fn memory(&self) -> Option<DeviceMemory> {
        memory::of(&self.raw)
    }

    /// Opens it.
    ///
    /// # Errors
    /// When it lacks what every kernel needs, or its driver refuses.
    pub fn open(&self, options: GpuOptions) -> Result<Gpu> {
        Gpu::open(&self.raw, options)
    }

    /// What is known of it.
    pub fn describe(&self) -> GpuDescription {
        let (features, limits) = (self.raw.features(), self.raw.limits());
        let has = |feature| features.contains(feature);
        let info = &self.info;
        GpuDescription {
            index: self.index,
            name: info.name.clone(),
            interface: interface_name(info.backend),
            kind: kind_name(info.device_type),
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
            memory: self.memory(),
            f16: has(wgpu::Features::SHADER_F16),
            subgroup_sizes: has(wgpu::Features::SUBGROUP)
                .then_some((info.subgroup_min_size, info.subgroup_max_size)),
            matrices: matrices(&self.raw),
            timestamps: has(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES),
            max_binding_bytes: limits.max_storage_buffer_binding_size.min(limits.max_buffer_size),
            max_workgroup_bytes: limits.max_compute_workgroup_storage_size,
            max_workgroup_size: limits.max_compute_invocations_per_workgroup,
            lacks: (!has(wgpu::Features::IMMEDIATES)).then_some("immediates"),
        }
    }
}

/// `0: NVIDIA H100 (Vulkan)`, as the list of all names it.
impl fmt::Display for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.index, self.info.name, interface_name(self.info.backend))
    }
}

/// Whether Linux shows a device file of a GPU's driver; other systems are asked through their own interfaces.
fn may_have_gpu() -> bool {
    if !cfg!(target_os = "linux") {
        return true;
    }
    // Mesa's drivers and AMD's, NVIDIA's, Windows' under WSL, and those of telephones' and small boards' GPUs.
    const PREFIXES: [&str; 6] = ["nvidia", "dxg", "mali", "kgsl", "nvgpu", "nvhost"];
    let has = |folder: &str, prefixes: &[&str]| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.into_iter().any(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)))
    };
    has("/dev/dri", &["renderD"]) || has("/dev", &PREFIXES)
}

fn matrices(adapter: &wgpu::Adapter) -> Vec<String> {
    let name = |scalar: wgpu::CooperativeScalarType| format!("{scalar:?}").to_lowercase();
    let properties = adapter.cooperative_matrix_properties();
    let shapes = properties.iter().map(|shape| {
        let (m, n, k) = (shape.m_size, shape.n_size, shape.k_size);
        format!("{m}x{n}x{k} {} -> {}", name(shape.ab_type), name(shape.cr_type))
    });
    let mut shapes: Vec<String> = shapes.collect();
    shapes.dedup();
    shapes
}

/// The interface that is asked for, if one is.
fn backend_of(choice: GpuChoice) -> Option<wgpu::Backend> {
    match choice {
        GpuChoice::Any | GpuChoice::Index(_) => None,
        GpuChoice::Vulkan => Some(wgpu::Backend::Vulkan),
        GpuChoice::Metal => Some(wgpu::Backend::Metal),
        GpuChoice::Dx12 => Some(wgpu::Backend::Dx12),
    }
}

/// Vulkan has matrix units where DX12 does not.
fn interface_rank(backend: wgpu::Backend) -> u32 {
    match backend {
        wgpu::Backend::Vulkan | wgpu::Backend::Metal => 0,
        _ => 1,
    }
}

fn kind_name(kind: wgpu::DeviceType) -> &'static str {
    match kind {
        wgpu::DeviceType::DiscreteGpu => "discrete",
        wgpu::DeviceType::IntegratedGpu => "integrated",
        wgpu::DeviceType::VirtualGpu => "virtual",
        wgpu::DeviceType::Cpu => "software",
        wgpu::DeviceType::Other => "other",
    }
}

fn kind_rank(kind: wgpu::DeviceType) -> u32 {
    match kind {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::VirtualGpu => 1,
        wgpu::DeviceType::IntegratedGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    }
}
