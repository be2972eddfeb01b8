//! An answer as a message of Anthropic's API, whole or as events, and its errors.

use rustorch_llama::{FinishReason, Usage};
use serde_json::{Value, json};

use crate::blocks::{Block, BlockKind, Change, Said};
use crate::error::ApiError;
use crate::message::call_id;
use crate::stream;

/// How answers are written.
#[derive(Debug)]
pub(crate) struct Style;

impl stream::Style for Style {
    fn body(&self, said: &Said<'_>) -> Value {
        let content = said.blocks.iter().enumerate().map(|(index, block)| whole_block(said, index, block));
        let (stop_reason, stop_sequence) = stop(said);
        message(said, content.collect(), stop_reason, stop_sequence)
    }

    fn opening(&mut self, said: &Said<'_>) -> Vec<Value> {
        let message = message(said, Vec::new(), None, None);
        vec![json!({"type": "message_start", "message": message}), json!({"type": "ping"})]
    }

    fn change(&mut self, said: &Said<'_>, change: &Change) -> Vec<Value> {
        let (Change::Opened(index) | Change::Grew(index, _) | Change::Closed(index)) = *change;
        let block = &said.blocks[index];
        let delta = |delta: Value| json!({"type": "content_block_delta", "index": index, "delta": delta});
        match change {
            Change::Opened(_) => {
                let empty = Block { text: String::new(), ..block.clone() };
                let block = whole_block(said, index, &empty);
                vec![json!({"type": "content_block_start", "index": index, "content_block": block})]
            }
            Change::Grew(_, text) => vec![delta(match block.kind {
                BlockKind::Thoughts => json!({"type": "thinking_delta", "thinking": text}),
                BlockKind::Text => json!({"type": "text_delta", "text": text}),
                BlockKind::Call => json!({"type": "input_json_delta", "partial_json": text}),
            })],
            Change::Closed(_) => {
                let signature = (block.kind == BlockKind::Thoughts)
                    .then(|| delta(json!({"type": "signature_delta", "signature": ""})));
                let stop = json!({"type": "content_block_stop", "index": index});
                signature.into_iter().chain([stop]).collect()
            }
        }
    }

    fn closing(&mut self, said: &Said<'_>) -> Vec<Value> {
        let (stop_reason, stop_sequence) = stop(said);
        let delta = json!({"stop_reason": stop_reason, "stop_sequence": stop_sequence});
        vec![
            json!({"type": "message_delta", "delta": delta, "usage": usage(said)}),
            json!({"type": "message_stop"}),
        ]
    }

    fn failure(&mut self, said: &Said<'_>, error: &ApiError) -> Vec<Value> {
        vec![error_body(error, said.suffix)]
    }
}

/// An error in the form of Anthropic's API.
pub fn error_body(error: &ApiError, request_id: &str) -> Value {
    let kind = match error.status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        408 | 504 => "timeout_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 => "overloaded_error",
        400..500 => "invalid_request_error",
        _ => "api_error",
    };
    json!({"type": "error", "error": {"type": kind, "message": error.message}, "request_id": request_id})
}

fn message(
    said: &Said<'_>,
    content: Vec<Value>,
    stop_reason: Option<&str>,
    stop_sequence: Option<&str>,
) -> Value {
    json!({
        "id": format!("msg_{}", said.suffix),
        "type": "message",
        "role": "assistant",
        "model": said.model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": stop_sequence,
        "usage": usage(said),
    })
}

fn whole_block(said: &Said<'_>, index: usize, block: &Block) -> Value {
    match block.kind {
        BlockKind::Thoughts => json!({"type": "thinking", "thinking": block.text, "signature": ""}),
        BlockKind::Text => json!({"type": "text", "text": block.text}),
        BlockKind::Call => {
            let input: Value = serde_json::from_str(&block.text).unwrap_or_else(|_| json!({}));
            json!({"type": "tool_use", "id": call_id(said.suffix, 0, index), "name": block.name, "input": input})
        }
    }
}

/// Why the answer ended, and the stop string that ended it.
fn stop<'a>(said: &Said<'a>) -> (Option<&'static str>, Option<&'a str>) {
    match (said.end, said.stop_string) {
        (None, _) => (None, None),
        (Some((FinishReason::Length, _)), _) => (Some("max_tokens"), None),
        (_, Some(stop)) => (Some("stop_sequence"), Some(stop)),
        _ if said.has_calls() => (Some("tool_use"), None),
        _ => (Some("end_turn"), None),
    }
}

/// Tokens of the prompt are counted apart by whether they were found in the cache, which is known at the end.
fn usage(said: &Said<'_>) -> Value {
    let before = Usage { prompt_tokens: said.num_prompt_tokens, ..Usage::default() };
    let Usage { prompt_tokens, completion_tokens, cached_tokens } =
        said.end.map_or(before, |(_, usage)| usage);
    json!({
        "input_tokens": prompt_tokens - cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached_tokens,
        "output_tokens": completion_tokens,
    })
}
