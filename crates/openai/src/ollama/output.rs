//! An answer in Ollama's form, whole or in lines.

use rustorch_llama::{FinishReason, Usage, format_time};
use serde_json::{Value, json};

use crate::blocks::{Block, BlockKind, Change, Said};
use crate::error::ApiError;
use crate::logprobs::{TokenIds, Told};
use crate::stream::{self, Framing};

/// How answers are written.
#[derive(Debug)]
pub(crate) struct Style {
    form: Form,
    told: Told,
}

/// Where an answer has its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// With a message.
    Chat,
    /// With a text.
    Generate,
}

/// A time as text, such as `2024-05-01T12:00:00Z`.
pub fn rfc3339(seconds: u64) -> String {
    format_time("%Y-%m-%dT%H:%M:%SZ", seconds).unwrap_or_default()
}

impl stream::Style for Style {
    fn framing(&self) -> Framing {
        Framing::Lines
    }

    fn body(&self, said: &Said<'_>) -> Value {
        let of = |kind| said.blocks.iter().filter(move |block| block.kind == kind);
        let joined = |kind| of(kind).map(|block| block.text.as_str()).collect::<String>();
        let calls = of(BlockKind::Call).map(call).collect();
        let mut part = self.part(said, joined(BlockKind::Text), joined(BlockKind::Thoughts), calls);
        if let Some(logprobs) = said.logprobs(None, TokenIds::Hidden) {
            part["logprobs"] = logprobs.into();
        }
        ended(said, part)
    }

    fn opening(&mut self, _: &Said<'_>) -> Vec<Value> {
        Vec::new()
    }

    fn change(&mut self, said: &Said<'_>, change: &Change) -> Vec<Value> {
        let empty = String::new;
        let mut part = match change {
            Change::Grew(index, text) => match said.blocks[*index].kind {
                BlockKind::Text => self.part(said, text.clone(), empty(), Vec::new()),
                BlockKind::Thoughts => self.part(said, empty(), text.clone(), Vec::new()),
                BlockKind::Call => return Vec::new(),
            },
            // Calls come as a whole.
            Change::Closed(index) if said.blocks[*index].kind == BlockKind::Call => {
                self.part(said, empty(), empty(), vec![call(&said.blocks[*index])])
            }
            Change::Opened(_) | Change::Closed(_) => return Vec::new(),
        };
        self.tell_logprobs(said, &mut part);
        vec![part]
    }

    fn closing(&mut self, said: &Said<'_>) -> Vec<Value> {
        let mut part = self.part(said, String::new(), String::new(), Vec::new());
        self.tell_logprobs(said, &mut part);
        vec![ended(said, part)]
    }

    fn failure(&mut self, _: &Said<'_>, error: &ApiError) -> Vec<Value> {
        vec![error_body(error)]
    }
}

/// An error in the form of this API.
pub fn error_body(error: &ApiError) -> Value {
    json!({"error": error.message})
}

impl Style {
    pub fn new(form: Form) -> Self {
        Self { form, told: Told::default() }
    }

    /// Adds the log-probabilities that were not told yet.
    fn tell_logprobs(&mut self, said: &Said<'_>, part: &mut Value) {
        let logprobs = self.told.take(said, None, TokenIds::Hidden);
        if let Some(logprobs) = logprobs.filter(|logprobs| !logprobs.is_empty()) {
            part["logprobs"] = logprobs.into();
        }
    }

    /// A part of an answer that goes on.
    fn part(&self, said: &Said<'_>, text: String, thoughts: String, calls: Vec<Value>) -> Value {
        let mut message = json!({});
        let mut part = json!({"model": said.model, "created_at": rfc3339(said.created), "done": false});
        let holder = if self.form == Form::Chat { &mut message } else { &mut part };
        if !thoughts.is_empty() {
            holder["thinking"] = thoughts.into();
        }
        if !calls.is_empty() {
            holder["tool_calls"] = calls.into();
        }
        match self.form {
            Form::Generate => part["response"] = text.into(),
            Form::Chat => {
                (message["role"], message["content"]) = ("assistant".into(), text.into());
                part["message"] = message;
            }
        }
        part
    }
}

/// The last part, with counts and times.
fn ended(said: &Said<'_>, mut part: Value) -> Value {
    let (reason, Usage { prompt_tokens, completion_tokens, .. }) =
        said.end.unwrap_or((FinishReason::Length, Usage::default()));
    let (prompt, predicted) = said.times.nanoseconds();
    part["done"] = true.into();
    part["done_reason"] = reason.as_str().into();
    part["total_duration"] = (prompt + predicted).into();
    part["load_duration"] = 0.into();
    part["prompt_eval_count"] = prompt_tokens.into();
    part["prompt_eval_duration"] = prompt.into();
    part["eval_count"] = completion_tokens.into();
    part["eval_duration"] = predicted.into();
    part
}

fn call(block: &Block) -> Value {
    let arguments: Value = serde_json::from_str(&block.text).unwrap_or_else(|_| json!({}));
    json!({"function": {"name": block.name, "arguments": arguments}})
}
