//! Text, stop strings, stop tokens and lengths: what a sequence's events are for given tokens.

use crate::request::{Completion, FinishReason, Request};
use crate::sampling_params::SamplingParams;
use model::Output;

use crate::testing::{VOCAB_SIZE, generate_from, id, spec, tokenizer};

/// What comes of a model that wants to generate `script`, and `a` for ever after.
fn generate(script: &[&str], params: SamplingParams) -> Completion {
    let request = Request {
        prompt_token_ids: vec![id("<s>")],
        params: SamplingParams { temperature: 0.0, ..params },
        ..Request::default()
    };
    generate_from(spec(), Some(&tokenizer()), request, |token_ids| {
        let wanted = script.get(token_ids.len() - 1).unwrap_or(&"a");
        // The more of the script is left, the more a token is wanted next.
        let mut logits = vec![0.0; VOCAB_SIZE];
        logits[id("b") as usize] = 1.0;
        logits[id(wanted) as usize] = 2.0;
        logits
    })
}

fn check(script: &[&str], params: SamplingParams, expect: (&str, usize, FinishReason)) {
    let completion = generate(script, params.clone());
    let found = (completion.text.as_str(), completion.token_ids.len(), completion.reason);
    assert_eq!(found, expect, "{script:?} with {params:?}");
    assert_eq!(completion.usage.completion_tokens, completion.token_ids.len());
    assert_eq!(completion.usage.prompt_tokens, 1);
}

fn params() -> SamplingParams {
    SamplingParams { max_tokens: Some(6), ..SamplingParams::default() }
}

fn stop(stop: &[&str]) -> SamplingParams {
    SamplingParams { stop: stop.iter().map(|&stop| stop.to_owned()).collect(), ..params() }
}

#[test]
fn a_sequence_ends_at_its_length() {
    check(&[], params(), ("aaaaaa", 6, FinishReason::Length));
    check(&["▁a"], SamplingParams { max_tokens: Some(1), ..params() }, (" a", 1, FinishReason::Length));
    let whole_context = SamplingParams { max_tokens: None, ..params() };
    check(&[], whole_context, (&"a".repeat(127), 127, FinishReason::Length));
}

#[test]
fn a_sequence_ends_at_an_end_of_generation_token() {
    check(&["a", "</s>"], params(), ("a", 2, FinishReason::Stop));
    check(&["</s>"], SamplingParams { max_tokens: Some(1), ..params() }, ("", 1, FinishReason::Stop));
    let ignore_eos = SamplingParams { ignore_eos: true, ..params() };
    check(&["a", "</s>", "b"], ignore_eos, ("abaaa", 6, FinishReason::Length));
    let stop_token = SamplingParams { stop_token_ids: vec![id("ab")], ..params() };
    check(&["b", "ab"], stop_token, ("b", 2, FinishReason::Stop));
}

#[test]
fn a_stop_string_ends_the_text_before_it() {
    check(&["b", "STOP"], stop(&["STOP"]), ("b", 2, FinishReason::Stop));
    check(&["b", "ST", "OP"], stop(&["STOP"]), ("b", 3, FinishReason::Stop));
    check(&["b", "aSTOPb"], stop(&["STOP"]), ("ba", 2, FinishReason::Stop));
    check(&["b", "ST", "ab"], stop(&["STOP"]), ("bSTabaaa", 6, FinishReason::Length));
    check(&["<0xC3>", "<0xA9>"], stop(&["é"]), ("", 2, FinishReason::Stop));
    check(&["a", "</s>"], stop(&["a\n"]), ("a", 2, FinishReason::Stop));
    check(&["b", "b", "b", "b", "b", "ST"], stop(&["STOP"]), ("bbbbbST", 6, FinishReason::Length));
    check(&["b", "b", "b", "b", "b", "STOP"], stop(&["STOP"]), ("bbbbb", 6, FinishReason::Stop));
}

#[test]
fn characters_come_whole() {
    check(&["<0xE2>", "<0x82>", "<0xAC>", "</s>"], params(), ("\u{20ac}", 4, FinishReason::Stop));
    check(&["<0xE2>", "a", "</s>"], params(), ("\u{fffd}a", 3, FinishReason::Stop));
    check(&["b", "<0xE2>", "<0x82>", "</s>"], params(), ("b\u{fffd}", 4, FinishReason::Stop));
    let two = SamplingParams { max_tokens: Some(2), ..params() };
    check(&["b", "<0xE2>"], two, ("b\u{fffd}", 2, FinishReason::Length));
}

#[test]
fn nothing_ends_within_the_first_min_tokens() {
    let min = |min_tokens, params| SamplingParams { min_tokens, ..params };
    check(&["</s>", "</s>", "</s>"], min(2, params()), ("bb", 3, FinishReason::Stop));
    check(&["STOP", "STOP"], min(1, stop(&["STOP"])), ("STOP", 2, FinishReason::Stop));
    check(&["ST", "OP", "</s>"], min(1, stop(&["STOP"])), ("STOP", 3, FinishReason::Stop));
    let ignore_eos = SamplingParams { ignore_eos: true, ..min(2, params()) };
    check(&["</s>", "</s>"], ignore_eos, ("aaaa", 6, FinishReason::Length));
}

#[test]
fn a_token_says_its_share_of_the_text_and_no_more() {
    let script = ["a", "ST", "b", "<0xC3>", "<0xA9>", "</s>"];
    let request =
        Request { prompt_token_ids: vec![id("<s>")], params: stop(&["STOP"]), ..Request::default() };
    let request = Request { params: SamplingParams { temperature: 0.0, ..request.params }, ..request };
    let (mut seq, mut stream) =
        crate::testing::sequence(spec(), Some(&tokenizer()), request).expect("a request that fits");
    let mut sampler = crate::sampler::Sampler::default();
    for (token, expect) in script.iter().zip(["a", "", "STb", "", "é", ""]) {
        let mut logits = vec![0.0; VOCAB_SIZE];
        logits[id(token) as usize] = 1.0;
        seq.generate(Output::Logits(&logits), &mut sampler);
        let Some(crate::request::Event::Token(event)) = stream.try_recv() else { panic!("no token") };
        assert_eq!((event.token_id, event.text.as_str()), (id(token), expect));
    }
    assert!(seq.events.has_ended());
}
