//! `llama`: Llama 1 to 3, Mistral, Mixtral, and everything that converters write in their form.

use super::{Family, Keys};
use crate::{ModelSpec, Result, RopeStyle, TensorNames};

/// The family.
pub static LLAMA: Family = Family { architecture: "llama", spec, tensors: TensorNames::STANDARD };

fn spec(keys: &Keys<'_>) -> Result<ModelSpec> {
    keys.expert_spec(RopeStyle::Interleaved)
}
