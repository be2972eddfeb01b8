//! The conformance checks on a card.

use std::sync::Arc;

use conformance::{
    ATTENTION_LIMIT, F32_LIMIT, Finding, HALF_LIMIT, Inputs, Report, Subject, attention_checks,
    expert_checks, model_checks, product_checks, rank_checks, row_checks,
};
use gguf::{Format, Gguf};
use model::{AttentionOp, KvDtype, Result};

use crate::backend::CudaBackend;
use crate::cards::Card;
use crate::group::MOST_RANKS;

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

/// Runs every check on a card. `found` is told each finding as it comes. Ranks run on the card itself, and on it and `others` that are
/// of its kind.
///
/// # Errors
/// When the card cannot be opened.
pub fn run(card: &Card, others: &[Card], model: &Gguf, mut found: impl FnMut(&Finding)) -> Result<Report> {
    let backend = Arc::new(CudaBackend::new(card)?);
    let mut report = Report::new(format!("{} (CUDA)", card.name()), "discrete", &card.driver());
    let mut checks = row_checks(&*backend);
    checks.extend(model_checks(model));
    checks.extend(product_checks(&*backend));
    checks.extend(attention_checks(&*backend));
    checks.extend(expert_checks(&*backend));
    // Of two, each has heads of its own; of three, some share them, and widths do not divide.
    let mut groups = vec![vec![card.clone(); 2], vec![card.clone(); 3]];
    let mut alike = vec![card.clone()];
    alike.extend(others.iter().filter(|other| other.name() == card.name()).take(MOST_RANKS - 1).cloned());
    if alike.len() > 1 {
        groups.push(alike);
    }
    for cards in groups {
        checks.extend(rank_checks(model, &names_of(&cards), move || {
            Ok(CudaBackend::group(&cards)?.into_iter().map(Arc::new).collect())
        }));
    }
    let (major, minor) = card.capability();
    let setting = format!("compute capability {major}.{minor}");
    report.findings.extend(conformance::run(&backend, &setting, checks, &mut found));
    Ok(report)
}

/// The cards of ranks, in words.
fn names_of(cards: &[Card]) -> String {
    let numbers: Vec<String> = cards.iter().map(|card| card.index().to_string()).collect();
    format!("{} ranks on cuda:{}", cards.len(), numbers.join(","))
}
