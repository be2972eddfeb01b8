//! The crate's one error type. A message names the key, tensor or file, then what was expected and found.

use std::io;
use std::path::{Path, PathBuf};

use crate::format::{Format, foreign_type_name};

/// The result of reading or writing a GGUF file.
pub type Result<T> = std::result::Result<T, GgufError>;

/// What is wrong with a file, or with what was asked of it.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // Each variant's message describes it and its fields.
#[non_exhaustive]
pub enum GgufError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },

    #[error("{}: {problem}", path.display())]
    InFile { path: PathBuf, problem: Box<GgufError> },

    #[error("not a GGUF file: expected the magic {:?}, found {:?}", "GGUF", found.escape_ascii().to_string())]
    Magic { found: [u8; 4] },

    #[error(
        "big-endian GGUF files are not supported; hint: convert it with gguf-py's gguf_convert_endian.py"
    )]
    BigEndian,

    #[error(
        "GGUF version {found} is not supported: expected 2 or 3; \
         hint: convert the model again with a recent tool"
    )]
    Version { found: u32 },

    #[error(
        "the file ends inside {what}: {need} bytes expected at byte {at}, {left} left; \
         hint: the file is truncated or damaged, fetch it again"
    )]
    Truncated { what: String, at: u64, need: u64, left: u64 },

    #[error("{what} is not valid UTF-8 from its byte {valid_up_to} on")]
    Utf8 { what: String, valid_up_to: usize },

    #[error("{what} is {len} bytes long: expected at most {max}")]
    NameLength { what: String, len: u64, max: u64 },

    #[error("metadata key {key:?} appears twice")]
    DuplicateKey { key: String },

    #[error("metadata key {key:?} has value type {found}: expected 0 to 12")]
    ValueType { key: String, found: u32 },

    #[error("metadata key {key:?} is an array of arrays, which is not supported")]
    NestedArray { key: String },

    #[error("metadata key {key:?} holds the boolean {found}: expected 0 or 1")]
    Bool { key: String, found: u8 },

    #[error("metadata key {key:?} is missing: expected a {expected}")]
    MissingKey { key: String, expected: &'static str },

    #[error("metadata key {key:?} has the wrong type: expected {expected}, found {found}")]
    MistypedKey { key: String, expected: &'static str, found: String },

    #[error("metadata key \"general.alignment\" is {found}: expected a power of two up to {max}")]
    Alignment { found: u32, max: u32 },

    #[error("tensor {tensor:?} appears twice")]
    DuplicateTensor { tensor: String },

    #[error(
        "tensor {tensor:?} has ggml type {found} ({}), which is not supported: expected one of {}",
        foreign_type_name(*found), Format::ALL.map(Format::name).join(", ")
    )]
    UnsupportedFormat { tensor: String, found: u32 },

    #[error("tensor {tensor:?} has {found} dimensions: expected 1 to 4")]
    DimensionCount { tensor: String, found: u32 },

    #[error("tensor {tensor:?} has the shape {dims:?}: expected every dimension to be at least 1")]
    EmptyDimension { tensor: String, dims: Vec<u64> },

    #[error("tensor {tensor:?} has the shape {dims:?}: too large for this machine's addresses")]
    TooLarge { tensor: String, dims: Vec<u64> },

    #[error(
        "tensor {tensor:?} has rows of {cols} weights: expected a multiple of {}, \
         the block length of {format}",
        format.block_len()
    )]
    RowLength { tensor: String, format: Format, cols: u64 },

    #[error(
        "tensor {tensor:?} is at offset {offset} of the data: \
         expected a multiple of the alignment {alignment}"
    )]
    Misaligned { tensor: String, offset: u64, alignment: u64 },

    #[error(
        "tensor {tensor:?} does not fit in the file: {bytes} bytes expected at offset {offset} of the data, \
         which has {available} bytes; hint: the file is truncated or damaged, fetch it again"
    )]
    OutOfFile { tensor: String, offset: u64, bytes: u64, available: u64 },

    #[error(
        "tensors {first:?} and {second:?} overlap: {second:?} is at offset {offset} of the data, \
         where {first:?} still has {bytes} bytes"
    )]
    Overlap { first: String, second: String, offset: u64, bytes: u64 },

    #[error("tensor {tensor:?} is missing")]
    MissingTensor { tensor: String },

    #[error(
        "this is part {found} of a model split into {count} files: expected part 1; hint: open {}",
        first.as_ref().map_or("the first part".into(), |path| path.display().to_string())
    )]
    NotFirstPart { found: u64, count: u64, first: Option<PathBuf> },

    #[error("a model split into {count} files can only be opened by the path of its first part")]
    SplitInMemory { count: u64 },

    #[error("a model split into {count} files is named {expected:?}: expected that ending in the file name")]
    SplitName { count: u64, expected: String },

    #[error("part {part} of {count} of the split model is missing: expected {}", path.display())]
    MissingPart { part: u64, count: u64, path: PathBuf },

    #[error(
        "metadata key {key:?} is {found}: expected {expected}, as the other parts of the split model say"
    )]
    SplitMismatch { key: &'static str, expected: u64, found: u64 },

    #[error(
        "the parts of the split model hold {found} tensors: expected {expected}, \
         as \"split.tensors.count\" says"
    )]
    SplitTensorCount { expected: u64, found: u64 },
}

impl GgufError {
    /// Puts the file's name before a message that does not begin with one.
    pub(crate) fn in_file(self, path: &Path) -> GgufError {
        match self {
            named @ (GgufError::Io { .. } | GgufError::InFile { .. }) => named,
            problem => GgufError::InFile { path: path.to_owned(), problem: Box::new(problem) },
        }
    }
}
