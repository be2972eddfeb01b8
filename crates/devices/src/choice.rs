//! Which GPU is meant, as an option names it.

use std::fmt;
use std::str::FromStr;

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

    fn from_str(text: &str) -> Result<Self, String> {
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
