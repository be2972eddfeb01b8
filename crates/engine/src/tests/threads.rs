//! The engine on its own thread: many callers, shutdown, and the end of the thread itself.

use std::sync::mpsc;
use std::thread;

use model::{Batch, RunError, Runner, RunnerSpec, StepOutput};

use crate::engine::Engine;
use crate::error::EngineError;
use crate::events::TaggedSink;
use crate::handle::EngineHandle;
use crate::options::EngineOptions;
use crate::request::{Completion, Event, Request};
use crate::sampling_params::SamplingParams;
use crate::stats::EngineStats;
use crate::testing::{FakeRunner, generate_alone, spec, tokenizer};

fn start(runner: impl Runner) -> EngineHandle {
    Engine::start(runner, Some(tokenizer()), EngineOptions::default()).expect("sizes that agree")
}

fn request(seed: u64) -> Request {
    let params = SamplingParams { seed, max_tokens: Some(12), ..SamplingParams::default() };
    Request { prompt_token_ids: vec![1, 3, 4 + seed as u32 % 4], params, ..Request::default() }
}

/// A request that does not end by itself within a test.
fn long_request() -> Request {
    let params = SamplingParams { ignore_eos: true, max_tokens: None, ..SamplingParams::default() };
    Request { prompt_token_ids: vec![1], params, ..Request::default() }
}

/// Runs a step whenever the test says so.
struct SteppedRunner {
    runner: FakeRunner,
    steps: mpsc::Receiver<()>,
}

impl Runner for SteppedRunner {
    fn spec(&self) -> RunnerSpec {
        self.runner.spec()
    }

    fn run<'a>(&'a mut self, batch: &'a Batch) -> Result<StepOutput<'a>, RunError> {
        // Once the test no longer says anything, steps run freely.
        let _ = self.steps.recv();
        self.runner.run(batch)
    }
}

fn start_stepped() -> (EngineHandle, mpsc::Sender<()>) {
    let (sender, steps) = mpsc::channel();
    (start(SteppedRunner { runner: FakeRunner::new(spec()), steps }), sender)
}

#[test]
fn many_threads_share_an_engine() {
    let engine = start(FakeRunner::new(spec()));
    thread::scope(|scope| {
        for caller in 0..4 {
            let engine = engine.clone();
            scope.spawn(move || {
                for seed in caller * 8..caller * 8 + 8 {
                    let completion = engine.submit(request(seed)).and_then(|stream| stream.completion());
                    let expect = generate_alone(spec(), Some(&tokenizer()), request(seed));
                    assert_eq!(completion, Ok(expect), "seed {seed}");
                }
            });
        }
    });
    engine.shutdown();
    let EngineStats { running, waiting, used_pages, .. } = engine.stats();
    assert_eq!((running, waiting, used_pages), (0, 0, 0));
}

/// Tells the test how many sequences begin in each step.
struct CountingRunner {
    runner: FakeRunner,
    begun: mpsc::Sender<usize>,
}

impl Runner for CountingRunner {
    fn spec(&self) -> RunnerSpec {
        self.runner.spec()
    }

    fn run<'a>(&'a mut self, batch: &'a Batch) -> Result<StepOutput<'a>, RunError> {
        let _ = self.begun.send(batch.positions().iter().filter(|&&position| position == 0).count());
        self.runner.run(batch)
    }
}

#[test]
fn requests_submitted_together_begin_together_or_not_at_all() {
    let (begun, steps) = mpsc::channel();
    let engine = start(CountingRunner { runner: FakeRunner::new(spec()), begun });
    let (sender, events) = mpsc::channel();
    let sink = |tag| TaggedSink { tag, events: sender.clone(), closed: false };
    let refused = [(request(0), sink(0)), (Request::default(), sink(1))];
    assert_eq!(engine.submit_together(refused), Err(EngineError::EmptyPrompt));
    for _ in 0..20 {
        engine.submit_together((0..3).map(|tag| (request(tag), sink(tag)))).expect("requests that fit");
        for _ in 0..3 {
            while !matches!(events.recv(), Ok((_, Event::Finished { .. }))) {}
        }
    }
    engine.shutdown();
    assert!(events.try_recv().is_err(), "what was refused sends nothing");
    let begun: Vec<usize> = steps.try_iter().filter(|&begun| begun > 0).collect();
    assert_eq!(begun, [3; 20]);
}

