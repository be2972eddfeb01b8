//! Limits of a request's lists and strings, so that none costs more than a long prompt does.

use serde_json::Value;

use crate::error::ApiError;
use crate::fields::{Object, refused};

/// A list or a string that is limited.
struct Limit {
    field: &'static str,
    /// Most entries of a list or an object.
    entries: usize,
    /// Most bytes of its strings together.
    bytes: usize,
}

const fn entries(field: &'static str, entries: usize) -> Limit {
    Limit { field, entries, bytes: usize::MAX }
}

/// Fields of one name have one limit, whatever the endpoint. Prompts are limited by the context, grammars and schemas where
/// they are compiled.
const LIMITS: [Limit; 10] = [
    Limit { field: "stop", entries: 64, bytes: 16 << 10 },
    Limit { field: "stop_sequences", entries: 64, bytes: 16 << 10 },
    Limit { field: "dry_sequence_breakers", entries: 64, bytes: 4 << 10 },
    Limit { field: "model", entries: 0, bytes: 1 << 10 },
    Limit { field: "guided_choice", entries: 4096, bytes: 256 << 10 },
    entries("stop_token_ids", 1024),
    entries("logit_bias", 4096),
    entries("messages", MAX_MESSAGES),
    entries("tools", 1024),
    entries("chat_template_kwargs", 256),
];
/// Most messages of a chat, and parts of a message.
const MAX_MESSAGES: usize = 16 << 10;
/// Most log-probabilities for each step: the choices of a prompt times one more than the alternatives of each.
const MAX_LOGPROBS: u64 = 512;

/// Checks the sizes of a body's fields.
///
/// # Errors
/// 400 that names a field beyond its limit.
pub(crate) fn check(body: &Object) -> Result<(), ApiError> {
    for limit in &LIMITS {
        body.get(limit.field).map_or(Ok(()), |value| limit.check(value))?;
    }
    if let Some(Value::Array(items)) = body.get("input") {
        check_len("input", "items", items.len(), MAX_MESSAGES)?;
    }
    for list in ["messages", "input"] {
        for (index, message) in body.get(list).and_then(Value::as_array).into_iter().flatten().enumerate() {
            if let Some(Value::Array(parts)) = message.get("content") {
                check_len(&format!("{list}[{index}].content"), "parts", parts.len(), MAX_MESSAGES)?;
            }
        }
    }
    let number = |name: &str| body.get(name).and_then(Value::as_u64);
    let Some(alternatives) = number("top_logprobs").or_else(|| number("logprobs")) else { return Ok(()) };
    let choices = number("n").max(number("best_of")).unwrap_or(1);
    let found = choices.saturating_mul(alternatives.saturating_add(1));
    if found > MAX_LOGPROBS {
        let rest = format_args!(
            "expected at most {MAX_LOGPROBS} log-probabilities for the tokens of all choices together, found {found}"
        );
        return Err(refused("n", rest));
    }
    Ok(())
}

impl Limit {
    fn check(&self, value: &Value) -> Result<(), ApiError> {
        let strings = match value {
            Value::Array(items) => {
                check_len(self.field, "entries", items.len(), self.entries)?;
                items.iter().filter_map(Value::as_str).map(str::len).sum()
            }
            Value::Object(fields) => {
                check_len(self.field, "entries", fields.len(), self.entries)?;
                0
            }
            Value::String(text) => text.len(),
            _ => 0,
        };
        check_len(self.field, "bytes", strings, self.bytes)
    }
}

fn check_len(field: &str, what: &str, found: usize, limit: usize) -> Result<(), ApiError> {
    match found > limit {
        true => Err(refused(field, format_args!("expected at most {limit} {what}, found {found}"))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_list_and_string_has_its_limit() {
        let many = |count: usize| json!(vec!["x"; count]);
        let biases = |count| Value::Object((0..count).map(|id: usize| (id.to_string(), json!(1))).collect());
        for (field, fits, beyond, expected) in [
            ("stop", many(64), many(65), "stop: expected at most 64 entries, found 65"),
            (
                "stop",
                json!("x".repeat(16384)),
                json!(["x".repeat(16384), "x"]),
                "expected at most 16384 bytes, found 16385",
            ),
            ("stop_sequences", many(64), many(65), "stop_sequences: expected at most 64 entries"),
            ("dry_sequence_breakers", many(64), many(65), "expected at most 64 entries"),
            ("model", json!("x".repeat(1024)), json!("x".repeat(1025)), "model: expected at most 1024 bytes"),
            ("guided_choice", many(4096), many(4097), "guided_choice: expected at most 4096 entries"),
            ("stop_token_ids", many(1024), many(1025), "stop_token_ids: expected at most 1024 entries"),
            (
                "logit_bias",
                biases(4096),
                biases(4097),
                "logit_bias: expected at most 4096 entries, found 4097",
            ),
            ("messages", many(16384), many(16385), "messages: expected at most 16384 entries, found 16385"),
            ("tools", many(1024), many(1025), "tools: expected at most 1024 entries"),
            (
                "chat_template_kwargs",
                biases(256),
                biases(257),
                "chat_template_kwargs: expected at most 256 entries",
            ),
            ("input", many(16384), many(16385), "input: expected at most 16384 items"),
            (
                "messages",
                json!([{"content": many(16384)}]),
                json!([{}, {"content": many(16385)}]),
                "messages[1].content: expected at most 16384 parts",
            ),
        ] {
            let body = |value: Value| Object::from_iter([(field.to_owned(), value)]);
            assert!(check(&body(fits)).is_ok(), "{field}");
            let error = check(&body(beyond)).unwrap_err();
            assert!(error.status == 400 && error.message.contains(expected), "{}", error.message);
        }
        let body =
            |n: u64| json!({"n": n, "logprobs": true, "top_logprobs": 15}).as_object().unwrap().clone();
        assert!(check(&body(32)).is_ok());
        let message = check(&body(33)).unwrap_err().message;
        assert!(message.contains("n: expected at most 512 log-probabilities"), "{message}");
    }
}
