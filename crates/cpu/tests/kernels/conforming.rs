//! The checks of the crate `conformance`, as `rustorch devices --check` runs them, on one and on several threads.

use std::sync::Arc;

use conformance::Finding;
use cpu::{Isa, check};

use super::{backend, demo_model, isas};

/// Runs every check on so many threads.
fn findings(isa: Isa, threads: usize) -> Vec<Finding> {
    let model = demo_model();
    let backend = Arc::new(backend(isa, threads));
    assert_eq!(backend.num_threads(), threads);
    let checks = check::checks(&backend, &model);
    conformance::run(&backend, &format!("{isa}, {threads} threads"), checks, &mut |_| {})
}

fn conforms_on_any_number_of_threads(isa: Isa) {
    if !isa.is_available() {
        return;
    }
    let one = findings(isa, 1);
    for threads in [1, 2, 3, 5] {
        let findings = if threads == 1 { one.clone() } else { findings(isa, threads) };
        for (finding, one) in findings.iter().zip(&one) {
            assert_eq!(finding.failure, None, "{finding}");
            assert_eq!(finding.digest, one.digest, "{finding}: the bits are not those of one thread");
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

#[test]
fn every_instruction_set_has_its_test() {
    // Those above.
    assert_eq!(Isa::ALL, [Isa::Portable, Isa::Avx2, Isa::AvxVnni, Isa::Avx512]);
    assert!(isas().count() > 0);
}
