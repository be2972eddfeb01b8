//! Every check of `rustorch devices --check`, on the first card of this machine, and ranks that leave their group.
//!
//! ```text
//! cargo test -p rustorch-cuda --features device-tests
//! ```
#![cfg(feature = "device-tests")]

use std::thread;
use std::time::Duration;

use cuda::{Card, Cards, CudaBackend, check};
use gguf::Gguf;
use model::{Backend, BufferRole, Shards};

fn first_card() -> Card {
    let cards = Cards::find().unwrap_or_else(|error| panic!("tests of kernels need a card: {error}"));
    cards.choose(0).unwrap_or_else(|error| panic!("tests of kernels need a card: {error}")).clone()
}

#[test]
#[allow(clippy::print_stderr)] // The report is the test's second result.
fn every_kernel_on_this_card_is_right_and_batch_invariant() {
    let spec = testkit::ModelSpec { hidden: 64, head_dim: 32, ffn: 96, vocab: 100, ..Default::default() };
    let model = Gguf::from_vec(spec.to_gguf()).expect("a model");
    let report =
        check::run(&first_card(), &[], &model, |finding| eprintln!("{finding}")).expect("the card opens");
    assert_eq!(report.num_failed(), 0, "{report}");
}

/// Of few values, which are sent, and of many, which are read.
#[test]
fn no_kernel_waits_for_a_rank_that_has_left() {
    for (rows, cols) in [(1, 64), (300, 2000)] {
        let ranks = CudaBackend::group(&[first_card(), first_card()]).expect("two ranks on a card");
        let shards = Shards::new([cols / 2, cols / 2]);
        let part = ranks[0].alloc(rows, cols / 2, BufferRole::Part).expect("a part");
        let mut out = ranks[0].alloc(rows, cols, BufferRole::Values).expect("rows");
        ranks[0].all_gather(rows, &part, &shards, &mut out);
        // The kernel waits, as the other rank does not come.
        thread::sleep(Duration::from_millis(20));
        ranks[1].leave_group("a fault");
        for _ in 0..2 {
            let error = ranks[0].read_into(&mut []).expect_err("a rank has left");
            assert_eq!(error.to_string(), "device: rank 1 of 2: a fault");
        }
        ranks[0].all_gather(rows, &part, &shards, &mut out);
        assert!(ranks[0].read_into(&mut []).is_err(), "it stays so, and no gather waits");
    }
}
