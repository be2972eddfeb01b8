//! Options of a configuration that reach the engine.

use rustorch_llama::{
    CpuOptions, Device, EngineConfig, LlamaConfig, LoadOptions, Request, SamplingParams, Weights,
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
