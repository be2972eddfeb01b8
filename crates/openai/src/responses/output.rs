//! An answer as the items of a response, whole or as events.

use serde_json::{Value, json};

use super::{ResponsesBody, number};
use crate::blocks::{Block, BlockKind, Change, Said};
use crate::error::ApiError;
use crate::fields::Object;
use crate::logprobs::{TokenIds, Told};
use crate::message::call_id;
use crate::stream;

/// What a response repeats of its request, and how many events were sent.
#[derive(Debug)]
pub(crate) struct Style {
    echo: Object,
    num_events: u64,
    told: Told,
}

impl Style {
    pub fn new(body: &Object, read: &ResponsesBody) -> Self {
        let given = |name: &str, default: Value| match body.get(name) {
            None | Some(Value::Null) => default,
            Some(value) => value.clone(),
        };
        let echo = json!({
            "background": false,
            "instructions": read.instructions,
            "max_output_tokens": read.max_output_tokens,
            "max_tool_calls": given("max_tool_calls", Value::Null),
            "metadata": given("metadata", json!({})),
            "parallel_tool_calls": read.parallel_tool_calls.unwrap_or(true),
            "previous_response_id": null,
            "prompt_cache_key": given("prompt_cache_key", Value::Null),
            "reasoning": given("reasoning", json!({"effort": null, "summary": null})),
            "safety_identifier": given("safety_identifier", Value::Null),
            "service_tier": "default",
            "store": false,
            "temperature": number(body, "temperature").unwrap_or(1.0),
            "text": given("text", json!({"format": {"type": "text"}})),
            "tool_choice": given("tool_choice", json!("auto")),
            "tools": given("tools", json!([])),
            "top_logprobs": read.top_logprobs.unwrap_or(0),
            "top_p": number(body, "top_p").unwrap_or(1.0),
            "truncation": "disabled",
            "user": given("user", Value::Null),
        });
        let Value::Object(echo) = echo else { unreachable!("an object") };
        Self { echo, num_events: 0, told: Told::default() }
    }

    /// A response of this status.
    fn response(&self, said: &Said<'_>, status: &str, output: Vec<Value>, error: Value) -> Value {
        let cut = (status == "incomplete").then(|| json!({"reason": "max_output_tokens"}));
        let mut response = json!({
            "id": format!("resp_{}", said.suffix),
            "object": "response",
            "created_at": said.created,
            "status": status,
            "error": error,
            "incomplete_details": cut,
            "model": said.model,
            "output": output,
            "usage": usage(said),
        });
        if let Value::Object(fields) = &mut response {
            fields.extend(self.echo.clone());
        }
        response
    }

    fn event(&mut self, kind: &str, mut fields: Value) -> Value {
        fields["type"] = format!("response.{kind}").into();
        fields["sequence_number"] = self.num_events.into();
        self.num_events += 1;
        fields
    }
}

impl stream::Style for Style {
    fn body(&self, said: &Said<'_>) -> Value {
        self.response(said, status(said), items(said), Value::Null)
    }

    fn opening(&mut self, said: &Said<'_>) -> Vec<Value> {
        let response = self.response(said, "in_progress", Vec::new(), Value::Null);
        let mut event = |kind| self.event(kind, json!({"response": response}));
        vec![event("created"), event("in_progress")]
    }

