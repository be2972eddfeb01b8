//! Layers with experts: the weights of all experts of a product, and the routes of a step, which stay on the card.

use std::sync::Arc;

use model::{Error, Result, RoutesShape};

use crate::driver::{Context, Memory};
use crate::matrix::ExpertMatrix;

/// Most experts of a layer: the kernel that sorts pairs counts them in shared memory.
const MAX_EXPERTS: usize = 512;

/// Pairs that a block of a product takes: a few, and many.
const GROUPS: [usize; 2] = [8, 32];

/// The weights of all experts, of one product: stacked matrices, each with one for each expert.
pub struct CudaExperts {
    pub(crate) parts: Vec<ExpertMatrix>,
}

/// The experts of a step's tokens, on the card.
pub struct CudaRoutes {
    pub(crate) shape: RoutesShape,
    /// Of the step.
    pub(crate) tokens: usize,
    pub(crate) ids: Memory,     // [P], the expert of each pair
    pub(crate) weights: Memory, // [P]
    pub(crate) order: Memory,   // [P], by expert
    pub(crate) groups: Memory,  // [1 + 3 P]
}

impl CudaRoutes {
    /// # Errors
    /// When there are more experts than kernels count, or the card has no memory left.
    pub(crate) fn new(context: &Arc<Context>, shape: RoutesShape) -> Result<Self> {
        check_experts(shape.num_experts)?;
        let [pairs, groups] = memory_bytes(shape);
        let memory = |bytes| Memory::new(context, "routes", bytes);
        Ok(Self {
            shape,
            tokens: 0,
            ids: memory(pairs)?,
            weights: memory(pairs)?,
            order: memory(pairs)?,
            groups: memory(groups)?,
        })
    }

    /// Bytes on the card.
    pub(crate) fn bytes(shape: RoutesShape) -> u64 {
        let [pairs, groups] = memory_bytes(shape).map(Memory::rounded);
        3 * pairs + groups
    }

    /// Pairs of the step.
    pub(crate) fn pairs(&self) -> usize {
        self.tokens * self.shape.top_k
    }

    /// Pairs that a block of a product takes: about as many as an expert has. No result depends on it.
    pub(crate) fn group(&self) -> usize {
        let of_expert = self.pairs() / self.shape.num_experts.max(1);
        if of_expert <= GROUPS[0] { GROUPS[0] } else { GROUPS[1] }
    }

    /// The most groups that the step can have.
    pub(crate) fn max_groups(&self) -> usize {
        let pairs = self.pairs();
        pairs.min(self.shape.num_experts.min(pairs) + pairs / self.group())
    }
}

fn memory_bytes(shape: RoutesShape) -> [u64; 2] {
    let pairs = shape.max_pairs() as u64;
    [4 * pairs, 4 * (1 + 3 * pairs)]
}

/// # Errors
/// When there are more experts than kernels count.
pub(crate) fn check_experts(num_experts: usize) -> Result<()> {
    if num_experts <= MAX_EXPERTS {
        return Ok(());
    }
    Err(Error::InvalidValue {
        what: "experts of a layer".to_owned(),
        expected: format!("at most {MAX_EXPERTS} on a CUDA device"),
        found: num_experts.to_string(),
    })
}
