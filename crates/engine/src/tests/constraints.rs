//! Constrained sequences: only permitted tokens, an ending where the grammar ends, and nothing of their neighbours.

use std::sync::Arc;

use crate::constraint::{Constraint, Grammar, SharedGrammar};
use crate::engine::Engine;
use crate::error::EngineError;
use crate::options::EngineOptions;
use crate::policies::Policies;
use crate::request::{Completion, FinishReason, Request};
use crate::sampling_params::SamplingParams;
use crate::testing::{FakeRunner, VOCAB_SIZE, generate_alone, id, sequence, spec, tokenizer};

/// A grammar of tokens: which may follow depends on all before them.
#[derive(Debug, Clone)]
pub struct Toy {
    pub seed: u64,
    /// Tokens before it sets in.
    pub num_free: usize,
    /// Tokens of a text, after which nothing may follow.
    pub len: usize,
}

impl Toy {
    pub fn shared(self) -> SharedGrammar {
        SharedGrammar(Arc::new(self))
    }

    fn allows(&self, so_far: &[u32], token_id: u32) -> bool {
        let hash = so_far.iter().chain([&token_id]).fold(self.seed | 1, |hash, &id| {
            (hash ^ u64::from(id)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
        });
        // One that always may follow, and a third of the others.
        token_id != id("</s>") && (token_id == id("é") || hash.is_multiple_of(3))
    }
}

impl Grammar for Toy {
    fn start(&self) -> Box<dyn Constraint> {
        Box::new(ToyText { grammar: self.clone(), token_ids: Vec::new() })
    }
}

struct ToyText {
    grammar: Toy,
    token_ids: Vec<u32>,
}

impl ToyText {
    fn is_finished(&self) -> bool {
        self.token_ids.len() == self.grammar.len
    }
}

impl Constraint for ToyText {
    fn is_free(&self) -> bool {
        self.token_ids.len() < self.grammar.num_free
    }

    fn mask(&mut self) -> Result<Vec<u32>, String> {
        let allows = |&token_id: &u32| !self.is_finished() && self.grammar.allows(&self.token_ids, token_id);
        Ok(vec![(0..VOCAB_SIZE as u32).filter(allows).fold(0, |word, token_id| word | 1 << token_id)])
    }

    fn may_end(&mut self) -> Result<bool, String> {
        Ok(self.is_finished())
    }

