//! `smollm3`: Llama, but every fourth layer does not rotate.

use super::{Family, Keys};
use crate::{ModelSpec, Result, RopeStyle, TensorNames};

/// SmolLM 3.
pub static SMOLLM3: Family = Family { architecture: "smollm3", spec, tensors: TensorNames::STANDARD };

/// The last of so many layers does not rotate.
const PERIOD: usize = 4;

fn spec(keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = keys.standard_spec(RopeStyle::Interleaved)?;
    spec.layers.iter_mut().skip(PERIOD - 1).step_by(PERIOD).for_each(|layer| layer.attn.rope = None);
    Ok(spec)
}
