//! Where a model runs.

use cpu::CpuOptions;

/// Where a model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Device {
    /// The best device of this build.
    #[default]
    Auto,
    /// The CPU.
    Cpu(CpuOptions),
}
