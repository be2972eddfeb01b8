//! The conformance checks on a card.

use std::sync::Arc;

use conformance::{
    ATTENTION_LIMIT, F32_LIMIT, Finding, HALF_LIMIT, Inputs, Report, Subject, attention_checks,
    expert_checks, model_checks, product_checks, row_checks,
};
use gguf::{Format, Gguf};
use model::{AttentionOp, KvDtype, Result};

use crate::backend::CudaBackend;
use crate::cards::Card;

impl Subject for CudaBackend {
    fn name(&self) -> String {
        self.card().name().to_owned()
    }

    fn product_limit(&self, format: Format, _: Inputs) -> f64 {
        if format == Format::F32 { F32_LIMIT } else { HALF_LIMIT }
    }

    fn attention_limit(&self, _: AttentionOp, _: KvDtype) -> f64 {
        ATTENTION_LIMIT
    }

    fn formats_of_tall_matrices(&self) -> Vec<Format> {
        vec![Format::Q8_0, Format::Q4_K, Format::F16]
    }
}

/// Runs every check on a card. `found` is told each finding as it comes.
///
/// # Errors
/// When the card cannot be opened.
pub fn run(card: &Card, model: &Gguf, mut found: impl FnMut(&Finding)) -> Result<Report> {
    let backend = Arc::new(CudaBackend::new(card)?);
    let mut report = Report::new(format!("{} (CUDA)", card.name()), "discrete", &card.driver());
    let mut checks = row_checks(&*backend);
    checks.extend(model_checks(model));
    checks.extend(product_checks(&*backend));
    checks.extend(attention_checks(&*backend));
    checks.extend(expert_checks(&*backend));
    let (major, minor) = card.capability();
    let setting = format!("compute capability {major}.{minor}");
    report.findings.extend(conformance::run(&backend, &setting, checks, &mut found));
    Ok(report)
}
