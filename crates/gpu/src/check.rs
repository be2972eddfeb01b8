//! The conformance checks on a GPU, in every setting in which its kernels differ.

use std::sync::Arc;

use conformance::{
    ATTENTION_LIMIT, F32_LIMIT, Finding, HALF_LIMIT, Inputs, Report, Subject, attention_checks,
    expert_checks, model_checks, product_checks, row_checks,
};
use devices::{GpuOptions, MatrixUnits, Subgroups};
use gguf::{Format, Gguf};
use model::{AttentionOp, KvDtype, Result};

use crate::adapters::Adapter;
use crate::backend::GpuBackend;
use crate::device::Capabilities;

impl Subject for GpuBackend {
    fn name(&self) -> String {
        self.gpu().info().name.clone()
    }

    fn product_limit(&self, format: Format, _: Inputs) -> f64 {
        let on_matrix_units = self.gpu().capabilities().has_matrix_units() && format != Format::F32;
        if on_matrix_units { HALF_LIMIT } else { F32_LIMIT }
    }

    fn attention_limit(&self, op: AttentionOp, dtype: KvDtype) -> f64 {
        if self.attention(op, dtype).is_on_matrix_units() { HALF_LIMIT } else { ATTENTION_LIMIT }
    }

    /// The plain kernel takes a tile of rows whatever their number.
    fn formats_of_tall_matrices(&self) -> Vec<Format> {
        match self.gpu().capabilities().has_matrix_units() {
            true => vec![Format::Q8_0, Format::Q4_K, Format::F16],
            false => Vec::new(),
        }
    }
}

/// What [`run`] checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Everything.
    All,
    /// Products with matrices of every format, experts' too.
    Products,
    /// All but products.
    Rest,
}

/// Runs the checks in every setting in which the device's kernels differ, starting from `options`. `found` is told each
/// finding as it comes.
///
/// # Errors
/// When the device cannot be opened.
pub fn run(
    adapter: &Adapter,
    options: GpuOptions,
    model: &Gguf,
    part: Part,
    mut found: impl FnMut(&Finding),
) -> Result<Report> {
    let device = adapter.describe();
    let mut report =
        Report::new(format!("{} ({})", device.name, device.interface), device.kind, &device.driver);
    let mut seen: Vec<Capabilities> = Vec::new();
    let plain = GpuOptions { matrix_units: MatrixUnits::Off, ..options };
    for options in [options, plain, GpuOptions { subgroups: Subgroups::Off, ..plain }] {
        let gpu = adapter.open(options)?;
        if seen.contains(&gpu.capabilities()) {
            continue;
        }
        let capabilities = gpu.capabilities();
        let are_products_new = seen.iter().all(|seen| seen.matrix_tile != capabilities.matrix_tile);
        seen.push(capabilities);
        let backend = Arc::new(GpuBackend::new(gpu));
        let mut checks = Vec::new();
        if part != Part::Products {
            checks.extend(row_checks(&*backend));
            checks.extend(model_checks(model));
        }
        if are_products_new && part != Part::Rest {
            checks.extend(product_checks(&*backend));
            checks.extend(expert_checks(&*backend));
        }
        if are_products_new && part != Part::Products {
            checks.extend(attention_checks(&*backend));
        }
        report.findings.extend(conformance::run(&backend, &setting(capabilities), checks, &mut found));
    }
    Ok(report)
}

/// What kernels use of a device, in words.
fn setting(capabilities: Capabilities) -> String {
    let units = capabilities.matrix_tile.map(|side| format!("matrix units of {side}"));
    let subgroups = capabilities.subgroup_size.map(|size| format!("subgroups of {size}"));
    let used: Vec<String> = [units, subgroups].into_iter().flatten().collect();
    if used.is_empty() { "plain".to_owned() } else { used.join(", ") }
}
