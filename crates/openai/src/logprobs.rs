//! Log-probabilities in the shapes of both kinds of completion.

use std::collections::BTreeMap;

use rustorch_llama::{Detokenizer, TokenEvent, Tokenizer};
use serde::Serialize;

/// Of a text completion: lists with an element for each token.
#[derive(Debug, Serialize, Default)]
pub(crate) struct CompletionLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<f32>,
    top_logprobs: Vec<BTreeMap<String, f32>>,
    text_offset: Vec<usize>,
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
    /// Entries of tokens whose text begins at `offset`, which moves to their end.
    pub fn new(tokens: &[TokenEvent], tokenizer: &Tokenizer, offset: &mut TextOffset) -> Self {
        let mut out = Self::default();
        for token in tokens {
            let Some(logprobs) = &token.logprobs else { continue };
            let text = token_key(token.token_id, tokenizer);
            // The API lists the sampled token too, whether or not it is among the most likely.
            let listed = logprobs.top.iter().copied().chain([(token.token_id, logprobs.logprob)]);
            out.top_logprobs.push(listed.map(|(id, logprob)| (token_key(id, tokenizer), logprob)).collect());
            out.text_offset.push(offset.num_chars);
            offset.advance(token.token_id, tokenizer);
            out.tokens.push(text);
            out.token_logprobs.push(logprobs.logprob);
        }
        out
    }
}

/// Where a choice's text has come to.
#[derive(Debug)]
pub(crate) struct TextOffset {
    num_chars: usize,
    detokenizer: Detokenizer,
}

impl TextOffset {
    /// The beginning of a choice.
    pub fn new(tokenizer: &Tokenizer) -> Self {
        Self { num_chars: 0, detokenizer: tokenizer.detokenizer().continuing() }
    }

    /// Goes on by the characters that a token completes.
    fn advance(&mut self, token_id: u32, tokenizer: &Tokenizer) {
        self.num_chars += self.detokenizer.push(tokenizer, token_id).chars().count();
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

fn token_text(id: u32, tokenizer: &Tokenizer) -> String {
    String::from_utf8_lossy(tokenizer.token_bytes(id)).into_owned()
}

/// As [`token_text`], but as the API has it of a token that is no whole character, so that those differ: `bytes:\xf0\x9f`.
fn token_key(id: u32, tokenizer: &Tokenizer) -> String {
    let bytes = tokenizer.token_bytes(id);
    match str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().fold("bytes:".to_owned(), |key, byte| key + &format!("\\x{byte:02x}")),
    }
}
