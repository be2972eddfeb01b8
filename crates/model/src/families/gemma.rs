//! Gemma 2 and 3: layers with windows, norms of both branches' outputs, GeGLU, scaled embeddings.
//!
//! Norms' weights are in the file as they are applied.

use super::{Family, Keys};
use crate::{
    Activation, FfnSpec, ModelSpec, NormSlots, QkNorm, Result, RopeConfig, RopeScaling, RopeStyle,
    TensorNames,
};

/// Gemma 2.
pub static GEMMA2: Family = Family { architecture: "gemma2", spec: gemma2, tensors: TensorNames::STANDARD };
/// Gemma 3, text.
pub static GEMMA3: Family = Family { architecture: "gemma3", spec: gemma3, tensors: TensorNames::STANDARD };

/// Layers of the models with 27 billion parameters, which scale scores by the width of the hidden state's share of a head.
const GEMMA2_27B_LAYERS: usize = 46;
const GEMMA3_27B_LAYERS: usize = 62;

fn gemma2(keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = gemma(keys, GEMMA2_27B_LAYERS)?;
    let cap = keys.find_f32("attn_logit_softcapping")?.unwrap_or(50.0);
    spec.final_softcap = Some(keys.find_f32("final_logit_softcapping")?.unwrap_or(30.0));
    let window = keys.find_count("attention.sliding_window")?.unwrap_or(4096);
    for (layer, is_local) in spec.layers.iter_mut().zip(keys.local_layers(2)?) {
        layer.attn.softcap = Some(cap);
        layer.attn.window = is_local.then_some(window);
    }
    Ok(spec)
}

fn gemma3(keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = gemma(keys, GEMMA3_27B_LAYERS)?;
    spec.final_softcap = keys.find_f32("final_logit_softcapping")?.filter(|&cap| cap != 0.0);
    spec.layers.iter_mut().for_each(|layer| layer.attn.qk_norm = Some(QkNorm::PerHead));
    let Some(window) = keys.find_count("attention.sliding_window")?.filter(|&window| window > 0) else {
        return Ok(spec);
    };
    // Layers with a window rotate by a base of their own, and their context is not stretched.
    let base = keys.find_f32("rope.freq_base_swa")?.unwrap_or(10000.0);
    spec.ropes.push(RopeConfig { base, scaling: RopeScaling::None, ..spec.ropes[0] });
    for (layer, is_local) in spec.layers.iter_mut().zip(keys.local_layers(6)?) {
        if is_local {
            (layer.attn.window, layer.attn.rope) = (Some(window), Some(1));
        }
    }
    Ok(spec)
}

/// What both have. The model of `largest` layers has another scale of scores.
fn gemma(keys: &Keys<'_>, largest: usize) -> Result<ModelSpec> {
    let mut spec = keys.standard_spec(RopeStyle::Halves)?;
    spec.embed_scale = (spec.hidden_size as f32).sqrt();
    let is_largest = spec.layers.len() == largest;
    for layer in &mut spec.layers {
        layer.norms = NormSlots { post_attn: true, post_ffn: true };
        layer.ffn = FfnSpec::Dense { inner: layer.ffn.inner(), act: Activation::GeluTanh };
        if is_largest {
            layer.attn.scale = 1.0 / (spec.hidden_size as f32 / layer.attn.num_heads as f32).sqrt();
        }
    }
    Ok(spec)
}
