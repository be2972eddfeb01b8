//! A hit gives the bits of a miss: requests that begin alike, several times over, on an engine that remembers, against each
//! of them alone on one that does not. Embeddings likewise.

use cpu::CpuBackend;
use model::{Batch, ModelRunner, RunError, Runner, RunnerSpec, StepOutput};
use proptest::prelude::*;
use rustorch_llama::{
    Bos, Completion, Embedding, EmbeddingRequest, EngineHandle, EngineStats, Pooling, PrefixCache, Priority,
    Request, RequestStream, SamplingParams, Special,
};

use super::requests::{
    Conditions, STORY, alone, check_on, conditions, params, request_runner, start, tokenizer,
};
use super::{Numerics, TestModel, for_random, same_bits, test_model};

/// How often all requests run: cold, then warm, then warm with what the second round has left.
const NUM_ROUNDS: u64 = 3;
/// Prompt and generated tokens of any request here.
const LONGEST: usize = 110;

/// The first `len` tokens of the story, and then others.
fn prompt((len, rest): (usize, Vec<u32>)) -> Vec<u32> {
    let story = tokenizer().encode(STORY, Special::Text, Bos::Add);
    story[..len].iter().copied().chain(rest).collect()
}

fn prompts() -> impl Strategy<Value = Vec<u32>> {
    (0..60usize, prop::collection::vec(0..2048u32, 1..8)).prop_map(prompt)
}

fn requests() -> impl Strategy<Value = Vec<Request>> {
    let priority = prop::sample::select(vec![Priority::Normal, Priority::Low]);
    let request = (prompts(), params(), priority).prop_map(|(prompt_token_ids, params, priority)| Request {
        prompt_token_ids,
        params,
        priority,
        ..Request::default()
    });
    prop::collection::vec(request, 2..=6)
}

/// Runs `requests` in rounds on one engine that remembers.
fn check_warm(
    runner: impl Runner,
    (requests, want): (&[Request], &[Completion]),
    conditions: &Conditions,
) -> Result<EngineStats, String> {
    let engine = start(runner, conditions);
    for round in 0..NUM_ROUNDS {
        check_on(&engine, (requests, want), conditions.seed.wrapping_add(round))
            .map_err(|difference| format!("round {round}: {difference}"))?;
    }
    engine.shutdown();
    Ok(engine.stats())
}

#[test]
fn a_hit_is_as_a_miss() {
    let model = test_model("demo");
    let mut numerics = Numerics::all();
    // The usual ones more often: what is found does not depend on how it was computed.
    numerics.extend([Numerics::usual(); 6]);
    for numerics in numerics {
        for_random(1, (requests(), conditions()), |(requests, conditions)| {
            let conditions = Conditions { prefix_cache: PrefixCache::On, ..conditions };
            let want = alone(numerics.cpu_backend(1), &model, numerics, &requests);
            let backend = numerics.cpu_backend(conditions.threads);
            let runner = request_runner(backend, &model, numerics, LONGEST, &conditions);
            check_warm(runner, (&requests, &want), &conditions)
                .map(|_| ())
                .map_err(|difference| format!("{numerics:?}: {difference}"))
        });
    }
}

/// Eight requests that share half of their prompts, and end at their length.
fn alike() -> Vec<Request> {
    let request = |seed: u64| Request {
        prompt_token_ids: prompt((40 + seed as usize % 3, vec![100 + seed as u32, 7])),
        params: SamplingParams {
            seed,
            ignore_eos: true,
            max_tokens: Some(24),
            logprobs: Some(3),
            ..SamplingParams::default()
        },
        ..Request::default()
    };
    (0..8).map(request).collect()
}

/// The pool has pages for two requests and a little more, so that what is found and what is generated compete for them.
#[test]
fn a_hit_under_pressure_is_as_a_miss() {
    let (model, numerics) = (test_model("demo"), Numerics::usual());
    let requests = alike();
    let want = alone(numerics.cpu_backend(1), &model, numerics, &requests);
    for (page_size, max_chunk, spare_tokens) in [(1, 64, 70), (4, 5, 50), (8, 64, 48), (16, 16, 32)] {
        let conditions = Conditions {
            page_size,
            max_chunk,
            spare_pages: spare_tokens / page_size,
            prefix_cache: PrefixCache::On,
            ..Conditions::roomy()
        };
        let backend = numerics.cpu_backend(2);
        let runner = request_runner(backend, &model, numerics, LONGEST, &conditions);
        let stats = check_warm(runner, (&requests, &want), &conditions).unwrap();
        assert!(stats.preemptions > 0 && stats.prefix_hit_tokens > 0, "{conditions:?}: {stats:?}");
        assert!(stats.cached_prompt_tokens > 0, "{conditions:?}: {stats:?}");
    }
}

