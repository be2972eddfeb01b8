//! Every check of `rustorch devices --check`, on the device that this machine has: a software rasteriser if there is no
//! other. In two tests, which compile their shaders at the same time.
#![cfg(feature = "device-tests")]

use devices::{GpuChoice, GpuOptions};
use gguf::Gguf;
use gpu::Adapters;
use gpu::check::{self, Part};

#[test]
fn products_on_this_device_are_right_and_batch_invariant() {
    check(Part::Products);
}

#[test]
fn all_else_on_this_device_is_right_and_batch_invariant() {
    check(Part::Rest);
}

#[allow(clippy::print_stderr)] // The report is the tests' second result.
fn check(part: Part) {
    let adapters = Adapters::find();
    let adapter = adapters
        .choose(GpuChoice::Any)
        .or_else(|_| adapters.choose(GpuChoice::Index(0)))
        .expect("tests of kernels need a device, a software rasteriser at least");
    // A small model stands in for the user's: a software rasteriser takes minutes for a larger one, and products of every
    // size have checks of their own.
    let spec = testkit::ModelSpec { hidden: 64, head_dim: 32, ffn: 96, vocab: 100, ..Default::default() };
    let model = Gguf::from_vec(spec.to_gguf()).expect("a model");
    let report = check::run(adapter, GpuOptions::default(), &model, part, |finding| eprintln!("{finding}"));
    let report = report.expect("the device opens");
    assert_eq!(report.num_failed(), 0, "{report}");
}
