//! The memory that a child process takes (Linux).

use std::process::{Command, ExitStatus};
use std::time::Duration;
use std::{fs, io, thread};

/// How often the child's memory is read.
const INTERVAL: Duration = Duration::from_millis(1);

/// Runs a command to its end. Returns its status and its peak of resident memory in bytes.
///
/// # Errors
/// When the command cannot be started or waited for, or when it ended before its memory could be read.
pub fn peak_memory(command: &mut Command) -> io::Result<(ExitStatus, u64)> {
    let mut child = command.spawn()?;
    let status_file = format!("/proc/{}/status", child.id());
    let mut peak = None;
    let status = loop {
        // The mark only rises, so the last reading before the exit misses the last moments alone.
        peak = fs::read_to_string(&status_file).ok().and_then(|text| high_water_mark(&text)).or(peak);
        if let Some(status) = child.try_wait()? {
            break status;
        }
        thread::sleep(INTERVAL);
    };
    let peak =
        peak.ok_or_else(|| io::Error::other(format!("{status_file}: expected a line VmHWM, found none")))?;
    Ok((status, peak))
}

/// `VmHWM` of a `/proc/PID/status`, in bytes.
fn high_water_mark(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}
