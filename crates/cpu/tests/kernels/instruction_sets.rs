//! One answer on every processor: all instruction sets give the same bits. Of whole models of every format: see
//! `rustorch/tests/golden.rs`.

use cpu::{Activations, Isa};

use super::conforming::on_two_threads;
use super::isas;

/// The bits of every check, all operations and whole models, on every instruction set.
#[test]
fn every_instruction_set_gives_the_same_bits() {
    for activations in Activations::ALL {
        let first = on_two_threads(Isa::Portable, activations);
        assert!(first.len() > 20, "{} checks", first.len());
        for isa in isas().filter(|&isa| isa != Isa::Portable) {
            let others = on_two_threads(isa, activations);
            assert_eq!(others.len(), first.len());
            for (portable, other) in first.iter().zip(others) {
                assert_eq!(portable.check, other.check);
                assert_eq!(
                    portable.digest, other.digest,
                    "{other}: the bits are not those of the portable kernels"
                );
            }
        }
    }
}