/// A runner for a cache that finds a wrong page: a prompt that goes on behind at least two found pages reads the second in
/// place of the first.
struct FindsWrongPage {
    runner: ModelRunner<CpuBackend>,
    batch: Batch,
    is_broken: bool,
}

impl Runner for FindsWrongPage {
    fn spec(&self) -> RunnerSpec {
        self.runner.spec()
    }

    fn run<'a>(&'a mut self, batch: &'a Batch) -> Result<StepOutput<'a>, RunError> {
        self.batch.clear();
        for (seq_idx, rows) in batch.cu_seqlens_q().windows(2).enumerate() {
            let rows = rows[0] as usize..rows[1] as usize;
            let start = batch.positions()[rows.start] as usize;
            let mut block_table = batch.block_table(seq_idx).to_vec();
            // In the conditions of the test prompts run in one chunk, so only one that has found pages begins so late.
            if self.is_broken && rows.len() > 1 && start >= 2 * batch.page_size() {
                block_table[0] = block_table[1];
            }
            self.batch.push(&batch.token_ids()[rows], start, &block_table, batch.wanted(seq_idx).0);
        }
        self.runner.run(&self.batch)
    }
}

#[test]
fn a_wrong_find_shows() {
    let (model, numerics) = (test_model("demo"), Numerics::usual());
    let requests = alike();
    let want = alone(numerics.cpu_backend(1), &model, numerics, &requests);
    let conditions = Conditions { page_size: 4, spare_budget: 400, max_chunk: 400, ..Conditions::roomy() };
    let check = |is_broken, prefix_cache| {
        let conditions = Conditions { prefix_cache, ..conditions.clone() };
        let runner = request_runner(numerics.cpu_backend(2), &model, numerics, LONGEST, &conditions);
        let spec = runner.spec();
        let batch = Batch::new(spec.limits, spec.page_size);
        check_warm(FindsWrongPage { runner, batch, is_broken }, (&requests, &want), &conditions)
    };
    // Nothing is broken where nothing is found.
    assert!(check(true, PrefixCache::Off).is_ok());
    assert!(check(false, PrefixCache::On).is_ok());
    let difference = check(true, PrefixCache::On).expect_err("a difference");
    assert!(difference.contains("request"), "{difference}");
}

/// Embeds all prompts in both ways, one after the other or all at once.
fn embed(engine: &EngineHandle, prompts: &[Vec<u32>], one_by_one: bool) -> Vec<Embedding> {
    let wait = |stream: RequestStream| stream.embedding().expect("an embedding");
    let mut streams = Vec::new();
    let mut done = Vec::new();
    for prompt_token_ids in prompts {
        for pooling in [Pooling::Last, Pooling::Mean] {
            let prompt_token_ids = prompt_token_ids.clone();
            let request =
                EmbeddingRequest { prompt_token_ids, pooling, priority: Priority::Low, ..Default::default() };
            streams.push(engine.embed(request).expect("a prompt that fits"));
            if one_by_one {
                done.extend(streams.drain(..).map(wait));
            }
        }
    }
    done.extend(streams.into_iter().map(wait));
    done
}

fn embed_alone(model: &TestModel, numerics: Numerics, prompts: &[Vec<u32>]) -> Vec<Embedding> {
    let conditions = Conditions { max_num_seqs: 1, spare_budget: 400, max_chunk: 400, ..Conditions::roomy() };
    let runner = request_runner(numerics.cpu_backend(1), model, numerics, LONGEST, &conditions);
    embed(&start(runner, &conditions), prompts, true)
}

#[test]
fn embeddings_together_are_as_alone() {
    let model = test_model("demo");
    for numerics in Numerics::all() {
        let values = (prop::collection::vec(prompts(), 1..6), requests(), conditions());
        for_random(1, values, |(prompts, requests, conditions)| {
            let want = embed_alone(&model, numerics, &prompts);
            let backend = numerics.cpu_backend(conditions.threads);
            let runner = request_runner(backend, &model, numerics, LONGEST, &conditions);
            let engine = start(runner, &conditions);
            for _ in 0..2 {
                // Something to share steps, pages and prefixes with. It is dropped, and so cancelled, when all are embedded.
                let submit = |request: Request| engine.submit(request).expect("an admissible request");
                let _beside: Vec<_> = requests.clone().into_iter().map(submit).collect();
                for (i, (got, want)) in embed(&engine, &prompts, false).iter().zip(&want).enumerate() {
                    same_bits(&got.values, &want.values)
                        .map_err(|difference| format!("{numerics:?}: embedding {i}: {difference}"))?;
                }
            }
            Ok(())
        });
    }
}
