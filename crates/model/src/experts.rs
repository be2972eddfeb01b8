//! Feed-forward layers of several experts, of which each token takes a few.

use crate::check::check;
use crate::spec::{count, nonzero};
use crate::{Activation, Backend, Result};

/// A feed-forward layer of several experts: a router gives each token some of them, whose outputs are added.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExpertsSpec {
    /// Experts.
    pub num_experts: usize,
    /// Width between an expert's products.
    pub inner: usize,
    /// The activation of an expert's gate.
    pub act: Activation,
    /// Which experts a token takes, and their weights.
    pub routing: Routing,
    /// An expert that every token takes beside its own.
    pub shared: Option<SharedExpert>,
}

/// How a router's logits become experts and their weights.
///
/// A token takes the `top_k` experts with the highest logits, of equal ones the first, highest first: their ranks. Its
/// output is the sum over the ranks, in order, of weight times output.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Routing {
    /// Experts of a token.
    pub top_k: usize,
    /// What the weights are made of.
    pub gating: Gating,
    /// Weights are divided by their sum over the token's experts, or by [`Routing::MIN_SUM`] if that is more.
    pub norm: bool,
    /// Weights are multiplied by it in the end.
    pub scale: f32,
}

impl Routing {
    /// The least that weights are divided by: the smallest normal number of f16.
    pub const MIN_SUM: f32 = 6.103_515_6e-5;
}

/// From a router's logits to the weights of experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Gating {
    /// Softmax over all experts.
    Softmax,
    /// Softmax over the token's own experts.
    SoftmaxOfSelected,
}

/// The expert that every token takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedExpert {
    /// Width between its products.
    pub inner: usize,
    /// Whether its output is multiplied by the sigmoid of a product with the layer's input.
    pub gated: bool,
}

impl ExpertsSpec {
    pub(crate) fn validate(&self) -> Result<()> {
        let Self { num_experts, inner, routing, shared, .. } = *self;
        count("expert_count", num_experts)?;
        count("expert_feed_forward_length", inner)?;
        count("expert_used_count", routing.top_k)?;
        let expected = format_args!("at most expert_count = {num_experts}").to_string();
        check(routing.top_k <= num_experts, "expert_used_count", expected, routing.top_k)?;
        nonzero("expert_weights_scale", routing.scale)?;
        shared.map_or(Ok(()), |shared| count("expert_shared_feed_forward_length", shared.inner))
    }
}

/// Room for the routes of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoutesShape {
    /// Tokens of the largest step.
    pub max_tokens: usize,
    /// Experts of a layer.
    pub num_experts: usize,
    /// Experts of a token.
    pub top_k: usize,
    /// Width of the widest input of the experts.
    pub max_cols: usize,
}

impl RoutesShape {
    /// Pairs of a token and one of its experts.
    pub fn max_pairs(&self) -> usize {
        self.max_tokens * self.top_k
    }
}

/// Which rows a product with experts takes. A pair is a token and one of its experts: pair `t * top_k + rank`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExpertInput {
    /// A row for each token, which all of its experts take.
    Tokens,
    /// A row for each pair.
    Pairs,
}

/// The same product of every expert of a layer: `y = weight[expert] * x + bias[expert]`.
pub struct ExpertOp<'a, B: Backend> {
    /// The weights of all experts.
    pub weights: &'a B::Experts,
    /// `[num_experts, rows]`, if the experts have one.
    pub bias: Option<&'a B::Buffer>,
    /// Which rows it takes.
    pub input: ExpertInput,
}

/// The output of the expert that every token takes.
pub struct SharedOutput<'a, B: Backend> {
    /// `[T, hidden]`.
    pub values: &'a B::Buffer,
    /// `[T, 1]`: values are multiplied by its sigmoid.
    pub gate: Option<&'a B::Buffer>,
}
