//! Several engines behind one handle: what runs where never shows, not even when an engine fails.

use std::sync::mpsc;

use model::{Batch, RunError, Runner, RunnerSpec, StepOutput};
use proptest::prelude::*;

use crate::engine::Engine;
use crate::error::EngineError;
use crate::events::{EventSink, RequestStream, TaggedSink};
use crate::handle::EngineHandle;
use crate::options::EngineOptions;
use crate::request::{Client, ClientId, Completion, EmbeddingRequest, Event, Pooling, Priority, Request};
use crate::sampling_params::SamplingParams;
use crate::stats::EngineStats;
use crate::testing::{FakeRunner, embed_alone, generate_alone, spec, tokenizer, with_pages};

/// How a runner ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    Never,
    /// With an error, in this step and all that follow.
    Error(usize),
    Panic(usize),
}

/// A fake model that may fail, or wait for the test before each step.
struct ReplicaRunner {
    runner: FakeRunner,
    fault: Fault,
    num_steps: usize,
    /// Once the test drops the other end, steps run freely.
    steps: Option<mpsc::Receiver<()>>,
}

impl ReplicaRunner {
    fn new(spec: RunnerSpec, fault: Fault) -> Self {
        Self { runner: FakeRunner::new(spec), fault, num_steps: 0, steps: None }
    }

    fn stepped(steps: mpsc::Receiver<()>) -> Self {
        Self { steps: Some(steps), ..Self::new(spec(), Fault::Never) }
    }
}

impl Runner for ReplicaRunner {
    fn spec(&self) -> RunnerSpec {
        self.runner.spec()
    }

    fn run<'a>(&'a mut self, batch: &'a Batch) -> Result<StepOutput<'a>, RunError> {
        if let Some(steps) = &self.steps {
            let _ = steps.recv();
        }
        self.num_steps += 1;
        match self.fault {
            Fault::Error(step) if self.num_steps > step => Err(RunError::new("the device is lost")),
            Fault::Panic(step) if self.num_steps > step => panic!("the driver is lost"),
            _ => self.runner.run(batch),
        }
    }
}

fn start(runners: impl IntoIterator<Item = ReplicaRunner>) -> EngineHandle {
    let runners = runners.into_iter().enumerate().map(|(idx, runner)| (format!("device {idx}"), runner));
    Engine::start_replicas(runners, Some(tokenizer()), EngineOptions::default()).expect("sizes that agree")
}

fn start_with(spec: RunnerSpec, faults: &[Fault]) -> EngineHandle {
    start(faults.iter().map(|&fault| ReplicaRunner::new(spec, fault)))
}

fn request(seed: u64) -> Request {
    let params = SamplingParams {
        seed,
        max_tokens: Some(3 + seed as usize % 15),
        repetition_penalty: 1.2,
        prompt_logprobs: seed.is_multiple_of(5).then_some(1),
        ..SamplingParams::default()
    };
    let mut prompt_token_ids = vec![1, 3, 4];
    prompt_token_ids.extend((0..seed % 40).map(|i| 3 + (i % 4) as u32));
    let priority = if seed % 4 == 3 { Priority::Low } else { Priority::Normal };
    Request {
        prompt_token_ids,
        params,
        priority,
        client: Client::from(ClientId(seed % 3)),
        ..Request::default()
    }
}

/// What does not depend on who came before.
fn without_cached(mut completion: Completion) -> Completion {
    completion.usage.cached_tokens = 0;
    completion
}

fn alone(spec: RunnerSpec, request: Request) -> Completion {
    generate_alone(spec, Some(&tokenizer()), request)
}

fn complete(stream: RequestStream) -> Result<Completion, EngineError> {
    let events: Vec<Event> = stream.collect();
    let is_end = |event: &&Event| matches!(event, Event::Finished { .. } | Event::Error(_));
    assert_eq!(events.iter().filter(is_end).count(), 1, "one ending");
    Completion::collect(events).map(without_cached)
}

fn ended(stats: &EngineStats) -> u64 {
    stats.finished_stop + stats.finished_length + stats.finished_embeddings
}

