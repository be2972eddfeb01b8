//! `/tokenize` and `/detokenize`, with vLLM's fields.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use openai::{ApiError, Object};
use rustorch_llama::{Bos, ChatMessage, ControlTokens, GenerationPrompt, Special};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::app::{App, AppState, blocking};
use crate::body::JsonBytes;
use crate::refusal::Refusal;
use crate::routes::generate::json as json_response;

/// Tokens of a text or a chat: those of a request with the same prompt.
pub(crate) async fn tokenize(
    State(app): State<AppState>,
    JsonBytes(body): JsonBytes,
) -> Result<Response, Refusal> {
    blocking(move || {
        let body = openai::parse_object(&body)?;
        let tokens = tokens_of(&app, &body)?;
        let max_model_len = app.model.engine.max_seq_tokens();
        json_response(&Tokenized { count: tokens.len(), max_model_len, tokens })
    })
    .await
}

/// An answer with far more tokens than others have, so not a [`Value`], which is twenty times as large.
#[derive(Serialize)]
struct Tokenized {
    count: usize,
    max_model_len: usize,
    tokens: Vec<u32>,
}

/// Text of tokens, control tokens included.
pub(crate) async fn detokenize(
    State(app): State<AppState>,
    JsonBytes(body): JsonBytes,
) -> Result<Response, Refusal> {
    blocking(move || {
        let body = openai::parse_object(&body)?;
        let tokens: Vec<u32> = required(&body, "tokens", "a list of token ids")?;
        let vocab_size = app.model.tokenizer.vocab_size();
        if let Some(found) = tokens.iter().find(|&&id| id as usize >= vocab_size) {
            return Err(Refusal::field("tokens", format!("expected ids below {vocab_size}, found {found}")));
        }
        let text = app.model.tokenizer.decode(&tokens, ControlTokens::Show);
        json_response(&BTreeMap::from([("prompt", text)]))
    })
    .await
}

/// What a client needs that builds prompts itself, as in vLLM: special tokens and the chat template.
pub(crate) async fn info(State(app): State<AppState>) -> Json<Value> {
    let tokenizer = &app.model.tokenizer;
    let text = |id: Option<u32>| id.map(|id| tokenizer.decode(&[id], ControlTokens::Show));
    Json(json!({
        "bos_token": text(tokenizer.bos()),
        "eos_token": text(tokenizer.eos()),
        "pad_token": text(tokenizer.eos()),
        "chat_template": tokenizer.chat_template().ok().map(|template| template.source()),
        "vocab_size": tokenizer.vocab_size(),
        "model_max_length": app.model.engine.max_seq_tokens(),
    }))
}

#[derive(Deserialize)]
struct Message {
    role: String,
    content: String,
}

fn tokens_of(app: &App, body: &Object) -> Result<Vec<u32>, Refusal> {
    let tokenizer = &app.model.tokenizer;
    let prompt: Option<String> = field(body, "prompt", "a string")?;
    let messages: Option<Vec<Message>> =
        field(body, "messages", "a list of messages, each with role and content as strings")?;
    match (prompt, messages) {
        (Some(prompt), None) => {
            let adds = field(body, "add_special_tokens", "true or false")?.unwrap_or(true);
            Ok(tokenizer.encode(&prompt, Special::Parse, if adds { Bos::Add } else { Bos::Skip }))
        }
        (None, Some(messages)) => {
            let adds = field(body, "add_generation_prompt", "true or false")?.unwrap_or(true);
            let generation = if adds { GenerationPrompt::Add } else { GenerationPrompt::Omit };
            let messages: Vec<_> = messages
                .into_iter()
                .map(|Message { role, content }| ChatMessage::new(role, content))
                .collect();
            let tokens = tokenizer.apply_chat_template(&messages, generation);
            tokens.map_err(|error| Refusal(ApiError::unprocessable("messages", error.to_string())))
        }
        _ => Err(Refusal::field("prompt", "expected either this or messages")),
    }
}

fn field<T: DeserializeOwned>(body: &Object, name: &str, expected: &str) -> Result<Option<T>, Refusal> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => T::deserialize(value).map(Some).map_err(|_| {
            Refusal::field(name, format!("expected {expected}, found {}", openai::shown(value)))
        }),
    }
}

fn required<T: DeserializeOwned>(body: &Object, name: &str, expected: &str) -> Result<T, Refusal> {
    field(body, name, expected)?
        .ok_or_else(|| Refusal::field(name, format!("expected {expected}, found none")))
}
