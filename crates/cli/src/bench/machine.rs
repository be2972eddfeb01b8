//! The machine and this process: the processor's name and memory in use, read from files and commands (`None` where a
//! system has neither), and the peak rates that were measured.

use std::process::Command;

use rustorch_llama::Peaks;
use serde::Serialize;

/// The peak rates of the device.
#[derive(Serialize, Clone, Copy)]
pub struct MachinePeaks {
    pub read_bytes_per_s: f64,
    pub quantized_macs_per_s: f64,
    pub float_macs_per_s: f64,
}

impl From<Peaks> for MachinePeaks {
    fn from(peaks: Peaks) -> Self {
        Self {
            read_bytes_per_s: peaks.read_bytes_per_s,
            quantized_macs_per_s: peaks.quantized_macs_per_s,
            float_macs_per_s: peaks.float_macs_per_s,
        }
    }
}

/// The processor's name.
pub fn cpu_name() -> Option<String> {
    if cfg!(target_os = "macos") {
        let output = Command::new("sysctl").args(["-n", "machdep.cpu.brand_string"]).output().ok()?;
        return Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
            .filter(|name| !name.is_empty());
    }
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The most memory that this process has had resident, in bytes (Linux).
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Resets the peak to the memory that is resident now (Linux, `proc_pid_clear_refs(5)`). False if the system does not allow it.
pub fn reset_peak_memory() -> bool {
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}
