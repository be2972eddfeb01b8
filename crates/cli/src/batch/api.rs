//! The request bodies of OpenAI's API, as far as they are served, with the extensions that vLLM made common.
//!
//! Fields that nothing depends on (`model`, `user`, `metadata`) are accepted and ignored; those that would change the
//! answer and are not supported are refused by name.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Fields of both kinds of request.
#[derive(Deserialize)]
pub struct Common {
    pub temperature: Option<f32>,
    pub top_p: Option<f32>,
    pub n: Option<u32>,
    pub stop: Option<OneOrMany>,
    pub max_tokens: Option<usize>,
    pub presence_penalty: Option<f32>,
    pub frequency_penalty: Option<f32>,
    pub logit_bias: Option<BTreeMap<String, f32>>,
    /// OpenAI's seeds are signed; their bits are what counts.
    pub seed: Option<i64>,
    // vLLM's extensions
    pub top_k: Option<i64>,
    pub min_p: Option<f32>,
    pub repetition_penalty: Option<f32>,
    pub ignore_eos: Option<bool>,
    pub stop_token_ids: Option<Vec<u32>>,
    pub min_tokens: Option<usize>,
}

/// Body of `/v1/completions`.
#[derive(Deserialize)]
pub struct CompletionBody {
    #[serde(flatten)]
    pub common: Common,
    pub prompt: Prompt,
    /// Number of alternatives.
    pub logprobs: Option<usize>,
    pub echo: Option<bool>,
    pub suffix: Option<String>,
    pub best_of: Option<u32>,
    pub stream: Option<bool>,
}

/// Body of `/v1/chat/completions`.
#[derive(Deserialize)]
pub struct ChatBody {
    #[serde(flatten)]
    pub common: Common,
    pub messages: Vec<Message>,
    pub max_completion_tokens: Option<usize>,
    pub logprobs: Option<bool>,
    pub top_logprobs: Option<usize>,
    pub tools: Option<Vec<serde_json::Value>>,
    pub response_format: Option<ResponseFormat>,
    pub stream: Option<bool>,
}

#[derive(Deserialize)]
pub struct ResponseFormat {
    pub r#type: String,
}

/// A completion's prompt: text or token ids, one or several.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Prompt {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    TokenLists(Vec<Vec<u32>>),
}

#[derive(Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub fn into_vec(self) -> Vec<String> {
        match self {
            OneOrMany::One(text) => vec![text],
            OneOrMany::Many(texts) => texts,
        }
    }
}

/// A message of a chat.
#[derive(Deserialize)]
pub struct Message {
    pub role: String,
    pub content: Option<Content>,
}

/// A message's content: text, or parts of which only text is supported.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
pub struct Part {
    pub r#type: String,
    pub text: Option<String>,
}
