//! "Don't repeat yourself": a penalty on tokens that would continue a repetition.
//!
//! If the text ends with the same n tokens as an earlier part of it, the token that followed there loses
//! `multiplier * base^(n - allowed_length)` of its logit; of several such parts the longest counts. The definition is that of
//! the sampler's author (<https://github.com/oobabooga/text-generation-webui/pull/5677>). No repetition reaches over a
//! sequence breaker, which, as in llama.cpp, is found in the text, however it is cut into tokens, and is itself not penalised.

use std::collections::HashMap;
use std::sync::Arc;

use tokenizer::Tokenizer;

use crate::sampling_params::Dry;
use crate::strings::Strings;

/// What the penalty remembers of a sequence.
#[derive(Debug, Clone)]
pub(crate) struct DryState {
    params: Dry,
    token_ids: Vec<u32>,
    /// None without a tokenizer: then nothing is a breaker.
    breakers: Option<Breakers>,
    /// Tokens after the last breaker.
    num_unbroken: usize,
    lengths: Vec<usize>,
}

#[derive(Debug, Clone)]
struct Breakers {
    tokenizer: Arc<Tokenizer>,
    strings: Strings,
    state: usize,
}

impl DryState {
    /// For the tokens of a prompt.
    pub fn new(params: &Dry, prompt_token_ids: &[u32], tokenizer: Option<&Arc<Tokenizer>>) -> Self {
        let breakers = tokenizer.map(|tokenizer| Breakers {
            tokenizer: Arc::clone(tokenizer),
            strings: Strings::new(params.sequence_breakers.clone()),
            state: Strings::START,
        });
        let (token_ids, lengths) = (Vec::with_capacity(prompt_token_ids.len()), Vec::new());
        let mut state = Self { params: params.clone(), token_ids, breakers, num_unbroken: 0, lengths };
        prompt_token_ids.iter().for_each(|&token_id| state.push(token_id));
        state
    }

    /// Takes the next token.
    pub fn push(&mut self, token_id: u32) {
        self.token_ids.push(token_id);
        let breaks = self.breakers.as_mut().is_some_and(|breakers| breakers.push(token_id));
        self.num_unbroken = if breaks { 0 } else { self.num_unbroken + 1 };
    }

    /// Lowers the scores of tokens that would continue a repetition.
    pub fn penalise(&mut self, scores: &mut [f32]) {
        let Dry { multiplier, base, allowed_length, penalty_last_n, .. } = self.params;
        let window = penalty_last_n.unwrap_or(usize::MAX).min(self.token_ids.len());
        if multiplier == 0.0 || self.num_unbroken < allowed_length || window == 0 {
            return;
        }
        let tokens = &self.token_ids[self.token_ids.len() - window..];
        common_ends(tokens, &mut self.lengths);
        let mut repeated: HashMap<u32, usize> = HashMap::new();
        for (&token_id, &length) in tokens[1..].iter().zip(&self.lengths) {
            let longest = repeated.entry(token_id).or_default();
            *longest = length.min(self.num_unbroken).max(*longest);
        }
        // The order of a hash map's entries is arbitrary, but each concerns a token of its own.
        repeated.retain(|_, length| *length >= allowed_length);
        for (token_id, length) in repeated {
            if self.breakers.as_mut().is_some_and(|breakers| breakers.has(token_id)) {
                continue;
            }
            let penalty =
                f64::from(multiplier) * libm::pow(f64::from(base), (length - allowed_length) as f64);
            let score = &mut scores[token_id as usize];
            if score.is_finite() {
                *score = (f64::from(*score) - penalty).max(f64::from(f32::MIN)) as f32;
            }
        }
    }
}

impl Breakers {
    /// Whether the text that this token goes on with has a breaker that ends in it.
    fn push(&mut self, token_id: u32) -> bool {
        let mut breaks = false;
        for &byte in self.tokenizer.token_bytes(token_id) {
            self.state = self.strings.step(self.state, byte);
            breaks |= self.strings.found(self.state).is_some();
        }
        breaks
    }

    /// Whether a token alone has a breaker.
    fn has(&mut self, token_id: u32) -> bool {
        let state = std::mem::replace(&mut self.state, Strings::START);
        let has = self.push(token_id);
        self.state = state;
        has
    }
}

