//! Anthropic's messages as those of a chat.

use serde_json::{Value, json};

use crate::convert::{self, call, message, part_text, text, texts};
use crate::error::ApiError;
use crate::fields::{Object, mistyped, refused};

/// The system message, if any.
pub(crate) fn system(body: &Object, name: &str) -> Result<Option<String>, ApiError> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(found) => Ok(Some(texts(found, name, &["text"])?.join("\n"))),
    }
}

/// Reads the messages.
pub(crate) fn messages(body: &Object, name: &str) -> Result<Vec<Value>, ApiError> {
    let Some(Value::Array(messages)) = body.get(name) else {
        return Err(mistyped(name, "a list of messages", body.get(name).unwrap_or(&Value::Null)));
    };
    let mut chat = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        let name = format!("{name}[{index}]");
        convert::object(message, &name)?;
        match message["role"].as_str() {
            Some("user") => chat.extend(of_user(&message["content"], &format!("{name}.content"))?),
            Some("assistant") => chat.push(of_assistant(&message["content"], &format!("{name}.content"))?),
            _ => return Err(mistyped(&format!("{name}.role"), "user or assistant", &message["role"])),
        }
    }
    if chat.is_empty() {
        return Err(refused(name, "expected at least one, found none"));
    }
    Ok(chat)
}

/// The blocks of a content, of which a text alone is one.
fn blocks<'v>(content: &'v Value, name: &str) -> Result<&'v [Value], ApiError> {
    match content {
        Value::Array(blocks) => Ok(blocks),
        Value::String(_) => Ok(std::slice::from_ref(content)),
        found => Err(mistyped(name, "a string or a list of blocks", found)),
    }
}

/// Results of calls are messages of their own.
fn of_user(content: &Value, name: &str) -> Result<Vec<Value>, ApiError> {
    let mut messages = Vec::new();
    let mut said: Vec<String> = Vec::new();
    let flush = |said: &mut Vec<String>, messages: &mut Vec<Value>| {
        if !said.is_empty() {
            messages.push(message("user", said.join("\n")));
            said.clear();
        }
    };
    for (index, block) in blocks(content, name)?.iter().enumerate() {
        let name = format!("{name}[{index}]");
        if let Some(text) = block.as_str() {
            said.push(text.to_owned());
        } else if block["type"] == "tool_result" {
            flush(&mut said, &mut messages);
            messages.push(result(block, &name)?);
        } else {
            let expected = ["text", "tool_result"];
            if block["type"] != "text" {
                return Err(mistyped(&format!("{name}.type"), &expected.join(" or "), &block["type"]));
            }
            said.push(part_text(block, &name, &["text"])?);
        }
    }
    flush(&mut said, &mut messages);
    Ok(messages)
}

fn result(block: &Value, name: &str) -> Result<Value, ApiError> {
    let id = text(&block["tool_use_id"], &format!("{name}.tool_use_id"))?;
    let said = match &block["content"] {
        Value::Null => String::new(),
        content => texts(content, &format!("{name}.content"), &["text"])?.join("\n"),
    };
    // A chat's result has no place for it.
    let said = if block["is_error"] == true { format!("Error: {said}") } else { said };
    Ok(json!({"role": "tool", "tool_call_id": id, "content": said}))
}

fn of_assistant(content: &Value, name: &str) -> Result<Value, ApiError> {
    let (mut said, mut thoughts, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    for (index, block) in blocks(content, name)?.iter().enumerate() {
        let name = format!("{name}[{index}]");
        let at = |field: &str| format!("{name}.{field}");
        match block["type"].as_str() {
            None if block.is_string() => said.push(block.as_str().unwrap_or_default().to_owned()),
            Some("text") => said.push(part_text(block, &name, &["text"])?),
            Some("thinking") => thoughts.push(text(&block["thinking"], &at("thinking"))?.to_owned()),
            // What is encrypted comes from another server.
            Some("redacted_thinking") => {}
            Some("tool_use") => {
                convert::object(&block["input"], &at("input"))?;
                let (id, function) = (text(&block["id"], &at("id"))?, text(&block["name"], &at("name"))?);
                calls.push(call(id, function, &block["input"].to_string()));
            }
            _ => return Err(mistyped(&at("type"), "text, thinking or tool_use", &block["type"])),
        }
    }
    let has_content = !said.is_empty() || calls.is_empty();
    let mut message = message("assistant", has_content.then(|| said.join("\n")));
    if !thoughts.is_empty() {
        message["reasoning_content"] = thoughts.join("\n").into();
    }
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(found: Value) -> Result<Value, ApiError> {
        messages(json!({"messages": found}).as_object().unwrap(), "messages").map(Value::from)
    }

    #[test]
    fn blocks_become_messages() {
        let found = read(json!([
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": ""},
                {"type": "text", "text": "b"},
                {"type": "tool_use", "id": "1", "name": "f", "input": {"x": 1}},
                {"type": "tool_use", "id": "2", "name": "g", "input": {}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "1", "content": "y"},
                {"type": "tool_result", "tool_use_id": "2", "is_error": true, "content": [{"type": "text", "text": "z"}]},
                {"type": "text", "text": "c"},
                {"type": "text", "text": "d"},
            ]},
        ]));
        let expect = json!([
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b", "reasoning_content": "hm",
             "tool_calls": [call("1", "f", "{\"x\":1}"), call("2", "g", "{}")]},
            {"role": "tool", "tool_call_id": "1", "content": "y"},
            {"role": "tool", "tool_call_id": "2", "content": "Error: z"},
            {"role": "user", "content": "c\nd"},
        ]);
        assert_eq!(found, Ok(expect));
        let found = system(
            json!({"system": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]})
                .as_object()
                .unwrap(),
            "system",
        );
        assert_eq!(found, Ok(Some("a\nb".to_owned())));
    }

    #[test]
    fn other_blocks_are_refused_by_name() {
        let check = |found: Value, param: &str, message: &str| {
            let error = read(found).unwrap_err();
            assert_eq!((error.param.as_deref(), error.message.as_str()), (Some(param), message));
        };
        check(json!([]), "messages", "messages: expected at least one, found none");
        check(
            json!([{"role": "user", "content": [{"type": "image", "source": {}}]}]),
            "messages[0].content[0].type",
            "messages[0].content[0].type: expected text or tool_result, found \"image\"",
        );
        check(
            json!([{"role": "system", "content": "a"}]),
            "messages[0].role",
            "messages[0].role: expected user or assistant, found \"system\"",
        );
        check(
            json!([{"role": "user", "content": [{"type": "tool_result", "content": "a"}]}]),
            "messages[0].content[0].tool_use_id",
            "messages[0].content[0].tool_use_id: expected a string, found none",
        );
    }
}
