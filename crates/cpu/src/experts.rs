//! Layers with experts: which experts each token takes, and its pairs sorted by expert, so that the weights of an expert are
//! read once for all its tokens.
//!
//! How pairs are sorted and cut into groups never shows: each pair's result is computed whole from its own row, and goes to
//! the pair's own place.

use std::ops::Range;

use gguf::TensorView;
use model::{Error, ExpertInput, Gating, Result, RoutesShape, Routing};

use crate::activations::Activations;
use crate::disjoint::Disjoint;
use crate::kernels::Kernels;
use crate::matmul::{ExpertRows, Order};
use crate::matrix::CpuMatrix;
use crate::pool::ThreadPool;
use crate::tile::MAX_TOKENS;

/// The weights of all experts of a layer, of one product: stacked matrices, each with one for each expert.
pub struct CpuExperts {
    pub(crate) parts: Vec<CpuMatrix>,
}

impl CpuExperts {
    pub(crate) fn load(
        pool: &ThreadPool,
        kernels: &Kernels,
        activations: Activations,
        experts: &[Vec<TensorView<'_>>],
    ) -> Result<Self> {
        let part = |part: usize| {
            let tensors: Vec<TensorView<'_>> = experts.iter().map(|expert| expert[part]).collect();
            CpuMatrix::load_experts(pool, kernels, activations, &tensors)
        };
        Ok(Self { parts: (0..experts[0].len()).map(part).collect::<Result<_>>()? })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.parts.iter().map(CpuMatrix::bytes).sum()
    }
}

/// The experts of a step's tokens. A pair is a token and one of its experts: pair `token * top_k + rank`.
pub struct CpuRoutes {
    shape: RoutesShape,
    tokens: usize,
    ids: Vec<u32>,     // [T * top_k], the expert of each pair
    weights: Vec<f32>, // [T * top_k]
    gates: Vec<f32>,   // [T, num_experts]
    pairs: Vec<u32>,   // [T * top_k], by expert, an expert's in order
    experts: Vec<ExpertRows>,
    /// Places of `pairs` that a tile kernel serves together.
    groups: Vec<Range<usize>>,
    next: Vec<usize>, // [num_experts]
}

impl CpuRoutes {
    pub(crate) fn new(shape: RoutesShape) -> Result<Self> {
        let RoutesShape { max_tokens, num_experts, .. } = shape;
        let needed = Self::bytes(shape);
        Vec::<u8>::new()
            .try_reserve_exact(needed)
            .map_err(|_| Error::OutOfMemory { what: "routes".to_owned(), needed: needed as u64 })?;
        let pairs = shape.max_pairs();
        Ok(Self {
            shape,
            tokens: 0,
            ids: vec![0; pairs],
            weights: vec![0.0; pairs],
            gates: vec![0.0; max_tokens * num_experts],
            pairs: vec![0; pairs],
            experts: Vec::with_capacity(num_experts.min(pairs)),
            groups: Vec::with_capacity(pairs),
            next: vec![0; num_experts],
        })
    }

    /// Bytes of the routes of a step.
    pub(crate) fn bytes(shape: RoutesShape) -> usize {
        let of_pair = 3 * size_of::<u32>() + size_of::<Range<usize>>();
        let of_expert = size_of::<ExpertRows>() + size_of::<usize>();
        shape.max_pairs() * of_pair
            + shape.max_tokens * shape.num_experts * size_of::<f32>()
            + shape.num_experts * of_expert
    }

    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }

    pub(crate) fn num_pairs(&self) -> usize {
        self.tokens * self.shape.top_k
    }

    pub(crate) fn num_experts(&self) -> usize {
        self.shape.num_experts
    }

    /// The weights of a token's experts, by rank.
    pub(crate) fn weights(&self, token: usize) -> &[f32] {
        &self.weights[token * self.shape.top_k..][..self.shape.top_k]
    }

