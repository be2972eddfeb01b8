//! Random requests to the engine: tokens, text, reason and log-probabilities are compared with those of an engine that has
//! one request at a time.

use std::sync::Arc;

use engine::{Engine, EngineOptions};
use model::{Backend, BatchLimits, ModelRunner, Runner};
use proptest::prelude::*;
use rustorch_llama::{
    Bos, Completion, Dry, EngineHandle, EngineStats, Mirostat, PrefixCache, Request, SamplingParams, Special,
    TokenLogprobs, Tokenizer, Xtc, demo,
};
use testkit::Rng;

use super::{Numerics, TestModel, for_random, runner, same_bits, test_model};

/// What must not show.
#[derive(Debug, Clone)]
pub struct Conditions {
    pub threads: usize,
    pub page_size: usize,
    pub max_num_seqs: usize,
    /// Beyond `max_num_seqs`.
    pub spare_budget: usize,
    pub max_chunk: usize,
    /// Pages beyond those that the longest request needs.
    pub spare_pages: usize,
    pub prefix_cache: PrefixCache,
    /// Of the order of submission.
    pub seed: u64,
}

impl Conditions {
    /// Room for everything at once.
    pub fn roomy() -> Self {
        Self {
            threads: 2,
            page_size: 16,
            max_num_seqs: 8,
            spare_budget: 64,
            max_chunk: 64,
            spare_pages: 100,
            prefix_cache: PrefixCache::Off,
            seed: 1,
        }
    }
}

pub fn conditions() -> impl Strategy<Value = Conditions> {
    let sizes = (1..=4usize, 1..=64usize, 1..=8usize, 0..=64usize, 1..=64usize, 0..=8usize);
    let prefix_cache = prop::sample::select(vec![PrefixCache::On, PrefixCache::Off]);
    (sizes, prefix_cache, any::<u64>()).prop_map(|(sizes, prefix_cache, seed)| {
        let (threads, page_size, max_num_seqs, spare_budget, max_chunk, spare_pages) = sizes;
        Conditions {
            threads,
            page_size,
            max_num_seqs,
            spare_budget,
            max_chunk,
            spare_pages,
            prefix_cache,
            seed,
        }
    })
}

/// Where prompts are cut from.
pub const STORY: &str = "Once upon a time, there was a little fox who loved to chase butterflies. One day, the fox saw a \
                     strange light behind the hill. \"What is that?\" asked his friend, a brave mouse. They took a \
                     lantern and went through the dark forest, step by step, until they came to the river.";

pub fn params() -> impl Strategy<Value = SamplingParams> {
    let temperature = prop_oneof![4 => Just(1.0f32), 1 => Just(0.0), 1 => Just(0.6)];
    let kept = (
        prop_oneof![Just(0), 2..60usize],
        prop_oneof![Just(1.0f32), Just(0.9)],
        prop_oneof![Just(0.0f32), Just(0.05)],
    );
    let penalties = (0.8..1.5f32, -0.5..1.0f32, -0.5..1.0f32);
    let ending =
        (1..40usize, any::<bool>(), 0..10usize, prop::sample::subsequence(vec![".", " the ", "said"], 0..3));
    let logit_bias = prop::collection::vec((0..2048u32, -3.0..3.0f32), 0..4);
    let logprobs = (prop::option::weighted(0.8, 0..4usize), prop::option::weighted(0.3, 0..4usize));
    let rules = (
        prop_oneof![Just(1.0f32), Just(0.8)],
        prop_oneof![Just(0.0f32), Just(1.5)],
        prop_oneof![Just(0.0f32), Just(0.5)],
        prop::option::weighted(0.3, Just(Mirostat::default())),
        prop_oneof![Just(0.0f32), Just(0.7)],
    );
    (temperature, kept, penalties, ending, logit_bias, logprobs, any::<u64>(), rules).prop_map(
        |(temperature, kept, penalties, ending, logit_bias, logprobs, seed, rules)| SamplingParams {
            typical_p: rules.0,
            top_n_sigma: rules.1,
            xtc: Xtc { probability: rules.2, ..Xtc::default() },
            mirostat: rules.3,
            dry: Dry { multiplier: rules.4, ..Dry::default() },
            temperature,
            top_k: kept.0,
            top_p: kept.1,
            min_p: kept.2,
            repetition_penalty: penalties.0,
            frequency_penalty: penalties.1,
            presence_penalty: penalties.2,
            seed,
            logit_bias,
            stop: ending.3.into_iter().map(str::to_owned).collect(),
            ignore_eos: ending.1,
            max_tokens: Some(ending.0),
            min_tokens: ending.2.min(ending.0),
            logprobs: logprobs.0,
            prompt_logprobs: logprobs.1,
            ..SamplingParams::default()
        },
    )
}

