//! One answer on every processor: all instruction sets give the same bits. Of whole models of every format: see
//! `rustorch/tests/golden.rs`.

use cpu::{Activations, Isa};

use super::conforming::findings;
use super::isas;

/// The bits of every check, all operations and whole models, on every instruction set; `wanted` picks checks by name.
fn assert_same_bits(activations: Activations, wanted: impl Fn(&str) -> bool) {
    let first = findings(Isa::Portable, activations, 2, &wanted);
    assert!(first.len() > 20, "{} checks", first.len());
    for isa in isas().filter(|&isa| isa != Isa::Portable) {
        let others = findings(isa, activations, 2, &wanted);
        assert_eq!(others.len(), first.len());
        for (portable, other) in first.iter().zip(&others) {
            assert_eq!(portable.check, other.check);
            assert_eq!(
                portable.digest, other.digest,
                "{other}: the bits are not those of the portable kernels"
            );
        }
    }
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    // Products alone have the sums of those in a batch. Other whole models: see above.
    let has_other_sums =
        |check: &str| !check.contains("alone as in a batch") || check.starts_with("whole model, o");
    assert_same_bits(Activations::Bits8, has_other_sums);
    let is_product = |check: &str| check.contains("matmul") || check.starts_with("stacked");
    assert_same_bits(Activations::Bits16, |check| has_other_sums(check) && is_product(check));
}
