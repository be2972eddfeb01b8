//! Rules that take unlikely tokens, or too likely ones, from the candidates.

use std::cmp::Ordering;

use model::draw_share;

/// A token that may be drawn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    pub token_id: u32,
    pub score: f32,
    /// Probability, times the same unknown for all candidates; 1 for the most likely one.
    pub weight: f32,
}

impl Candidate {
    /// Most likely first, equal ones by ascending id.
    pub fn order(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.token_id.cmp(&other.token_id))
    }
}

/// Candidates that [`keep_until`] is first taken to keep: most distributions are steep.
const FIRST_GUESS: usize = 256;

/// The candidates' share of all probability, as a whole number: the same in every order.
pub(crate) fn mass(candidates: &[Candidate]) -> u64 {
    candidates.iter().map(|candidate| draw_share(candidate.weight)).sum()
}

/// Sum of the weights, added in order.
pub(crate) fn total(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|candidate| f64::from(candidate.weight)).sum()
}

/// Keeps the first candidates in an order, as few as have `share` of all probability.
pub(crate) fn keep_until(
    candidates: &mut Vec<Candidate>,
    share: f32,
    scratch: &mut Vec<Candidate>,
    order: impl Fn(&Candidate, &Candidate) -> Ordering,
) {
    let wanted = ((f64::from(share) * mass(candidates) as f64) as u64).max(1);
    scratch.clone_from(candidates);
    // The last candidate to keep is in `rest`, and those before it weigh `sum`.
    let (mut rest, mut sum) = (scratch.as_mut_slice(), 0);
    let mut guess = FIRST_GUESS;
    while rest.len() > 1 {
        let num_upper = guess.min(rest.len() / 2);
        rest.select_nth_unstable_by(num_upper, &order);
        let (upper, lower) = rest.split_at_mut(num_upper);
        let sum_upper = mass(upper);
        if sum + sum_upper >= wanted {
            (rest, guess) = (upper, usize::MAX);
        } else {
            (rest, guess) = (lower, guess.saturating_mul(8));
            sum += sum_upper;
        }
    }
    if let Some(last) = rest.first() {
        candidates.retain(|candidate| order(candidate, last).is_le());
    }
}

/// Keeps the candidates whose surprise is nearest to the expected one, as few as have `typical_p` of all probability
/// (Meister et al., "Locally typical sampling", 2022).
pub(crate) fn keep_typical(candidates: &mut Vec<Candidate>, typical_p: f32, scratch: &mut Vec<Candidate>) {
    let total = total(candidates);
    let surprise = |candidate: &Candidate| -libm::log(f64::from(candidate.weight) / total);
    let possible = candidates.iter().filter(|candidate| candidate.weight > 0.0);
    let entropy: f64 = possible.map(|c| f64::from(c.weight) / total * surprise(c)).sum();
    let deviation = |candidate: &Candidate| (surprise(candidate) - entropy).abs();
    let order = |a: &Candidate, b: &Candidate| {
        deviation(a).total_cmp(&deviation(b)).then(a.token_id.cmp(&b.token_id))
    };
    keep_until(candidates, typical_p, scratch, order);
}

/// Of the candidates at least so probable, takes away all but the least likely one
/// ("Exclude top choices", <https://github.com/oobabooga/text-generation-webui/pull/6335>).
pub(crate) fn exclude_top(candidates: &mut Vec<Candidate>, threshold: f32) {
    let least = f64::from(threshold) * total(candidates);
    let is_top = |candidate: &Candidate| f64::from(candidate.weight) >= least;
    let last = candidates.iter().copied().filter(is_top).max_by(Candidate::order);
    if let Some(last) = last {
        candidates.retain(|candidate| !is_top(candidate) || candidate.order(&last).is_ge());
    }
}

/// Keeps the candidates whose surprise is at most `limit` bits, and the most likely one.
pub(crate) fn keep_unsurprising(candidates: &mut Vec<Candidate>, limit: f64) {
    let total = total(candidates);
    let Some(first) = candidates.iter().copied().min_by(Candidate::order) else { return };
    candidates.retain(|candidate| {
        -libm::log2(f64::from(candidate.weight) / total) <= limit || candidate.token_id == first.token_id
    });
}

