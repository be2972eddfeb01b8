//! GGUF files: a checked memory-mapped reader, a small writer, and the block formats' scalar dequantisation.
//!
//! A GGUF file is a header (typed metadata, then one record per tensor) followed by the tensors' data.
//! [`Gguf::open`] maps the file and checks the whole header against the bytes that are really there, so that
//! whoever holds a [`TensorView`] may index its data without looking again. The weights themselves are never
//! copied.
//!
//! The dequantisation in [`blocks`] is the oracle that every faster kernel is tested against: it is written
//! to be compared with the drawing of the block above it, not to be quick.
//!
//! This crate knows nothing of models or devices: what a key or a tensor means is decided by those who ask
//! for it.
//!
//! Source of the file format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>; of the block
//! formats: `ggml-common.h` and `ggml-quants.c` of the same repository.
//!
//! ```
//! use gguf::{Format, Gguf, GgufWriter, Value};
//!
//! let mut writer = GgufWriter::new();
//! writer.metadata("general.architecture", Value::String("llama".into()));
//! writer.tensor("output_norm.weight", &[2], Format::F16, [0x00, 0x3c, 0x00, 0xc0]);
//!
//! let file = Gguf::from_vec(writer.write())?;
//! assert_eq!(file.metadata().architecture()?, "llama");
//! assert_eq!(file.tensor("output_norm.weight")?.dequantize(), [1.0, -2.0]);
//! # Ok::<(), gguf::GgufError>(())
//! ```

pub mod blocks;
mod cursor;
mod error;
mod file;
mod format;
pub mod half;
mod header;
mod mapping;
mod metadata;
pub mod random;
mod split;
mod tensor;
mod value;
mod writer;

pub use blocks::BlockFormat;
pub use error::{GgufError, Result};
pub use file::Gguf;
pub use format::Format;
pub use metadata::Metadata;
pub use tensor::TensorView;
pub use value::{Array, Value};
pub use writer::GgufWriter;