pub fn requests() -> impl Strategy<Value = Vec<Request>> {
    let story = tokenizer().encode(STORY, Special::Text, Bos::Add);
    let request = (0..40usize, 1..30usize, params()).prop_map(move |(start, len, params)| Request {
        prompt_token_ids: story[start..start + len].to_vec(),
        params,
        ..Request::default()
    });
    prop::collection::vec(request, 1..=8)
}

/// `n` requests that cannot end early: temperature 1, all penalties, 4 prompt tokens, 24 to generate.
pub fn fixed(n: u64) -> Vec<Request> {
    let story = tokenizer().encode(STORY, Special::Text, Bos::Add);
    let request = |seed| Request {
        prompt_token_ids: story[seed as usize..][..4].to_vec(),
        params: SamplingParams {
            repetition_penalty: 1.2,
            frequency_penalty: 0.3,
            presence_penalty: 0.2,
            seed,
            ignore_eos: true,
            max_tokens: Some(24),
            logprobs: Some(3),
            ..SamplingParams::default()
        },
        ..Request::default()
    };
    (0..n).map(request).collect()
}

pub fn tokenizer() -> Tokenizer {
    Tokenizer::from_gguf(&demo::gguf()).expect("the demo model's tokenizer")
}

/// Most tokens that a request can have in the cache.
fn most_tokens(request: &Request) -> usize {
    request.prompt_token_ids.len() + request.params.max_tokens.expect("every request here has a limit")
}

/// A runner with room for the longest request, and a little more.
pub fn request_runner<B: Backend>(
    backend: Arc<B>,
    model: &TestModel,
    numerics: Numerics,
    longest: usize,
    conditions: &Conditions,
) -> ModelRunner<B> {
    let Conditions { page_size, max_num_seqs, spare_budget, spare_pages, .. } = *conditions;
    let runner = runner(backend, &model.gguf, numerics, page_size, |config| BatchLimits {
        max_tokens: max_num_seqs + spare_budget,
        max_seqs: max_num_seqs,
        // Few rows beside one of each sequence, which bound the chunks of prompts that are scored.
        max_logit_rows: max_num_seqs + spare_budget / 4,
        max_blocks: config.pages_per_seq(),
        num_pages: longest.div_ceil(page_size) + spare_pages,
    });
    assert!(runner.spec().max_seq_len >= longest);
    runner
}

pub fn start(runner: impl Runner, conditions: &Conditions) -> EngineHandle {
    let Conditions { max_chunk, prefix_cache, .. } = *conditions;
    let options = EngineOptions { max_chunk: Some(max_chunk), prefix_cache, ..EngineOptions::default() };
    Engine::start(runner, Some(Arc::new(tokenizer())), options).expect("an engine")
}

fn longest(requests: &[Request]) -> usize {
    requests.iter().map(most_tokens).max().unwrap_or(1)
}

/// Each request by itself, its prompt in one chunk and nothing of it cached.
pub fn alone<B: Backend>(
    backend: Arc<B>,
    model: &TestModel,
    numerics: Numerics,
    requests: &[Request],
) -> Vec<Completion> {
    let conditions = Conditions { max_num_seqs: 1, ..Conditions::roomy() };
    let runner = request_runner(backend, model, numerics, longest(requests), &conditions);
    let engine = start(runner, &conditions);
    let run = |request: &Request| engine.submit(request.clone()).and_then(|stream| stream.completion());
    requests.iter().map(|request| run(request).expect("a completion")).collect()
}

