//! Law 1 for the engine: what else runs, in which steps, chunks and pages, never shows in a sequence's events.

use std::sync::mpsc;

use model::BatchLimits;
use proptest::prelude::*;

use crate::admission::Admission;
use crate::engine::Engine;
use crate::error::{EngineError, RunError};
use crate::events::{RequestStream, TaggedSink};
use crate::options::EngineOptions;
use crate::request::{Completion, Event, Request};
use crate::runner::RunnerSpec;
use crate::sampling_params::SamplingParams;
use crate::testing::{FakeRunner, VOCAB_SIZE, generate_alone, sequence, spec, tokenizer};

/// No schedule of these sizes takes nearly so many steps, unless it stands still.
const TOO_MANY_STEPS: usize = 5_000;

/// A request, the step at which it arrives and that at which its stream is dropped.
#[derive(Debug, Clone)]
struct Arrival {
    request: Request,
    arrives: usize,
    dropped: Option<usize>,
}

fn any_params() -> impl Strategy<Value = SamplingParams> {
    let max_tokens = prop::option::weighted(0.9, prop_oneof![1..24usize, 18..24usize]);
    let penalties = (prop::sample::select(vec![1.0f32, 1.3]), prop::sample::select(vec![0.0f32, 0.5]));
    (prop::bool::weighted(0.7), any::<u64>(), max_tokens, penalties, any::<bool>(), 0..4usize, 0..2usize)
        .prop_map(|(samples, seed, max_tokens, (repetition_penalty, penalty), stops, top_k, logprobs)| {
            SamplingParams {
                temperature: if samples { 1.0 } else { 0.0 },
                top_k: top_k * 4,
                repetition_penalty,
                frequency_penalty: penalty,
                presence_penalty: penalty,
                seed,
                stop: if stops { vec!["ba".into(), "STOPS".into()] } else { Vec::new() },
                // Sequences that end late compete for pages longest.
                ignore_eos: seed % 8 > 0,
                max_tokens,
                logprobs: logprobs.checked_sub(1),
                ..SamplingParams::default()
            }
        })
}

fn any_arrival() -> impl Strategy<Value = Arrival> {
    // Short prompts let more sequences in than can stay.
    let token_ids = |len| prop::collection::vec(0..VOCAB_SIZE as u32, len);
    let prompt = prop_oneof![3 => token_ids(1..6), 1 => token_ids(6..20)];
    let dropped = prop::option::weighted(0.2, 0..30usize);
    (prompt, any_params(), 0..6usize, dropped).prop_map(|(prompt_token_ids, params, arrives, after)| {
        Arrival {
            request: Request { prompt_token_ids, params, ..Request::default() },
            arrives,
            dropped: after.map(|after| arrives + after),
        }
    })
}

/// Sizes from those at which nothing ever waits to those at which hardly anything fits.
fn any_sizes() -> impl Strategy<Value = (RunnerSpec, EngineOptions)> {
    (1..7usize, 0..24usize, 1..24usize, 1..11usize, 1..10usize).prop_map(
        |(page_size, spare_pages, budget, max_num_seqs, max_chunk)| {
            let max_num_seqs = max_num_seqs.min(budget);
            // Room for the longest request alone: 19 tokens of prompt and 23 generated.
            let pages_alone = 42usize.div_ceil(page_size);
            let limits = BatchLimits {
                max_tokens: budget,
                max_seqs: max_num_seqs,
                max_logit_rows: max_num_seqs,
                max_blocks: 48usize.div_ceil(page_size),
            };
            let num_pages = pages_alone + spare_pages / page_size;
            let spec = RunnerSpec { limits, page_size, num_pages, max_seq_len: 42, ..spec() };
            (spec, EngineOptions { max_chunk: Some(max_chunk), ..EngineOptions::default() })
        },
    )
}

/// Runs all arrivals on one engine, checking it after each step. Returns each one's events and the preemptions.
fn run(spec: RunnerSpec, options: EngineOptions, arrivals: &[Arrival]) -> (Vec<Vec<Event>>, u64) {
    let tokenizer = tokenizer();
    let mut engine = Engine::new(FakeRunner::new(spec), options).expect("sizes that agree");
    let mut streams: Vec<Option<RequestStream>> = arrivals.iter().map(|_| None).collect();
    let mut events: Vec<Vec<Event>> = arrivals.iter().map(|_| Vec::new()).collect();
    for step in 0.. {
        assert!(step < TOO_MANY_STEPS, "the engine stands still");
        for (arrival, stream) in arrivals.iter().zip(&mut streams) {
            if arrival.arrives == step {
                let request = arrival.request.clone();
                let (seq, new) = sequence(spec, Some(&tokenizer), request).expect("a request that fits");
                engine.add(seq);
                *stream = Some(new);
            }
            if arrival.dropped == Some(step) {
                *stream = None;
            }
        }
        engine.step();
        assert_eq!(engine.check_integrity(), Ok(()), "after step {step}");
        for (stream, events) in streams.iter_mut().zip(&mut events) {
            events.extend(std::iter::from_fn(|| stream.as_mut()?.try_recv()));
        }
        let still_to_come = arrivals.iter().any(|arrival| arrival.arrives > step);
        if !still_to_come && engine.stats().running + engine.stats().waiting == 0 {
            break;
        }
    }
    assert_eq!(engine.stats().used_pages, 0, "pages are left behind");
    (events, engine.stats().preemptions)
}