    /// The order in which a product takes the pairs.
    pub(crate) fn order(&self, input: ExpertInput) -> Order<'_> {
        let pairs_per_row = match input {
            ExpertInput::Tokens => self.shape.top_k,
            ExpertInput::Pairs => 1,
        };
        Order { pairs: &self.pairs[..self.num_pairs()], pairs_per_row, experts: &self.experts }
    }

    /// Places of the order that a tile kernel serves together.
    pub(crate) fn groups(&self) -> &[Range<usize>] {
        &self.groups
    }

    /// Routes `logits`, `[tokens, num_experts]`.
    pub(crate) fn route(&mut self, pool: &ThreadPool, kernels: &Kernels, logits: &[f32], routing: Routing) {
        let RoutesShape { max_tokens, num_experts, top_k, .. } = self.shape;
        self.tokens = logits.len() / num_experts;
        assert!(self.tokens <= max_tokens && routing.top_k == top_k, "route: room for other routes");
        let (ids, weights, gates) =
            (Disjoint::new(&mut self.ids), Disjoint::new(&mut self.weights), Disjoint::new(&mut self.gates));
        pool.run(self.tokens, |token| {
            let logits = &logits[token * num_experts..][..num_experts];
            // SAFETY: each task takes the rows of its own token, and a job runs each task once.
            let (ids, weights, gates) = unsafe {
                (
                    ids.slice(token * top_k, top_k),
                    weights.slice(token * top_k, top_k),
                    gates.slice(token * num_experts, num_experts),
                )
            };
            select(logits, ids);
            weigh(kernels, logits, routing, ids, gates, weights);
        });
        self.sort();
    }

    /// Sorts the pairs by expert.
    fn sort(&mut self) {
        let num_pairs = self.num_pairs();
        let ids = &self.ids[..num_pairs];
        self.next.fill(0);
        ids.iter().for_each(|&id| self.next[id as usize] += 1);
        self.experts.clear();
        self.groups.clear();
        let mut first = 0;
        for (expert, next) in self.next.iter_mut().enumerate() {
            let places = first..first + *next;
            *next = first;
            first = places.end;
            if !places.is_empty() {
                let groups = places.clone().step_by(MAX_TOKENS);
                self.groups.extend(groups.map(|first| first..places.end.min(first + MAX_TOKENS)));
                self.experts.push(ExpertRows { expert, places });
            }
        }
        for (pair, &id) in ids.iter().enumerate() {
            let place = &mut self.next[id as usize];
            self.pairs[*place] = pair as u32;
            *place += 1;
        }
    }
}

/// The indices of the highest logits, the highest first, of equal ones the first; NaN counts as minus infinity.
fn select(logits: &[f32], ids: &mut [u32]) {
    let mut previous: Option<(f32, usize)> = None;
    for id in ids {
        let mut best: Option<(f32, usize)> = None;
        for (i, &logit) in logits.iter().enumerate() {
            let logit = if logit.is_nan() { f32::NEG_INFINITY } else { logit };
            let is_left = previous.is_none_or(|(last, at)| logit < last || (logit == last && i > at));
            if is_left && best.is_none_or(|(best, _)| logit > best) {
                best = Some((logit, i));
            }
        }
        *id = best.expect("a token takes no more experts than there are").1 as u32;
        previous = best;
    }
}

/// The weights of the selected experts.
fn weigh(
    kernels: &Kernels,
    logits: &[f32],
    routing: Routing,
    ids: &[u32],
    gates: &mut [f32],
    weights: &mut [f32],
) {
    match routing.gating {
        Gating::Softmax => {
            gates.copy_from_slice(logits);
            kernels.softmax(gates);
            weights.iter_mut().zip(ids).for_each(|(weight, &id)| *weight = gates[id as usize]);
        }
        Gating::SoftmaxOfSelected => {
            weights.iter_mut().zip(ids).for_each(|(weight, &id)| *weight = logits[id as usize]);
            kernels.softmax(weights);
        }
    }
    if routing.norm {
        let sum = weights.iter().fold(0.0, |sum, weight| sum + weight).max(Routing::MIN_SUM);
        weights.iter_mut().for_each(|weight| *weight /= sum);
    }
    weights.iter_mut().for_each(|weight| *weight *= routing.scale);
}

#[cfg(test)]
mod tests {
    use super::select;

    #[test]
    fn the_highest_are_selected_and_of_equal_ones_the_first() {
        let of = |logits: &[f32], top_k: usize| {
            let mut ids = vec![0; top_k];
            select(logits, &mut ids);
            ids
        };
        assert_eq!(of(&[1.0, 3.0, 2.0, 3.0], 3), [1, 3, 2]);
        assert_eq!(of(&[0.0; 5], 3), [0, 1, 2]);
        assert_eq!(of(&[0.0, -0.0, 0.0], 2), [0, 1]);
        assert_eq!(of(&[f32::NAN, f32::NEG_INFINITY, -1.0], 3), [2, 0, 1]);
        assert_eq!(of(&[f32::NEG_INFINITY; 3], 2), [0, 1]);
        assert_eq!(of(&[f32::INFINITY, 1.0], 2), [0, 1]);
    }
}
