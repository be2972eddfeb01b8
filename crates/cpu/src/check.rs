//! The conformance checks on the CPU, with the instruction set and the threads that are asked for.

use std::num::NonZeroUsize;
use std::sync::Arc;

use conformance::{
    Check, Finding, Inputs, Report, Subject, attention_checks, expert_checks, model_checks, product_checks,
    rank_checks, row_checks,
};
use gguf::{Format, Gguf};
use model::{AttentionOp, KvDtype, Result};

use crate::activations::Activations;
use crate::backend::{CpuBackend, CpuOptions};

/// Error of a norm's, an activation's or a soft cap's element: a sum in 16 lanes, a root, a quotient, and an exponential
/// that is good to two units in the last place, each some 6e-8.
const ROW_LIMIT: f64 = 6e-7;

/// Error of products with float weights, whose sums of some hundred f32 terms are formed one after the other.
const FLOAT_LIMIT: f64 = 1e-6;

/// Error of products with quantised weights: activations are rounded to signed bytes in blocks of 32, by up to half of a
/// 127th of a block's largest. That is some 2.1 standard deviations, and the error 0.5 % of a value, on average; of the 16
/// elements of the smallest product, which has one block, it comes to 0.9 %.
const BYTE_LIMIT: f64 = 1e-2;

/// The same with activations of 16 bits, whose steps are 256 times smaller: 0.002 %, and what chance makes of 16 elements.
const WIDE_LIMIT: f64 = 5e-5;

/// Error of an element where bytes are exact: roundings in f32 of the block's scale, of its product with an exact
/// integer and of the sum so far, each half a unit in the last place (6e-8) of numbers that the sum of the terms'
/// magnitudes bounds.
const EXACT_LIMIT: f64 = 2.4e-7;

/// Error of attention with the usual scale, `1 / sqrt(head_dim)`: scores of size 3 or so are off by a few units in the last
/// place, and so are, relatively, the weights.
const ATTENTION_LIMIT: f64 = 1e-6;

impl Subject for CpuBackend {
    fn name(&self) -> String {
        format!("CPU ({}, {}-bit activations)", self.isa(), self.activations())
    }

    fn row_limit(&self) -> f64 {
        ROW_LIMIT
    }

    /// Tiles hold the bits of the file.
    fn embed_limit(&self) -> f64 {
        0.0
    }

    fn product_limit(&self, format: Format, inputs: Inputs) -> f64 {
        match (format, inputs) {
            (_, Inputs::Exact) => EXACT_LIMIT,
            (Format::F32 | Format::F16 | Format::BF16, Inputs::Any) => FLOAT_LIMIT,
            (_, Inputs::Any) => match self.activations() {
                Activations::Bits8 => BYTE_LIMIT,
                Activations::Bits16 => WIDE_LIMIT,
            },
        }
    }

    fn attention_limit(&self, op: AttentionOp, _: KvDtype) -> f64 {
        // Scores of normal queries and keys, beside those of the usual scale.
        let size = op.scale * (op.shape.head_dim as f32).sqrt();
        ATTENTION_LIMIT * f64::from(size.max(1.0))
    }

    /// A thread takes a run of tiles that depends on the number of rows.
    fn formats_of_tall_matrices(&self) -> Vec<Format> {
        vec![Format::Q8_0, Format::Q4_K, Format::F16]
    }
}

/// Every check, with `model` for those of whole models.
pub fn checks<'a>(backend: &CpuBackend, model: &'a Gguf) -> Vec<Check<'a, CpuBackend>> {
    let mut checks = row_checks(backend);
    checks.extend(model_checks(model));
    checks.extend(product_checks(backend));
    checks.extend(attention_checks(backend));
    checks.extend(expert_checks(backend));
    let options = CpuOptions {
        threads: NonZeroUsize::new(1),
        isa: Some(backend.isa()),
        activations: backend.activations(),
    };
    // Of two, each has heads of its own; of three, some share them, and widths do not divide.
    for num_ranks in [2, 3] {
        checks.extend(rank_checks(model, &format!("{num_ranks} ranks"), move || {
            Ok(CpuBackend::group(&vec![options; num_ranks])?.into_iter().map(Arc::new).collect())
        }));
    }
    checks
}

/// Runs every check. `found` is told each finding as it comes.
///
/// # Errors
/// When the machine lacks the instruction set, or threads cannot be started.
pub fn run(options: CpuOptions, model: &Gguf, found: &mut dyn FnMut(&Finding)) -> Result<Report> {
    let backend = Arc::new(CpuBackend::new(options)?);
    let checks = checks(&backend, model);
    let setting =
        format!("{}, {} bits, {} threads", backend.isa(), backend.activations(), backend.num_threads());
    let mut report = Report::new(backend.name(), "CPU", "none");
    report.findings = conformance::run(&backend, &setting, checks, found);
    Ok(report)
}
