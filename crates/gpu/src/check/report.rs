//! What the checks found, as a text to read or to send.

use std::fmt;

use crate::adapters::{Adapter, Description};
use crate::device::Capabilities;

/// What one check found.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// What the kernels used of the device.
    pub setting: String,
    /// What was checked.
    pub check: String,
    /// Comparisons.
    pub cases: usize,
    /// The largest error, relative to what is right, in Euclidean norms; 0 where bits were compared.
    pub error: f64,
    /// What it may be; 0 where bits were compared.
    pub limit: f64,
    /// How long it took.
    pub seconds: f64,
    /// The first comparison that failed.
    pub failure: Option<String>,
}

/// What all checks found. Its text is Markdown.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The device.
    pub device: Description,
    /// In the order in which they were made.
    pub findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(adapter: &Adapter) -> Self {
        Self { device: adapter.describe(), findings: Vec::new() }
    }

    /// Checks that failed.
    pub fn num_failed(&self) -> usize {
        self.findings.iter().filter(|finding| finding.failure.is_some()).count()
    }
}

/// What kernels use of a device, in words.
pub(super) fn setting(capabilities: Capabilities) -> String {
    let units = capabilities.matrix_tile.map(|side| format!("matrix units of {side}"));
    let subgroups = capabilities.subgroup_size.map(|size| format!("subgroups of {size}"));
    let used: Vec<String> = [units, subgroups].into_iter().flatten().collect();
    if used.is_empty() { "plain".to_owned() } else { used.join(", ") }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setting, check, cases, error, limit, seconds, failure } = self;
        let errors = match *limit > 0.0 {
            true => format!("{error:.1e} of {limit:.0e}"),
            false => "bits".to_owned(),
        };
        let result = failure.as_deref().unwrap_or("ok").replace('\n', " ").replace('|', "/");
        write!(f, "| {setting} | {check} | {cases} | {errors} | {seconds:.2} | {result} |")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = &self.device;
        writeln!(f, "## {} ({})\n", device.name, device.interface)?;
        writeln!(
            f,
            "rustorch {}, {} {}, {} device, driver {}\n",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::OS,
            std::env::consts::ARCH,
            device.kind,
            if device.driver.is_empty() { "unknown" } else { &device.driver },
        )?;
        writeln!(f, "| setting | check | cases | error | seconds | result |\n| - | - | - | - | - | - |")?;
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        let (all, failed) = (self.findings.len(), self.num_failed());
        let seconds: f64 = self.findings.iter().map(|finding| finding.seconds).sum();
        writeln!(f, "\n{failed} of {all} checks failed; {seconds:.0} s")
    }
}
