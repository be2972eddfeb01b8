//! The conformance checks on the CPU, with the instruction set and the threads that are asked for.

use std::sync::Arc;

use conformance::{
    F32_LIMIT, Finding, Report, Subject, attention_checks, model_checks, product_checks, row_checks,
};
use gguf::{Format, Gguf};
use model::{AttentionOp, KvDtype, Result};

use crate::backend::{CpuBackend, CpuOptions};

/// Error of products with quantised weights: activations are rounded to signed bytes in blocks of 32, by up to half of a
/// 127th of a block's largest, which is some 2.1 standard deviations; 0.5 % of a value on average.
const BYTE_LIMIT: f64 = 7e-3;

impl Subject for CpuBackend {
    fn name(&self) -> String {
        format!("CPU ({})", self.isa())
    }

    fn product_limit(&self, format: Format) -> f64 {
        match format {
            Format::F32 | Format::F16 | Format::BF16 => F32_LIMIT,
            _ => BYTE_LIMIT,
        }
    }

    fn attention_limit(&self, _: AttentionOp, _: KvDtype) -> f64 {
        F32_LIMIT
    }

    /// A thread takes a run of tiles that depends on the number of rows.
    fn formats_of_tall_matrices(&self) -> Vec<Format> {
        vec![Format::Q8_0, Format::Q4_K, Format::F16]
    }
}

/// Runs every check. `found` is told each finding as it comes.
///
/// # Errors
/// When the machine lacks the instruction set, or threads cannot be started.
pub fn run(options: CpuOptions, model: &Gguf, found: &mut dyn FnMut(&Finding)) -> Result<Report> {
    let backend = Arc::new(CpuBackend::new(options)?);
    let mut checks = row_checks();
    checks.extend(model_checks(model));
    checks.extend(product_checks(&*backend));
    checks.extend(attention_checks(&*backend));
    let setting = format!("{}, {} threads", backend.isa(), backend.num_threads());
    let mut report = Report::new(backend.name(), "CPU", "none");
    report.findings = conformance::run(&backend, &setting, checks, found);
    Ok(report)
}