fn any_fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        2 => Just(Fault::Never),
        2 => (0usize..30).prop_map(Fault::Error),
        1 => (0usize..30).prop_map(Fault::Panic),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// The first replica never fails; any others may.
    #[test]
    fn requests_get_what_one_engine_gives(
        faults in prop::collection::vec(any_fault(), 0..4),
        num_pages in 24usize..64,
        seeds in prop::collection::vec(0u64..200, 1..40),
    ) {
        let spec = with_pages(num_pages);
        let engine = start_with(spec, &[&[Fault::Never], &faults[..]].concat());
        let submit = |&seed| (seed, engine.submit(request(seed)).expect("a request that fits"));
        let embedding = |idx: usize| EmbeddingRequest {
            prompt_token_ids: (0..5 + idx as u32 % 30).map(|i| 3 + i % 4).collect(),
            pooling: if idx.is_multiple_of(2) { Pooling::Mean } else { Pooling::Last },
            ..EmbeddingRequest::default()
        };
        let streams: Vec<_> = seeds.iter().map(submit).collect();
        let embeddings: Vec<_> = (0..seeds.len() / 4).map(|idx| engine.embed(embedding(idx))).collect();
        for (seed, stream) in streams {
            prop_assert_eq!(complete(stream), Ok(alone(spec, request(seed))), "seed {}", seed);
        }
        for (idx, stream) in embeddings.into_iter().enumerate() {
            let found = stream.and_then(|stream| stream.embedding()).expect("an embedding");
            prop_assert_eq!(found.values, embed_alone(spec, &embedding(idx)).values);
        }
        engine.shutdown();
        let stats = engine.stats();
        prop_assert_eq!((stats.running, stats.waiting, stats.failed, stats.cancelled), (0, 0, 0, 0));
        prop_assert_eq!(ended(&stats), (seeds.len() + seeds.len() / 4) as u64);
    }
}

#[test]
fn the_work_is_shared_and_figures_are_summed() {
    let engine = start_with(spec(), &[Fault::Never; 2]);
    let (sender, events) = mpsc::channel();
    let sink = |tag| TaggedSink { tag, events: sender.clone(), closed: false };
    let like = |seed: u64| {
        let params = SamplingParams { seed, ignore_eos: true, ..request(0).params };
        Request { prompt_token_ids: vec![1, 3 + seed as u32], params, ..Request::default() }
    };
    engine.submit_together((0..8).map(|seed| (like(seed), sink(seed)))).expect("requests that fit");
    drop(sender);
    assert_eq!(events.iter().filter(|(_, event)| matches!(event, Event::Finished { .. })).count(), 8);
    engine.shutdown();
    let replicas = engine.replicas();
    assert_eq!(replicas.iter().map(|replica| ended(&replica.stats)).collect::<Vec<_>>(), [4, 4]);
    let [first, second] = [0, 1].map(|idx: usize| replicas[idx].stats);
    let sum = engine.stats();
    assert_eq!(sum.generated_tokens, first.generated_tokens + second.generated_tokens);
    assert_eq!((sum.max_num_seqs, sum.num_pages), (8, 128));
}

#[test]
fn an_idle_engine_is_given_what_waits_for_another() {
    let engine = start_with(spec(), &[Fault::Never; 3]);
    let (sender, events) = mpsc::channel();
    let sink = |tag| TaggedSink { tag, events: sender.clone(), closed: false };
    let same = |seed| Request { prompt_token_ids: vec![1, 3, 5], ..request(seed) };
    // They have the same prompt, so one engine gets all of them, and has four places.
    engine.submit_together((0..40).map(|seed| (same(seed), sink(seed)))).expect("requests that fit");
    drop(sender);
    let mut found = vec![Vec::new(); 40];
    events.iter().for_each(|(tag, event)| found[tag as usize].push(event));
    for (seed, events) in (0..).zip(found) {
        let completion = Completion::collect(events).map(without_cached);
        assert_eq!(completion, Ok(alone(spec(), same(seed))), "seed {seed}");
    }
    engine.shutdown();
    let ended: Vec<u64> = engine.replicas().iter().map(|replica| ended(&replica.stats)).collect();
    assert!(ended.iter().all(|&ended| ended > 0) && ended.iter().sum::<u64>() == 40, "{ended:?}");
}

#[test]
fn a_prompt_goes_where_its_beginning_is() {
    let (sender, steps) = mpsc::channel();
    let engine = start([ReplicaRunner::stepped(steps), ReplicaRunner::new(spec(), Fault::Never)]);
    let prompt = |first: u32, len| Request {
        prompt_token_ids: (0..len).map(|i| first + i % 5).collect(),
        params: SamplingParams { max_tokens: Some(2), ..SamplingParams::greedy() },
        ..Request::default()
    };
    let hits = || engine.replicas().into_iter().map(|replica| replica.stats.prefix_hit_tokens);
    // The first engine is kept busy, so the second gets the prompt, and the next with the same beginning when both are free.
    let other = engine.submit(prompt(3, 90)).expect("a request that fits");
    complete(engine.submit(prompt(4, 80)).expect("a request that fits")).expect("an ending");
    drop(sender);
    complete(other).expect("an ending");
    for len in [85, 90, 100] {
        complete(engine.submit(prompt(4, len)).expect("a request that fits")).expect("an ending");
    }
    engine.shutdown();
    let hits: Vec<u64> = hits().collect();
    assert!(hits[0] == 0 && hits[1] >= 3 * 80, "{hits:?}");
}

