//! The same checks on a GPU, whose results may depend on the device, the attention and the type of the cache.

use std::sync::Arc;

use gpu::{Adapters, GpuBackend};
use rustorch_llama::{
    Device, EmbeddingRequest, EngineConfig, Gguf, GpuOptions, LlamaConfig, LoadOptions, Pooling, Weights,
};

use super::{Numerics, On, for_random, requests, same_bits, slots, steps, test_model};

#[path = "../common/gpu.rs"]
mod common;

fn backend() -> Arc<GpuBackend> {
    let Device::Gpu(choice) = common::device() else { panic!("the device of these tests is a GPU") };
    let adapters = Adapters::find();
    let adapter = adapters.choose(choice).expect("the GPU");
    Arc::new(GpuBackend::new(adapter.open(GpuOptions::default()).expect("the device opens")))
}

fn all_numerics() -> Vec<Numerics> {
    Numerics::all_on(On::Gpu(common::device()))
}

/// Random conditions, but such that a step has several tokens: on a software rasteriser each step takes its time.
fn check_steps(name: &'static str, lengths: &[usize], cases: u32) {
    let (model, backend) = (test_model(name), backend());
    let sequences = steps::sequences(&model, lengths);
    for numerics in all_numerics() {
        let want = steps::alone(Arc::clone(&backend), &model, numerics, &sequences);
        for_random(cases, steps::conditions(), |conditions| {
            let conditions = steps::Conditions { max_chunk: conditions.max_chunk.max(8), ..conditions };
            steps::check(Arc::clone(&backend), &model, numerics, (&sequences, &want), &conditions)
        });
    }
}

#[test]
fn steps_of_float_models() {
    check_steps("f16", &[1, 2, 33, 70], 1);
    check_steps("odd_widths", &[1, 17, 65, 140], 1);
}

#[test]
fn steps_of_quantized_models() {
    for name in ["mix_q4_k_m", "everything_q8_0"] {
        check_steps(name, &[1, 2, 33, 70], 1);
    }
}

#[test]
fn steps_of_the_demo_model() {
    check_steps("demo", &[1, 18, 70], 1);
}

#[test]
fn slots_hold_what_they_were_given() {
    let model = test_model("mix_q4_k_m");
    for numerics in all_numerics() {
        for_random(1, slots::conditions(), |conditions| slots::check(&model, numerics, &conditions));
    }
}

#[test]
fn requests_together_are_as_alone() {
    let (model, backend) = (test_model("demo"), backend());
    // Every attention over every cache has its own tests of steps.
    let [usual, .., last] = all_numerics()[..] else { panic!("there are several") };
    for numerics in [usual, last] {
        for_random(1, (requests::requests(), requests::conditions()), |(requests, conditions)| {
            let want = requests::alone(Arc::clone(&backend), &model, numerics, &requests);
            requests::check(Arc::clone(&backend), &model, numerics, (&requests, &want), &conditions)
                .map(|_| ())
        });
    }
}

#[test]
fn preempted_requests_are_as_alone() {
    let (model, backend) = (test_model("demo"), backend());
    let numerics = all_numerics()[0];
    let requests = requests::fixed(4);
    let want = requests::alone(Arc::clone(&backend), &model, numerics, &requests);
    let conditions =
        requests::Conditions { page_size: 2, max_chunk: 3, spare_pages: 6, ..requests::Conditions::roomy() };
    let stats = requests::check(backend, &model, numerics, (&requests, &want), &conditions).unwrap();
    assert!(stats.preemptions > 0, "{stats:?}");
}

/// A step of mean-pooled embeddings wants the hidden states of all its rows, which are more than the rows that may want
/// logits. Sixteen heads on one cached head make a run of each row, which leaves no words of a GPU's plan unused.
#[test]
fn embeddings_may_want_every_row_of_a_step() {
    let spec = testkit::ModelSpec { heads: 16, kv_heads: 1, head_dim: 16, layers: 1, ..Default::default() };
    let gguf = Gguf::from_vec(spec.to_gguf()).unwrap();
    let config = LlamaConfig::from_gguf(&gguf).unwrap();
    let config = config.with_max_seq_len(64).with_batch_size(4).with_max_batch_tokens(64);
    let weights = Weights::load(&gguf, config, LoadOptions::on(common::device())).unwrap();
    let engine = weights.start_engine(None, EngineConfig::default()).unwrap();
    let embed = |seq: u32| {
        let prompt_token_ids = (0..20).map(|i| (31 * seq + 7 * i) % spec.vocab as u32).collect();
        let pooling = Pooling::Mean;
        engine.embed(EmbeddingRequest { prompt_token_ids, pooling, ..Default::default() }).unwrap()
    };
    let streams: Vec<_> = (0..4).map(embed).collect();
    let together: Vec<_> = streams.into_iter().map(|stream| stream.embedding().unwrap()).collect();
    for (seq, together) in (0..).zip(together) {
        let alone = embed(seq).embedding().unwrap();
        same_bits(&together.values, &alone.values).unwrap();
    }
}
