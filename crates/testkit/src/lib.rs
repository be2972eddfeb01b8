//! What the tests of the other crates share: random models in every format and variation, and the right answers.
//!
//! [`ModelSpec`] makes a small GGUF file of random weights; [`mod@reference`] computes its logits in float64, written from
//! the papers and knowing nothing of the crates under test but the file reader and its scalar dequantisation;
//! [`relative_l2`] is the distance between what an engine gave and what is right; [`models`] lists the models that
//! stand for all that files hold. Random numbers come from [`Rng`], which gives the same on every platform.
//! [`peak_memory`](fn@peak_memory) runs a command and returns the memory it took. [`soak()`] says how
//! often tests of random cases repeat.

#![forbid(unsafe_code)]

pub mod models;
mod peak_memory;
pub mod reference;
mod rope;
mod soak;
mod spec;
mod traits;

pub use gguf::random::{Rng, random_blocks};
pub use peak_memory::peak_memory;
pub use reference::Reference;
pub use soak::soak;
pub use spec::{ExpertTensors, Experts, Form, Formats, ModelSpec, RopeScaling, Router, YarnRamp};

/// `|got - want| / |want|`, in Euclidean norms.
///
/// # Panics
/// When the lengths differ or `want` is zero; NaN where `got` is not finite.
pub fn relative_l2(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len(), "relative_l2: lengths");
    let error: f64 = got.iter().zip(want).map(|(&got, want)| (f64::from(got) - want).powi(2)).sum();
    let norm: f64 = want.iter().map(|want| want.powi(2)).sum();
    assert!(norm > 0.0, "relative_l2: nothing to compare with");
    (error / norm).sqrt()
}
