//! How a GPU is used, and what is known of one.

/// Which optional features kernels may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GpuOptions {
    /// Whether matrices may be multiplied on matrix units.
    pub matrix_units: MatrixUnits,
    /// Whether sums may be formed across a subgroup.
    pub subgroups: Subgroups,
    /// Whether the time of every kernel is measured, which takes a little time itself.
    pub profile: Profile,
}

/// Whether matrices may be multiplied on matrix units (tensor cores, simdgroup matrices).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MatrixUnits {
    /// Where the device has them in a shape that the kernels know.
    #[default]
    Auto,
    /// Never: products are sums of f32 multiply-adds.
    Off,
}

/// Whether sums may be formed across a subgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Subgroups {
    /// Where all of the device's subgroups are of one size.
    #[default]
    Auto,
    /// Never: sums are trees over a workgroup's memory.
    Off,
}

/// Whether the time of every kernel is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// It is not.
    #[default]
    Off,
    /// By timestamps around every dispatch.
    Kernels,
}

/// A device's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceMemory {
    /// All of it.
    pub total: u64,
    /// What this process may have now: the rest belongs to others.
    pub available: u64,
}

/// What is known of a GPU.
#[derive(Debug, Clone, PartialEq)]
pub struct GpuDescription {
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
