//! Qwen 2 and 3, and the text part of their vision models.
//!
//! Qwen 2 has biases of queries, keys and values, which are read wherever a file has them; Qwen 3 norms each head of queries
//! and keys. The vision models rotate by a position in time, height and width; those of text are one and the same number,
//! which makes it the plain rotation.

use super::{Family, Keys};
use crate::{ModelSpec, QkNorm, Result, RopeStyle, TensorNames};

/// Qwen 2 and 2.5.
pub static QWEN2: Family = Family { architecture: "qwen2", spec: qwen2, tensors: TensorNames::STANDARD };
/// The text part of Qwen 2 VL and 2.5 VL.
pub static QWEN2VL: Family = Family { architecture: "qwen2vl", spec: qwen2, tensors: TensorNames::STANDARD };
/// Qwen 3, dense.
pub static QWEN3: Family = Family { architecture: "qwen3", spec: qwen3, tensors: TensorNames::STANDARD };
/// The text part of Qwen 3 VL, dense.
pub static QWEN3VL: Family = Family { architecture: "qwen3vl", spec: qwen3, tensors: TensorNames::STANDARD };

fn qwen2(keys: &Keys<'_>) -> Result<ModelSpec> {
    keys.standard_spec(RopeStyle::Halves)
}

fn qwen3(keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = keys.standard_spec(RopeStyle::Halves)?;
    spec.layers.iter_mut().for_each(|layer| layer.attn.qk_norm = Some(QkNorm::PerHead));
    Ok(spec)
}
