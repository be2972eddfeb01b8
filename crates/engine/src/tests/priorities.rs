//! Who goes first.

use model::{BatchLimits, RunnerSpec};

use crate::engine::Engine;
use crate::events::RequestStream;
use crate::options::EngineOptions;
use crate::policies::Policies;
use crate::request::{Client, ClientId, Event, Priority, Request};
use crate::sampling_params::SamplingParams;
use crate::testing::{FakeRunner, generate_alone, sequence, spec, with_pages};

use Priority::{Low, Normal};

/// An engine whose requests are told apart by the order in which they were added.
pub struct Bench {
    spec: RunnerSpec,
    pub engine: Engine<FakeRunner>,
    pub requests: Vec<(Request, RequestStream)>,
}

impl Bench {
    pub fn new(spec: RunnerSpec) -> Self {
        let engine = Engine::new(FakeRunner::new(spec), EngineOptions::default(), Policies::default())
            .expect("sizes that agree");
        Self { spec, engine, requests: Vec::new() }
    }

    fn add(&mut self, priority: Priority, prompt: usize, max_tokens: usize) {
        self.add_of(ClientId::default(), priority, prompt, max_tokens);
    }

    pub fn add_of(
        &mut self,
        client: impl Into<Client>,
        priority: Priority,
        prompt: usize,
        max_tokens: usize,
    ) {
        let seed = self.requests.len();
        let request = Request {
            prompt_token_ids: (0..prompt as u32).map(|i| (seed as u32 + i) % 19).collect(),
            params: SamplingParams {
                max_tokens: Some(max_tokens),
                seed: seed as u64,
                ..SamplingParams::default()
            },
            priority,
            client: client.into(),
            ..Request::default()
        };
        let (seq, stream) = sequence(self.spec, None, request.clone()).expect("a request that fits");
        self.engine.add(seq);
        self.requests.push((request, stream));
    }

    /// Runs a step and returns the requests that got a token.
    pub fn step(&mut self) -> Vec<usize> {
        self.engine.step();
        assert_eq!(self.engine.check_integrity(), Ok(()));
        let mut stepped = Vec::new();
        for (i, (_, stream)) in self.requests.iter_mut().enumerate() {
            let tokens = std::iter::from_fn(|| stream.try_recv()).filter(|e| matches!(e, Event::Token(_)));
            stepped.extend(tokens.map(|_| i));
        }
        stepped
    }
}

/// Room for two sequences, so that others wait.
fn narrow() -> RunnerSpec {
    RunnerSpec { limits: BatchLimits { max_seqs: 2, max_logit_rows: 2, ..spec().limits }, ..spec() }
}

#[test]
fn normal_requests_begin_first_and_each_kind_in_order() {
    let mut bench = Bench::new(narrow());
    for priority in [Low, Normal, Low, Normal, Normal] {
        bench.add(priority, 3, 2);
    }
    let steps: Vec<_> = (0..6).map(|_| bench.step()).collect();
    // The fifth has a place beside the first low one.
    let expect: [&[usize]; 6] = [&[1, 3], &[1, 3], &[0, 4], &[0, 4], &[2], &[2]];
    assert_eq!(steps, expect);
    assert_eq!(bench.engine.stats().preemptions, 0);
}

#[test]
fn a_normal_request_takes_the_place_of_the_youngest_low_one() {
    let mut bench = Bench::new(narrow());
    bench.add(Low, 3, 6);
    bench.add(Low, 3, 6);
    assert_eq!(bench.step(), [0, 1]);
    bench.add(Normal, 3, 2);
    let expect: [&[usize]; 3] = [&[0, 2], &[0, 2], &[0, 1]];
    assert_eq!([(); 3].map(|()| bench.step()), expect);
    assert_eq!(bench.engine.stats().preemptions, 1);
}

