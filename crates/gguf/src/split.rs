//! Split models: one model in several files, `NAME-00001-of-00003.gguf` and so on.
//!
//! The first part holds the metadata of the model. Every part is a GGUF file of its own with the keys
//!
//! - `split.no`: its number, from 0;
//! - `split.count`: the number of parts;
//! - `split.tensors.count`: the number of tensors in all parts together.
//!
//! Source: llama.cpp's `gguf-split` tool.

use std::path::{Path, PathBuf};

use crate::error::{GgufError, Result};
use crate::metadata::Metadata;

const NO: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS_COUNT: &str = "split.tensors.count";

/// What one part says of the split.
pub(crate) struct Split {
    /// From 0.
    no: u64,
    pub(crate) count: u64,
    n_tensors: Option<u64>,
}

impl Split {
    /// `None` if the file is whole.
    pub(crate) fn of(metadata: &Metadata) -> Result<Option<Split>> {
        let count = metadata.u64(COUNT)?.unwrap_or(1);
        if count <= 1 {
            return Ok(None);
        }
        let no = metadata.u64(NO)?.ok_or(GgufError::MissingKey { key: NO.into(), expected: "u64" })?;
        Ok(Some(Split { no, count, n_tensors: metadata.u64(TENSORS_COUNT)? }))
    }

    /// The paths of the parts after the first, given the path of the first.
    pub(crate) fn other_paths(&self, first: &Path) -> Result<impl Iterator<Item = (u64, PathBuf)>> {
        let count = self.count;
        let own_ending = ending(self.no.saturating_add(1), count);
        let prefix = first
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(&own_ending))
            .map(str::to_owned);
        if self.no != 0 {
            let first = prefix.map(|prefix| first.with_file_name(prefix + &ending(1, count)));
            return Err(GgufError::NotFirstPart { found: self.no.saturating_add(1), count, first });
        }
        let prefix = prefix.ok_or(GgufError::SplitName { count, expected: own_ending })?;
        let directory = first.to_owned();
        Ok((2..=count).map(move |part| {
            let name = format!("{prefix}{}", ending(part, count));
            (part, directory.with_file_name(name))
        }))
    }

    /// Checks what a later part says against the first.
    pub(crate) fn check_part(&self, part: u64, metadata: &Metadata) -> Result<()> {
        let claims = [
            (NO, Some(part - 1), true),
            (COUNT, Some(self.count), true),
            (TENSORS_COUNT, self.n_tensors, false),
        ];
        for (key, expected, required) in claims {
            match (expected, metadata.u64(key)?) {
                (Some(expected), Some(found)) if expected != found => {
                    return Err(GgufError::SplitMismatch { key, expected, found });
                }
                (_, None) if required => {
                    return Err(GgufError::MissingKey { key: key.into(), expected: "u64" });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Checks the number of tensors of all parts.
    pub(crate) fn check_tensor_count(&self, found: usize) -> Result<()> {
        match self.n_tensors {
            Some(expected) if expected != found as u64 => {
                Err(GgufError::SplitTensorCount { expected, found: found as u64 })
            }
            _ => Ok(()),
        }
    }
}

fn ending(part: u64, count: u64) -> String {
    format!("-{part:05}-of-{count:05}.gguf")
}
