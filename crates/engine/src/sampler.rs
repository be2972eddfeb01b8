//! From a row of logits to a token.
//!
//! The token depends on the row and on the sequence's own [`SamplingState`], never on what else is in the step. Nothing
//! here sorts a vocabulary: `top_k` and `top_p` find the least likely token to keep by selection. Equal logits are ordered
//! by token id, so that every selection has one answer. Exponentials and logarithms are not those of the platform, whose last
//! bits may be others: the same logits give the same token everywhere.

use model::draw_share;
use model::math::exp;

use crate::constraint::{MaskThreads, TokenMask};
use crate::request::TokenLogprobs;
use crate::sampling_params::{Mirostat, SamplingParams};
use crate::sampling_state::SamplingState;
use crate::truncation::{
    Candidate, exclude_top, keep_near_highest, keep_typical, keep_unsurprising, keep_until, mass, total,
};

/// Scores of which the highest is found together, a few cache lines at a time, and whose exponentials are.
const BLOCK: usize = 64;

/// Scratch for rows of one vocabulary size; holds nothing from one row to the next.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    scores: Vec<f32>, // [vocab_size]
    /// The highest score of each block, and the same in another order.
    block_maxima: [Vec<f32>; 2],
    /// In the order of their ids, so that the draw does not depend on how they were selected.
    candidates: Vec<Candidate>,
    scratch: Vec<Candidate>,
    /// What computes the masks of constrained sequences.
    pub mask_threads: MaskThreads,
}

impl Sampler {
    /// Chooses the token that follows, of those in `mask` and none of `forbidden`. `None` if no token has a finite logit.
    pub fn sample(
        &mut self,
        logits: &[f32], // [vocab_size]
        params: &SamplingParams,
        state: &mut SamplingState,
        forbidden: &[u32],
        mask: Option<&TokenMask>,
    ) -> Option<u32> {
        self.scores.clear();
        self.scores.extend(logits.iter().map(|&logit| sanitise(logit)));
        if let Some(mask) = mask {
            mask.apply(&mut self.scores);
        }
        adjust(&mut self.scores, params, state, forbidden);
        if params.temperature == 0.0 {
            return argmax(&self.scores);
        }
        if let Some(mirostat) = params.mirostat {
            self.select_candidates(0);
            self.weigh_candidates(params.temperature)?;
            return Some(self.draw_with_mirostat(mirostat, state));
        }
        if params.top_n_sigma > 0.0 {
            keep_near_highest(&mut self.scores, params.top_n_sigma);
        }
        self.select_candidates(params.top_k);
        self.weigh_candidates(params.temperature)?;
        let Self { candidates, scratch, .. } = self;
        if params.typical_p < 1.0 {
            keep_typical(candidates, params.typical_p, scratch);
        }
        if params.top_p < 1.0 {
            keep_until(candidates, params.top_p, scratch, Candidate::order);
        }
        if params.min_p > 0.0 {
            let most = candidates.iter().map(|candidate| candidate.weight).fold(0.0, f32::max);
            candidates.retain(|candidate| candidate.weight >= params.min_p * most);
        }
        if params.xtc.probability > 0.0 && state.draw() < f64::from(params.xtc.probability) {
            exclude_top(candidates, params.xtc.threshold);
        }
        Some(pick(candidates, state.draw_point()).token_id)
    }

    /// Draws among the tokens that surprise no more than the limit, and moves that towards the surprise that is wanted.
    fn draw_with_mirostat(&mut self, Mirostat { tau, eta }: Mirostat, state: &mut SamplingState) -> u32 {
        keep_unsurprising(&mut self.candidates, state.mirostat_limit);
        let picked = pick(&self.candidates, state.draw_point());
        let surprise = -libm::log2(f64::from(picked.weight) / total(&self.candidates));
        state.mirostat_limit -= f64::from(eta) * (surprise - f64::from(tau));
        picked.token_id
    }

