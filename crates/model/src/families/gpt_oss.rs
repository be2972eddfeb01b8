//! `gpt-oss`: experts with biases and a clamped SwiGLU, attention with sinks, windows in every other layer, biases of all
//! projections.

use super::{Family, Keys};
use crate::{Activation, FfnSpec, Gating, ModelSpec, Result, RopeStyle, TensorNames};

/// gpt-oss.
pub static GPT_OSS: Family = Family {
    architecture: "gpt-oss",
    spec,
    // The norm before the feed-forward layer has another family's name of a norm behind the attention.
    tensors: TensorNames { ffn_norm: "post_attention_norm", ..TensorNames::STANDARD },
};

fn spec(keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = keys.expert_spec(RopeStyle::Halves)?;
    let window = keys.find_count("attention.sliding_window")?.filter(|&window| window > 0);
    for (layer, is_local) in spec.layers.iter_mut().zip(keys.local_layers(2)?) {
        layer.attn.sinks = true;
        layer.attn.window = window.filter(|_| is_local);
        if let FfnSpec::Experts(experts) = &mut layer.ffn {
            experts.act = Activation::ClampedSwiglu;
            (experts.routing.gating, experts.routing.norm) = (Gating::SoftmaxOfSelected, false);
        }
    }
    Ok(spec)
}
