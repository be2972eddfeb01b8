//! The vocabulary as a file's metadata describes it: the keys `tokenizer.ggml.*` of the [GGUF
//! specification](https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), with llama.cpp's defaults for
//! those that are missing.
//!
//! [`Vocab`] lives while a [`Tokenizer`](crate::Tokenizer) is built from it; it knows nothing of how text is
//! split.

use gguf::Metadata;

use crate::error::{Result, TokenizerError};
use crate::pre::{self, PreTokenizer};
use crate::special::SpecialToken;

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const SCORES: &str = "tokenizer.ggml.scores";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";
const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";
const PADDING: &str = "tokenizer.ggml.padding_token_id";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";
const ADD_SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";

/// Keys that name tokens after which generation ends.
const EOG_KEYS: [&str; 6] = [
    EOS,
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
    "tokenizer.ggml.fim_pad_token_id",
    "tokenizer.ggml.fim_rep_token_id",
    "tokenizer.ggml.fim_sep_token_id",
];

/// Tokens after which generation ends in every model that has them, for files whose keys do not name them.
/// The list is llama.cpp's. Like there, such a token is a control token whatever type the file gives it.
const EOG_TEXTS: [&str; 26] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eom_id|>",
    "<eos>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
    "<|file_sep|>",
    "<|return|>",
    "<|call|>",
];

/// A vocabulary that has both of the first writes answers of several messages, each of which but the last ends with the third
/// (gpt-oss).
const MESSAGES_END: ([&str; 2], &str) = (["<|return|>", "<|call|>"], "<|end|>");

/// The same, unless the file calls it a normal token: in Qwen's vocabulary it is a piece of HTML.
const EOG_UNLESS_NORMAL: &str = "</s>";

/// What a token is for: `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Normal,
    Unknown,
    /// Steers the model. Never comes out of plain text.
    Control,
    /// Found in text as written, before anything else.
    UserDefined,
    Unused,
    /// Stands for one byte, which its text names as `<0xFF>`.
    Byte,
}

/// How text becomes tokens: `tokenizer.ggml.model`.
pub(crate) enum Model<'g> {
    /// `llama`: SentencePiece's BPE, merged by score. One score a token.
    Spm { scores: Vec<f32> },
    /// `gpt2`: byte-level BPE, merged by rank. `merges` are pairs separated by a space, the first merged
    /// first.
    Bpe { merges: &'g [String], pre: &'static PreTokenizer },
}

/// Tokens that have a role, by the file's metadata.
#[derive(Debug)]
pub(crate) struct Roles {
    pub(crate) bos: Option<u32>,
    pub(crate) eos: Option<u32>,
    pub(crate) unknown: Option<u32>,
    pub(crate) padding: Option<u32>,
    /// Put in front of a text, if the file's policy is to add one.
    pub(crate) added_bos: Option<u32>,
    /// Put after a text, if the file's policy is to add one.
    pub(crate) added_eos: Option<u32>,
    /// Tokens after which generation ends, ascending.
    pub(crate) eog: Vec<u32>,
}

/// A file's vocabulary; token `i` is described by element `i` of each list.
pub(crate) struct Vocab<'g> {
    pub(crate) texts: &'g [String],
    pub(crate) kinds: Vec<Kind>,
    pub(crate) model: Model<'g>,
    pub(crate) roles: Roles,
    /// Whether a text gets a space put in front, and one that follows a special token too.
    pub(crate) add_space_prefix: bool,
    /// What the file says that was ignored, as it cannot be meant.
    pub(crate) notes: Vec<String>,
    /// Whether special tokens (all but a few) take the white space that follows them.
    strips_right: bool,
}

