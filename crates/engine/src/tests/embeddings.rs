//! Embeddings beside generation.

use model::Output;

use super::arrivals::{Arrival, Setting, Work, compare_with_alone, run};
use crate::engine::Engine;
use crate::error::EngineError;
use crate::options::EngineOptions;
use crate::request::{EmbeddingRequest, Pooling, Request, Usage};
use crate::sampler::Sampler;
use crate::sampling_params::SamplingParams;
use crate::testing::{FakeRunner, HIDDEN_SIZE, embed_alone, embedding_sequence, spec, tokenizer, with_pages};

fn request(prompt_token_ids: Vec<u32>, pooling: Pooling) -> EmbeddingRequest {
    EmbeddingRequest { prompt_token_ids, pooling, ..EmbeddingRequest::default() }
}

#[test]
fn an_embedding_is_as_alone_whatever_the_chunks() {
    let prompt: Vec<u32> = (0..14).collect();
    let arrivals = [
        Arrival::now(Work::Embed(request(prompt.clone(), Pooling::Mean))),
        Arrival::now(Work::Generate(Box::new(Request {
            prompt_token_ids: vec![5, 6],
            params: SamplingParams { max_tokens: Some(6), ignore_eos: true, ..SamplingParams::default() },
            ..Request::default()
        }))),
        Arrival::now(Work::Embed(request(prompt, Pooling::Last))),
    ];
    for max_chunk in [1, 3, 5, 16] {
        let mut setting = Setting::new(spec());
        setting.options.max_chunk = Some(max_chunk);
        let outcome = run(&setting, &arrivals);
        assert_eq!(outcome.events.iter().map(Vec::len).collect::<Vec<_>>(), [1, 7, 1]);
        assert_eq!(outcome.stats.finished_embeddings, 2);
        assert_eq!(compare_with_alone(&setting, &arrivals, outcome.events), Ok(()));
    }
}

#[test]
fn a_handle_embeds_and_generates() {
    let engine = Engine::start(FakeRunner::new(spec()), Some(tokenizer()), EngineOptions::default());
    let engine = engine.expect("sizes that agree");
    for pooling in [Pooling::Last, Pooling::Mean] {
        let request = request(vec![1, 2, 3], pooling);
        let stream = engine.embed(request.clone()).expect("a request that fits");
        let want = embed_alone(spec(), &request);
        assert_eq!(want.usage, Usage { prompt_tokens: 3, completion_tokens: 0, cached_tokens: 0 });
        assert_eq!(stream.embedding(), Ok(want));
    }
    let stream = engine.embed(request(vec![1], Pooling::Last)).expect("a request that fits");
    assert_eq!(stream.completion(), Err(EngineError::Stopped), "an embedding is no completion");
    engine.shutdown();
    assert_eq!(engine.embed(request(vec![1], Pooling::Last)).err(), Some(EngineError::Stopped));
}

#[test]
fn an_embedding_that_cannot_be_served_says_why() {
    let check = |spec, prompt_token_ids, expect: &[&str]| {
        let request = request(prompt_token_ids, Pooling::Mean);
        let Err(error) = embedding_sequence(spec, request) else { panic!("not refused") };
        let message = error.to_string();
        assert!(expect.iter().all(|part| message.contains(part)), "{message:?} lacks some of {expect:?}");
    };
    let small = with_pages(3);
    check(spec(), vec![], &["prompt_token_ids", "at least one", "none"]);
    check(spec(), vec![1, 19], &["prompt_token_ids[1]", "token id 19", "less than 19"]);
    check(spec(), vec![1; 129], &["prompt of 129 tokens", "at most the context of 128"]);
    check(small, vec![1; 13], &["prompt of 13 tokens", "the 12 tokens"]);
    // Nothing is generated, so a prompt may fill the context.
    assert!(embedding_sequence(spec(), request(vec![1; 128], Pooling::Last)).is_ok());
    assert!(embedding_sequence(small, request(vec![1; 12], Pooling::Last)).is_ok());
}

#[test]
fn damaged_states_are_an_error() {
    let (mut seq, stream) =
        embedding_sequence(spec(), request(vec![1, 2], Pooling::Last)).expect("a request that fits");
    seq.num_cached_tokens = 2;
    seq.advance(2, Output::Hidden(&[f32::NAN; HIDDEN_SIZE]), &mut Sampler::default());
    drop(seq);
    assert_eq!(stream.embedding(), Err(EngineError::NoFiniteEmbedding { prompt: 2 }));
}
