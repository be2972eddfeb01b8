//! What random models are made of: weights in any block format, a vocabulary, and the generator behind both.
//!
//! For tests, and for measurements that need a model's shape but not its sense. The same seed gives the same bytes on
//! every platform.

mod blocks;
mod rng;
mod vocab;

pub use blocks::random_blocks;
pub use rng::Rng;
pub use vocab::placeholder_vocabulary;
