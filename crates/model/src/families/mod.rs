//! The model families: one short file each, which turns a file's metadata into a [`ModelSpec`] and names the tensors.
//!
//! To add a family, write such a file and list it in [`FAMILIES`]. A caller can also bring one of its own
//! ([`LlamaConfig::from_gguf_with`](crate::LlamaConfig::from_gguf_with)).

mod keys;
mod llama;

use std::fmt;

use gguf::Gguf;

pub use keys::Keys;
pub use llama::LLAMA;

use crate::{Error, ModelSpec, Result};

/// The families that this crate knows.
pub static FAMILIES: [&Family; 1] = [&LLAMA];

/// A model family: how a file describes a model of it.
pub struct Family {
    /// `general.architecture` of its files, and the prefix of its keys.
    pub architecture: &'static str,
    /// Reads the metadata.
    pub spec: fn(&Keys<'_>) -> Result<ModelSpec>,
    /// The tensors' names.
    pub tensors: TensorNames,
}

/// Two families are equal when they read the same files.
impl PartialEq for Family {
    fn eq(&self, other: &Self) -> bool {
        self.architecture == other.architecture
    }
}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Family({})", self.architecture)
    }
}

impl Family {
    /// What a file of this family describes.
    ///
    /// # Errors
    /// A key that is missing, mistyped or out of range, by name.
    pub fn read(&'static self, gguf: &Gguf) -> Result<ModelSpec> {
        let spec = (self.spec)(&Keys::new(gguf, self))?;
        spec.validate()?;
        Ok(spec)
    }
}

/// Where a family keeps its weights: names without `.weight`, `.bias` and, of a layer's tensors, `blk.N.`.
///
/// A list names the tensors whose rows are stacked into one product; a fused tensor is a list of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorNames {
    /// `[vocab, hidden]` embedding table.
    pub embedding: &'static str,
    /// `[hidden]` norm before the LM head.
    pub output_norm: &'static str,
    /// `[vocab, hidden]` LM head; absent in files that use the embedding table for it.
    pub output: &'static str,
    /// `[rope.dim / 2]` divisors of the rotation's frequencies; optional.
    pub rope_factors: &'static str,
    /// `[hidden]` norm before the attention.
    pub attn_norm: &'static str,
    /// `[q_dim + 2 kv_dim, hidden]`: queries, keys and values.
    pub qkv: &'static [&'static str],
    /// `[head_dim]` norm of the queries ([`QkNorm::PerHead`](crate::QkNorm)).
    pub q_norm: &'static str,
    /// `[head_dim]` norm of the keys.
    pub k_norm: &'static str,
    /// `[num_heads]` logits of the attention's sinks.
    pub sinks: &'static str,
    /// `[hidden, q_dim]`.
    pub attn_out: &'static str,
    /// `[hidden]` norm of the attention's output.
    pub post_attn_norm: &'static str,
    /// `[hidden]` norm before the feed-forward layer.
    pub ffn_norm: &'static str,
    /// `[2 inner, hidden]`: gate, then up.
    pub gate_up: &'static [&'static str],
    /// `[hidden, inner]`.
    pub down: &'static str,
    /// `[hidden]` norm of the feed-forward layer's output.
    pub post_ffn_norm: &'static str,
}

impl TensorNames {
    /// The names that most families use. A family states those that differ.
    pub const STANDARD: Self = Self {
        embedding: "token_embd",
        output_norm: "output_norm",
        output: "output",
        rope_factors: "rope_freqs",
        attn_norm: "attn_norm",
        qkv: &["attn_q", "attn_k", "attn_v"],
        q_norm: "attn_q_norm",
        k_norm: "attn_k_norm",
        sinks: "attn_sinks",
        attn_out: "attn_output",
        post_attn_norm: "post_attention_norm",
        ffn_norm: "ffn_norm",
        gate_up: &["ffn_gate", "ffn_up"],
        down: "ffn_down",
        post_ffn_norm: "post_ffw_norm",
    };
}

/// The family of a file, among `families`.
///
/// # Errors
/// A file without an architecture, or with one that none of them reads.
pub(crate) fn of_file(gguf: &Gguf, families: &[&'static Family]) -> Result<&'static Family> {
    let architecture = gguf.metadata().architecture()?;
    let family = families.iter().find(|family| family.architecture == architecture);
    family.copied().ok_or_else(|| Error::UnsupportedArchitecture {
        found: architecture.to_owned(),
        supported: families.iter().map(|family| family.architecture).collect::<Vec<_>>().join(", "),
    })
}
