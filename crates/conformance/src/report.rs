//! What the checks found, as a text to read or to send.

use std::fmt;

/// What one check found.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// What the kernels used of the device.
    pub setting: String,
    /// What was checked.
    pub check: String,
    /// Comparisons.
    pub cases: usize,
    /// The largest error, relative to what is right; 0 where bits were compared.
    pub error: f64,
    /// What it may be; 0 where bits were compared.
    pub limit: f64,
    /// Of all bits that were compared with anything: equal where two devices, or one in two settings, gave the same bits.
    pub digest: u64,
    /// How long it took.
    pub seconds: f64,
    /// The first comparison that failed.
    pub failure: Option<String>,
}

/// What all checks found. Its text is Markdown.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The device, in a line of its own.
    pub device: String,
    /// Its driver and system, in a line.
    pub system: String,
    /// In the order in which they were made.
    pub findings: Vec<Finding>,
}

impl Report {
    /// An empty report on a device with this driver.
    pub fn new(device: String, kind: &str, driver: &str) -> Self {
        let system = format!(
            "rustorch {}, {} {}, {kind} device, driver {}",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::OS,
            std::env::consts::ARCH,
            if driver.is_empty() { "unknown" } else { driver },
        );
        Self { device, system, findings: Vec::new() }
    }

    /// Checks that failed.
    pub fn num_failed(&self) -> usize {
        self.findings.iter().filter(|finding| finding.failure.is_some()).count()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setting, check, cases, error, limit, seconds, failure, .. } = self;
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
        writeln!(f, "## {}\n\n{}\n", self.device, self.system)?;
        writeln!(f, "| setting | check | cases | error | seconds | result |\n| - | - | - | - | - | - |")?;
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        let (all, failed) = (self.findings.len(), self.num_failed());
        let seconds: f64 = self.findings.iter().map(|finding| finding.seconds).sum();
        writeln!(f, "\n{failed} of {all} checks failed; {seconds:.0} s")
    }
}