/// Runs `requests` together and compares what each one got with `want`.
pub fn check<B: Backend>(
    backend: Arc<B>,
    model: &TestModel,
    numerics: Numerics,
    (requests, want): (&[Request], &[Completion]),
    conditions: &Conditions,
) -> Result<EngineStats, String> {
    let runner = request_runner(backend, model, numerics, longest(requests), conditions);
    let engine = start(runner, conditions);
    check_on(&engine, (requests, want), conditions.seed)
        .map_err(|difference| format!("{numerics:?}: {difference}"))?;
    engine.shutdown();
    Ok(engine.stats())
}

/// As [`check`], on an engine that may have run before; `seed` is that of the order of submission.
pub fn check_on(
    engine: &EngineHandle,
    (requests, want): (&[Request], &[Completion]),
    seed: u64,
) -> Result<(), String> {
    let mut order: Vec<usize> = (0..requests.len()).collect();
    Rng::new(seed).shuffle(&mut order);
    let submit = |&idx: &usize| (idx, engine.submit(requests[idx].clone()).expect("an admissible request"));
    let streams: Vec<_> = order.iter().map(submit).collect();
    for (idx, stream) in streams {
        let got = stream.completion().map_err(|error| error.to_string())?;
        same(&got, &want[idx]).map_err(|difference| format!("request {idx}: {difference}"))?;
    }
    Ok(())
}

fn same(got: &Completion, want: &Completion) -> Result<(), String> {
    if (&got.token_ids, &got.text, got.reason) != (&want.token_ids, &want.text, want.reason) {
        return Err(format!("{got:?}, not {want:?}"));
    }
    let ids = |logprobs: &TokenLogprobs| logprobs.top.iter().map(|&(id, _)| id).collect::<Vec<_>>();
    let values = |logprobs: &TokenLogprobs| {
        let top = logprobs.top.iter().map(|&(_, logprob)| logprob);
        std::iter::once(logprobs.logprob).chain(top).collect::<Vec<_>>()
    };
    let all = |completion: &Completion| -> Vec<TokenLogprobs> {
        let prompt = completion.prompt_logprobs.iter().flatten();
        prompt.chain(&completion.logprobs).cloned().collect()
    };
    let (got, want) = (all(got), all(want));
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
        if ids(got) != ids(want) {
            return Err(format!("most likely at token {i}: {:?}, not {:?}", ids(got), ids(want)));
        }
        same_bits(&values(got), &values(want))
            .map_err(|difference| format!("log-probabilities at token {i}: {difference}"))?;
    }
    Ok(())
}

#[test]
fn together_is_as_alone() {
    let model = test_model("demo");
    for numerics in Numerics::all() {
        let backend = |threads| numerics.cpu_backend(threads);
        for_random(2, (requests(), conditions()), |(requests, conditions)| {
            let want = alone(backend(1), &model, numerics, &requests);
            check(backend(conditions.threads), &model, numerics, (&requests, &want), &conditions).map(|_| ())
        });
    }
}

/// The pool has pages for one whole request and a little more, and every prompt fits beside the others: so the younger
/// requests lose their pages when the older ones grow.
#[test]
fn preempted_is_as_alone() {
    let (model, numerics) = (test_model("demo"), Numerics::usual());
    let backend = |threads| numerics.cpu_backend(threads);
    let requests = fixed(6);
    let want = alone(backend(1), &model, numerics, &requests);
    for (page_size, max_chunk, spare_pages) in [(1, 64, 4), (2, 3, 6), (4, 64, 1), (4, 2, 2), (5, 1, 3)] {
        for prefix_cache in [PrefixCache::On, PrefixCache::Off] {
            let sizes = Conditions { page_size, max_chunk, spare_pages, ..Conditions::roomy() };
            let conditions = Conditions { prefix_cache, ..sizes };
            let stats = check(backend(2), &model, numerics, (&requests, &want), &conditions).unwrap();
            assert!(stats.preemptions > 0, "{conditions:?}: {stats:?}");
        }
    }
}
