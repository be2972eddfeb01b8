//! Qwen 2 and 3, and the text part of their vision models.
//!
//! Qwen 2 has biases of queries, keys and values, which are read wherever a file has them; Qwen 3 norms each head of queries
//! and keys. The vision models rotate by a position in time, height and width; those of text are one and the same number,
//! which makes it the plain rotation.
//!
//! Of the models with experts, Qwen 2 takes the router's shares as they are and adds a shared expert times the sigmoid of a
//! gate; Qwen 3 norms the shares and has no shared expert.

use super::{Family, Keys};
use crate::{FfnSpec, ModelSpec, QkNorm, Result, RopeStyle, SharedExpert, TensorNames};

/// Qwen 2 and 2.5.
pub static QWEN2: Family = Family { architecture: "qwen2", spec: qwen2, tensors: TensorNames::STANDARD };
/// The text part of Qwen 2 VL and 2.5 VL.
pub static QWEN2VL: Family = Family { architecture: "qwen2vl", spec: qwen2, tensors: TensorNames::STANDARD };
/// Qwen 3, dense.
pub static QWEN3: Family = Family { architecture: "qwen3", spec: qwen3, tensors: TensorNames::STANDARD };
/// The text part of Qwen 3 VL, dense.
pub static QWEN3VL: Family = Family { architecture: "qwen3vl", spec: qwen3, tensors: TensorNames::STANDARD };

/// Qwen 1.5 and 2 with experts.
pub static QWEN2MOE: Family =
    Family { architecture: "qwen2moe", spec: qwen2moe, tensors: TensorNames::STANDARD };
/// Qwen 3 with experts.
pub static QWEN3MOE: Family =
    Family { architecture: "qwen3moe", spec: qwen3moe, tensors: TensorNames::STANDARD };

fn qwen2(keys: &Keys<'_>) -> Result<ModelSpec> {
    keys.standard_spec(RopeStyle::Halves)
}

fn qwen3(keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = keys.standard_spec(RopeStyle::Halves)?;
    spec.layers.iter_mut().for_each(|layer| layer.attn.qk_norm = Some(QkNorm::PerHead));
    Ok(spec)
}

fn qwen2moe(keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = with_experts(keys)?;
    let stated = keys.find_count("expert_shared_feed_forward_length")?.filter(|&inner| inner > 0);
    let inner = match stated {
        Some(inner) => inner,
        None => keys.count("feed_forward_length")?,
    };
    for layer in &mut spec.layers {
        if let FfnSpec::Experts(experts) = &mut layer.ffn {
            experts.routing.norm = false;
            experts.shared = Some(SharedExpert { inner, gated: true });
        }
    }
    Ok(spec)
}

fn qwen3moe(keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = with_experts(keys)?;
    spec.layers.iter_mut().for_each(|layer| layer.attn.qk_norm = Some(QkNorm::PerHead));
    Ok(spec)
}

/// Files that do not state the width of an expert state that of all experts of a token together.
fn with_experts(keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = keys.expert_spec(RopeStyle::Halves)?;
    if keys.find_count("expert_feed_forward_length")?.is_none() {
        for layer in &mut spec.layers {
            if let FfnSpec::Experts(experts) = &mut layer.ffn {
                experts.inner /= experts.routing.top_k.max(1);
            }
        }
    }
    Ok(spec)
}
