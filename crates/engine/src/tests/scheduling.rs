//! Law 1 for the engine: what else runs, in which steps, chunks and pages, never shows in a sequence's events.

use std::sync::mpsc;

use model::{BatchLimits, RunnerSpec};
use proptest::prelude::*;

use super::arrivals::{Arrival, Setting, Work, any_arrival, any_setting, compare_with_alone, failure, run};
use crate::admission::Admission;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::events::TaggedSink;
use crate::options::EngineOptions;
use crate::policies::Policies;
use crate::prefix_index::PrefixCache;
use crate::request::{Event, Request};
use crate::sampling_params::SamplingParams;
use crate::testing::{FakeRunner, generate_alone, sequence, spec, with_pages};

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_sequence_equals_itself_alone(
        setting in any_setting(),
        arrivals in prop::collection::vec(any_arrival(), 1..13),
    ) {
        let outcome = run(&setting, &arrivals);
        prop_assert_eq!(compare_with_alone(&setting, &arrivals, outcome.events), Ok(()));
    }
}

/// Four sequences that each need over half of the pool in the end.
fn crowd() -> (RunnerSpec, Vec<Request>) {
    let spec = RunnerSpec { page_size: 2, max_seq_len: 64, ..with_pages(16) };
    let requests = (0..4u64).map(|seed| {
        let params = SamplingParams {
            repetition_penalty: 1.2,
            frequency_penalty: 0.3,
            presence_penalty: 0.3,
            seed,
            ignore_eos: true,
            max_tokens: Some(20),
            ..SamplingParams::default()
        };
        Request { prompt_token_ids: vec![1, 3 + seed as u32, 4], params, ..Request::default() }
    });
    (spec, requests.collect())
}

#[test]
fn a_preemption_does_not_show_in_sampled_text() {
    let (spec, requests) = crowd();
    let arrivals: Vec<Arrival> =
        requests.into_iter().map(Box::new).map(Work::Generate).map(Arrival::now).collect();
    for prefix_cache in [PrefixCache::On, PrefixCache::Off] {
        let mut setting = Setting::new(spec);
        setting.options.prefix_cache = prefix_cache;
        let crowded = run(&setting, &arrivals);
        let preemptions = crowded.stats.preemptions;
        assert!(preemptions >= 2, "the crowd was meant to be too large, but saw {preemptions} preemptions");
        assert_eq!(compare_with_alone(&setting, &arrivals, crowded.events.clone()), Ok(()));
        setting.spec.limits.num_pages = 64;
        let roomy = run(&setting, &arrivals);
        assert_eq!((roomy.stats.preemptions, roomy.events), (0, crowded.events));
    }
}

#[test]
fn sequences_end_in_the_order_of_arrival_when_they_are_alike() {
    let (spec, requests) = crowd();
    let mut engine = Engine::new(FakeRunner::new(spec), EngineOptions::default(), Policies::default())
        .expect("sizes that agree");
    let mut streams = Vec::new();
    for request in requests {
        let (seq, stream) = sequence(spec, None, request).expect("a request that fits");
        engine.add(seq);
        streams.push(stream);
    }
    let mut ended = Vec::new();
    while ended.len() < streams.len() {
        engine.step();
        for (i, stream) in streams.iter_mut().enumerate() {
            while let Some(event) = stream.try_recv() {
                ended.extend(matches!(event, Event::Finished { .. }).then_some(i));
            }
        }
    }
    assert_eq!(ended, [0, 1, 2, 3]);
}

#[test]
fn decodes_and_prompt_chunks_share_a_step() {
    let limits = BatchLimits { max_tokens: 6, ..spec().limits };
    let spec = RunnerSpec { limits, ..spec() };
    let mut engine = Engine::new(FakeRunner::new(spec), EngineOptions::default(), Policies::default())
        .expect("sizes that agree");
    let add = |engine: &mut Engine<FakeRunner>, prompt: usize| {
        let params = SamplingParams { max_tokens: Some(8), ..SamplingParams::default() };
        let (seq, stream) =
            sequence(spec, None, Request { prompt_token_ids: vec![1; prompt], params, ..Request::default() })
                .expect("a request that fits");
        engine.add(seq);
        stream
    };
    let _short = add(&mut engine, 2);
    let _long = add(&mut engine, 11);
    let mut tokens = Vec::new();
    for _ in 0..4 {
        let before = engine.stats();
        engine.step();
        let after = engine.stats();
        tokens.push((after.tokens - before.tokens, after.generated_tokens - before.generated_tokens));
    }
    // 2 + 4 of the long prompt; then a decode and 5 more; a decode and the last 2; two decodes.
    assert_eq!(tokens, [(6, 1), (6, 1), (3, 2), (2, 2)]);
}

