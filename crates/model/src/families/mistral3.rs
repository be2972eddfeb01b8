//! `mistral3`: Ministral 3 and Devstral 2: Llama with queries that grow with the position.

use super::{Family, Keys};
use crate::{ModelSpec, Result, RopeStyle, Temperature, TensorNames};

/// Mistral 3.
pub static MISTRAL3: Family = Family { architecture: "mistral3", spec, tensors: TensorNames::STANDARD };

fn spec(keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = keys.standard_spec(RopeStyle::Interleaved)?;
    if let Some(scale) = keys.find_f32("attention.temperature_scale")?.filter(|&scale| scale != 0.0) {
        let length = keys.original_context(spec.context_length)?;
        let temperature = Some(Temperature { scale, length });
        spec.layers.iter_mut().for_each(|layer| layer.attn.temperature = temperature);
    }
    Ok(spec)
}