    fn commit(&mut self, token_id: u32) -> Result<(), String> {
        let may_follow = self.is_free() || self.grammar.allows(&self.token_ids, token_id);
        self.token_ids.push(token_id);
        if may_follow { Ok(()) } else { Err(format!("token {token_id} may not follow")) }
    }
}

const TOY: Toy = Toy { seed: 7, num_free: 0, len: 5 };

fn request(grammar: Toy, params: SamplingParams) -> Request {
    Request {
        prompt_token_ids: vec![id("a"), id("b")],
        params,
        grammar: Some(grammar.shared()),
        ..Request::default()
    }
}

fn generate(grammar: Toy, params: SamplingParams) -> Completion {
    generate_alone(spec(), Some(&tokenizer()), request(grammar, params))
}

fn sampled(seed: u64) -> SamplingParams {
    SamplingParams { seed, max_tokens: Some(12), ..SamplingParams::default() }
}

#[test]
fn only_permitted_tokens_come_and_the_end_where_the_grammar_ends() {
    let all =
        (0..20).map(sampled).chain([SamplingParams { max_tokens: Some(12), ..SamplingParams::greedy() }]);
    for params in all {
        let completion = generate(TOY, params);
        let (last, text) = completion.token_ids.split_last().unwrap();
        for (index, &token_id) in text.iter().enumerate() {
            assert!(TOY.allows(&text[..index], token_id), "{completion:?}");
        }
        assert_eq!((text.len(), *last, completion.reason), (5, id("</s>"), FinishReason::Stop));
    }
}

#[test]
fn a_length_cuts_it_short() {
    let completion = generate(TOY, SamplingParams { max_tokens: Some(3), ..sampled(1) });
    assert_eq!((completion.token_ids.len(), completion.reason), (3, FinishReason::Length));
}

#[test]
fn where_no_token_may_end_it_the_grammar_does() {
    let completion = generate(TOY, SamplingParams { ignore_eos: true, ..sampled(1) });
    assert_eq!((completion.token_ids.len(), completion.reason), (5, FinishReason::Stop));
    let with_stop = SamplingParams { ignore_eos: true, stop_token_ids: vec![id("b")], ..sampled(1) };
    let completion = generate(TOY, with_stop);
    assert_eq!((completion.token_ids.last(), completion.reason), (Some(&id("b")), FinishReason::Stop));
}

#[test]
fn a_least_length_does_not_outlast_the_grammar() {
    let completion = generate(TOY, SamplingParams { min_tokens: 9, ..sampled(1) });
    assert_eq!((completion.token_ids.len(), completion.reason), (6, FinishReason::Stop));
}

#[test]
fn a_lazy_grammar_leaves_the_beginning_alone() {
    let params = SamplingParams { max_tokens: Some(9), ignore_eos: true, ..SamplingParams::greedy() };
    let free = Request { grammar: None, ..request(TOY, params.clone()) };
    let free = generate_alone(spec(), Some(&tokenizer()), free);
    let lazy = generate(Toy { num_free: 4, len: 8, ..TOY }, params);
    assert_eq!(lazy.token_ids[..4], free.token_ids[..4]);
    let grammar = Toy { num_free: 4, len: 8, ..TOY };
    for index in 4..8 {
        assert!(grammar.allows(&lazy.token_ids[..index], lazy.token_ids[index]));
    }
}

/// A grammar that fails at its second mask.
#[derive(Debug)]
struct Failing(usize);

impl Grammar for Failing {
    fn start(&self) -> Box<dyn Constraint> {
        Box::new(Failing(0))
    }
}

impl Constraint for Failing {
    fn is_free(&self) -> bool {
        false
    }

    fn mask(&mut self) -> Result<Vec<u32>, String> {
        if self.0 == 0 { Ok(vec![1 << id("a")]) } else { Err("too complex".to_owned()) }
    }

    fn may_end(&mut self) -> Result<bool, String> {
        Ok(false)
    }

    fn commit(&mut self, _: u32) -> Result<(), String> {
        self.0 += 1;
        Ok(())
    }
}

#[test]
fn a_constraint_that_fails_ends_its_request() {
    let grammar = Some(SharedGrammar(Arc::new(Failing(0))));
    let request = Request { grammar, ..request(TOY, sampled(1)) };
    let mut engine =
        Engine::new(FakeRunner::new(spec()), EngineOptions::default(), Policies::default()).unwrap();
    let (seq, stream) = sequence(spec(), Some(&tokenizer()), request).unwrap();
    engine.add(seq);
    (0..4).for_each(|_| engine.step());
    assert_eq!(stream.completion(), Err(EngineError::Constraint("too complex".to_owned())));
}

#[test]
fn neighbours_do_not_show() {
    let requests: Vec<Request> = (0..64)
        .map(|seed| {
            let grammar = Toy { seed, num_free: seed as usize % 3, len: 4 + seed as usize % 9 };
            let temperature = if seed % 4 == 0 { 0.0 } else { 1.0 };
            Request {
                grammar: (seed % 8 != 7).then(|| grammar.shared()),
                ..request(TOY, SamplingParams { temperature, ..sampled(seed) })
            }
        })
        .collect();
    let handle = Engine::start(FakeRunner::new(spec()), Some(tokenizer()), EngineOptions::default()).unwrap();
    let streams: Vec<_> = requests.iter().map(|request| handle.submit(request.clone()).unwrap()).collect();
    for (request, stream) in requests.into_iter().zip(streams) {
        let found = stream.completion().unwrap();
        let alone = generate_alone(spec(), Some(&tokenizer()), request);
        assert_eq!((found.token_ids, found.text, found.reason), (alone.token_ids, alone.text, alone.reason));
    }
}
