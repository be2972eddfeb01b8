//! Random requests that come and go, and what each must yield: what it yields alone.

use std::sync::mpsc;
use std::time::Duration;

use model::{BatchLimits, RunError, RunnerSpec};
use proptest::prelude::*;

use crate::choosing::Choosing;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::events::RequestStream;
use crate::options::EngineOptions;
use crate::pacing::Clock;
use crate::policies::{CacheRules, Drafter, Policies};
use crate::prefix_index::{PageName, PrefixCache, PrefixIndex};
use crate::request::{
    Client, ClientId, Completion, Embedding, EmbeddingRequest, Event, Pooling, Priority, Request, Usage,
    Weight,
};
use crate::sampling_params::SamplingParams;
use crate::stats::EngineStats;
use crate::testing::{
    FakeRunner, VOCAB_SIZE, embed_alone, embedding_sequence, generate_alone, sequence, spec, tokenizer,
};
use crate::tests::constraints::Toy;

/// No schedule of these sizes takes nearly so many steps, unless it stands still.
const TOO_MANY_STEPS: usize = 5_000;

/// What is asked, the step at which it arrives and that at which its stream is dropped.
#[derive(Debug, Clone)]
pub struct Arrival {
    pub work: Work,
    pub arrives: usize,
    pub dropped: Option<usize>,
}

#[derive(Debug, Clone)]
pub enum Work {
    Generate(Box<Request>),
    Embed(EmbeddingRequest),
}

/// Mistakes of the prefix cache that its tests must notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A page's name tells its own tokens only.
    IgnoresThePast,
    /// A page is findable from the moment that it is given to a sequence.
    FindableTooEarly,
    /// Pages of a step that failed are findable, as if it had run.
    SurvivesFailure,
}

impl CacheRules for Fault {
    fn name(&self, index: &PrefixIndex, before: Option<PageName>, token_ids: &[u32]) -> PageName {
        index.name(before.filter(|_| *self != Fault::IgnoresThePast), token_ids)
    }

    fn num_findable_pages(&self, num_cached_tokens: usize, num_tokens: usize, page_size: usize) -> usize {
        let is_early = *self == Fault::FindableTooEarly;
        if is_early { num_tokens / page_size } else { num_cached_tokens / page_size }
    }

    fn trusts_failed_steps(&self) -> bool {
        *self == Fault::SurvivesFailure
    }
}

/// Guesses tokens by a rule of the fake vocabulary: some guesses are right, most are wrong, and some are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guesses {
    /// As many as this are asked for, whatever is allowed.
    pub count: usize,
    /// Of the guesses.
    pub seed: u32,
}

impl Drafter for Guesses {
    fn draft(&mut self, token_ids: &[u32], _: usize, drafts: &mut Vec<u32>) {
        let next = |i: usize| (token_ids.len() as u32 + self.seed * i as u32) % VOCAB_SIZE as u32;
        drafts.extend((0..self.count).map(next));
    }
}

/// A clock by which no step takes as long as another.
#[derive(Debug, Default)]
struct Erratic {
    seed: u64,
    now: Duration,
}

impl Clock for Erratic {
    fn now(&mut self) -> Duration {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.now += Duration::from_micros(self.seed >> 50);
        self.now
    }
}

/// How an engine is run.
#[derive(Debug, Clone)]
pub struct Setting {
    pub spec: RunnerSpec,
    pub options: EngineOptions,
    /// Steps that fail.
    pub failures: Vec<usize>,
    pub fault: Option<Fault>,
    pub drafts: Option<Guesses>,
    /// Seeds a clock that goes as it likes.
    pub clock: Option<u64>,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// Of each arrival.
    pub events: Vec<Vec<Event>>,
    pub stats: EngineStats,
}

impl Arrival {
    /// At the first step, and wanted to its end.
    pub fn now(work: Work) -> Self {
        Self { work, arrives: 0, dropped: None }
    }
}

impl Setting {
    pub fn new(spec: RunnerSpec) -> Self {
        Self {
            spec,
            options: EngineOptions::default(),
            failures: Vec::new(),
            fault: None,
            drafts: None,
            clock: None,
        }
    }
}

fn any_params() -> impl Strategy<Value = SamplingParams> {
    let max_tokens = prop::option::weighted(0.9, prop_oneof![0..24usize, 18..24usize]);
    let logprobs = (0..2usize, prop::option::weighted(0.2, 0..3usize));
    let penalties = (prop::sample::select(vec![1.0f32, 1.3]), prop::sample::select(vec![0.0f32, 0.5]));
    (prop::bool::weighted(0.7), any::<u64>(), max_tokens, penalties, any::<bool>(), 0..4usize, logprobs)
        .prop_map(
            |(
                samples,
                seed,
                max_tokens,
                (repetition_penalty, penalty),
                stops,
                top_k,
                (logprobs, prompt_logprobs),
            )| {
                SamplingParams {
                    temperature: if samples { 1.0 } else { 0.0 },
                    top_k: top_k * 4,
                    top_p: [1.0, 0.8][seed as usize / 16 % 2],
                    min_p: [0.0, 0.05][seed as usize / 32 % 2],
                    repetition_penalty,
                    frequency_penalty: penalty,
                    presence_penalty: penalty,
                    seed,
                    stop: if stops { vec!["ba".into(), "STOPS".into()] } else { Vec::new() },
                    // Sequences that end late compete for pages longest.
                    ignore_eos: seed % 8 > 0,
                    max_tokens,
                    logprobs: logprobs.checked_sub(1),
                    prompt_logprobs,
                    ..SamplingParams::default()
                }
            },
        )
}

