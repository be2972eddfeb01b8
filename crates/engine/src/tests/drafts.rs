//! Drafted tokens: they save steps where they are right, and show nowhere.

use model::{BatchLimits, RunnerSpec};

use crate::engine::Engine;
use crate::options::EngineOptions;
use crate::policies::{Drafter, Policies};
use crate::request::{Completion, Request};
use crate::sampling_params::SamplingParams;
use crate::testing::{FakeRunner, VOCAB_SIZE, generate_alone, sequence, spec};

/// Knows what will be generated, and is wrong from the token of this index on.
#[derive(Debug)]
struct Oracle {
    token_ids: Vec<u32>,
    wrong_from: usize,
    most: usize,
}

impl Drafter for Oracle {
    fn draft(&mut self, token_ids: &[u32], most: usize, drafts: &mut Vec<u32>) {
        let known = self.token_ids.iter().enumerate().skip(token_ids.len()).take(most.min(self.most));
        let wrong = |&token_id: &u32| (token_id + 1) % VOCAB_SIZE as u32;
        drafts.extend(known.map(|(i, id)| if i < self.wrong_from { *id } else { wrong(id) }));
    }
}

const PROMPT: [u32; 5] = [3, 5, 4, 3, 7];
const NUM_TOKENS: usize = 24;

fn request(temperature: f32) -> Request {
    let params = SamplingParams {
        temperature,
        repetition_penalty: 1.1,
        seed: 7,
        ignore_eos: true,
        max_tokens: Some(NUM_TOKENS),
        logprobs: (temperature > 0.0).then_some(2),
        ..SamplingParams::default()
    };
    Request { prompt_token_ids: PROMPT.to_vec(), params, ..Request::default() }
}

fn wide() -> RunnerSpec {
    RunnerSpec { limits: BatchLimits { max_logit_rows: 16, ..spec().limits }, ..spec() }
}

/// The prompt and all that is generated.
fn all_tokens(request: &Request) -> Vec<u32> {
    let alone = generate_alone(wide(), None, request.clone());
    PROMPT.into_iter().chain(alone.token_ids).collect()
}

/// Runs requests one after the other on one engine; what each got, and the steps that it took.
fn run(drafter: Oracle, requests: &[Request]) -> Vec<(Completion, u64)> {
    let options = EngineOptions::default();
    let policies = Policies { drafter: Box::new(drafter), ..Policies::default() };
    let mut engine = Engine::new(FakeRunner::new(wide()), options, policies).expect("sizes that agree");
    let one = |request: &Request| {
        let (seq, stream) = sequence(wide(), None, request.clone()).expect("a request that fits");
        let steps_before = engine.stats().steps;
        engine.add(seq);
        while engine.stats().running + engine.stats().waiting > 0 || engine.stats().steps == steps_before {
            engine.step();
            assert_eq!(engine.check_integrity(), Ok(()));
        }
        let stats = engine.stats();
        assert_eq!(stats.used_pages, 0);
        (stream.completion().expect("an ending"), stats.steps - steps_before)
    };
    requests.iter().map(one).collect()
}

#[test]
fn right_drafts_save_steps_and_wrong_ones_cost_none() {
    for temperature in [0.0, 1.0] {
        let request = request(temperature);
        let want = generate_alone(wide(), None, request.clone());
        let steps = |wrong_from, most| {
            let drafter = Oracle { token_ids: all_tokens(&request), wrong_from, most };
            let [(got, steps)] = run(drafter, std::slice::from_ref(&request)).try_into().expect("one");
            assert_eq!(got, want, "wrong from {wrong_from}, {most} drafts");
            steps
        };
        // The prompt's step yields a token, and so does every decode.
        let plain = NUM_TOKENS as u64;
        assert_eq!(steps(usize::MAX, 0), plain);
        assert_eq!(steps(0, 3), plain);
        // 23 tokens by four.
        assert_eq!(steps(usize::MAX, 3), 1 + 6);
        // Right for 9 tokens after the prompt's own.
        assert_eq!(steps(PROMPT.len() + 9, 3), 1 + 2 + 15);
    }
}

#[test]
fn generated_tokens_are_counted_once() {
    let request = request(0.0);
    let drafter = Oracle { token_ids: all_tokens(&request), wrong_from: PROMPT.len() + 6, most: 5 };
    let policies = Policies { drafter: Box::new(drafter), ..Policies::default() };
    let mut engine =
        Engine::new(FakeRunner::new(wide()), EngineOptions::default(), policies).expect("sizes that agree");
    let (seq, _stream) = sequence(wide(), None, request).expect("a request that fits");
    engine.add(seq);
    while engine.stats().finished_length == 0 {
        engine.step();
    }
    assert_eq!(engine.stats().generated_tokens, NUM_TOKENS as u64);
}

/// What a wrong draft left in the pages must not be found by a request that begins with it.
#[test]
fn only_accepted_tokens_are_findable() {
    let first = request(0.0);
    let tokens = all_tokens(&first);
    let wrong_from = PROMPT.len() + 2;
    // The tokens that the first request drafts and does not accept, as a prompt.
    let drafted = tokens
        .iter()
        .enumerate()
        .map(|(i, &id)| if i < wrong_from { id } else { (id + 1) % VOCAB_SIZE as u32 });
    let second = Request { prompt_token_ids: drafted.take(16).collect(), ..first.clone() };
    // And the tokens that were generated, whose pages are found.
    let third = Request { prompt_token_ids: tokens[..18].to_vec(), ..first.clone() };
    let want = [&first, &second, &third].map(|request| generate_alone(wide(), None, request.clone()));
    let drafter = Oracle { token_ids: tokens, wrong_from, most: 11 };
    let got = run(drafter, &[first, second, third]);
    let page_size = wide().page_size;
    let found = [0, wrong_from / page_size * page_size, 16];
    for (((got, _), want), found) in got.into_iter().zip(want).zip(found) {
        assert_eq!(got.usage.cached_tokens, found);
        assert_eq!((got.token_ids, got.reason), (want.token_ids, want.reason));
    }
}

/// A prompt of one token that a step has no room for is a decode in the next step, although it is still to be scored.
#[test]
fn drafts_wait_until_the_prompt_is_scored() {
    let params = SamplingParams { prompt_logprobs: Some(1), ..request(0.0).params };
    let short = |max_tokens| Request {
        prompt_token_ids: vec![PROMPT[0]],
        params: SamplingParams { max_tokens: Some(max_tokens), ..params.clone() },
        ..Request::default()
    };
    let requests = [request(0.0), short(1), short(NUM_TOKENS)];
    let want = requests.each_ref().map(|request| generate_alone(wide(), None, request.clone()));
    let drafter = Oracle { token_ids: all_tokens(&requests[0]), wrong_from: usize::MAX, most: 3 };
    let policies = Policies { drafter: Box::new(drafter), ..Policies::default() };
    // Of the first step, the long prompt takes two tokens.
    let options = EngineOptions { token_budget: Some(3), max_num_seqs: Some(3), ..EngineOptions::default() };
    let mut engine = Engine::new(FakeRunner::new(wide()), options, policies).expect("sizes that agree");
    let streams = requests.map(|request| {
        let (seq, stream) = sequence(wide(), None, request).expect("a request that fits");
        engine.add(seq);
        stream
    });
    engine.step();
    assert_eq!(engine.pending_prompts(), [(0, 3), (2, 1)]);
    while engine.stats().running > 0 {
        engine.step();
    }
    assert_eq!(streams.map(|stream| stream.completion().expect("an ending")), want);
}
