//! How a token is drawn from a row of logits: the definition that the host's sampler and devices follow to the bit.
//!
//! Probabilities are whole numbers, so that their sums do not depend on the order of additions.

use std::cmp::Ordering;

use crate::NO_INDEX;
use crate::math::exp;

/// How one token is chosen from a row of logits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draw {
    /// Logits are divided by it; 0 takes the highest, and nothing below matters.
    pub temperature: f32,
    /// Only so many of the highest logits stay; all if it is 0.
    pub top_k: u32,
    /// Of these, as few of the most likely tokens as have this share of all probability.
    pub top_p: f32,
    /// Of these, the tokens at least so probable, relative to the most likely one.
    pub min_p: f32,
    /// Where in the cumulated probabilities, in the order of token ids, the token is found: a 2^64th part of a share.
    pub point: u64,
}

impl Draw {
    /// Takes the highest logit, of equal ones the first.
    pub const HIGHEST: Self = Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, point: 0 };
}

/// The most likely token's probability as a whole number. Sums over a vocabulary fit 64 bits, and probabilities from 2^-20
/// of it on keep all their bits.
const ONE: f32 = (1u64 << 44) as f32;

/// A weight, relative to the most likely token's, as a whole number: rounded towards zero.
#[inline(always)]
pub fn draw_share(weight: f32) -> u64 {
    (weight * ONE) as u64
}

/// The token that `draw` chooses; [`NO_INDEX`] from a row without a finite logit. NaN counts as minus infinity, and plus infinity
/// as the greatest number.
///
/// The plain form of the definition, for tests: it sorts the vocabulary.
pub fn draw(logits: &[f32], draw: &Draw) -> u32 {
    struct Candidate {
        token_id: u32,
        score: f32,
        weight: f32,
    }
    let mut candidates: Vec<Candidate> = (0u32..)
        .zip(logits)
        .map(|(token_id, &logit)| Candidate { token_id, score: logit.min(f32::MAX), weight: 0.0 })
        .filter(|candidate| logits[candidate.token_id as usize] > f32::NEG_INFINITY)
        .collect();
    if draw.temperature == 0.0 {
        let higher = |a: Candidate, b: Candidate| if b.score > a.score { b } else { a };
        return candidates.into_iter().reduce(higher).map_or(NO_INDEX, |highest| highest.token_id);
    }
    let order = |a: &Candidate, b: &Candidate| -> Ordering {
        b.score.total_cmp(&a.score).then(a.token_id.cmp(&b.token_id))
    };
    candidates.sort_unstable_by(order);
    if draw.top_k > 0 {
        candidates.truncate(draw.top_k as usize);
    }
    let Some(highest) = candidates.first().map(|first| first.score) else { return NO_INDEX };
    for candidate in &mut candidates {
        candidate.weight = exp((candidate.score - highest) / draw.temperature);
    }
    let total = |candidates: &[Candidate]| -> u64 { candidates.iter().map(|c| draw_share(c.weight)).sum() };
    if draw.top_p < 1.0 {
        let wanted = ((f64::from(draw.top_p) * total(&candidates) as f64) as u64).max(1);
        let mut sum = 0;
        let last = candidates.iter().position(|candidate| {
            sum += draw_share(candidate.weight);
            sum >= wanted
        });
        candidates.truncate(last.map_or(candidates.len(), |last| last + 1));
    }
    candidates.retain(|candidate| candidate.weight >= draw.min_p);
    candidates.sort_unstable_by_key(|candidate| candidate.token_id);
    let wanted = (u128::from(draw.point) * u128::from(total(&candidates))) >> 64;
    let mut sum = 0;
    let found = candidates.iter().find(|candidate| {
        sum += u128::from(draw_share(candidate.weight));
        sum > wanted
    });
    found.expect("the most likely token has a share").token_id
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tokens that a draw finds at evenly spread points, ascending, each once.
    fn found(logits: &[f32], of: Draw) -> Vec<u32> {
        let points = (0..1u64 << 12).map(|i| i << 52);
        let mut found: Vec<u32> = points.map(|point| draw(logits, &Draw { point, ..of })).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    #[test]
    fn each_rule_keeps_its_tokens() {
        const PLAIN: Draw = Draw { temperature: 1.0, ..Draw::HIGHEST };
        let logits = [0.1f32, 0.4, 0.2, 0.3].map(f32::ln);
        assert_eq!(found(&logits, PLAIN), [0, 1, 2, 3]);
        assert_eq!(found(&logits, Draw::HIGHEST), [1]);
        assert_eq!(found(&logits, Draw { top_k: 2, ..PLAIN }), [1, 3]);
        assert_eq!(found(&logits, Draw { top_p: 0.75, ..PLAIN }), [1, 2, 3]);
        assert_eq!(found(&logits, Draw { top_p: 0.0, ..PLAIN }), [1]);
        assert_eq!(found(&logits, Draw { min_p: 0.6, ..PLAIN }), [1, 3]);
        // The share is of those that top_k leaves: 4/7 and 3/7.
        assert_eq!(found(&logits, Draw { top_k: 2, top_p: 0.5, ..PLAIN }), [1]);
        assert_eq!(found(&logits, Draw { temperature: 1e-9, ..PLAIN }), [1]);
    }

    #[test]
    fn points_find_tokens_as_often_as_they_are_likely() {
        let logits = [0.125f32, 0.5, 0.375].map(f32::ln);
        let at = |share: f64| {
            let point = (share * 2f64.powi(64)) as u64;
            draw(&logits, &Draw { temperature: 1.0, point, ..Draw::HIGHEST })
        };
        assert_eq!([0.0, 0.1249, 0.1251, 0.6249, 0.6251, 0.9999].map(at), [0, 0, 1, 1, 2, 2]);
    }

    #[test]
    fn equal_logits_are_kept_by_token_id_and_impossible_ones_never() {
        let of = Draw { temperature: 1.0, top_k: 2, ..Draw::HIGHEST };
        assert_eq!(found(&[f32::NAN, 1.0, 1.0, f32::NEG_INFINITY, 1.0], of), [1, 2]);
        assert_eq!(found(&[0.0, f32::INFINITY, f32::MAX], Draw { top_k: 0, ..of }), [1, 2]);
        for temperature in [0.0, 1.0] {
            assert_eq!(draw(&[f32::NAN, f32::NEG_INFINITY], &Draw { temperature, ..of }), NO_INDEX);
        }
    }
}