    fn change(&mut self, said: &Said<'_>, change: &Change) -> Vec<Value> {
        let (Change::Opened(index) | Change::Grew(index, _) | Change::Closed(index)) = *change;
        let block = &said.blocks[index];
        let item_id = item_id(said, index);
        let place = json!({"item_id": item_id, "output_index": index});
        let in_part = |name: &str, value: Value| {
            let mut fields = place.clone();
            fields["content_index"] = 0.into();
            fields[name] = value;
            fields
        };
        let text_event = |name: &str, text: &str, logprobs: Option<Vec<Value>>| {
            let mut fields = in_part(name, text.into());
            if block.kind == BlockKind::Text {
                fields["logprobs"] = logprobs.unwrap_or_default().into();
            }
            fields
        };
        let word = match block.kind {
            BlockKind::Thoughts => "reasoning_text",
            BlockKind::Text => "output_text",
            BlockKind::Call => "function_call_arguments",
        };
        match change {
            Change::Opened(_) => {
                let empty = Block { text: String::new(), ..block.clone() };
                let item = item(said, index, &empty, "in_progress");
                let mut events =
                    vec![self.event("output_item.added", json!({"output_index": index, "item": item}))];
                if block.kind != BlockKind::Call {
                    events.push(self.event("content_part.added", in_part("part", part(&empty, None))));
                }
                events
            }
            Change::Grew(_, text) if block.kind == BlockKind::Call => {
                let mut fields = place;
                fields["delta"] = text.as_str().into();
                vec![self.event(&format!("{word}.delta"), fields)]
            }
            Change::Grew(_, text) => {
                let is_text = block.kind == BlockKind::Text;
                let logprobs =
                    if is_text { self.told.take(said, Some(index), TokenIds::Hidden) } else { None };
                vec![self.event(&format!("{word}.delta"), text_event("delta", text, logprobs))]
            }
            Change::Closed(_) => {
                let mut events = if block.kind == BlockKind::Call {
                    let mut fields = place;
                    fields["name"] = block.name.as_str().into();
                    fields["arguments"] = block.text.as_str().into();
                    vec![self.event(&format!("{word}.done"), fields)]
                } else {
                    let logprobs = said.logprobs(Some(index), TokenIds::Hidden);
                    let done = text_event("text", &block.text, logprobs.clone());
                    vec![
                        self.event(&format!("{word}.done"), done),
                        self.event("content_part.done", in_part("part", part(block, logprobs))),
                    ]
                };
                let item = item(said, index, block, item_status(said, index));
                events.push(self.event("output_item.done", json!({"output_index": index, "item": item})));
                events
            }
        }
    }

    fn closing(&mut self, said: &Said<'_>) -> Vec<Value> {
        let response = self.response(said, status(said), items(said), Value::Null);
        vec![self.event(status(said), json!({"response": response}))]
    }

    fn failure(&mut self, said: &Said<'_>, error: &ApiError) -> Vec<Value> {
        let code = error.code.unwrap_or(error.kind);
        let error = json!({"code": code, "message": error.message});
        let response = self.response(said, "failed", items(said), error);
        vec![self.event("failed", json!({"response": response}))]
    }
}

fn status(said: &Said<'_>) -> &'static str {
    if said.is_cut() { "incomplete" } else { "completed" }
}

/// The last item of an answer that was cut off is not complete.
fn item_status(said: &Said<'_>, index: usize) -> &'static str {
    if said.is_cut() && index + 1 == said.blocks.len() { "incomplete" } else { "completed" }
}

fn items(said: &Said<'_>) -> Vec<Value> {
    let item = |(index, block)| item(said, index, block, item_status(said, index));
    said.blocks.iter().enumerate().map(item).collect()
}

fn item_id(said: &Said<'_>, index: usize) -> String {
    let prefix = match said.blocks[index].kind {
        BlockKind::Thoughts => "rs",
        BlockKind::Text => "msg",
        BlockKind::Call => "fc",
    };
    format!("{prefix}_{}_{index}", said.suffix)
}

fn item(said: &Said<'_>, index: usize, block: &Block, status: &str) -> Value {
    let id = item_id(said, index);
    let content = if status == "in_progress" {
        json!([])
    } else {
        json!([part(block, said.logprobs(Some(index), TokenIds::Hidden))])
    };
    match block.kind {
        BlockKind::Thoughts => {
            json!({"id": id, "type": "reasoning", "summary": [], "content": content, "status": status})
        }
        BlockKind::Text => {
            json!({"id": id, "type": "message", "role": "assistant", "content": content, "status": status})
        }
        BlockKind::Call => json!({
            "id": id,
            "type": "function_call",
            "call_id": call_id(said.suffix, 0, index),
            "name": block.name,
            "arguments": block.text,
            "status": status,
        }),
    }
}

fn part(block: &Block, logprobs: Option<Vec<Value>>) -> Value {
    match block.kind {
        BlockKind::Thoughts => json!({"type": "reasoning_text", "text": block.text}),
        _ => {
            json!({"type": "output_text", "text": block.text, "annotations": [], "logprobs": logprobs.unwrap_or_default()})
        }
    }
}

fn usage(said: &Said<'_>) -> Value {
    let Some((_, usage)) = said.end else { return Value::Null };
    json!({
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": said.num_thought_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    })
}
