//! Where a model runs.

use std::fmt;
use std::str::FromStr;

use cpu::CpuOptions;
use devices::GpuChoice;

/// Where a model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Device {
    /// A GPU if there is one that is not software, holds the model and passes a self-test of three kernels; else the CPU,
    /// with [`Weights::device_note`](crate::Weights::device_note) saying why a GPU was passed over.
    #[default]
    Auto,
    /// The CPU.
    Cpu(CpuOptions),
    /// A GPU that Vulkan, Metal or DX12 reaches. It must hold the model and pass the self-test.
    Gpu(GpuChoice),
    /// An NVIDIA GPU through CUDA: that of this number, or the first. It must hold the model and pass the self-test.
    Cuda(Option<usize>),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Auto => f.write_str("auto"),
            Device::Cpu(_) => f.write_str("cpu"),
            Device::Gpu(choice) => choice.fmt(f),
            Device::Cuda(None) => f.write_str("cuda"),
            Device::Cuda(Some(index)) => write!(f, "cuda:{index}"),
        }
    }
}

/// `auto`, `cpu`, `gpu`, `gpu:N` (numbers as in [`devices`](crate::devices)), `cuda`, `cuda:N`, `metal`, `vulkan` or `dx12`.
impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Device::Auto),
            "cpu" => Ok(Device::Cpu(CpuOptions::default())),
            "cuda" => Ok(Device::Cuda(None)),
            _ => {
                if let Some(index) = text.strip_prefix("cuda:").and_then(|index| index.parse().ok()) {
                    return Ok(Device::Cuda(Some(index)));
                }
                text.parse().map(Device::Gpu).map_err(|_: String| {
                    format!(
                        "expected auto, cpu, gpu, gpu:N, cuda, cuda:N, metal, vulkan or dx12, found '{text}'"
                    )
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_what_they_are_called() {
        for text in ["auto", "cpu", "gpu", "gpu:3", "cuda", "cuda:1", "metal", "vulkan", "dx12"] {
            assert_eq!(text.parse::<Device>().unwrap().to_string(), text);
        }
        for text in ["", "CPU", "Cuda", "cuda:", "cuda:x", "gpu:", "gpu:-1"] {
            let error = text.parse::<Device>().unwrap_err();
            assert!(error.contains("auto, cpu, gpu, gpu:N") && error.contains(text), "{error}");
        }
    }
}
