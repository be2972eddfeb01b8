//! `phi3`: Phi 3, 3.5 and 4, with fused tensors and, of long contexts, divisors of the rotation's frequencies.
//!
//! Files state a window that llama.cpp does not apply; neither does this.

use super::{Family, Keys};
use crate::{ModelSpec, Result, RopeScaling, RopeStyle, TensorNames};

/// Phi 3, 3.5 and 4.
pub static PHI3: Family = Family {
    architecture: "phi3",
    spec,
    // Rows of the gate, then of the other factor.
    tensors: TensorNames { gate_up: &["ffn_up"], ..TensorNames::STANDARD },
};

fn spec(keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = keys.standard_spec(RopeStyle::Halves)?;
    if keys.has_tensor(spec.tensors.rope_factors_long) {
        spec.ropes[0].scaling = RopeScaling::LongRope {
            original_context: keys.original_context(spec.context_length)?,
            attn_factor: keys.find_f32("rope.scaling.attn_factor")?.unwrap_or(1.0),
        };
    }
    Ok(spec)
}
