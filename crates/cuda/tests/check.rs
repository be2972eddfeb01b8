//! Every check of `rustorch devices --check`, on the first card of this machine.
//!
//! ```text
//! cargo test -p rustorch-cuda --features device-tests
//! ```
#![cfg(feature = "device-tests")]

use cuda::{Cards, check};
use gguf::Gguf;

#[test]
#[allow(clippy::print_stderr)] // The report is the test's second result.
fn every_kernel_on_this_card_is_right_and_batch_invariant() {
    let cards = Cards::find().unwrap_or_else(|error| panic!("tests of kernels need a card: {error}"));
    let card = cards.choose(0).unwrap_or_else(|error| panic!("tests of kernels need a card: {error}"));
    let spec = testkit::ModelSpec { hidden: 64, head_dim: 32, ffn: 96, vocab: 100, ..Default::default() };
    let model = Gguf::from_vec(spec.to_gguf()).expect("a model");
    let report = check::run(card, &model, |finding| eprintln!("{finding}")).expect("the card opens");
    assert_eq!(report.num_failed(), 0, "{report}");
}