#[test]
fn a_normal_request_takes_the_pages_of_low_ones() {
    // 6 pages of 4 tokens: two low requests have two each.
    let mut bench = Bench::new(RunnerSpec { max_seq_len: 24, ..with_pages(6) });
    bench.add(Low, 6, 3);
    bench.add(Low, 6, 3);
    assert_eq!(bench.step(), [0, 1]);
    bench.add(Normal, 14, 2);
    // It needs four, so one low request has to go.
    let expect: [&[usize]; 3] = [&[0, 2], &[0, 2], &[1]];
    assert_eq!([(); 3].map(|()| bench.step()), expect);
    assert_eq!(bench.engine.stats().preemptions, 1);
}

#[test]
fn no_low_request_is_preempted_in_vain() {
    // A normal request has four of 7 pages, a low one two; another normal one that needs four must wait in any case.
    let mut bench = Bench::new(RunnerSpec { max_seq_len: 28, ..with_pages(7) });
    bench.add(Normal, 13, 3);
    bench.add(Low, 3, 5);
    let expect: [&[usize]; 1] = [&[0, 1]];
    assert_eq!([(); 1].map(|()| bench.step()), expect);
    bench.add(Normal, 14, 1);
    assert_eq!([(); 2].map(|()| bench.step()), [[0, 1], [0, 1]]);
    assert_eq!(bench.engine.stats().preemptions, 0);
    // When the first has ended, there is room for all.
    assert_eq!(bench.step(), [1, 2]);
}

#[test]
fn a_low_request_gives_way_to_a_growing_normal_one() {
    // 4 pages; both begin with one and grow.
    let mut bench = Bench::new(RunnerSpec { max_seq_len: 16, ..with_pages(4) });
    bench.add(Low, 2, 12);
    bench.add(Normal, 2, 12);
    let mut order = Vec::new();
    while bench.engine.stats().finished_length < 2 {
        order.extend(bench.step());
    }
    assert!(bench.engine.stats().preemptions > 0);
    let last = |wanted| order.iter().rposition(|&request| request == wanted);
    assert!(last(1) < last(0), "{order:?}");
    let requests: Vec<Request> = bench.requests.iter().map(|(request, _)| request.clone()).collect();
    // Twelve tokens each, and no more: what was preempted sampled nothing again.
    for (i, request) in requests.into_iter().enumerate() {
        let want = generate_alone(bench.spec, None, request).token_ids.len();
        assert_eq!(order.iter().filter(|&&request| request == i).count(), want);
    }
}

#[test]
fn clients_take_turns() {
    let mut bench = Bench::new(narrow());
    let (greedy, second, third) = (ClientId(1), ClientId(2), ClientId(3));
    for _ in 0..6 {
        bench.add_of(greedy, Normal, 3, 2);
    }
    let mut steps = vec![bench.step()];
    // Two requests of one client, and one of another, behind four that wait.
    bench.add_of(second, Normal, 3, 2);
    bench.add_of(second, Normal, 3, 2);
    bench.add_of(third, Normal, 3, 2);
    steps.extend((0..9).map(|_| bench.step()));
    // What was running runs on. Then one of each who has just come, and so on in turns; of one client, in order.
    let expect: [&[usize]; 10] =
        [&[0, 1], &[0, 1], &[6, 8], &[6, 8], &[2, 7], &[2, 7], &[3, 4], &[3, 4], &[5], &[5]];
    assert_eq!(steps, expect);
}

#[test]
fn a_client_that_comes_again_waits_for_its_turn() {
    let mut bench = Bench::new(narrow());
    let (first, second) = (ClientId(1), ClientId(2));
    for client in [first, first, first, second, first] {
        bench.add_of(client, Normal, 3, 3);
    }
    let mut steps = vec![bench.step()];
    bench.add_of(second, Normal, 3, 3);
    steps.extend((0..8).map(|_| bench.step()));
    let expect: [&[usize]; 9] =
        [&[0, 3], &[0, 3], &[0, 3], &[1, 5], &[1, 5], &[1, 5], &[2, 4], &[2, 4], &[2, 4]];
    assert_eq!(steps, expect);
}
