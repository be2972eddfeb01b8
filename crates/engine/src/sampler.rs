//! From a row of logits to a token.
//!
//! The token depends on the row and on the sequence's own [`SamplingState`], never on what else is in the step. Nothing
//! here sorts a whole vocabulary: `top_k` selects, and `top_p` sorts only as far as its sum reaches. Equal logits are
//! ordered by token id, so that every selection has one answer.

use std::cmp::Ordering;
use std::collections::HashMap;

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use crate::request::TokenLogprobs;
use crate::sampling_params::SamplingParams;

/// Tokens that `top_p` sorts first; where they are not enough, four times as many, and so on.
const FIRST_SORTED: usize = 64;

/// What sampling remembers of a sequence. It stays with the sequence when its pages are taken away.
#[derive(Debug, Clone)]
pub(crate) struct SamplingState {
    rng: Xoshiro256PlusPlus,
    /// How often each token that occurs was generated; 0 for one that is in the prompt only. Kept if penalties ask for it.
    num_generated: Option<HashMap<u32, u32>>,
}

impl SamplingState {
    pub fn new(params: &SamplingParams, prompt_token_ids: &[u32]) -> Self {
        Self {
            rng: Xoshiro256PlusPlus::seed_from_u64(params.seed),
            num_generated: params
                .has_penalties()
                .then(|| prompt_token_ids.iter().map(|&token_id| (token_id, 0)).collect()),
        }
    }

    /// Takes note of a generated token.
    pub fn count(&mut self, token_id: u32) {
        if let Some(num_generated) = &mut self.num_generated {
            *num_generated.entry(token_id).or_default() += 1;
        }
    }

    /// Uniform in `[0, 1)`, from the upper 53 bits of one draw.
    fn draw(&mut self) -> f64 {
        (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Scratch for rows of one vocabulary size; holds nothing from one row to the next.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    scores: Vec<f32>, // [vocab_size]
    candidates: Vec<Candidate>,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    token_id: u32,
    score: f32,
    /// Probability, times the same unknown for all candidates; 1 for the most likely one.
    weight: f32,
}

impl Candidate {
    /// Most likely first, equal ones by ascending id.
    fn order(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.token_id.cmp(&other.token_id))
    }
}

impl Sampler {
    /// Chooses the token that follows, none of `forbidden`. `None` if no token has a finite logit.
    pub fn sample(
        &mut self,
        logits: &[f32], // [vocab_size]
        params: &SamplingParams,
        state: &mut SamplingState,
        forbidden: &[u32],
    ) -> Option<u32> {
        self.scores.clear();
        self.scores.extend(logits.iter().map(|&logit| sanitise(logit)));
        adjust(&mut self.scores, params, state, forbidden);
        if params.temperature == 0.0 {
            return argmax(&self.scores);
        }
        self.select_candidates(params.top_k);
        self.weigh_candidates(params.temperature)?;
        if params.top_p < 1.0 {
            self.keep_nucleus(params.top_p);
        }
        if params.min_p > 0.0 {
            self.candidates.retain(|candidate| candidate.weight >= params.min_p);
        }
        Some(pick(&self.candidates, state.draw()))
    }

    /// Log-probabilities by the model alone: of `token_id` and of the `num_top` most likely tokens.
    pub fn logprobs(&mut self, logits: &[f32], token_id: u32, num_top: usize) -> TokenLogprobs {
        self.scores.clear();
        self.scores.extend(logits.iter().map(|&logit| sanitise(logit)));
        let max = self.scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = self.scores.iter().map(|&score| f64::from(score - max).exp()).sum();
        let log_sum = sum.ln();
        let logprob = |score: f32| (f64::from(score - max) - log_sum) as f32;
        let of_token = logprob(self.scores[token_id as usize]);
        if num_top == 0 {
            return TokenLogprobs { logprob: of_token, top: Vec::new() };
        }
        self.select_candidates(num_top);
        self.candidates.sort_unstable_by(Candidate::order);
        let top = self.candidates.iter().map(|c| (c.token_id, logprob(c.score))).collect();
        TokenLogprobs { logprob: of_token, top }
    }