#[test]
fn a_failure_loses_nothing_and_sends_nothing_twice() {
    for fault in [Fault::Error(5), Fault::Panic(5)] {
        // The other engine waits until the first has failed, so it takes over what the first has begun.
        let (sender, steps) = mpsc::channel();
        let engine = start([ReplicaRunner::new(spec(), fault), ReplicaRunner::stepped(steps)]);
        let streams: Vec<_> = (0..30).map(|seed| engine.submit(request(seed))).collect();
        while engine.replicas()[0].is_running {
            std::thread::yield_now();
        }
        drop(sender);
        for (seed, stream) in (0..).zip(streams) {
            let completion = complete(stream.expect("a request that fits"));
            assert_eq!(completion, Ok(alone(spec(), request(seed))), "{fault:?}, seed {seed}");
        }
        engine.shutdown();
        let replicas = engine.replicas();
        let [failed, other] = [0, 1].map(|idx: usize| replicas[idx].clone());
        assert!(failed.stats.generated_tokens > 0, "the failed engine had begun");
        assert_eq!((failed.is_running, other.is_running), (false, true));
        assert_eq!(failed.device, "device 0");
        assert_eq!((failed.stats.max_num_seqs, engine.stats().max_num_seqs), (0, 4));
        assert_eq!(ended(&failed.stats) + ended(&other.stats), 30);
    }
}

#[test]
fn the_last_failure_is_an_error() {
    let engine = start_with(spec(), &[Fault::Error(3), Fault::Error(4), Fault::Error(2)]);
    let streams: Vec<_> = (0..20).map(|seed| engine.submit(request(seed))).collect();
    let completions = streams.into_iter().map(|stream| complete(stream.expect("a request that fits")));
    // Their steps that run suffice for a few requests only.
    let errors: Vec<String> =
        completions.filter_map(|completion| Some(completion.err()?.to_string())).collect();
    assert!(
        !errors.is_empty() && errors.iter().all(|error| error == "step failed: the device is lost"),
        "{errors:?}"
    );
    assert_eq!(engine.replicas().iter().filter(|replica| replica.is_running).count(), 1);
    engine.shutdown();
    assert_eq!(engine.stats().failed, errors.len() as u64);
    assert_eq!(engine.submit(request(0)).err(), Some(EngineError::Stopped));
}

#[test]
fn after_the_last_panic_nobody_waits() {
    let engine = start_with(spec(), &[Fault::Panic(0), Fault::Panic(0)]);
    for seed in 0..20 {
        match engine.submit(request(seed)) {
            Ok(stream) => assert_eq!(complete(stream), Err(EngineError::Stopped)),
            Err(error) => assert_eq!(error, EngineError::Stopped),
        }
    }
    engine.shutdown();
}

#[test]
fn replicas_have_the_same_model() {
    let other = RunnerSpec { vocab_size: spec().vocab_size + 1, ..spec() };
    let runners = [spec(), other].map(|spec| (String::new(), FakeRunner::new(spec)));
    let error =
        Engine::start_replicas(runners, None, EngineOptions::default()).expect_err("another vocabulary");
    assert_eq!(error.to_string(), "vocab_size: expected 19, as the first runner has, found 20");
    let none: [(String, FakeRunner); 0] = [];
    let error = Engine::start_replicas(none, None, EngineOptions::default()).expect_err("no runner");
    assert_eq!(error.to_string(), "runners: expected 1 to 64, found 0");
    // Of pages, each request must fit those of any.
    let runners = [with_pages(20), with_pages(8)].map(|spec| (String::new(), FakeRunner::new(spec)));
    let engine = Engine::start_replicas(runners, None, EngineOptions::default()).expect("runners that agree");
    assert_eq!(engine.max_seq_tokens(), 32);
}

/// Panics at its first event.
struct PanickingSink {
    has_panicked: bool,
    events: mpsc::Sender<Event>,
}

impl EventSink for PanickingSink {
    fn send(&mut self, event: Event) {
        if !self.has_panicked {
            self.has_panicked = true;
            panic!("a sink that panics");
        }
        let _ = self.events.send(event);
    }

    fn is_closed(&self) -> bool {
        false
    }
}

/// What an engine had in hand may be half changed then, so it ends; all else goes on elsewhere.
#[test]
fn a_panic_beside_the_runner_ends_what_runs_there() {
    let engine = start_with(spec(), &[Fault::Never; 2]);
    let (sender, events) = mpsc::channel();
    let sink = PanickingSink { has_panicked: false, events: sender };
    engine
        .submit_with(Request { priority: Priority::Normal, ..request(1) }, sink)
        .expect("a request that fits");
    assert_eq!(events.iter().collect::<Vec<_>>(), [Event::Error(EngineError::Stopped)]);
    for seed in 0..20 {
        let completion = complete(engine.submit(request(seed)).expect("a request that fits"));
        assert_eq!(completion, Ok(alone(spec(), request(seed))), "seed {seed}");
    }
    assert_eq!(engine.replicas().iter().filter(|replica| replica.is_running).count(), 1);
    engine.shutdown();
}
