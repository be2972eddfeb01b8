//! The model families: one short file each, which turns a file's metadata into a [`ModelSpec`] and names the tensors.
//!
//! To add a family, write such a file and list it in [`FAMILIES`]. A caller can also bring one of its own
//! ([`LlamaConfig::from_gguf_with`](crate::LlamaConfig::from_gguf_with)).

mod gemma;
mod gpt_oss;
mod granite;
mod keys;
mod llama;
mod mistral3;
mod phi3;
mod qwen;
mod smollm3;

use std::fmt;

use gguf::Gguf;

pub use gemma::{GEMMA2, GEMMA3};
pub use gpt_oss::GPT_OSS;
pub use granite::{GRANITE, GRANITEMOE};
pub use keys::Keys;
pub use llama::LLAMA;
pub use mistral3::MISTRAL3;
pub use phi3::PHI3;
pub use qwen::{QWEN2, QWEN2MOE, QWEN2VL, QWEN3, QWEN3MOE, QWEN3VL};
pub use smollm3::SMOLLM3;

use crate::{Error, ModelSpec, Result, TensorNames};

/// The families that this crate knows.
pub static FAMILIES: [&Family; 15] = [
    &LLAMA,
    &QWEN2,
    &QWEN2MOE,
    &QWEN2VL,
    &QWEN3,
    &QWEN3MOE,
    &QWEN3VL,
    &MISTRAL3,
    &SMOLLM3,
    &GRANITE,
    &GRANITEMOE,
    &PHI3,
    &GEMMA2,
    &GEMMA3,
    &GPT_OSS,
];

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
