//! `granite` and `granitemoe`: Llama with scales of the embeddings, the attention, both branches and the logits.

use super::{Family, Keys};
use crate::{ModelSpec, Result, RopeStyle, TensorNames};

/// Granite 3, dense.
pub static GRANITE: Family = Family { architecture: "granite", spec, tensors: TensorNames::STANDARD };

/// Granite 3 with experts, one of which every token may take beside its own.
pub static GRANITEMOE: Family = Family { architecture: "granitemoe", spec, tensors: TensorNames::STANDARD };

fn spec(keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = keys.expert_spec(RopeStyle::Interleaved)?;
    // 0 is how converters write "as usual".
    let stated = |name: &str| Ok::<_, crate::Error>(keys.find_f32(name)?.filter(|&value| value != 0.0));
    spec.embed_scale = stated("embedding_scale")?.unwrap_or(1.0);
    // Logits are divided by it.
    spec.logit_scale = 1.0 / stated("logit_scale")?.unwrap_or(1.0);
    let (residual_scale, scale) = (stated("residual_scale")?, stated("attention.scale")?);
    let rotates = keys.find_bool("rope.scaling.finetuned")?.unwrap_or(true);
    for layer in &mut spec.layers {
        layer.residual_scale = residual_scale.unwrap_or(1.0);
        layer.attn.scale = scale.unwrap_or(layer.attn.scale);
        if !rotates {
            layer.attn.rope = None;
        }
    }
    Ok(spec)
}
