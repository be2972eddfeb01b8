//! Log-probabilities in the shapes of both kinds of completion.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rustorch_llama::{ControlTokens, Detokenizer, TokenEvent, TokenLogprobs, Tokenizer};
use serde::Serialize;
use serde_json::{Value, json};

use crate::blocks::Said;

/// Of a text completion: lists with an element for each token.
#[derive(Debug, Serialize, Default)]
pub(crate) struct CompletionLogprobs {
    tokens: Vec<String>,
    /// Nothing precedes the first token of a prompt, so it has none.
    token_logprobs: Vec<Option<f32>>,
    top_logprobs: Vec<Option<BTreeMap<String, f32>>>,
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
            out.push(token.token_id, Some(logprobs), logprobs.top.len(), tokenizer, offset);
        }
        out
    }

    /// Entries of a prompt's tokens with `num_top` alternatives each; `scored` begins with the second.
    pub fn of_prompt(
        token_ids: &[u32],
        scored: &[TokenLogprobs],
        num_top: usize,
        tokenizer: &Tokenizer,
        text: &str,
    ) -> Self {
        let mut out = Self::default();
        let mut offset = TextOffset::of_prompt(token_ids, tokenizer, text);
        let logprobs = std::iter::once(None).chain(scored.iter().map(Some));
        for (&token_id, logprobs) in token_ids.iter().zip(logprobs) {
            out.push(token_id, logprobs, num_top, tokenizer, &mut offset);
        }
        out
    }

    /// Both, one behind the other.
    pub fn followed_by(mut self, other: Self) -> Self {
        self.tokens.extend(other.tokens);
        self.token_logprobs.extend(other.token_logprobs);
        self.top_logprobs.extend(other.top_logprobs);
        self.text_offset.extend(other.text_offset);
        self
    }

    fn push(
        &mut self,
        token_id: u32,
        logprobs: Option<&TokenLogprobs>,
        num_top: usize,
        tokenizer: &Tokenizer,
        offset: &mut TextOffset,
    ) {
        // The API lists the token itself too, whether or not it is among the most likely.
        let listed = |logprobs: &TokenLogprobs| {
            let top = logprobs.top.iter().take(num_top).copied();
            let listed = top.chain([(token_id, logprobs.logprob)]);
            listed.map(|(id, logprob)| (token_key(id, tokenizer), logprob)).collect()
        };
        self.tokens.push(token_key(token_id, tokenizer));
        self.token_logprobs.push(logprobs.map(|logprobs| logprobs.logprob));
        self.top_logprobs.push(logprobs.map(listed));
        self.text_offset.push(offset.num_chars);
        offset.advance(token_id, tokenizer);
    }
}

/// A prompt that comes before its answer.
#[derive(Debug, Default)]
pub(crate) struct Echo {
    pub text: String,
    pub logprobs: Option<CompletionLogprobs>,
}

/// Of a prompt, in vLLM's form: null for the first token, then for each an object of tokens.
#[derive(Debug, Serialize)]
pub(crate) struct PromptLogprobs(Vec<Option<BTreeMap<u32, PromptLogprob>>>);

#[derive(Debug, Serialize)]
struct PromptLogprob {
    logprob: f32,
    rank: usize,
    decoded_token: String,
}

impl PromptLogprobs {
    /// `num_top` alternatives for each token; `scored` begins with the second.
    pub fn new(token_ids: &[u32], scored: &[TokenLogprobs], num_top: usize, tokenizer: &Tokenizer) -> Self {
        let entry = |(&token_id, logprobs): (&u32, &TokenLogprobs)| {
            let top =
                logprobs.top.iter().take(num_top).zip(1..).map(|(&(id, logprob), rank)| (id, logprob, rank));
            let listed = top.chain([(token_id, logprobs.logprob, logprobs.rank)]);
            let entry = |(id, logprob, rank)| {
                (id, PromptLogprob { logprob, rank, decoded_token: token_text(id, tokenizer) })
            };
            Some(listed.map(entry).collect())
        };
        let first = token_ids.first().map(|_| None);
        Self(first.into_iter().chain(token_ids.iter().skip(1).zip(scored).map(entry)).collect())
    }
}

