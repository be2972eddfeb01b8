//! The metadata under one architecture's prefix, and what families read from it alike.

use gguf::Gguf;

use super::Family;
use crate::check::{MAX_COUNT, check};
use crate::{Error, Result, RopeScaling};

/// A file's metadata as one family reads it. Names are given without the architecture's prefix.
pub struct Keys<'a> {
    gguf: &'a Gguf,
    family: &'static Family,
}

impl<'a> Keys<'a> {
    pub(super) fn new(gguf: &'a Gguf, family: &'static Family) -> Self {
        Self { gguf, family }
    }

    /// The family that reads.
    pub fn family(&self) -> &'static Family {
        self.family
    }

    /// The full name of a key, as errors give it.
    pub fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.family.architecture)
    }

    /// A count, if the file has it.
    ///
    /// # Errors
    /// When the value is no count.
    pub fn find_count(&self, name: &str) -> Result<Option<usize>> {
        Ok(self.gguf.metadata().u32(&self.key(name))?.map(|value| value as usize))
    }

    /// A count.
    ///
    /// # Errors
    /// When the file does not have it.
    pub fn count(&self, name: &str) -> Result<usize> {
        self.find_count(name)?.ok_or_else(|| self.missing(name, "a count"))
    }

    /// The number of layers. Checked here, since a description has an entry for each.
    ///
    /// # Errors
    /// When the file does not have it, or has fewer tensors than layers.
    pub fn num_layers(&self) -> Result<usize> {
        let layers = self.count("block_count")?;
        check(layers <= MAX_COUNT, "num_layers", format_args!("at most {MAX_COUNT}"), layers)?;
        let tensors = self.gguf.tensors().count();
        let expected = format!("at most {tensors}, the number of the file's tensors");
        check(layers <= tensors, &self.key("block_count"), expected, layers)?;
        Ok(layers)
    }

    /// A number, if the file has it.
    ///
    /// # Errors
    /// When the value is no number.
    pub fn find_f32(&self, name: &str) -> Result<Option<f32>> {
        Ok(self.gguf.metadata().f32(&self.key(name))?)
    }

    /// A number.
    ///
    /// # Errors
    /// When the file does not have it.
    pub fn f32(&self, name: &str) -> Result<f32> {
        self.find_f32(name)?.ok_or_else(|| self.missing(name, "a number"))
    }

    fn missing(&self, name: &str, expected: &'static str) -> Error {
        Error::MissingKey { key: self.key(name), expected }
    }

    /// The embedding table's rows: what the weights really hold, whatever the metadata say.
    ///
    /// # Errors
    /// When there is no table, or `vocab_size` contradicts it.
    pub fn vocab_size(&self) -> Result<usize> {
        let table = format!("{}.weight", self.family.tensors.embedding);
        let rows = self.gguf.tensor(&table)?.rows();
        if let Some(stated) = self.find_count("vocab_size")? {
            check(stated == rows, &self.key("vocab_size"), format_args!("{rows} (rows of {table})"), stated)?;
        }
        Ok(rows)
    }

    /// Width of a head: `attention.key_length`, or the hidden size over the heads.
    ///
    /// # Errors
    /// When the division leaves a remainder, or keys and values differ in width.
    pub fn head_dim(&self, hidden_size: usize, num_heads: usize) -> Result<usize> {
        let head_dim = match self.find_count("attention.key_length")? {
            Some(length) => length,
            None => {
                let divides = num_heads > 0 && hidden_size.is_multiple_of(num_heads);
                let expected = format!("a divisor of embedding_length = {hidden_size}");
                check(divides, &self.key("attention.head_count"), expected, num_heads)?;
                hidden_size / num_heads
            }
        };
        let value_length = self.find_count("attention.value_length")?.unwrap_or(head_dim);
        let expected = format!("{head_dim} (the width of a key head)");
        check(value_length == head_dim, &self.key("attention.value_length"), expected, value_length)?;
        Ok(head_dim)
    }

    /// How the file stretches a context of `context_length` trained tokens.
    ///
    /// # Errors
    /// A kind that is not known, or a mistyped value.
    pub fn rope_scaling(&self, context_length: usize) -> Result<RopeScaling> {
        let kind_key = self.key("rope.scaling.type");
        // Files older than the `scaling` group state a linear factor alone.
        let kind = self.gguf.metadata().str(&kind_key)?.unwrap_or("linear");
        let factor = match self.find_f32("rope.scaling.factor")? {
            Some(factor) => factor,
            None => self.find_f32("rope.scale_linear")?.unwrap_or(1.0),
        };
        // A factor of 0 is how some converters write "no scaling".
        let factor = if factor == 0.0 { 1.0 } else { factor };
        match kind {
            "none" => Ok(RopeScaling::None),
            "linear" if factor == 1.0 => Ok(RopeScaling::None),
            "linear" => Ok(RopeScaling::Linear { factor }),
            "yarn" => Ok(RopeScaling::Yarn {
                factor,
                original_context: self
                    .find_count("rope.scaling.original_context_length")?
                    .unwrap_or(context_length) as u32,
                attn_factor: self.find_f32("rope.scaling.attn_factor")?.unwrap_or(1.0),
                ext_factor: self.find_f32("rope.scaling.yarn_ext_factor")?.unwrap_or(1.0),
                beta_fast: self.find_f32("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                beta_slow: self.find_f32("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
            }),
            other => Err(Error::InvalidValue {
                what: kind_key,
                expected: "none, linear or yarn".into(),
                found: other.to_owned(),
            }),
        }
    }
}
