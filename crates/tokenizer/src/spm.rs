//! SentencePiece-style vocabularies: `tokenizer.ggml.model` = `llama`.
//!
//! Spaces become `▁`; characters are symbols; of the neighbours that spell a token the pair whose token has
//! the highest score is merged first, of equals the leftmost. A character without a token becomes one token
//! per byte of its UTF-8. There is no list of merges: the scores are the list.

use std::collections::HashMap;

use crate::error::Result;
use crate::merge::{Merge, Symbol, merge};
use crate::vocab::{Kind, Vocab};

/// What SentencePiece writes for a space.
pub(crate) const SPACE: char = '▁';

#[derive(Debug)]
pub(crate) struct Spm {
    /// The tokens that text can become, with their scores as priorities.
    tokens: HashMap<Box<str>, Merge>,
    /// Bytes of the longest of them: no pair longer than this needs to be looked up.
    max_len: usize,
    /// For each byte its token, or the unknown token, if there is one.
    bytes: Box<[Option<u32>; 256]>,
}

impl Spm {
    pub(crate) fn new(vocab: &Vocab<'_>, scores: &[f32]) -> Result<Self> {
        let mut tokens: HashMap<Box<str>, Merge> = HashMap::with_capacity(vocab.texts.len());
        let mut bytes = Box::new([vocab.roles.unknown; 256]);
        for (i, text) in vocab.texts.iter().enumerate() {
            let id = i as u32;
            match vocab.kinds[i] {
                Kind::Normal | Kind::UserDefined | Kind::Unused => {
                    tokens.entry(text.as_str().into()).or_insert(Merge { priority: priority(scores[i]), id });
                }
                Kind::Byte => bytes[vocab.byte(i)? as usize] = Some(id),
                Kind::Control | Kind::Unknown => {}
            }
        }
        let max_len = tokens.keys().map(|text| text.len()).max().unwrap_or(0);
        Ok(Spm { tokens, max_len, bytes })
    }

    /// Appends the tokens of `text`. `prefixed`: as if a space stood before it.
    pub(crate) fn encode(&self, text: &str, prefixed: bool, out: &mut Vec<u32>) {
        let prefix = if prefixed { " " } else { "" };
        let text: String =
            prefix.chars().chain(text.chars()).map(|c| if c == ' ' { SPACE } else { c }).collect();
        let symbols = text.char_indices().map(|(start, c)| {
            let end = start + c.len_utf8();
            Symbol { id: self.tokens.get(&text[start..end]).map(|token| token.id), start, end }
        });
        let merged = merge(symbols.collect(), |left, right| {
            let pair = &text[left.start..right.end];
            if pair.len() <= self.max_len { self.tokens.get(pair).copied() } else { None }
        });
        for symbol in merged {
            match symbol.id {
                Some(id) => out.push(id),
                None => {
                    let bytes = &text.as_bytes()[symbol.start..symbol.end];
                    out.extend(bytes.iter().filter_map(|&byte| self.bytes[byte as usize]));
                }
            }
        }
    }
}

/// The score as an integer of the same order.
fn priority(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits(); // -0.0 + 0.0 is 0.0: the two are one score
    if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
}