/// Makes scores impossible that are more than so many standard deviations below the highest
/// (Tang et al., "Top-nsigma", 2024).
pub(crate) fn keep_near_highest(scores: &mut [f32], num_sigmas: f32) {
    let possible =
        || scores.iter().filter(|score| **score > f32::NEG_INFINITY).map(|&score| f64::from(score));
    let count = possible().count() as f64;
    let highest = possible().fold(f64::NEG_INFINITY, f64::max);
    let mean = possible().sum::<f64>() / count;
    let sigma = (possible().map(|score| (score - mean).powi(2)).sum::<f64>() / count).sqrt();
    let least = highest - f64::from(num_sigmas) * sigma;
    for score in scores {
        if f64::from(*score) < least {
            *score = f32::NEG_INFINITY;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidates(logits: &[f32]) -> Vec<Candidate> {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let candidate =
            |(token_id, &score): (u32, &f32)| Candidate { token_id, score, weight: (score - max).exp() };
        (0..).zip(logits).map(candidate).collect()
    }

    fn ids(candidates: &[Candidate]) -> Vec<u32> {
        candidates.iter().map(|candidate| candidate.token_id).collect()
    }

    /// Probabilities with their tokens, most likely first.
    fn probabilities(logits: &[f32]) -> Vec<(f64, u32)> {
        let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
        let mut all: Vec<_> =
            (0..).zip(logits).map(|(id, &logit)| (f64::from(logit).exp() / sum, id)).collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        all
    }

    fn sorted(ids: impl IntoIterator<Item = u32>) -> Vec<u32> {
        let mut ids: Vec<u32> = ids.into_iter().collect();
        ids.sort_unstable();
        ids
    }

    fn any_logits() -> impl Strategy<Value = Vec<f32>> {
        prop::collection::vec(-6.0f32..6.0, 1..400)
    }

    proptest! {
        #[test]
        fn the_typical_ones_are_kept(logits in any_logits(), size in 0..400usize) {
            let all = probabilities(&logits);
            let entropy: f64 = all.iter().map(|(p, _)| -p * p.ln()).sum();
            let mut expect: Vec<_> = all.iter().map(|&(p, id)| ((-p.ln() - entropy).abs(), p, id)).collect();
            expect.sort_by(|a, b| a.0.total_cmp(&b.0));
            // Rounding is not to decide: neither the order of two nor where the sum is reached.
            prop_assume!(expect.windows(2).all(|pair| pair[1].0 - pair[0].0 > 1e-5));
            expect.truncate(size % expect.len() + 1);
            let (&(_, last, _), before) = expect.split_last().unwrap();
            prop_assume!(last > 1e-4);
            let share = before.iter().map(|(_, p, _)| p).sum::<f64>() + last / 2.0;
            let mut found = candidates(&logits);
            keep_typical(&mut found, share as f32, &mut Vec::new());
            prop_assert_eq!(ids(&found), sorted(expect.iter().map(|&(_, _, id)| id)));
        }

        #[test]
        fn top_choices_are_excluded_but_for_the_last(logits in any_logits(), threshold in 0.001f32..0.5) {
            let all = probabilities(&logits);
            prop_assume!(all.iter().all(|(p, _)| (p - f64::from(threshold)).abs() > 1e-6));
            let num_top = all.iter().filter(|(p, _)| *p >= f64::from(threshold)).count();
            let expect = sorted(all[num_top.max(1) - 1..].iter().map(|&(_, id)| id));
            let mut found = candidates(&logits);
            exclude_top(&mut found, threshold);
            prop_assert_eq!(ids(&found), expect);
        }

        #[test]
        fn what_surprises_more_is_dropped(logits in any_logits(), limit in 0.1f64..12.0) {
            let all = probabilities(&logits);
            prop_assume!(all.iter().all(|(p, _)| (-p.log2() - limit).abs() > 1e-5));
            let num_kept = all.iter().filter(|(p, _)| -p.log2() <= limit).count().max(1);
            let mut found = candidates(&logits);
            keep_unsurprising(&mut found, limit);
            prop_assert_eq!(ids(&found), sorted(all[..num_kept].iter().map(|&(_, id)| id)));
        }

        #[test]
        fn scores_far_below_the_highest_are_dropped(logits in any_logits(), num_sigmas in 0.1f32..4.0) {
            let values: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64;
            let highest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let least = highest - f64::from(num_sigmas) * variance.sqrt();
            let expect: Vec<bool> = values.iter().map(|&value| value >= least).collect();
            // What is impossible counts for nothing.
            let mut scores = [logits, vec![f32::NEG_INFINITY; 3]].concat();
            keep_near_highest(&mut scores, num_sigmas);
            let found: Vec<bool> = scores.iter().map(|score| *score > f32::NEG_INFINITY).collect();
            prop_assert_eq!(&found[..expect.len()], &expect[..]);
            prop_assert!(!found[expect.len()..].contains(&true));
        }
    }
}