    /// Makes candidates of the `top_k` highest scores, or of all that are possible if it is 0.
    fn select_candidates(&mut self, top_k: usize) {
        let possible = (0..).zip(&self.scores).filter(|&(_, &score)| score > f32::NEG_INFINITY);
        self.candidates.clear();
        self.candidates.extend(possible.map(|(token_id, &score)| Candidate { token_id, score, weight: 0.0 }));
        if (1..self.candidates.len()).contains(&top_k) {
            self.candidates.select_nth_unstable_by(top_k - 1, Candidate::order);
            self.candidates.truncate(top_k);
            // The selection leaves them in an order that is an implementation detail of the standard library.
            self.candidates.sort_unstable_by_key(|candidate| candidate.token_id);
        }
    }

    /// Softmax at `temperature`, but for the division by its sum. `None` if there is no candidate.
    fn weigh_candidates(&mut self, temperature: f32) -> Option<()> {
        let max = self.candidates.iter().map(|candidate| candidate.score).reduce(f32::max)?;
        for candidate in &mut self.candidates {
            candidate.weight = ((candidate.score - max) / temperature).exp();
        }
        Some(())
    }

    /// Keeps the fewest most likely candidates whose probabilities reach `top_p`, most likely first.
    fn keep_nucleus(&mut self, top_p: f32) {
        let wanted = f64::from(top_p) * total(&self.candidates);
        let (mut num_sorted, mut sum) = (0, 0.0);
        while num_sorted < self.candidates.len() {
            let rest = &mut self.candidates[num_sorted..];
            let num_next = (3 * num_sorted).max(FIRST_SORTED).min(rest.len());
            if num_next < rest.len() {
                rest.select_nth_unstable_by(num_next - 1, Candidate::order);
            }
            rest[..num_next].sort_unstable_by(Candidate::order);
            for i in 0..num_next {
                sum += f64::from(rest[i].weight);
                if sum >= wanted {
                    self.candidates.truncate(num_sorted + i + 1);
                    return;
                }
            }
            num_sorted += num_next;
        }
    }
}

/// A logit that can be compared: NaN becomes minus infinity and plus infinity the greatest number.
fn sanitise(logit: f32) -> f32 {
    if logit.is_nan() { f32::NEG_INFINITY } else { logit.min(f32::MAX) }
}

/// Bias, penalties and prohibitions. Each touches only the tokens that it names.
fn adjust(scores: &mut [f32], params: &SamplingParams, state: &SamplingState, forbidden: &[u32]) {
    for &(token_id, bias) in &params.logit_bias {
        let score = &mut scores[token_id as usize];
        *score = sanitise(*score + bias);
    }
    // The order of a hash map's entries is arbitrary, but each concerns a token of its own.
    for (&token_id, &num_generated) in state.num_generated.iter().flatten() {
        let score = &mut scores[token_id as usize];
        let repeated = if *score > 0.0 {
            *score / params.repetition_penalty
        } else {
            *score * params.repetition_penalty
        };
        let presence = if num_generated > 0 { params.presence_penalty } else { 0.0 };
        *score = sanitise(sanitise(repeated) - params.frequency_penalty * num_generated as f32 - presence);
    }
    for &token_id in forbidden {
        if let Some(score) = scores.get_mut(token_id as usize) {
            *score = f32::NEG_INFINITY;
        }
    }
}

/// The index of the highest score, of equal ones the first. `None` if all are minus infinity.
fn argmax(scores: &[f32]) -> Option<u32> {
    let (mut best, mut highest) = (None, f32::NEG_INFINITY);
    for (token_id, &score) in (0..).zip(scores) {
        if score > highest {
            (best, highest) = (Some(token_id), score);
        }
    }
    best
}

/// The candidate at `uniform`, in `[0, 1)`, of the cumulated weights.
fn pick(candidates: &[Candidate], uniform: f64) -> u32 {
    let wanted = uniform * total(candidates);
    let mut sum = 0.0;
    let reaches = |candidate: &&Candidate| {
        sum += f64::from(candidate.weight);
        sum > wanted
    };
    candidates.iter().find(reaches).expect("the most likely candidate has weight 1").token_id
}

/// Sum of the weights, added in order.
fn total(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|candidate| f64::from(candidate.weight)).sum()
}
