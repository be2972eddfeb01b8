//! The negative control: the checks find back ends with faults, and nothing where there are none.

use std::sync::Arc;

use conformance::faulty::{Fault, Faulty};
use conformance::{Check, attention_checks, expert_checks, model_checks, product_checks, row_checks};
use cpu::{Activations, CpuBackend, Isa};

use super::{backend, demo_model};

/// The names of the checks among `wanted` that fail of a back end with a fault.
fn failing(fault: Fault, wanted: impl Fn(&str) -> bool) -> (Vec<String>, usize) {
    let model = demo_model();
    let device = Arc::new(Faulty::new(backend(Isa::detect(), Activations::Bits8, 2), fault));
    let mut checks: Vec<Check<'_, Faulty<CpuBackend>>> = row_checks(&*device);
    checks.extend(model_checks(&model));
    checks.extend(product_checks(&*device));
    checks.extend(attention_checks(&*device));
    checks.extend(expert_checks(&*device));
    checks.retain(|check| wanted(check.name()));
    let findings = conformance::run(&device, "", checks, &mut |_| {});
    let failed = findings.iter().filter(|finding| finding.failure.is_some());
    (failed.map(|finding| finding.check.clone()).collect(), findings.len())
}

/// Of products, those of one format in tiles and one without; of whole models, one.
fn is_of_batch_invariance(check: &str) -> bool {
    [
        "matmul F32: alone as in a batch",
        "matmul Q4_K: alone as in a batch",
        "stacked matrices: alone as in a batch",
        "whole model, f32 cache: alone as in a batch",
    ]
    .contains(&check)
}

/// Splitting always or never depends on no batch: it is batch invariance that the checks guard, and not one order of a
/// sum.
#[test]
fn products_that_always_or_never_split_are_batch_invariant() {
    for from_rows in [1, usize::MAX] {
        let (failed, run) = failing(Fault::SplitK { from_rows }, is_of_batch_invariance);
        assert!(failed.is_empty() && run == 4, "splitting from {from_rows} rows on: {failed:?} of {run}");
    }
}

#[test]
fn products_that_split_when_there_are_several_rows_are_found() {
    let (failed, run) = failing(Fault::SplitK { from_rows: 2 }, is_of_batch_invariance);
    assert!(failed.len() == 4 && run == 4, "{failed:?} of {run}");
}

#[test]
fn each_fault_is_found_by_the_check_of_its_operation() {
    let cases: [(Fault, &[&str]); 14] = [
        (Fault::NormWithoutEpsilon, &["rms_norm", "add_rms_norm", "norm_heads"]),
        (Fault::AttentionMissesOwnPosition, &["rope and attention", "long attention"]),
        (Fault::AttentionIgnoresScale, &["rope and attention, 4/2 heads of 64, not rotated"]),
        (
            Fault::AttentionIgnoresWindow,
            &["rope and attention, 4/2 heads of 64, 64 halves rotated, a window of 50"],
        ),
        (
            Fault::AttentionIgnoresSoftcap,
            &["rope and attention, 6/2 heads of 32, not rotated, capped at 1.5"],
        ),
        (
            Fault::AttentionIgnoresSinks,
            &["rope and attention, 20/1 heads of 20, 20 neighbours rotated, with sinks"],
        ),
        (Fault::QueriesAreNotScaled, &["scale_queries"]),
        (Fault::GeluIsSilu, &["geglu", "clamped swiglu"]),
        (Fault::ScaleTouchesRowBeyond, &["scale"]),
        (Fault::ArgmaxFromFirstRow, &["argmax"]),
        (Fault::ReadFromFirstRow, &["read_into"]),
        (Fault::BiasOfFirstPart, &["stacked matrices"]),
        (Fault::RoutesAreNotNormed, &["route and combine_experts"]),
        (Fault::ExpertsWithoutBias, &["matmul_experts F32", "matmul_experts Q4_K"]),
    ];
    for (fault, names) in cases {
        for name in names {
            // The name, alone or with a case.
            let is_name = |check: &str| {
                check.strip_prefix(name).is_some_and(|case| case.is_empty() || case.starts_with(','))
            };
            let is_meant = |check: &str| is_name(check) && !check.contains("alone as in");
            let (failed, run) = failing(fault, is_meant);
            assert!(failed.len() == run && run > 0, "{fault:?}: {failed:?} of {run} checks of {name}");
            // Nor is the wrapper found at fault.
            let (failed, _) = failing(Fault::SplitK { from_rows: usize::MAX }, is_meant);
            assert!(failed.is_empty(), "no fault: {failed:?}");
        }
    }
}
