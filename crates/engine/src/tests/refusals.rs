//! What is refused at submission or at the start, and in which words.

use model::{BatchLimits, RunnerSpec};

use crate::engine::Engine;
use crate::options::EngineOptions;
use crate::policies::Policies;
use crate::request::Request;
use crate::sampling_params::SamplingParams;
use crate::testing::{FakeRunner, sequence, spec, with_pages};

fn params() -> SamplingParams {
    SamplingParams { max_tokens: Some(4), ..SamplingParams::default() }
}

/// The message that refuses the request, each of whose `expect` must be in it.
fn check(spec: RunnerSpec, prompt_token_ids: Vec<u32>, params: SamplingParams, expect: &[&str]) {
    let request = Request { prompt_token_ids, params, ..Request::default() };
    let Err(error) = sequence(spec, None, request.clone()) else { panic!("{request:?} was not refused") };
    let message = error.to_string();
    assert!(expect.iter().all(|part| message.contains(part)), "{message:?} lacks some of {expect:?}");
}

#[test]
fn a_request_that_cannot_be_served_says_why() {
    check(spec(), vec![], params(), &["prompt_token_ids", "at least one", "none"]);
    check(spec(), vec![1, 19], params(), &["prompt_token_ids[1]", "token id 19", "less than 19"]);
    let bias = SamplingParams { logit_bias: vec![(3, 1.0), (20, 1.0)], ..params() };
    check(spec(), vec![1], bias, &["logit_bias[1]", "token id 20", "less than 19"]);
    let stop = SamplingParams { stop: vec!["x".into()], ..params() };
    check(spec(), vec![1], stop, &["stop", "no tokenizer", "hint: use stop_token_ids"]);
}

#[test]
fn a_request_that_cannot_fit_says_both_figures() {
    let ask = |max_tokens| SamplingParams { max_tokens: Some(max_tokens), ..params() };
    check(
        spec(),
        vec![1; 100],
        ask(29),
        &["prompt of 100 tokens", "max_tokens 29", "at most", "128", "found 129"],
    );
    check(
        spec(),
        vec![1; 128],
        SamplingParams { max_tokens: None, ..params() },
        &["prompt of 128", "128 tokens"],
    );
    check(spec(), vec![1], ask(usize::MAX), &["max_tokens 18446744073709551615", "context of 128"]);
    let small = with_pages(3);
    check(
        small,
        vec![1; 9],
        ask(4),
        &["prompt of 9 tokens", "max_tokens 4", "at most the 12 tokens", "found 13"],
    );
    check(
        small,
        vec![1; 12],
        SamplingParams { max_tokens: None, ..params() },
        &["prompt of 12", "12 tokens"],
    );
    let min = SamplingParams { max_tokens: None, min_tokens: 4, ..params() };
    check(small, vec![1; 9], min, &["max_tokens 4", "12 tokens"]);

    let fits = |spec, prompt, max_tokens| {
        let params = SamplingParams { max_tokens, ..params() };
        let request = Request { prompt_token_ids: vec![1; prompt], params, ..Request::default() };
        sequence(spec, None, request).map(|(seq, _)| seq.max_cached_tokens + 1 - prompt)
    };
    assert_eq!(fits(spec(), 100, Some(28)), Ok(28));
    assert_eq!(fits(spec(), 100, None), Ok(28));
    assert_eq!(fits(small, 9, Some(3)), Ok(3));
    assert_eq!(fits(small, 9, None), Ok(3));
}

#[test]
fn a_parameter_out_of_its_range_is_named() {
    let cases: [(SamplingParams, [&str; 3]); 13] = [
        (SamplingParams { temperature: -0.5, ..params() }, ["temperature", "at least 0", "-0.5"]),
        (SamplingParams { temperature: f32::NAN, ..params() }, ["temperature", "at least 0", "NaN"]),
        (SamplingParams { temperature: f32::INFINITY, ..params() }, ["temperature", "at least 0", "inf"]),
        (SamplingParams { top_p: 1.5, ..params() }, ["top_p", "0 to 1", "1.5"]),
        (SamplingParams { top_p: f32::NAN, ..params() }, ["top_p", "0 to 1", "NaN"]),
        (SamplingParams { min_p: -0.1, ..params() }, ["min_p", "0 to 1", "-0.1"]),
        (
            SamplingParams { repetition_penalty: 0.0, ..params() },
            ["repetition_penalty", "above 0", "found 0"],
        ),
        (SamplingParams { frequency_penalty: f32::NAN, ..params() }, ["frequency_penalty", "finite", "NaN"]),
        (
            SamplingParams { presence_penalty: f32::INFINITY, ..params() },
            ["presence_penalty", "finite", "inf"],
        ),
        (
            SamplingParams { logit_bias: vec![(7, f32::NAN)], ..params() },
            ["logit_bias", "finite", "NaN for token 7"],
        ),
        (
            SamplingParams { logit_bias: vec![(7, f32::INFINITY)], ..params() },
            ["logit_bias", "finite", "inf"],
        ),
        (
            SamplingParams { stop: vec!["a".into(), String::new()], ..params() },
            ["stop", "not empty", "index 1"],
        ),
        (SamplingParams { min_tokens: 5, ..params() }, ["min_tokens", "max_tokens, which is 4", "found 5"]),
    ];
    for (params, expect) in cases {
        check(spec(), vec![1], params, &expect);
    }
    assert_eq!(SamplingParams::default().validate(), Ok(()));
    assert_eq!(SamplingParams::greedy().validate(), Ok(()));
}

#[test]
fn options_that_the_runner_cannot_serve_are_refused() {
    let check = |spec, options, expect: &str| {
        let Err(error) = Engine::new(FakeRunner::new(spec), options, Policies::default()) else {
            panic!("{options:?} was not refused")
        };
        assert_eq!(error.to_string(), expect);
    };
    let default = EngineOptions::default();
    let limits = spec().limits;
    check(
        spec(),
        EngineOptions { max_num_seqs: Some(5), ..default },
        "max_num_seqs: expected 1 to 4, found 5",
    );
    check(
        spec(),
        EngineOptions { max_num_seqs: Some(0), ..default },
        "max_num_seqs: expected 1 to 4, found 0",
    );
    check(
        spec(),
        EngineOptions { token_budget: Some(17), ..default },
        "token_budget: expected 1 to 16, found 17",
    );
    check(spec(), EngineOptions { max_chunk: Some(0), ..default }, "max_chunk: expected at least 1, found 0");
    let narrow = EngineOptions { token_budget: Some(2), max_num_seqs: Some(3), ..default };
    check(spec(), narrow, "max_num_seqs: expected 1 to 2, found 3");
    let short = RunnerSpec { limits: BatchLimits { max_blocks: 8, ..limits }, ..spec() };
    check(short, default, "max_seq_len: expected 1 to 32, found 128");
    assert!(
        Engine::new(
            FakeRunner::new(spec()),
            EngineOptions { token_budget: Some(2), ..default },
            Policies::default()
        )
        .is_ok()
    );
}
