//! The checks of the crate `conformance`, as `rustorch devices --check` runs them, on one and on several threads.

use std::sync::{Arc, OnceLock};

use conformance::Finding;
use cpu::{Activations, Isa, check};
use gguf::Format;

use super::{backend, demo_model, isas};

/// Runs the checks that are `wanted` on so many threads.
fn findings(
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

/// What passes through activations of 16 bits: products, and the models that are made of them.
fn is_product(check: &str) -> bool {
    check.contains("matmul")
        || check.starts_with("stacked matrices")
        || check.starts_with("whole model, f16 cache")
}

/// The findings on two threads, with which several tests compare others: of activations of 8 bits every check, of those of 16
/// products. They are made once.
pub fn on_two_threads(isa: Isa, activations: Activations) -> &'static [Finding] {
    static FOUND: [[OnceLock<Vec<Finding>>; 2]; 4] = [const { [const { OnceLock::new() }; 2] }; 4];
    FOUND[isa as usize][activations as usize].get_or_init(|| {
        findings(isa, activations, 2, |check| activations == Activations::Bits8 || is_product(check))
    })
}

/// Every check on two threads.
fn conforms(isa: Isa) {
    if isa.is_available() {
        assert_none_failed(on_two_threads(isa, Activations::Bits8));
    }
}

/// On other numbers of threads the same bits as on two, of all but the checks that compare bits with one another: their sums
/// are those of the others.
fn same_bits_on(threads: usize, isa: Isa, activations: Activations) {
    if !isa.is_available() {
        return;
    }
    let two = on_two_threads(isa, activations);
    let findings = findings(isa, activations, threads, |check| {
        (activations == Activations::Bits8 || is_product(check) && !check.contains("F32"))
            && !check.contains("alone as in a batch")
    });
    assert!(findings.len() > Format::ALL.len() * 2, "{} checks", findings.len());
    for finding in findings {
        assert_eq!(finding.failure, None, "{finding}");
        let on_two = two.iter().find(|on_two| on_two.check == finding.check).unwrap();
        assert_eq!(finding.digest, on_two.digest, "{finding}: the bits are not those of two threads");
    }
}

#[test]
fn portable_kernels() {
    conforms(Isa::Portable);
}

// The portable kernels are by far the slowest: a test for each number of threads, so that these run beside one another.

#[test]
fn portable_kernels_on_one_thread() {
    same_bits_on(1, Isa::Portable, Activations::Bits8);
}

#[test]
fn portable_kernels_on_three_threads() {
    same_bits_on(3, Isa::Portable, Activations::Bits8);
}

#[test]
fn portable_kernels_on_five_threads() {
    same_bits_on(5, Isa::Portable, Activations::Bits8);
}

#[test]
fn avx2_kernels() {
    conforms(Isa::Avx2);
    for threads in [1, 3, 5] {
        same_bits_on(threads, Isa::Avx2, Activations::Bits8);
    }
}

#[test]
fn avx_vnni_kernels() {
    conforms(Isa::AvxVnni);
    for threads in [1, 3, 5] {
        same_bits_on(threads, Isa::AvxVnni, Activations::Bits8);
    }
}

#[test]
fn avx512_kernels() {
    conforms(Isa::Avx512);
    for threads in [1, 3, 5] {
        same_bits_on(threads, Isa::Avx512, Activations::Bits8);
    }
}

#[test]
fn products_with_activations_of_16_bits() {
    for isa in isas() {
        assert_none_failed(on_two_threads(isa, Activations::Bits16));
        same_bits_on(3, isa, Activations::Bits16);
    }
}

#[test]
fn every_instruction_set_has_its_test() {
    // Those above.
    assert_eq!(Isa::ALL, [Isa::Portable, Isa::Avx2, Isa::AvxVnni, Isa::Avx512]);
    assert!(isas().count() > 0);
}
