//! Filling in the middle: the prompts that models of code were trained on, prefix and suffix first.

use gguf::Metadata;

use crate::error::Result;
use crate::tokenizer::{Bos, Special, Tokenizer};

/// The tokens round the parts of such a prompt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InfillTokens {
    prefix: u32,
    suffix: u32,
    middle: u32,
    /// Before the name of a repository, and before that of each of its files.
    repository: Option<u32>,
    file: Option<u32>,
}

/// How the models that are in use name these tokens. A file may also name them by keys, the older of which are second.
const PREFIX: (&[&str], &[&str]) = (
    &["tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id"],
    &[
        "<|fim_prefix|>",
        "<fim-prefix>",
        "<fim_prefix>",
        "<｜fim▁begin｜>",
        "<PRE>",
        "▁<PRE>",
        "<|code_prefix|>",
    ],
);
const SUFFIX: (&[&str], &[&str]) = (
    &["tokenizer.ggml.fim_suf_token_id", "tokenizer.ggml.suffix_token_id"],
    &[
        "<|fim_suffix|>",
        "<fim-suffix>",
        "<fim_suffix>",
        "<｜fim▁hole｜>",
        "<SUF>",
        "▁<SUF>",
        "<|code_suffix|>",
    ],
);
const MIDDLE: (&[&str], &[&str]) = (
    &["tokenizer.ggml.fim_mid_token_id", "tokenizer.ggml.middle_token_id"],
    &[
        "<|fim_middle|>",
        "<fim-middle>",
        "<fim_middle>",
        "<｜fim▁end｜>",
        "<MID>",
        "▁<MID>",
        "<|code_middle|>",
    ],
);
const REPOSITORY: (&[&str], &[&str]) = (
    &["tokenizer.ggml.fim_rep_token_id"],
    &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"],
);
const FILE: (&[&str], &[&str]) = (&["tokenizer.ggml.fim_sep_token_id"], &["<|file_sep|>"]);

/// A text with a gap.
#[derive(Clone, Copy, Debug, Default)]
pub struct Infill<'a> {
    /// What comes before the gap.
    pub prefix: &'a str,
    /// What comes after it.
    pub suffix: &'a str,
    /// Names and texts of other files that help to fill it.
    pub files: &'a [(String, String)],
}

impl InfillTokens {
    /// The tokens of a vocabulary; `None` if it lacks one that every such prompt has.
    pub(crate) fn read(metadata: &Metadata, texts: &[String]) -> Result<Option<Self>> {
        let find = |(keys, names): (&[&str], &[&str])| -> Result<Option<u32>> {
            for key in keys {
                // One beyond the vocabulary cannot be meant.
                if let Some(id) = metadata.u32(key)?.filter(|&id| (id as usize) < texts.len()) {
                    return Ok(Some(id));
                }
            }
            let found = (0..).zip(texts).find(|(_, text)| names.contains(&text.as_str()));
            Ok(found.map(|(id, _)| id))
        };
        let (Some(prefix), Some(suffix), Some(middle)) = (find(PREFIX)?, find(SUFFIX)?, find(MIDDLE)?) else {
            return Ok(None);
        };
        Ok(Some(Self { prefix, suffix, middle, repository: find(REPOSITORY)?, file: find(FILE)? }))
    }
}

impl Tokenizer {
    /// Whether [`encode_infill`](Self::encode_infill) has prompts.
    pub fn fills_in(&self) -> bool {
        self.infill().is_some()
    }

    /// The prompt after which the model writes what is missing; `None` if the vocabulary has no tokens for that. What control
    /// tokens are spelled like is text.
    pub fn encode_infill(&self, text: &Infill<'_>) -> Option<Vec<u32>> {
        let InfillTokens { prefix, suffix, middle, repository, file } = *self.infill()?;
        let encode = |text: &str| self.encode(text, Special::Text, Bos::Skip);
        let mut tokens: Vec<u32> = self.added_bos().into_iter().collect();
        if !text.files.is_empty()
            && let Some(repository) = repository
        {
            tokens.push(repository);
            tokens.extend(encode("project\n"));
        }
        for (name, content) in text.files {
            match file {
                Some(file) => {
                    tokens.push(file);
                    tokens.extend(encode(&format!("{name}\n{content}")));
                }
                None => tokens.extend(encode(&format!("\n\n--- {name} ---\n\n{content}"))),
            }
        }
        tokens.push(prefix);
        tokens.extend(encode(text.prefix));
        tokens.push(suffix);
        tokens.extend(encode(text.suffix));
        tokens.push(middle);
        Some(tokens)
    }
}
