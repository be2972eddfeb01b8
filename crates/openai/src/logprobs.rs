//! Log-probabilities in the shapes of both kinds of completion.

use std::collections::BTreeMap;
use std::fmt::Write;

use rustorch_llama::{TokenEvent, Tokenizer};
use serde::Serialize;

/// Of a text completion: lists with an element for each token.
#[derive(Debug, Serialize, Default)]
pub(crate) struct CompletionLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<f32>,
    top_logprobs: Vec<BTreeMap<String, f32>>,
    text_offset: Vec<usize>,
}

/// Where the next token's text begins in the text of a choice. A character may be spread over tokens: it begins with the
/// first of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct TextOffset {
    /// Whole characters so far.
    chars: usize,
    /// The bytes of the character that is not complete.
    incomplete: Vec<u8>,
}

impl TextOffset {
    fn push(&mut self, bytes: &[u8]) {
        self.incomplete.extend_from_slice(bytes);
        let mut rest = &self.incomplete[..];
        loop {
            let error = match std::str::from_utf8(rest) {
                Ok(text) => {
                    self.chars += text.chars().count();
                    return self.incomplete.clear();
                }
                Err(error) => error,
            };
            let (text, after) = rest.split_at(error.valid_up_to());
            self.chars += String::from_utf8_lossy(text).chars().count();
            match error.error_len() {
                // The text has U+FFFD in place of these bytes.
                Some(len) => {
                    self.chars += 1;
                    rest = &after[len..];
                }
                None => {
                    self.incomplete = after.to_vec();
                    return;
                }
            }
        }
    }
}

/// Of a chat: a list of objects.
#[derive(Debug, Serialize)]
pub(crate) struct ChatLogprobs {
    content: Vec<TokenLogprob>,
    refusal: Option<String>,
}

#[derive(Debug, Serialize)]
struct TokenLogprob {
    #[serde(flatten)]
    token: Alternative,
    top_logprobs: Vec<Alternative>,
}

#[derive(Debug, Serialize)]
struct Alternative {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

impl CompletionLogprobs {
    /// Entries of tokens whose text begins at `offset`, which is moved to their end.
    pub fn new(tokens: &[TokenEvent], tokenizer: &Tokenizer, offset: &mut TextOffset) -> Self {
        let mut out = Self::default();
        for token in tokens {
            let Some(logprobs) = &token.logprobs else { continue };
            // The API lists the sampled token too, whether or not it is among the most likely.
            let listed = logprobs.top.iter().copied().chain([(token.token_id, logprobs.logprob)]);
            out.top_logprobs.push(listed.map(|(id, logprob)| (token_key(id, tokenizer), logprob)).collect());
            out.text_offset.push(offset.chars);
            offset.push(tokenizer.token_bytes(token.token_id));
            out.tokens.push(token_key(token.token_id, tokenizer));
            out.token_logprobs.push(logprobs.logprob);
        }
        out
    }
}

impl ChatLogprobs {
    pub fn new(tokens: &[TokenEvent], tokenizer: &Tokenizer) -> Self {
        let content = tokens.iter().map(|token| TokenLogprob::new(token, tokenizer)).collect();
        Self { content, refusal: None }
    }
}

impl TokenLogprob {
    fn new(token: &TokenEvent, tokenizer: &Tokenizer) -> Self {
        let alternative = |id, logprob| Alternative {
            token: token_text(id, tokenizer),
            logprob,
            bytes: tokenizer.token_bytes(id).to_vec(),
        };
        let (logprob, top) = token.logprobs.as_ref().map_or((0.0, &[][..]), |l| (l.logprob, &l.top[..]));
        Self {
            token: alternative(token.token_id, logprob),
            top_logprobs: top.iter().map(|&(id, p)| alternative(id, p)).collect(),
        }
    }
}

/// A token's text, or its bytes in OpenAI's notation if they are not whole characters: different tokens must not share a key.
fn token_key(id: u32, tokenizer: &Tokenizer) -> String {
    match std::str::from_utf8(tokenizer.token_bytes(id)) {
        Ok(text) => text.to_owned(),
        Err(_) => tokenizer.token_bytes(id).iter().fold("bytes:".to_owned(), |mut key, byte| {
            // Writing to a string never fails.
            let _ = write!(key, "\\x{byte:02x}");
            key
        }),
    }
}

fn token_text(id: u32, tokenizer: &Tokenizer) -> String {
    String::from_utf8_lossy(tokenizer.token_bytes(id)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_begins_with_the_first_of_its_tokens() {
        let check = |tokens: &[&[u8]], expect: &[usize]| {
            let mut offset = TextOffset::default();
            let begin = |bytes: &&[u8]| {
                let begin = offset.chars;
                offset.push(bytes);
                begin
            };
            assert_eq!(tokens.iter().map(begin).collect::<Vec<_>>(), expect, "{tokens:?}");
        };
        check(&[b"ab", b"c", b"d"], &[0, 2, 3]);
        check(&["\u{e9}".as_bytes(), b"x"], &[0, 1]);
        check(&[b"a\xf0", b"\x9f\x98", b"\x80", b"b"], &[0, 1, 1, 2]);
        // What is no character counts as its replacement.
        check(&[b"\xff", b"a", b"\xf0\x9f", b"b", b"c"], &[0, 1, 2, 2, 4]);
    }
}
