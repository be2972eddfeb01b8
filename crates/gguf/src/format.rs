//! The tensor formats this crate reads, and the dispatch from a [`Format`] to its [`BlockFormat`].

use std::fmt;

use crate::blocks::{self, BlockFormat};

/// How a tensor's values are stored. The names are ggml's.
#[allow(non_camel_case_types, missing_docs)] // The names say all there is to say; `blocks` describes each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    IQ4_NL,
    IQ4_XS,
    MXFP4,
    IQ1_S,
    IQ1_M,
    IQ2_XXS,
    IQ2_XS,
    IQ2_S,
    IQ3_XXS,
    IQ3_S,
    TQ1_0,
    TQ2_0,
}

/// Evaluates an expression with `$Block` bound to the [`BlockFormat`] of a [`Format`].
macro_rules! with_block_format {
    ($format:expr, $Block:ident => $body:expr) => {
        with_block_format!(@match $format, $Block => $body,
            F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4
            IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S TQ1_0 TQ2_0)
    };
    (@match $format:expr, $Block:ident => $body:expr, $($name:ident)*) => {
        match $format {
            $(Format::$name => {
                type $Block = blocks::$name;
                $body
            })*
        }
    };
}

impl Format {
    /// Every format, in the order of the enum.
    pub const ALL: [Format; 25] = [
        Format::F32,
        Format::F16,
        Format::BF16,
        Format::Q4_0,
        Format::Q4_1,
        Format::Q5_0,
        Format::Q5_1,
        Format::Q8_0,
        Format::Q2_K,
        Format::Q3_K,
        Format::Q4_K,
        Format::Q5_K,
        Format::Q6_K,
        Format::IQ4_NL,
        Format::IQ4_XS,
        Format::MXFP4,
        Format::IQ1_S,
        Format::IQ1_M,
        Format::IQ2_XXS,
        Format::IQ2_XS,
        Format::IQ2_S,
        Format::IQ3_XXS,
        Format::IQ3_S,
        Format::TQ1_0,
        Format::TQ2_0,
    ];

    /// Number of weights in a block: 1, 32 or 256. A row is a whole number of blocks.
    pub const fn block_len(self) -> usize {
        with_block_format!(self, B => B::BLOCK_LEN)
    }

    /// Number of bytes of a block.
    pub const fn block_bytes(self) -> usize {
        with_block_format!(self, B => B::BLOCK_BYTES)
    }

    /// Number of bytes that `len` weights take, or `None` if they are not a whole number of blocks or the
    /// size does not fit a `u64`.
    pub const fn bytes_for(self, len: u64) -> Option<u64> {
        if !len.is_multiple_of(self.block_len() as u64) {
            return None;
        }
        (len / self.block_len() as u64).checked_mul(self.block_bytes() as u64)
    }

    /// Dequantises whole blocks: `bytes` to `out`.
    ///
    /// # Panics
    /// If `bytes` and `out` are not the same whole number of blocks.
    pub fn dequantize(self, bytes: &[u8], out: &mut [f32]) {
        with_block_format!(self, B => dequantize_blocks::<B>(bytes, out));
    }

    /// ggml's name of the format, as `inspect` tools print it.
    pub const fn name(self) -> &'static str {
        with_block_format!(self, B => B::NAME)
    }

    /// The number that stands for the format in a file (`enum ggml_type`).
    pub const fn ggml_type(self) -> u32 {
        with_block_format!(self, B => B::GGML_TYPE)
    }

    /// The format a file's type number stands for, if it is one of ours.
    pub fn from_ggml_type(ggml_type: u32) -> Option<Format> {
        Format::ALL.into_iter().find(|format| format.ggml_type() == ggml_type)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

fn dequantize_blocks<B: BlockFormat>(bytes: &[u8], out: &mut [f32]) {
    let n_blocks = bytes.len() / B::BLOCK_BYTES;
    assert!(
        bytes.len() == n_blocks * B::BLOCK_BYTES && out.len() == n_blocks * B::BLOCK_LEN,
        "{}: {} bytes and {} values are not the same whole number of blocks",
        B::NAME,
        bytes.len(),
        out.len()
    );
    for (block, values) in bytes.chunks_exact(B::BLOCK_BYTES).zip(out.chunks_exact_mut(B::BLOCK_LEN)) {
        B::dequantize(block, values);
    }
}

/// ggml's name of a type that this crate does not read, so that an error can say more than a number.
pub(crate) fn foreign_type_name(ggml_type: u32) -> &'static str {
    match ggml_type {
        4 => "Q4_2, removed from ggml",
        5 => "Q4_3, removed from ggml",
        9 => "Q8_1",
        15 => "Q8_K",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        31..=33 => "a pre-arranged Q4_0, removed from ggml",
        36..=38 => "a pre-arranged IQ4_NL, removed from ggml",
        40 => "NVFP4",
        _ => "not a known ggml type",
    }
}