/// For each token but the last, how many tokens up to it equal as many at the end of all: the Z function of the tokens in
/// reverse order.
fn common_ends(tokens: &[u32], lengths: &mut Vec<usize>) {
    let num_tokens = tokens.len();
    let reversed = |i: usize| tokens[num_tokens - 1 - i];
    lengths.clear();
    lengths.resize(num_tokens, num_tokens);
    // A part that equals the beginning, and ends last of those found.
    let (mut start, mut end) = (0, 0);
    for i in 1..num_tokens {
        let mut length = if i < end { (end - i).min(lengths[i - start]) } else { 0 };
        while i + length < num_tokens && reversed(length) == reversed(i + length) {
            length += 1;
        }
        if i + length > end {
            (start, end) = (i, i + length);
        }
        lengths[i] = length;
    }
    lengths.reverse();
    lengths.pop();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{VOCAB_SIZE, id, tokenizer};

    fn penalised(params: &Dry, token_ids: &[u32]) -> Vec<f32> {
        let mut scores = vec![0.0; VOCAB_SIZE];
        DryState::new(params, token_ids, Some(&tokenizer())).penalise(&mut scores);
        scores
    }

    /// The definition, with a search of its own for every part of the text.
    fn by_definition(params: &Dry, token_ids: &[u32], breakers: &[u32]) -> Vec<f64> {
        let window = params.penalty_last_n.unwrap_or(usize::MAX).min(token_ids.len());
        let tokens = &token_ids[token_ids.len() - window..];
        let longest = token_ids.iter().rev().take_while(|token| !breakers.contains(token)).count();
        let mut scores = vec![0.0f64; VOCAB_SIZE];
        for next in 1..tokens.len() {
            let lengths = (0..=next.min(longest)).rev();
            let equal = |&length: &usize| tokens[..next].ends_with(&tokens[tokens.len() - length..]);
            let length = lengths.into_iter().find(equal).unwrap_or(0);
            if length >= params.allowed_length && !breakers.contains(&tokens[next]) {
                let power = f64::from(params.base).powi((length - params.allowed_length) as i32);
                let score = &mut scores[tokens[next] as usize];
                *score = score.min(-f64::from(params.multiplier) * power);
            }
        }
        scores
    }

    proptest! {
        #[test]
        fn penalties_follow_the_definition(
            script in prop::collection::vec(0..4usize, 0..60),
            multiplier in 0.1f32..2.0,
            base in 1.0f32..3.0,
            allowed_length in 0..4usize,
            penalty_last_n in prop::option::of(0..40usize),
        ) {
            let tokens: Vec<u32> = script.into_iter().map(|i| ["a", "b", "é", "<0x0A>"].map(id)[i]).collect();
            let sequence_breakers = vec!["\n".to_owned()];
            let params = Dry { multiplier, base, allowed_length, penalty_last_n, sequence_breakers };
            let expect = by_definition(&params, &tokens, &[id("<0x0A>")]);
            for (found, expect) in penalised(&params, &tokens).into_iter().zip(expect) {
                prop_assert!((f64::from(found) - expect).abs() <= 1e-5 * expect.abs(), "{found}, not {expect}");
            }
        }
    }

    #[test]
    fn breakers_are_found_in_the_text() {
        let params = Dry { multiplier: 1.0, sequence_breakers: vec!["STOP".to_owned()], ..Dry::default() };
        let ids = |tokens: &[&str]| tokens.iter().map(|token| id(token)).collect::<Vec<_>>();
        let is_penalised = |tokens: &[&str]| penalised(&params, &ids(tokens))[id("b") as usize] < 0.0;
        assert!(is_penalised(&["a", "é", "b", "a", "é"]));
        for breaker in [&["STOP"][..], &["ST", "OP"], &["aSTOPb"]] {
            let part = [&["a"], breaker, &["é", "b"]].concat();
            assert!(!is_penalised(&[&part[..], &part[..part.len() - 1]].concat()), "{breaker:?}");
        }
        assert!(is_penalised(&["ST", "é", "b", "ST", "é"]));
    }

    #[test]
    fn a_long_repetition_forbids_nothing() {
        let params = Dry { multiplier: 1.0, ..Dry::default() };
        let scores = penalised(&params, &vec![id("a"); 5000]);
        assert_eq!(scores[id("a") as usize], f32::MIN);
    }
}