impl<'g> Vocab<'g> {
    pub(crate) fn read(metadata: &'g Metadata) -> Result<Self> {
        let model = metadata.str(MODEL)?.ok_or(TokenizerError::MissingKey { key: MODEL })?;
        let texts = metadata.strings(TOKENS)?.ok_or(TokenizerError::MissingKey { key: TOKENS })?;
        let mut notes = Vec::new();
        let model = match model {
            "llama" => Model::Spm { scores: read_scores(metadata, texts.len())? },
            "gpt2" => Model::Bpe {
                merges: metadata.strings(MERGES)?.ok_or(TokenizerError::MissingKey { key: MERGES })?,
                pre: read_pre(metadata, &mut notes)?,
            },
            _ => {
                let supported = vec!["llama", "gpt2"];
                return Err(TokenizerError::Unsupported { key: MODEL, found: model.into(), supported });
            }
        };
        let kinds = read_kinds(metadata, texts, &mut notes)?;
        let add_space_prefix = metadata.bool(ADD_SPACE_PREFIX)?.unwrap_or(matches!(model, Model::Spm { .. }));
        let roles = Roles::read(metadata, texts, &kinds, &model, &mut notes)?;
        // Microsoft's Phi-3 tokenizers say `rstrip` of their added tokens. No key holds this, so the name
        // must do.
        let name = metadata.str("general.name").ok().flatten().unwrap_or_default().to_lowercase();
        let strips_right = name.contains("phi-3") || name.contains("phi3");
        Ok(Vocab { texts, kinds, model, roles, add_space_prefix, notes, strips_right })
    }

    /// The tokens of those kinds that `wanted` says, as special tokens.
    pub(crate) fn special_tokens(
        &self,
        wanted: impl Fn(u32, Kind) -> bool + Clone,
    ) -> impl Iterator<Item = SpecialToken<'g>> + Clone {
        let tokens = (0..).zip(self.texts).zip(&self.kinds);
        tokens.filter(move |((id, _), kind)| wanted(*id, **kind)).map(|((id, text), _)| SpecialToken {
            id,
            text,
            strips_right: self.strips_right && !["<unk>", "<s>", "<|endoftext|>"].contains(&text.as_str()),
        })
    }

    /// Whether a chat's template alone may write a token: a control token, or one that was added as user-defined but ends
    /// generation, begins a text or is spelled as such tokens are. Fine-tunes often add `<|im_end|>` in that way.
    pub(crate) fn is_chat_control(&self, id: u32) -> bool {
        let text = &self.texts[id as usize];
        match self.kinds[id as usize] {
            Kind::Control | Kind::Unknown => true,
            Kind::UserDefined => {
                self.roles.eog.contains(&id)
                    || self.roles.bos == Some(id)
                    || text.starts_with("<|") && text.ends_with("|>")
            }
            _ => false,
        }
    }

    /// The byte that a token of kind [`Kind::Byte`] stands for.
    pub(crate) fn byte(&self, id: usize) -> Result<u8> {
        let text = &self.texts[id];
        let digits = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
        let byte = digits.filter(|hex| hex.len() == 2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        byte.ok_or_else(|| TokenizerError::Element {
            key: TOKENS,
            index: id,
            found: format!("{text:?}"),
            expected: "\"<0x00>\" to \"<0xFF>\", as its type is byte",
        })
    }
}

impl Roles {
    fn read(
        metadata: &Metadata,
        texts: &[String],
        kinds: &[Kind],
        model: &Model<'_>,
        notes: &mut Vec<String>,
    ) -> Result<Self> {
        let in_range = |id: &u32| (*id as usize) < texts.len();
        let mut ignored = Vec::new();
        let mut id = |key: &'static str| -> Result<_> {
            let found = metadata.u32(key)?;
            if let Some(found) = found.filter(|found| !in_range(found)) {
                let count = texts.len();
                ignored.push(format!("{key} is ignored: expected a token below {count}, found {found}"));
            }
            Ok(found.filter(in_range))
        };
        let (default_bos, default_eos, default_unknown, default_add_bos) = match model {
            Model::Spm { .. } => (Some(1), Some(2), Some(0), true),
            Model::Bpe { pre, .. } => (None, None, None, pre.add_bos),
        };
        let bos = id(BOS)?.or(default_bos.filter(in_range));
        let eos = id(EOS)?.or(default_eos.filter(in_range));
        let unknown = id(UNKNOWN)?.or(default_unknown.filter(in_range));
        // Nothing but chat templates asks for it, and files that have none are known to write nonsense here.
        let padding = metadata.u32(PADDING).ok().flatten().filter(in_range);

