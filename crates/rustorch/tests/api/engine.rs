//! Options of a configuration that reach the engine.

use rustorch_llama::{
    CpuOptions, Device, Devices, EngineConfig, LlamaConfig, LlamaModel, LoadOptions, Request, SamplingParams,
    Weights,
};

use crate::{small_config, small_gguf};

/// Steps that a prompt of 40 tokens takes until its first token.
fn steps_of_a_prompt(config: LlamaConfig, max_chunk: Option<usize>) -> u64 {
    let options = LoadOptions::on(Device::Cpu(CpuOptions::default()));
    let weights = Weights::load(&small_gguf(), config, options).expect("weights");
    let engine =
        weights.start_engine(None, EngineConfig { max_chunk, ..EngineConfig::default() }).expect("an engine");
    let params = SamplingParams { max_tokens: Some(1), ignore_eos: true, ..SamplingParams::greedy() };
    let request = Request { prompt_token_ids: (0..40).collect(), params, ..Request::default() };
    engine.submit(request).and_then(|stream| stream.completion()).expect("a completion");
    engine.shutdown();
    engine.stats().steps
}

/// `prompt_chunk` never reached the engine, so a long prompt took whole steps and nobody else's began.
#[test]
fn a_prompt_is_cut_into_chunks_of_the_configuration() {
    assert_eq!(steps_of_a_prompt(small_config(), None), 1);
    assert_eq!(steps_of_a_prompt(small_config().with_prompt_chunk(8), None), 5);
    assert_eq!(steps_of_a_prompt(small_config().with_prompt_chunk(8), Some(20)), 2);
}

#[test]
fn replicas_give_what_one_device_gives() {
    let load = |devices: &str| {
        let devices: Devices = devices.parse().expect("devices");
        let mut told = (0, 0);
        let mut progress = |done, total| told = (done, total);
        let options = LoadOptions { progress: Some(&mut progress), ..LoadOptions::default() };
        let weights = Weights::load_on(&devices, &small_gguf(), small_config(), options).expect("weights");
        assert!(told.0 > 0 && told.0 == told.1, "{told:?}");
        assert_eq!(devices.num_replicas(None).expect("devices"), weights.num_replicas());
        weights
    };
    let completions = |weights: &Weights| -> Vec<_> {
        let engine = weights.start_engine(None, EngineConfig::default()).expect("an engine");
        let request = |seed: u32| {
            let params =
                SamplingParams { seed: seed.into(), max_tokens: Some(9), ..SamplingParams::default() };
            Request { prompt_token_ids: (0..seed % 9 + 1).collect(), params, ..Request::default() }
        };
        let streams: Vec<_> = (0..30).map(|seed| engine.submit(request(seed)).expect("a request")).collect();
        let tokens = streams.into_iter().map(|stream| stream.completion().expect("a completion").token_ids);
        let tokens = tokens.collect();
        assert!(engine.replicas().iter().all(|replica| replica.stats.steps > 0));
        tokens
    };
    let one = load("cpu");
    assert_eq!(one.devices(), [one.device()]);
    let expect = completions(&one);
    for (devices, count) in [("cpu:0,cpu:1", 2), ("cpu:0,1,2", 3)] {
        let weights = load(devices);
        assert_eq!(weights.num_replicas(), count);
        assert_eq!(weights.numeric_path(), "cpu");
        assert!(weights.devices()[1].starts_with("cpu:1: CPU ("), "{:?}", weights.devices());
        assert_eq!(completions(&weights), expect, "{devices}");
        let mut model = LlamaModel::new(weights).expect("a model");
        let mut alone = LlamaModel::new(one.clone()).expect("a model");
        assert_eq!(model.forward(&[1, 2, 3]).expect("logits"), alone.forward(&[1, 2, 3]).expect("logits"));
    }
}