#[test]
fn many_requests_share_a_channel() {
    let engine = start(FakeRunner::new(spec()));
    let (sender, receiver) = mpsc::channel();
    for tag in 0..20 {
        engine.submit_to(request(tag), tag, &sender).expect("a request that fits");
    }
    drop(sender);
    let mut events = vec![Vec::new(); 20];
    for (tag, event) in receiver {
        events[tag as usize].push(event);
    }
    for (tag, events) in (0..).zip(events) {
        let expect = generate_alone(spec(), Some(&tokenizer()), request(tag));
        assert_eq!(Completion::collect(events), Ok(expect), "tag {tag}");
    }
}

#[test]
fn a_refused_request_sends_nothing() {
    let engine = start(FakeRunner::new(spec()));
    let (sender, receiver) = mpsc::channel();
    let empty = Request { prompt_token_ids: Vec::new(), ..request(0) };
    assert_eq!(engine.submit_to(empty, 0, &sender), Err(EngineError::EmptyPrompt));
    engine.shutdown();
    assert_eq!(engine.submit_to(request(0), 0, &sender), Err(EngineError::Stopped));
    drop(sender);
    assert_eq!(receiver.recv(), Err(mpsc::RecvError));
}

#[test]
fn a_shutdown_ends_every_stream() {
    let (engine, steps) = start_stepped();
    let streams: Vec<_> =
        (0..6).map(|_| engine.submit(long_request()).expect("a request that fits")).collect();
    steps.send(()).expect("the engine runs");
    drop(steps);
    engine.shutdown();
    engine.shutdown();
    for stream in streams {
        // A sequence may have reached its length before the shutdown did.
        let events: Vec<Event> = stream.collect();
        let ended = |event: &&Event| !matches!(event, Event::Token(_));
        assert_eq!(events.iter().filter(ended).count(), 1);
        assert!(events.last().as_ref().is_some_and(ended));
    }
    assert_eq!(engine.submit(request(0)).err(), Some(EngineError::Stopped));
}

#[test]
fn dropping_the_last_handle_ends_every_stream() {
    let (engine, steps) = start_stepped();
    let clone = engine.clone();
    let stream = engine.submit(long_request()).expect("a request that fits");
    drop(engine);
    steps.send(()).expect("the engine runs");
    let mut stream = stream;
    assert!(matches!(stream.recv(), Some(Event::Token(_))));
    drop(steps);
    drop(clone);
    assert!(matches!(stream.last(), Some(Event::Error(EngineError::Stopped) | Event::Finished { .. })));
}

/// Breaks the contract of [`Runner::run`].
struct ShortRunner;

impl Runner for ShortRunner {
    fn spec(&self) -> RunnerSpec {
        spec()
    }

    fn run<'a>(&'a mut self, batch: &'a Batch) -> Result<StepOutput<'a>, RunError> {
        Ok(StepOutput::new(batch, &spec(), &[], &[], &[]))
    }
}

#[test]
fn a_panic_of_the_thread_leaves_nobody_waiting() {
    let engine = start(ShortRunner);
    let (sender, receiver) = mpsc::channel();
    engine.submit_to(request(0), 7, &sender).expect("a request that fits");
    assert_eq!(receiver.recv(), Ok((7, Event::Error(EngineError::Stopped))));
    engine.shutdown();
    assert_eq!(engine.submit(request(0)).err(), Some(EngineError::Stopped));
}