        let mut eog: Vec<u32> = eos.into_iter().collect();
        for key in EOG_KEYS.into_iter().filter(|&key| key != EOS) {
            eog.extend(id(key)?);
        }
        notes.append(&mut ignored);
        let add_bos = metadata.bool(ADD_BOS)?;
        let add_eos = metadata.bool(ADD_EOS)?;
        for (adds, token, flag, key) in [(add_bos, bos, ADD_BOS, BOS), (add_eos, eos, ADD_EOS, EOS)] {
            if adds == Some(true) && token.is_none() {
                notes.push(format!("{flag} is ignored: expected a token in {key}, found none"));
            }
        }

        let named = texts.iter().zip(kinds).map(|(text, &kind)| ends_generation(text, kind));
        eog.extend((0..).zip(named).filter(|(_, named)| *named).map(|(id, _)| id));
        let (both, end_of_message) = MESSAGES_END;
        if both.iter().all(|text| eog.iter().any(|&token| texts[token as usize] == *text)) {
            eog.retain(|&token| texts[token as usize] != end_of_message);
        }
        eog.sort_unstable();
        eog.dedup();
        Ok(Roles {
            bos,
            eos,
            unknown,
            padding,
            added_bos: bos.filter(|_| add_bos.unwrap_or(default_add_bos)),
            added_eos: eos.filter(|_| add_eos.unwrap_or(false)),
            eog,
        })
    }
}

/// A pre-tokenizer that is missing, as llama.cpp did not always write the key, or that nobody knows, is `default`: words are
/// cut otherwise than in training, which most texts hardly notice.
fn read_pre(metadata: &Metadata, notes: &mut Vec<String>) -> Result<&'static PreTokenizer> {
    let found = metadata.str(PRE)?.unwrap_or_default();
    let pre = pre::by_name(found).or_else(|| {
        let found = if found.is_empty() { "none".to_owned() } else { format!("{found:?}") };
        let known = pre::supported().collect::<Vec<_>>().join(", ");
        notes.push(format!(
            "texts are cut as by the pre-tokenizer \"default\": {PRE}: expected one of {known}, found {found}"
        ));
        pre::by_name("default")
    });
    pre.ok_or(TokenizerError::MissingKey { key: PRE })
}

/// Without scores all tokens merge alike, leftmost first, as in llama.cpp.
fn read_scores(metadata: &Metadata, n_tokens: usize) -> Result<Vec<f32>> {
    let scores = metadata.f32s(SCORES)?.unwrap_or_else(|| vec![0.0; n_tokens]);
    check_length(SCORES, n_tokens, scores.len())?;
    Ok(scores)
}

fn read_kinds(metadata: &Metadata, texts: &[String], notes: &mut Vec<String>) -> Result<Vec<Kind>> {
    let types = metadata.i32s(TYPES)?;
    if let Some(types) = &types {
        check_length(TYPES, texts.len(), types.len())?;
    }
    let untyped = types.iter().flatten().filter(|&&found| found == 0).count();
    if untyped > 0 {
        notes.push(format!("{untyped} tokens are taken for normal ones: {TYPES}: expected 1 to 6, found 0"));
    }
    let kind = |(index, text): (usize, &String)| {
        let kind = match types.as_ref().map_or(1, |types| types[index]) {
            0 | 1 => Kind::Normal,
            2 => Kind::Unknown,
            3 => Kind::Control,
            4 => Kind::UserDefined,
            5 => Kind::Unused,
            6 => Kind::Byte,
            other => {
                let found = other.to_string();
                return Err(TokenizerError::Element { key: TYPES, index, found, expected: "1 to 6" });
            }
        };
        Ok(if ends_generation(text, kind) { Kind::Control } else { kind })
    };
    texts.iter().enumerate().map(kind).collect()
}

fn ends_generation(text: &str, kind: Kind) -> bool {
    EOG_TEXTS.contains(&text) || (text == EOG_UNLESS_NORMAL && kind != Kind::Normal)
}

fn check_length(key: &'static str, expected: usize, found: usize) -> Result<()> {
    if found == expected { Ok(()) } else { Err(TokenizerError::ArrayLength { key, expected, found }) }
}