#[test]
fn a_dropped_stream_frees_its_pages_within_a_step() {
    let limits = BatchLimits { max_seqs: 2, ..spec().limits };
    let spec = RunnerSpec { limits, ..spec() };
    let mut engine = Engine::new(FakeRunner::new(spec), EngineOptions::default(), Policies::default())
        .expect("sizes that agree");
    let mut streams = Vec::new();
    for token_id in 0..4 {
        let params = SamplingParams { max_tokens: Some(90), ..SamplingParams::default() };
        let request = Request { prompt_token_ids: vec![token_id; 5], params, ..Request::default() };
        let (seq, stream) = sequence(spec, None, request).expect("a request that fits");
        engine.add(seq);
        streams.push(stream);
    }
    let check = |engine: &mut Engine<FakeRunner>, running, waiting, used_pages| {
        engine.step();
        let stats = engine.stats();
        assert_eq!((stats.running, stats.waiting, stats.used_pages), (running, waiting, used_pages));
    };
    check(&mut engine, 2, 2, 4);
    streams.pop();
    check(&mut engine, 2, 1, 4);
    streams.remove(0);
    check(&mut engine, 2, 0, 4);
    streams.clear();
    check(&mut engine, 0, 0, 0);
}

#[test]
fn dropping_a_shared_channel_cancels_its_requests_at_their_next_token() {
    let (events, receiver) = mpsc::channel();
    let admission = Admission::new(spec(), None);
    let mut engine = Engine::new(FakeRunner::new(spec()), EngineOptions::default(), Policies::default())
        .expect("sizes that agree");
    for tag in 0..2 {
        let request = Request { prompt_token_ids: vec![1], ..Request::default() };
        let sink = TaggedSink { tag, events: events.clone(), closed: false };
        engine.add(admission.admit(request, sink).expect("a request that fits"));
    }
    engine.step();
    assert_eq!(receiver.try_iter().map(|(tag, _)| tag).collect::<Vec<_>>(), [0, 1]);
    drop(receiver);
    engine.step();
    engine.step();
    assert_eq!((engine.stats().running, engine.stats().used_pages), (0, 0));
}

#[test]
fn a_failed_step_ends_what_runs_and_nothing_else() {
    let (failures, receiver) = mpsc::channel();
    let spec = RunnerSpec { limits: BatchLimits { max_seqs: 2, ..spec().limits }, ..spec() };
    let mut engine =
        Engine::new(FakeRunner::failing(spec, receiver), EngineOptions::default(), Policies::default())
            .expect("sizes that agree");
    let params = SamplingParams { max_tokens: Some(5), ..SamplingParams::greedy() };
    let requests: Vec<_> = (3..6)
        .map(|id| Request { prompt_token_ids: vec![id], params: params.clone(), ..Request::default() })
        .collect();
    let mut streams: Vec<_> = requests
        .iter()
        .map(|request| {
            let (seq, stream) = sequence(spec, None, request.clone()).expect("a request that fits");
            engine.add(seq);
            stream
        })
        .collect();

    engine.step();
    failures.send(Some(failure())).expect("the runner listens");
    engine.step();
    assert_eq!((engine.stats().running, engine.stats().waiting, engine.stats().used_pages), (0, 1, 0));
    for _ in 0..5 {
        engine.step();
    }
    let third = streams.pop().expect("three streams").completion();
    assert_eq!(third, Ok(generate_alone(spec, None, requests[2].clone())));
    for stream in streams {
        let error = stream.completion().expect_err("the step failed");
        assert_eq!(error, EngineError::Run(failure()));
        assert_eq!(error.to_string(), "step failed: device lost");
    }
}