/// The events of a request that runs alone, gathered. Without a stated length a pool may be the limit, as in the engine.
fn alone(spec: RunnerSpec, arrival: &Arrival) -> Completion {
    generate_alone(spec, Some(&tokenizer()), arrival.request.clone())
}

fn check_against_alone(spec: RunnerSpec, arrivals: &[Arrival], events: Vec<Vec<Event>>) {
    for (arrival, events) in arrivals.iter().zip(events) {
        let expect = alone(spec, arrival);
        if matches!(events.last(), Some(Event::Finished { .. })) {
            assert_eq!(Completion::collect(events), Ok(expect), "{arrival:?}");
            continue;
        }
        assert!(arrival.dropped.is_some(), "no ending: {arrival:?} {events:?}");
        let tokens = events.iter().map(|event| match event {
            Event::Token(token) => token.token_id,
            other => panic!("{other:?}"),
        });
        assert!(expect.token_ids.starts_with(&tokens.collect::<Vec<_>>()), "{arrival:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_sequence_equals_itself_alone(
        (spec, options) in any_sizes(),
        arrivals in prop::collection::vec(any_arrival(), 1..13),
    ) {
        let (events, _) = run(spec, options, &arrivals);
        check_against_alone(spec, &arrivals, events);
    }
}

/// Four sequences that each need over half of the pool in the end.
fn crowd() -> (RunnerSpec, Vec<Arrival>) {
    let spec = RunnerSpec { page_size: 2, num_pages: 16, max_seq_len: 64, ..spec() };
    let arrivals = (0..4u64).map(|seed| {
        let params = SamplingParams {
            repetition_penalty: 1.2,
            frequency_penalty: 0.3,
            presence_penalty: 0.3,
            seed,
            ignore_eos: true,
            max_tokens: Some(20),
            ..SamplingParams::default()
        };
        let prompt_token_ids = vec![1, 3 + seed as u32, 4];
        Arrival {
            request: Request { prompt_token_ids, params, ..Request::default() },
            arrives: 0,
            dropped: None,
        }
    });
    (spec, arrivals.collect())
}

#[test]
fn a_preemption_does_not_show_in_sampled_text() {
    let (spec, arrivals) = crowd();
    let (events, preemptions) = run(spec, EngineOptions::default(), &arrivals);
    assert!(preemptions >= 2, "the crowd was meant to be too large, but saw {preemptions} preemptions");
    let (roomy_events, none) = run(RunnerSpec { num_pages: 64, ..spec }, EngineOptions::default(), &arrivals);
    assert_eq!(none, 0);
    assert_eq!(events, roomy_events);
    check_against_alone(spec, &arrivals, events);
}

#[test]
fn sequences_end_in_the_order_of_arrival_when_they_are_alike() {
    let (spec, arrivals) = crowd();
    let tokenizer = tokenizer();
    let mut engine = Engine::new(FakeRunner::new(spec), EngineOptions::default()).expect("sizes that agree");
    let mut streams = Vec::new();
    for arrival in &arrivals {
        let (seq, stream) =
            sequence(spec, Some(&tokenizer), arrival.request.clone()).expect("a request that fits");
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
    let mut engine = Engine::new(FakeRunner::new(spec), EngineOptions::default()).expect("sizes that agree");
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
    let mut engine = Engine::new(FakeRunner::new(spec), EngineOptions::default()).expect("sizes that agree");
    let mut streams = Vec::new();
    for _ in 0..4 {
        let params = SamplingParams { max_tokens: Some(90), ..SamplingParams::default() };
        let request = Request { prompt_token_ids: vec![1; 5], params, ..Request::default() };
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
    let mut engine =
        Engine::new(FakeRunner::new(spec()), EngineOptions::default()).expect("sizes that agree");
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
        Engine::new(FakeRunner::failing(spec, receiver), EngineOptions::default()).expect("sizes that agree");
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
    failures.send(Some(RunError::new("device lost"))).expect("the runner listens");
    engine.step();
    assert_eq!((engine.stats().running, engine.stats().waiting, engine.stats().used_pages), (0, 1, 0));
    for _ in 0..5 {
        engine.step();
    }
    let third = streams.pop().expect("three streams").completion();
    assert_eq!(third, Ok(generate_alone(spec, None, requests[2].clone())));
    for stream in streams {
        let error = stream.completion().expect_err("the step failed");
        assert_eq!(error, EngineError::Run(RunError::new("device lost")));
        assert_eq!(error.to_string(), "step failed: device lost");
    }
}
