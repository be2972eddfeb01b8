//! `llama`: Llama 1 to 3, Mistral, and everything that converters write in their form.

use super::{Family, Keys};
use crate::check::check;
use crate::{
    Activation, AttentionSpec, FfnSpec, LayerSpec, ModelSpec, NormSlots, Result, RopeConfig, RopeStyle,
    TensorNames,
};

/// The family.
pub static LLAMA: Family = Family { architecture: "llama", spec, tensors: TensorNames::STANDARD };

fn spec(keys: &Keys<'_>) -> Result<ModelSpec> {
    // Mixtures of experts carry the architecture's name but another feed-forward layer.
    let experts = keys.find_count("expert_count")?.unwrap_or(0);
    check(experts == 0, &keys.key("expert_count"), "0 (mixtures of experts are not supported)", experts)?;
    let hidden_size = keys.count("embedding_length")?;
    let num_heads = keys.count("attention.head_count")?;
    let head_dim = keys.head_dim(hidden_size, num_heads)?;
    let context_length = keys.count("context_length")?;
    let layer = LayerSpec {
        attn: AttentionSpec {
            num_heads,
            num_kv_heads: keys.find_count("attention.head_count_kv")?.unwrap_or(num_heads),
            head_dim,
            rope: Some(0),
            qk_norm: None,
            scale: 1.0 / (head_dim as f32).sqrt(),
            softcap: None,
            window: None,
            sinks: false,
            kv_from: None,
        },
        ffn: FfnSpec::Dense { inner: keys.count("feed_forward_length")?, act: Activation::Silu },
        norms: NormSlots::default(),
        residual_scale: 1.0,
    };
    Ok(ModelSpec {
        architecture: keys.family().architecture,
        tensors: keys.family().tensors,
        vocab_size: keys.vocab_size()?,
        hidden_size,
        context_length,
        norm_eps: keys.f32("attention.layer_norm_rms_epsilon")?,
        embed_scale: 1.0,
        logit_scale: 1.0,
        final_softcap: None,
        ropes: vec![RopeConfig {
            base: keys.find_f32("rope.freq_base")?.unwrap_or(10000.0),
            dim: keys.find_count("rope.dimension_count")?.unwrap_or(head_dim),
            style: RopeStyle::Interleaved,
            scaling: keys.rope_scaling(context_length)?,
        }],
        layers: vec![layer; keys.num_layers()?],
    })
}
