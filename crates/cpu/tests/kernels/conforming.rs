//! The checks of the crate `conformance`, as `rustorch devices --check` runs them, on one and on several threads.

use std::sync::Arc;

use conformance::Finding;
use cpu::{Activations, Isa, check};
use gguf::Format;

use super::{backend, demo_model, isas};

/// Runs the checks that are `wanted` on so many threads.
pub fn findings(
    isa: Isa,
    activations: Activations,
    threads: usize,
    wanted: impl Fn(&str) -> bool,
) -> Vec<Finding> {
    let model = demo_model();
    let backend = Arc::new(backend(isa, activations, threads));
    assert_eq!(backend.num_threads(), threads);
    let mut checks = check::checks(&backend, &model);
    checks.retain(|check| wanted(check.name()));
    conformance::run(&backend, &format!("{isa}, {activations} bits, {threads} threads"), checks, &mut |_| {})
}

fn assert_none_failed(findings: &[Finding]) {
    let failed: Vec<String> =
        findings.iter().filter(|finding| finding.failure.is_some()).map(Finding::to_string).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Every check on two threads; on other numbers the same bits, of all but the checks that compare bits with one another:
/// their sums are those of the others.
fn conforms_on_any_number_of_threads(isa: Isa) {
    if !isa.is_available() {
        return;
    }
    let two = findings(isa, Activations::Bits8, 2, |_| true);
    assert_none_failed(&two);
    for threads in [1, 3, 5] {
        let findings =
            findings(isa, Activations::Bits8, threads, |check| !check.contains("alone as in a batch"));
        assert!(findings.len() > Format::ALL.len() * 2);
        for finding in findings {
            assert_eq!(finding.failure, None, "{finding}");
            let on_two = two.iter().find(|on_two| on_two.check == finding.check).unwrap();
            assert_eq!(finding.digest, on_two.digest, "{finding}: the bits are not those of two threads");
        }
    }
}

#[test]
fn portable_kernels() {
    conforms_on_any_number_of_threads(Isa::Portable);
}

#[test]
fn avx2_kernels() {
    conforms_on_any_number_of_threads(Isa::Avx2);
}

#[test]
fn avx_vnni_kernels() {
    conforms_on_any_number_of_threads(Isa::AvxVnni);
}

#[test]
fn avx512_kernels() {
    conforms_on_any_number_of_threads(Isa::Avx512);
}

/// What activations of 16 bits pass through: products, and the models that are made of them.
#[test]
fn products_with_activations_of_16_bits() {
    let is_product = |check: &str| {
        let names = ["matmul", "stacked matrices", "whole model, f16 cache"];
        names.iter().any(|name| check.starts_with(name)) && !check.contains("F32")
    };
    for isa in isas() {
        let two = findings(isa, Activations::Bits16, 2, is_product);
        assert!(two.len() > Format::ALL.len() * 2);
        assert_none_failed(&two);
        for finding in findings(isa, Activations::Bits16, 3, |check| {
            is_product(check) && !check.contains("alone as in a batch")
        }) {
            assert_eq!(finding.failure, None, "{finding}");
            let on_two = two.iter().find(|on_two| on_two.check == finding.check).unwrap();
            assert_eq!(finding.digest, on_two.digest, "{finding}: the bits are not those of two threads");
        }
    }
}

#[test]
fn every_instruction_set_has_its_test() {
    // Those above.
    assert_eq!(Isa::ALL, [Isa::Portable, Isa::Avx2, Isa::AvxVnni, Isa::Avx512]);
    assert!(isas().count() > 0);
}
