//! The GPUs of this machine: what they are, and which one is meant.
//!
//! A GPU may appear several times, once for each interface that reaches it. A software rasteriser appears too: it runs every
//! kernel, slowly, and is taken only when it is asked for.

use std::fmt;
use std::str::FromStr;

use model::{Error, Result};

use crate::device::{Gpu, GpuOptions, interface_name};
use crate::memory::{self, DeviceMemory};

/// Which GPU is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GpuChoice {
    /// The most capable one that is not software.
    #[default]
    Any,
    /// That of this number in the list of all.
    Index(usize),
    /// The most capable one that Vulkan reaches; software, if there is no other.
    Vulkan,
    /// As `Vulkan`, of Metal.
    Metal,
    /// As `Vulkan`, of Direct3D 12.
    Dx12,
}

impl GpuChoice {
    /// The interface that is asked for, if one is.
    fn backend(self) -> Option<wgpu::Backend> {
        match self {
            GpuChoice::Any | GpuChoice::Index(_) => None,
            GpuChoice::Vulkan => Some(wgpu::Backend::Vulkan),
            GpuChoice::Metal => Some(wgpu::Backend::Metal),
            GpuChoice::Dx12 => Some(wgpu::Backend::Dx12),
        }
    }
}

impl fmt::Display for GpuChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GpuChoice::Any => f.write_str("gpu"),
            GpuChoice::Index(index) => write!(f, "gpu:{index}"),
            GpuChoice::Vulkan => f.write_str("vulkan"),
            GpuChoice::Metal => f.write_str("metal"),
            GpuChoice::Dx12 => f.write_str("dx12"),
        }
    }
}

impl FromStr for GpuChoice {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let index = || text.strip_prefix("gpu:").and_then(|index| index.parse().ok());
        match text {
            "gpu" => Ok(GpuChoice::Any),
            "vulkan" => Ok(GpuChoice::Vulkan),
            "metal" => Ok(GpuChoice::Metal),
            "dx12" => Ok(GpuChoice::Dx12),
            _ => index()
                .map(GpuChoice::Index)
                .ok_or_else(|| format!("expected gpu, gpu:N, vulkan, metal or dx12, found '{text}'")),
        }
    }
}

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

/// What is known of a GPU.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// Its number in the list: `gpu:N`.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// The interface: `Vulkan`, `Metal` or `DX12`.
    pub interface: &'static str,
    /// `discrete`, `integrated`, `virtual`, `software` or `other`.
    pub kind: &'static str,
    /// The driver's name and version.
    pub driver: String,
    /// Its memory, where the driver tells.
    pub memory: Option<DeviceMemory>,
    /// Whether shaders compute in f16.
    pub f16: bool,
    /// Fewest and most lanes of a subgroup, if kernels may use subgroups.
    pub subgroup_sizes: Option<(u32, u32)>,
    /// The shapes that matrix units multiply, as `16x16x16 f16 -> f32`.
    pub matrices: Vec<String>,
    /// Whether kernels can be timed.
    pub timestamps: bool,
    /// Largest binding, in bytes.
    pub max_binding_bytes: u64,
    /// Most bytes of a workgroup's memory.
    pub max_workgroup_bytes: u32,
    /// Most invocations of a workgroup.
    pub max_workgroup_size: u32,
    /// What every kernel needs and this device lacks.
    pub lacks: Option<&'static str>,
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
            _ => self.best(|adapter| Some(adapter.info.backend) == choice.backend()),
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
            _ => format!("a GPU that {} reaches", interface_name(choice.backend().expect("an interface"))),
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
    pub fn describe(&self) -> Description {
        let (features, limits) = (self.raw.features(), self.raw.limits());
        let has = |feature| features.contains(feature);
        let info = &self.info;
        Description {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_what_they_are_called() {
        for text in ["gpu", "gpu:0", "gpu:12", "vulkan", "metal", "dx12"] {
            assert_eq!(text.parse::<GpuChoice>().unwrap().to_string(), text);
        }
        for text in ["", "cuda", "gpu:", "gpu:-1", "gpu:x", "Vulkan "] {
            assert!(text.parse::<GpuChoice>().unwrap_err().contains("expected gpu, gpu:N"), "{text}");
        }
    }
}