/// Where a choice's text has come to.
#[derive(Debug)]
pub(crate) struct TextOffset {
    num_chars: usize,
    detokenizer: Detokenizer,
    /// Whether the next token has no part in the text.
    hides_next: bool,
}

impl TextOffset {
    /// The beginning of a choice, after this text.
    pub fn after(text: &str, control_tokens: ControlTokens, tokenizer: &Tokenizer) -> Self {
        let num_chars = text.chars().count();
        let detokenizer = tokenizer.detokenizer().continuing().control_tokens(control_tokens);
        Self { num_chars, detokenizer, hides_next: false }
    }

    /// The beginning of a prompt. A token that begins every prompt is not in the text that was given.
    fn of_prompt(token_ids: &[u32], tokenizer: &Tokenizer, text: &str) -> Self {
        let bos = tokenizer.bos().filter(|bos| token_ids.first() == Some(bos));
        let hides_next = bos.is_some_and(|bos| !text.as_bytes().starts_with(tokenizer.token_bytes(bos)));
        let detokenizer = tokenizer.detokenizer().control_tokens(ControlTokens::Show);
        Self { num_chars: 0, detokenizer, hides_next }
    }

    /// Goes on by the characters that a token completes.
    fn advance(&mut self, token_id: u32, tokenizer: &Tokenizer) {
        if std::mem::take(&mut self.hides_next) {
            return;
        }
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

/// Log-probabilities of an answer in blocks: those of its tokens in their order, each with the index of its block.
#[derive(Debug)]
pub(crate) struct Scores {
    tokenizer: Arc<Tokenizer>,
    /// Tokens that a stop string may yet cut away, or whose block has not begun.
    waiting: VecDeque<TokenEvent>,
    listed: Vec<(usize, TokenEvent)>,
    num_in_text: usize,
}

/// Whether tokens are told with their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenIds {
    Shown,
    Hidden,
}

impl Scores {
    pub fn new(tokenizer: Arc<Tokenizer>) -> Self {
        Self { tokenizer, waiting: VecDeque::new(), listed: Vec::new(), num_in_text: 0 }
    }

    pub fn push(&mut self, token: &TokenEvent) {
        self.num_in_text = token.num_in_text;
        self.waiting.push_back(token.clone());
    }

    /// Lists the tokens that are certain to be in the text as those of this block.
    pub fn list(&mut self, block: usize) {
        let count = self.num_in_text.saturating_sub(self.listed.len()).min(self.waiting.len());
        self.listed.extend(self.waiting.drain(..count).map(|token| (block, token)));
    }

    /// Entries of the tokens from the one with this index on, of all blocks or of one.
    fn entries(&self, from: usize, block: Option<usize>, ids: TokenIds) -> Vec<Value> {
        let listed = self.listed[from.min(self.listed.len())..].iter();
        let of_block = listed.filter(|(of, _)| block.is_none_or(|block| block == *of));
        of_block.map(|(_, token)| self.entry(token, ids)).collect()
    }

    fn entry(&self, token: &TokenEvent, ids: TokenIds) -> Value {
        let mut entry = json!(TokenLogprob::new(token, &self.tokenizer));
        if ids == TokenIds::Shown {
            entry["id"] = token.token_id.into();
            let top = token.logprobs.iter().flat_map(|logprobs| &logprobs.top);
            for (index, (id, _)) in top.enumerate() {
                entry["top_logprobs"][index]["id"] = (*id).into();
            }
        }
        entry
    }
}

/// Of each choice, how many log-probabilities a stream has told.
#[derive(Debug, Default)]
pub(crate) struct Told(Vec<usize>);

impl Told {
    /// The entries that follow, of all blocks or of one; `None` if there are to be none.
    pub fn take(&mut self, said: &Said<'_>, block: Option<usize>, ids: TokenIds) -> Option<Vec<Value>> {
        let scores = said.scores?;
        if self.0.len() <= said.index {
            self.0.resize(said.index + 1, 0);
        }
        let from = std::mem::replace(&mut self.0[said.index], scores.listed.len());
        Some(scores.entries(from, block, ids))
    }
}

impl Said<'_> {
    /// The log-probabilities of all blocks or of one, if there are to be any.
    pub fn logprobs(&self, block: Option<usize>, ids: TokenIds) -> Option<Vec<Value>> {
        self.scores.map(|scores| scores.entries(0, block, ids))
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