    /// Log-probabilities by the model alone: of `token_id` and of the `num_top` most likely tokens.
    pub fn logprobs(&mut self, logits: &[f32], token_id: u32, num_top: usize) -> TokenLogprobs {
        self.scores.clear();
        self.scores.extend(logits.iter().map(|&logit| sanitise(logit)));
        let max = self.scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let log_sum = libm::log(sum_of_exponentials(&self.scores, max));
        let logprob = |score: f32| (f64::from(score - max) - log_sum) as f32;
        let score = self.scores[token_id as usize];
        let of_token = logprob(score);
        let before = self.scores[..token_id as usize].iter().filter(|&&other| other >= score).count();
        let behind = self.scores[token_id as usize..].iter().filter(|&&other| other > score).count();
        let rank = 1 + before + behind;
        if num_top == 0 {
            return TokenLogprobs { logprob: of_token, rank, top: Vec::new() };
        }
        self.select_candidates(num_top);
        self.candidates.sort_unstable_by(Candidate::order);
        let top = self.candidates.iter().map(|c| (c.token_id, logprob(c.score))).collect();
        TokenLogprobs { logprob: of_token, rank, top }
    }

    /// Makes candidates of the `top_k` highest scores, or of all that are possible if it is 0.
    fn select_candidates(&mut self, top_k: usize) {
        let least = self.least_of_top(top_k);
        let [maxima, _] = &self.block_maxima;
        self.candidates.clear();
        for (block_idx, scores) in self.scores.chunks(BLOCK).enumerate() {
            if top_k > 0 && maxima[block_idx] < least {
                continue;
            }
            let possible = ((block_idx * BLOCK) as u32..).zip(scores);
            let possible = possible.filter(|&(_, &score)| score > f32::NEG_INFINITY && score >= least);
            self.candidates.extend(possible.map(|(token_id, &score)| Candidate {
                token_id,
                score,
                weight: 0.0,
            }));
        }
        if (1..self.candidates.len()).contains(&top_k) {
            self.candidates.select_nth_unstable_by(top_k - 1, Candidate::order);
            self.candidates.truncate(top_k);
            self.candidates.sort_unstable_by_key(|candidate| candidate.token_id);
        }
    }

    /// A score that at least `top_k` scores reach: as many blocks have one. It rules out most of a large vocabulary at the
    /// cost of one pass; minus infinity if it cannot, or `top_k` is 0.
    fn least_of_top(&mut self, top_k: usize) -> f32 {
        let [maxima, order] = &mut self.block_maxima;
        maxima.clear();
        if top_k == 0 {
            return f32::NEG_INFINITY;
        }
        maxima.extend(self.scores.chunks(BLOCK).map(highest));
        if top_k > maxima.len() {
            return f32::NEG_INFINITY;
        }
        order.clone_from(maxima);
        *order.select_nth_unstable_by(top_k - 1, |a, b| b.total_cmp(a)).1
    }

    /// Softmax at `temperature`, but for the division by its sum. `None` if there is no candidate.
    fn weigh_candidates(&mut self, temperature: f32) -> Option<()> {
        let max = self.candidates.iter().map(|candidate| candidate.score).reduce(f32::max)?;
        for candidates in self.candidates.chunks_mut(BLOCK) {
            // Apart from the candidates, so that the compiler takes several at once.
            let mut weights = [0.0; BLOCK];
            for (weight, candidate) in weights.iter_mut().zip(&*candidates) {
                *weight = (candidate.score - max) / temperature;
            }
            for (weight, candidate) in weights.map(exp).into_iter().zip(candidates) {
                candidate.weight = weight;
            }
        }
        Some(())
    }
}

/// A logit that can be compared: NaN becomes minus infinity and plus infinity the greatest number.
fn sanitise(logit: f32) -> f32 {
    if logit.is_nan() { f32::NEG_INFINITY } else { logit.min(f32::MAX) }
}

/// Bias, penalties and prohibitions. Each touches only the tokens that it names.
fn adjust(scores: &mut [f32], params: &SamplingParams, state: &mut SamplingState, forbidden: &[u32]) {
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
    if let Some(dry) = &mut state.dry {
        dry.penalise(scores);
    }
    for &token_id in forbidden {
        if let Some(score) = scores.get_mut(token_id as usize) {
            *score = f32::NEG_INFINITY;
        }
    }
}

