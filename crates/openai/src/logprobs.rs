//! Log-probabilities in the shapes of both kinds of completion.

use std::collections::BTreeMap;

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
    /// Entries of tokens whose text begins at character `offset` of the choice; moves `offset` to their end.
    pub fn new(tokens: &[TokenEvent], tokenizer: &Tokenizer, offset: &mut usize) -> Self {
        let mut out = Self::default();
        for token in tokens {
            let Some(logprobs) = &token.logprobs else { continue };
            let text = token_text(token.token_id, tokenizer);
            // The API lists the sampled token too, whether or not it is among the most likely.
            let listed = logprobs.top.iter().copied().chain([(token.token_id, logprobs.logprob)]);
            out.top_logprobs.push(listed.map(|(id, logprob)| (token_text(id, tokenizer), logprob)).collect());
            out.text_offset.push(*offset);
            *offset += text.chars().count();
            out.tokens.push(text);
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

fn token_text(id: u32, tokenizer: &Tokenizer) -> String {
    String::from_utf8_lossy(tokenizer.token_bytes(id)).into_owned()
}
