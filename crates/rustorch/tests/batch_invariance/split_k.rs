//! The negative control: the random steps and requests over a device that is not batch-invariant, in the way that is most
//! tempting on real ones.

use std::sync::Arc;

use conformance::faulty::{Fault, Faulty};
use cpu::CpuBackend;

use super::{Numerics, requests, steps, test_model};

/// Splitting always or never depends on no batch: it is batch invariance that the checks guard, and not one way of summing.
const INVARIANT: [usize; 2] = [1, usize::MAX];
/// Splitting only what has several rows is not batch-invariant.
const VARIANT: usize = 2;

/// A CPU that splits the columns of products of at least `from_rows` rows in two and adds the halves' results.
fn split_k(numerics: Numerics, from_rows: usize) -> impl Fn(usize) -> Arc<Faulty<CpuBackend>> {
    move |threads| Arc::new(Faulty::new(numerics.new_cpu_backend(threads), Fault::SplitK { from_rows }))
}

#[test]
fn steps_tell_a_device_that_is_not_batch_invariant() {
    let numerics = Numerics::usual();
    let conditions = steps::Conditions {
        threads: 2,
        page_size: 4,
        max_tokens: 16,
        max_seqs: 4,
        max_chunk: 8,
        spare_pages: 16,
        copies: 1,
        seed: 1,
    };
    for name in ["f32", "q8_0", "everything_q8_0"] {
        let model = test_model(name);
        let sequences = steps::sequences(&model, &[1, 5, 20]);
        let check = |from_rows| {
            let backend = split_k(numerics, from_rows);
            let want = steps::alone(backend(1), &model, numerics, &sequences);
            steps::check(backend(2), &model, numerics, (&sequences, &want), &conditions)
        };
        for from_rows in INVARIANT {
            assert_eq!(check(from_rows), Ok(()), "{name}: splitting from {from_rows} rows on");
        }
        let difference = check(VARIANT).expect_err("a difference");
        assert!(difference.contains("position"), "{difference}");
    }
}

#[test]
fn requests_tell_a_device_that_is_not_batch_invariant() {
    let numerics = Numerics::usual();
    let model = test_model("demo");
    let requests = requests::fixed(4);
    let check = |from_rows| {
        let backend = split_k(numerics, from_rows);
        let want = requests::alone(backend(1), &model, numerics, &requests);
        requests::check(backend(2), &model, numerics, (&requests, &want), &requests::Conditions::roomy())
    };
    for from_rows in INVARIANT {
        assert!(check(from_rows).is_ok(), "splitting from {from_rows} rows on");
    }
    let difference = check(VARIANT).expect_err("a difference");
    assert!(difference.contains("request"), "{difference}");
}