/// Short prompts, which let more sequences in than can stay; long ones; and such as begin alike.
fn any_prompt() -> impl Strategy<Value = Vec<u32>> {
    let token_ids = |len| prop::collection::vec(0..VOCAB_SIZE as u32, len);
    let stem = |(step, len, tail): (u32, usize, Vec<u32>)| {
        let stem = (0..len as u32).map(|i| (i * step + i / 5) % VOCAB_SIZE as u32);
        stem.chain(tail).collect()
    };
    let alike = (1..3u32, 0..17usize, token_ids(1..3)).prop_map(stem);
    prop_oneof![2 => token_ids(1..6), 1 => token_ids(6..20), 3 => alike]
}

fn any_work() -> impl Strategy<Value = Work> {
    let priority = prop::sample::select(vec![Priority::Normal, Priority::Normal, Priority::Low]);
    let pooling = prop::sample::select(vec![Pooling::Last, Pooling::Mean]);
    (any_prompt(), any_params(), priority, prop::option::weighted(0.2, pooling)).prop_map(
        |(prompt_token_ids, params, priority, pooling)| {
            let id = ClientId(params.seed / 8 % 3);
            let client = Client { id, weight: Weight::new(1 + id.0 as u16).expect("a small one") };
            match pooling {
                None => {
                    // Half of them are constrained, some from a later token on.
                    let (seed, num_free) = (params.seed, params.seed as usize / 2 % 4);
                    let grammar = Toy { seed, num_free, len: num_free + 12 };
                    let grammar = (seed % 2 == 0).then(|| grammar.shared());
                    Work::Generate(Box::new(Request { prompt_token_ids, params, grammar, priority, client }))
                }
                Some(pooling) => {
                    Work::Embed(EmbeddingRequest { prompt_token_ids, pooling, priority, client })
                }
            }
        },
    )
}

pub fn any_arrival() -> impl Strategy<Value = Arrival> {
    let dropped = prop::option::weighted(0.2, 0..30usize);
    (any_work(), 0..12usize, dropped).prop_map(|(work, arrives, after)| Arrival {
        work,
        arrives,
        dropped: after.map(|after| arrives + after),
    })
}

/// Sizes from those at which nothing ever waits to those at which hardly anything fits, and now and then a failed step.
pub fn any_setting() -> impl Strategy<Value = Setting> {
    let sizes = (1..7usize, 0..24usize, 1..24usize, 1..11usize, 1..10usize);
    let prefix_cache = prop::sample::select(vec![PrefixCache::On, PrefixCache::On, PrefixCache::Off]);
    let failures = prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(0..40usize, 1..3)];
    let guesses = (1..5usize, 0..4u32).prop_map(|(count, seed)| Guesses { count, seed });
    let drafts = (prop::option::of(guesses), 0..20usize, any::<bool>());
    let clock = prop::option::of(any::<u64>());
    (sizes, prefix_cache, failures, drafts, clock).prop_map(
        |(sizes, prefix_cache, failures, drafts, clock)| {
            let (drafts, rows, draws) = drafts;
            let (page_size, spare_pages, budget, max_num_seqs, max_chunk) = sizes;
            let max_num_seqs = max_num_seqs.min(budget);
            // Room for the longest request alone: 19 tokens of prompt and 23 generated.
            let pages_alone = 42usize.div_ceil(page_size);
            let num_pages = pages_alone + spare_pages / page_size;
            let limits = BatchLimits {
                num_pages,
                max_tokens: budget,
                max_seqs: max_num_seqs,
                max_logit_rows: max_num_seqs + rows,
                max_blocks: 48usize.div_ceil(page_size),
            };
            let spec = RunnerSpec { limits, page_size, max_seq_len: 42, draws, ..spec() };
            let options = EngineOptions {
                max_chunk: Some(max_chunk),
                itl_target: clock.map(|_| Duration::from_millis(20)),
                prefix_cache,
                ..EngineOptions::default()
            };
            Setting { spec, options, failures, fault: None, drafts, clock }
        },
    )
}