/// The sum of `e^(score - max)`, added in order.
fn sum_of_exponentials(scores: &[f32], max: f32) -> f64 {
    let mut sum = 0.0;
    for scores in scores.chunks(BLOCK) {
        let mut block = [f32::NEG_INFINITY; BLOCK];
        block[..scores.len()].copy_from_slice(scores);
        block.map(|score| exp(score - max)).iter().for_each(|&value| sum += f64::from(value));
    }
    sum
}

/// The highest of some scores, in lanes that the compiler can keep in a register.
fn highest(scores: &[f32]) -> f32 {
    let (chunks, rest) = scores.as_chunks::<16>();
    let mut lanes = [f32::NEG_INFINITY; 16];
    for chunk in chunks {
        for (lane, &score) in lanes.iter_mut().zip(chunk) {
            *lane = if score > *lane { score } else { *lane };
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// The index of the highest score, of equal ones the first. `None` if all are minus infinity.
fn argmax(scores: &[f32]) -> Option<u32> {
    let highest = highest(scores);
    let first = || scores.iter().position(|&score| score == highest).map(|token_id| token_id as u32);
    (highest > f32::NEG_INFINITY).then(first).flatten()
}

/// The candidate at `point`, in units of 2^-64, of the cumulated shares; the most likely one if all are too unlikely for a share.
fn pick(candidates: &[Candidate], point: u64) -> Candidate {
    let wanted = ((u128::from(point) * u128::from(mass(candidates))) >> 64) as u64;
    let mut sum = 0;
    let reaches = |candidate: &Candidate| {
        sum += draw_share(candidate.weight);
        sum > wanted
    };
    let mut all = candidates.iter().copied();
    let picked = all.find(reaches).or_else(|| candidates.iter().copied().min_by(Candidate::order));
    picked.expect("every rule leaves a candidate")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sampling_params::{Dry, Xtc};

    const NAN: f32 = f32::NAN;
    const INF: f32 = f32::INFINITY;

    fn sample(logits: &[f32], params: &SamplingParams) -> (Option<u32>, Sampler) {
        let mut sampler = Sampler::default();
        let token_id = sampler.sample(logits, params, &mut SamplingState::new(params, &[], None), &[], None);
        (token_id, sampler)
    }

    /// The tokens that may be drawn, ascending.
    fn kept(logits: &[f32], params: &SamplingParams) -> Vec<u32> {
        let (token_id, sampler) = sample(logits, params);
        let mut kept: Vec<u32> = sampler.candidates.iter().map(|candidate| candidate.token_id).collect();
        kept.sort_unstable();
        assert!(token_id.is_some_and(|token_id| kept.contains(&token_id)));
        kept
    }

    /// The scores that `params` make of `logits`, after the given prompt and generated tokens.
    fn adjusted(logits: &[f32], params: SamplingParams, prompt: &[u32], generated: &[u32]) -> Vec<f32> {
        let mut state = SamplingState::new(&params, prompt, None);
        generated.iter().for_each(|&token_id| state.count(token_id));
        let mut sampler = Sampler::default();
        sampler.sample(logits, &params, &mut state, &[], None);
        sampler.scores
    }

    #[test]
    fn greedy_takes_the_highest_logit_and_of_equal_ones_the_first() {
        let check = |logits: &[f32], expect| {
            assert_eq!(sample(logits, &SamplingParams::greedy()).0, expect, "{logits:?}");
            // Near temperature 0 no other token has any weight.
            let near = SamplingParams { temperature: 1e-9, top_k: 1, ..SamplingParams::default() };
            assert_eq!(sample(logits, &near).0, expect, "{logits:?}");
        };
        check(&[1.0, 3.0, 2.0], Some(1));
        check(&[1.0, 3.0, 3.0], Some(1));
        check(&[-0.0, -1.0, -2.0], Some(0));
        check(&[NAN, 1.0, NAN, 2.0], Some(3));
        check(&[-INF, -1e30], Some(1));
        check(&[0.0, INF, f32::MAX], Some(1));
        check(&[NAN, -INF], None);
        check(&[], None);
    }

    #[test]
    fn penalties_follow_their_definitions() {
        let default = SamplingParams::default();
        let logits = [2.0, -2.0, 4.0, 0.5];
        let repetition = SamplingParams { repetition_penalty: 2.0, ..default.clone() };
        assert_eq!(adjusted(&logits, repetition.clone(), &[0, 0, 1], &[2, 2]), [1.0, -4.0, 2.0, 0.5]);
        let frequency = SamplingParams { frequency_penalty: 0.25, ..default.clone() };
        assert_eq!(adjusted(&logits, frequency, &[0, 1], &[2, 1, 2]), [2.0, -2.25, 3.5, 0.5]);
        let presence = SamplingParams { presence_penalty: 1.0, ..default.clone() };
        assert_eq!(adjusted(&logits, presence, &[0, 1], &[2, 1, 2]), [2.0, -3.0, 3.0, 0.5]);
        let bias = SamplingParams { logit_bias: vec![(3, 1.0), (1, -INF), (3, 0.5)], ..default.clone() };
        assert_eq!(adjusted(&logits, bias, &[], &[]), [2.0, -INF, 4.0, 2.0]);
        let all = SamplingParams { logit_bias: vec![(1, 6.0)], frequency_penalty: 0.5, ..repetition };
        assert_eq!(adjusted(&logits, all, &[1], &[2]), [2.0, 2.0, 1.5, 0.5]);
        let extreme = SamplingParams { logit_bias: vec![(0, f32::MAX)], repetition_penalty: 1e-9, ..default };
        assert_eq!(sample(&[f32::MAX, 0.0], &extreme).0, Some(0));
    }

    #[test]
    fn equal_logits_are_kept_by_ascending_id() {
        let params =
            |top_k, top_p, min_p| SamplingParams { top_k, top_p, min_p, ..SamplingParams::default() };
        let flat = [1.0; 200];
        assert_eq!(kept(&flat, &params(3, 1.0, 0.0)), [0, 1, 2]);
        assert_eq!(kept(&flat, &params(0, 0.015, 0.0)), [0, 1, 2]);
        assert_eq!(kept(&flat, &params(0, 0.5, 0.0)), (0..100).collect::<Vec<_>>());
        assert_eq!(kept(&flat, &params(8, 0.5, 0.0)), [0, 1, 2, 3]);
        assert_eq!(kept(&flat, &params(0, 0.0, 0.0)), [0]);
        assert_eq!(kept(&flat, &params(0, 1.0, 1.0)).len(), 200);
        assert_eq!(kept(&[0.0, 2.0, 1.0, 2.0, NAN], &params(3, 1.0, 0.0)), [1, 2, 3]);
        assert_eq!(kept(&[0.0, 2.0, 1.0, 2.0, NAN], &params(99, 1.0, 0.0)), [0, 1, 2, 3]);
    }

    proptest! {
        /// Against the definitions, with a full sort in float64.
        #[test]
        fn what_is_kept_is_what_the_definitions_keep(
            logits in prop::collection::vec(-12.0f32..12.0, 1..2000),
            temperature in 0.2f32..3.0,
            top_k in prop::option::of(1..300usize),
            nucleus in prop::option::of(0..400usize),
            min_p in prop::option::of(0.0f32..0.5),
        ) {
            let max = logits.iter().copied().fold(-INF, f32::max);
            let weight = |&score: &f32| (f64::from(score - max) / f64::from(temperature)).exp();
            let mut sorted: Vec<(u32, f64)> = (0..).zip(logits.iter().map(weight)).collect();
            sorted.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            sorted.truncate(top_k.unwrap_or(sorted.len()));
            let mut top_p = 1.0;
            if let Some(size) = nucleus {
                // Half way into the last token's share, so that rounding does not decide.
                let size = size % sorted.len() + 1;
                let total: f64 = sorted.iter().map(|(_, weight)| weight).sum();
                let before: f64 = sorted[..size - 1].iter().map(|(_, weight)| weight).sum();
                let share = sorted[size - 1].1 / total;
                prop_assume!(share > 1e-4);
                top_p = (before / total + share / 2.0) as f32;
                sorted.truncate(size);
            }
            if let Some(min_p) = min_p {
                prop_assume!(sorted.iter().all(|(_, weight)| (weight - f64::from(min_p)).abs() > 1e-5));
                sorted.retain(|&(_, weight)| weight >= f64::from(min_p));
            }
            let mut expect: Vec<u32> = sorted.iter().map(|&(token_id, _)| token_id).collect();
            expect.sort_unstable();

            let params = SamplingParams {
                temperature,
                top_k: top_k.unwrap_or(0),
                top_p,
                min_p: min_p.unwrap_or(0.0),
                ..SamplingParams::default()
            };
            prop_assert_eq!(kept(&logits, &params), expect);
        }
    }

    proptest! {
        /// What a device draws, by the plain form of the definition, the sampler draws, and both take as many draws.
        #[test]
        fn the_sampler_draws_what_a_device_would(
            logits in prop::collection::vec(prop_oneof![-9.0f32..9.0, (-9..9i8).prop_map(f32::from)], 1..700),
            temperature in prop_oneof![0.1f32..3.0, Just(1e-9)],
            (top_k, top_p) in (0..60usize, prop_oneof![Just(1.0f32), 0.0f32..1.0]),
            (min_p, seed) in (prop_oneof![Just(0.0f32), 0.0f32..1.0], any::<u64>()),
        ) {
            let params = SamplingParams { temperature, top_k, top_p, min_p, seed, ..SamplingParams::default() };
            let mut state = SamplingState::new(&params, &[], None);
            for _ in 0..4 {
                let next = state.next_draw(&params).expect("a plain draw");
                let found = Sampler::default().sample(&logits, &params, &mut state, &[], None);
                prop_assert_eq!(found, Some(model::draw(&logits, &next)), "{:?}", next);
            }
            let mut other = SamplingState::new(&params, &[], None);
            (0..4).for_each(|_| other.take_draw());
            prop_assert_eq!(state.rng, other.rng);
        }
    }

    #[test]
    fn what_draws_cannot_say_is_left_to_the_sampler() {
        let plain = SamplingParams::default();
        let draws =
            |params: SamplingParams| SamplingState::new(&params, &[], None).next_draw(&params).is_some();
        assert!(draws(plain.clone()));
        assert!(!draws(SamplingParams::greedy()));
        assert!(!draws(SamplingParams { repetition_penalty: 1.1, ..plain.clone() }));
        assert!(!draws(SamplingParams { presence_penalty: 0.1, ..plain.clone() }));
        assert!(!draws(SamplingParams { logit_bias: vec![(1, 1.0)], ..plain.clone() }));
        assert!(!draws(SamplingParams { logprobs: Some(0), ..plain.clone() }));
        assert!(!draws(SamplingParams { typical_p: 0.9, ..plain.clone() }));
        assert!(!draws(SamplingParams { top_n_sigma: 1.0, ..plain.clone() }));
        assert!(!draws(SamplingParams { mirostat: Some(Mirostat::default()), ..plain.clone() }));
        assert!(!draws(SamplingParams { xtc: Xtc { probability: 0.5, threshold: 0.1 }, ..plain.clone() }));
        assert!(!draws(SamplingParams { dry: Dry { multiplier: 1.0, ..Dry::default() }, ..plain }));
    }

    #[test]
    fn tokens_are_drawn_as_often_as_they_are_likely() {
        const NUM_DRAWS: u32 = 20_000;
        // Of 1 - 1e-5 of all seeds, for 5 degrees of freedom.
        const CHI_SQUARE: f64 = 30.9;
        let probabilities: [f32; 6] = [0.05, 0.4, 0.1, 0.25, 0.15, 0.05];
        let logits = probabilities.map(f32::ln);
        for top_p in [1.0, 0.9999] {
            let params = SamplingParams { seed: 1, top_p, ..SamplingParams::default() };
            let mut state = SamplingState::new(&params, &[], None);
            let mut counts = [0; 6];
            for _ in 0..NUM_DRAWS {
                let token_id = Sampler::default().sample(&logits, &params, &mut state, &[], None);
                counts[token_id.expect("finite logits") as usize] += 1;
            }
            let deviation = |(&p, &count): (&f32, &i32)| {
                let expected = f64::from(p) * f64::from(NUM_DRAWS);
                (f64::from(count) - expected).powi(2) / expected
            };
            let chi_square: f64 = probabilities.iter().zip(&counts).map(deviation).sum();
            assert!(chi_square < CHI_SQUARE, "{counts:?}: {chi_square}");
        }
    }

    #[test]
    fn a_token_takes_one_draw() {
        let params = SamplingParams { seed: 9, top_k: 2, ..SamplingParams::default() };
        let (mut state, mut other) =
            (SamplingState::new(&params, &[], None), SamplingState::new(&params, &[], None));
        for _ in 0..10 {
            Sampler::default().sample(&[1.0, 2.0, 3.0], &params, &mut state, &[], None);
            other.draw();
        }
        assert_eq!(state.rng, other.rng);
        let greedy = SamplingParams { seed: 9, ..SamplingParams::greedy() };
        Sampler::default().sample(&[1.0], &greedy, &mut state, &[], None);
        assert_eq!(state.rng, other.rng);
    }

    #[test]
    fn mirostat_keeps_to_the_surprise_that_is_wanted() {
        // A flat distribution with a long tail, whose own entropy is 9.3 bits.
        let logits: Vec<f32> = (0..2000).map(|i| -(i as f32) / 250.0).collect();
        let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
        for tau in [3.0, 6.0] {
            let mirostat = Some(Mirostat { tau, eta: 0.1 });
            let params = SamplingParams { mirostat, seed: 1, ..SamplingParams::default() };
            let mut state = SamplingState::new(&params, &[], None);
            let (mut limit, mut expect) = (2.0 * f64::from(tau), SamplingState::new(&params, &[], None));
            let mut surprises = 0.0;
            for _ in 0..2000 {
                // By the definition, in float64.
                let kept = logits.iter().map(|&logit| f64::from(logit).exp());
                let num_kept = kept.clone().take_while(|p| -(p / sum).log2() <= limit).count().max(1);
                let total: f64 = kept.clone().take(num_kept).sum();
                let wanted = expect.draw() * total;
                let mut reached = 0.0;
                let (idx, p) = kept
                    .enumerate()
                    .find(|(_, p)| {
                        reached += p;
                        reached > wanted
                    })
                    .unwrap();
                let surprise = -(p / total).log2();
                limit -= 0.1f32 as f64 * (surprise - f64::from(tau));
                surprises += surprise;

                let found = Sampler::default().sample(&logits, &params, &mut state, &[], None);
                assert_eq!(found, Some(idx as u32));
                assert!((state.mirostat_limit - limit).abs() < 1e-3);
            }
            assert!((surprises / 2000.0 - f64::from(tau)).abs() < 0.1, "{surprises}");
        }
    }

    #[test]
    fn top_choices_are_excluded_as_often_as_is_wanted() {
        let logits = [0.5f32, 0.3, 0.15, 0.05].map(f32::ln);
        for probability in [0.0, 0.3, 1.0] {
            let xtc = Xtc { probability, threshold: 0.2 };
            let params = SamplingParams { xtc, seed: 4, ..SamplingParams::default() };
            let mut state = SamplingState::new(&params, &[], None);
            let mut draw = || Sampler::default().sample(&logits, &params, &mut state, &[], None);
            let count = (0..10_000).filter(|_| draw() == Some(0)).count() as f32;
            // Half of the draws without exclusion; 5 standard deviations at most are 250.
            assert!((count - 5_000.0 * (1.0 - probability)).abs() < 250.0, "{probability}: {count}");
        }
    }

    #[test]
    fn what_is_left_may_have_no_weight() {
        let xtc = Xtc { probability: 1.0, threshold: 0.0 };
        let params = SamplingParams { xtc, temperature: 1e-6, ..SamplingParams::default() };
        assert_eq!(sample(&[3.0, 1.0, 2.0], &params).0, Some(1));
    }

    #[test]
    fn rules_apply_in_their_order() {
        let probabilities = [0.3f32, 0.25, 0.2, 0.15, 0.1];
        let logits = probabilities.map(f32::ln);
        let xtc = Xtc { probability: 1.0, threshold: 0.31 };
        // Among the three that top_k keeps, the first two are more likely than that; among all, none is.
        let params = SamplingParams { top_k: 3, xtc, ..SamplingParams::default() };
        assert_eq!(kept(&logits, &params), [1, 2]);
        assert_eq!(kept(&logits, &SamplingParams { top_k: 0, ..params.clone() }), [0, 1, 2, 3, 4]);
        // The typical ones are 1 and 2, and min_p is relative to the more likely of them.
        let typical = SamplingParams { typical_p: 0.4, min_p: 0.7, ..SamplingParams::default() };
        assert_eq!(kept(&logits, &typical), [1, 2]);
        let sigma = SamplingParams { top_n_sigma: 1.0, ..SamplingParams::default() };
        assert_eq!(kept(&logits, &sigma), [0, 1]);
    }

    #[test]
    fn a_seed_gives_the_same_tokens_in_every_release() {
        let params = SamplingParams { seed: 42, ..SamplingParams::default() };
        let mut state = SamplingState::new(&params, &[], None);
        let draws = [(); 4].map(|()| (state.draw() * 1e6) as u32);
        // xoshiro256++ seeded through SplitMix64, as its authors advise.
        assert_eq!(draws, [814_305, 318_821, 983_894, 701_135]);
    }

    /// FNV-1a over weights, log-probabilities and Mirostat's limit: the platform's exponentials and logarithms give another one
    /// on some.
    #[test]
    fn weights_and_logprobs_are_the_same_bits_on_every_platform() {
        let logits: Vec<f32> = (0..1000u32).map(|i| (i * 7919 % 1009) as f32 / 37.0 - 20.0).collect();
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        let mut take = |bits: u64| hash = (hash ^ bits).wrapping_mul(0x0000_0100_0000_01b3);
        let mut sampler = Sampler::default();
        let mirostat = Some(Mirostat { tau: 5.0, eta: 0.1 });
        for (temperature, mirostat) in [(0.7, None), (1.3, None), (1.0, mirostat)] {
            let params = SamplingParams { temperature, mirostat, seed: 3, ..SamplingParams::default() };
            let mut state = SamplingState::new(&params, &[], None);
            take(u64::from(sampler.sample(&logits, &params, &mut state, &[], None).unwrap()));
            take(state.mirostat_limit.to_bits());
            sampler.candidates.iter().for_each(|candidate| take(u64::from(candidate.weight.to_bits())));
        }
        (0..1000).for_each(|id| take(u64::from(sampler.logprobs(&logits, id, 0).logprob.to_bits())));
        assert_eq!(hash, 0x710c_99d2_936c_93c0, "{hash:#018x}");
    }

    #[test]
    fn logprobs_are_those_of_the_model() {
        let logits = [1.0, 3.0, NAN, 3.0, 2.0];
        let sum: f64 = [1.0f64, 3.0, 3.0, 2.0].map(f64::exp).iter().sum();
        let logprob = |logit: f64| (logit - sum.ln()) as f32;
        let check = |token_id, num_top, expect: (f32, &[(u32, f32)], usize)| {
            let found = Sampler::default().logprobs(&logits, token_id, num_top);
            let close = |a: f32, b: f32| (a - b).abs() < 1e-6;
            assert!(close(found.logprob, expect.0), "{found:?}");
            assert_eq!(found.rank, expect.2);
            assert_eq!(found.top.len(), expect.1.len(), "{found:?}");
            for (found, expect) in found.top.iter().zip(expect.1) {
                assert!(found.0 == expect.0 && close(found.1, expect.1), "{found:?} {expect:?}");
            }
        };
        let all = [(1, logprob(3.0)), (3, logprob(3.0)), (4, logprob(2.0)), (0, logprob(1.0))];
        check(0, 0, (logprob(1.0), &[], 4));
        check(4, 1, (logprob(2.0), &all[..1], 3));
        check(3, 3, (logprob(3.0), &all[..3], 2));
        check(1, 100, (logprob(3.0), &all, 1));
    }
}