/// Runs all arrivals on one engine, checking it after each step.
pub fn run(setting: &Setting, arrivals: &[Arrival]) -> Outcome {
    let Setting { spec, options, failures, fault, drafts, clock } = setting;
    let (sender, receiver) = mpsc::channel();
    // Rows of the small vocabulary are worth threads.
    let mut policies = Policies { choosing: Choosing::new(3, 1), ..Policies::default() };
    if let Some(fault) = *fault {
        policies.cache_rules = Box::new(fault);
    }
    if let Some(guesses) = *drafts {
        policies.drafter = Box::new(guesses);
    }
    if let Some(seed) = *clock {
        policies.clock = Box::new(Erratic { seed, ..Erratic::default() });
    }
    let runner = FakeRunner::failing(*spec, receiver);
    let mut engine = Engine::new(runner, *options, policies).expect("sizes that agree");
    let mut streams: Vec<Option<RequestStream>> = arrivals.iter().map(|_| None).collect();
    let mut events: Vec<Vec<Event>> = arrivals.iter().map(|_| Vec::new()).collect();
    for step in 0.. {
        assert!(step < TOO_MANY_STEPS, "the engine stands still");
        for (arrival, stream) in arrivals.iter().zip(&mut streams) {
            if arrival.arrives == step {
                let (seq, new) = match arrival.work.clone() {
                    Work::Generate(request) => sequence(*spec, Some(&tokenizer()), *request),
                    Work::Embed(request) => embedding_sequence(*spec, request),
                }
                .expect("a request that fits");
                engine.add(seq);
                *stream = Some(new);
            }
            if arrival.dropped == Some(step) {
                *stream = None;
            }
        }
        if failures.contains(&step) {
            // Steps without work do not reach the runner: the next one that does fails.
            sender.send(Some(failure())).expect("the runner listens");
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
    let outcome = Outcome { events, stats: engine.stats() };
    check_stats(setting, arrivals, &outcome);
    outcome
}

pub fn failure() -> RunError {
    RunError::new("device lost")
}

fn check_stats(setting: &Setting, arrivals: &[Arrival], Outcome { events, stats }: &Outcome) {
    assert_eq!(stats.used_pages, 0, "pages are left behind");
    let ended = stats.finished_stop
        + stats.finished_length
        + stats.finished_embeddings
        + stats.failed
        + stats.cancelled;
    assert_eq!(ended, arrivals.len() as u64, "{stats:?}");
    let usages = events.iter().filter_map(|events| match events.last()? {
        Event::Finished { usage, .. } | Event::Embedding { usage, .. } => Some(usage.cached_tokens as u64),
        _ => None,
    });
    let reported: u64 = usages.sum();
    let found = [reported, stats.cached_prompt_tokens, stats.prefix_hit_tokens, stats.prefix_queried_tokens];
    assert!(found.is_sorted(), "{found:?}");
    if setting.options.prefix_cache == PrefixCache::Off {
        assert_eq!((stats.prefix_queried_tokens, stats.cached_pages), (0, 0));
    }
}

/// Compares every arrival's events with those of the request alone; says how the first that differs does.
pub fn compare_with_alone(
    setting: &Setting,
    arrivals: &[Arrival],
    events: Vec<Vec<Event>>,
) -> Result<(), String> {
    arrivals.iter().zip(events).try_for_each(|(arrival, mut events)| {
        let differs = |want: &dyn std::fmt::Debug, got: &[Event]| {
            Err(format!("{arrival:?} of {setting:?}: {got:?}, not {want:?}"))
        };
        if let Some(Event::Finished { usage, .. } | Event::Embedding { usage, .. }) = events.last_mut() {
            check_cached(setting, &arrival.work, *usage);
            usage.cached_tokens = 0;
        }
        let is_over = match events.last() {
            Some(Event::Finished { .. } | Event::Embedding { .. }) => true,
            Some(Event::Error(EngineError::Run(_))) => {
                assert!(!setting.failures.is_empty(), "no step was to fail");
                events.pop();
                false
            }
            _ => {
                assert!(arrival.dropped.is_some(), "no ending: {arrival:?} {events:?}");
                false
            }
        };
        match &arrival.work {
            Work::Embed(request) => {
                let want = embed_alone(setting.spec, request);
                let got = Embedding::collect(events.clone());
                if is_over && got != Ok(want.clone()) { differs(&want, &events) } else { Ok(()) }
            }
            Work::Generate(request) => {
                let want = generate_alone(setting.spec, Some(&tokenizer()), (**request).clone());
                let tokens: Vec<u32> = events.iter().filter_map(token_id).collect();
                let is_same = match is_over {
                    true => Completion::collect(events.clone()) == Ok(want.clone()),
                    false => want.token_ids.starts_with(&tokens),
                };
                if is_same { Ok(()) } else { differs(&want, &events) }
            }
        }
    })
}

fn token_id(event: &Event) -> Option<u32> {
    match event {
        Event::Token(token) => Some(token.token_id),
        _ => None,
    }
}

/// Whole pages are found, and never all of a prompt.
fn check_cached(setting: &Setting, work: &Work, usage: Usage) {
    let Usage { prompt_tokens, cached_tokens, .. } = usage;
    assert_eq!(cached_tokens % setting.spec.page_size, 0);
    assert!(cached_tokens < prompt_tokens, "{work:?}: {usage:?}");
    let needs_all = match work {
        Work::Embed(request) => request.pooling == Pooling::Mean,
        Work::Generate(request) => request.params.prompt_logprobs.is_some(),
    };
    if needs_all || setting.options.prefix_cache == PrefixCache::Off {
        assert_eq!(cached_tokens, 0, "{work:?}");
    }
}
