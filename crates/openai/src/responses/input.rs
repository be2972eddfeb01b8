//! The items of an input as the messages of a chat.

use serde_json::{Value, json};

use crate::convert::{self, call, message, text, texts};
use crate::error::ApiError;
use crate::fields::{Object, mistyped, refused};

const TEXT_PARTS: [&str; 4] = ["input_text", "output_text", "text", "refusal"];
const ITEMS: &str = "message, function_call, function_call_output or reasoning";

/// Reads the input.
pub(crate) fn messages(body: &Object, name: &str) -> Result<Vec<Value>, ApiError> {
    let items = match body.get(name) {
        Some(Value::String(text)) => return Ok(vec![message("user", text.as_str())]),
        Some(Value::Array(items)) => items,
        found => return Err(mistyped(name, "a string or a list of items", found.unwrap_or(&Value::Null))),
    };
    let mut chat = Chat::default();
    for (index, item) in items.iter().enumerate() {
        chat.add(item, &format!("{name}[{index}]"))?;
    }
    chat.attach_thoughts();
    if chat.messages.is_empty() {
        return Err(refused(name, "expected at least one item, found none"));
    }
    Ok(chat.messages)
}

/// Instructions are a system message, one with those that the input begins with: many templates take only one.
pub(crate) fn with_instructions(instructions: Option<String>, mut messages: Vec<Value>) -> Vec<Value> {
    let Some(instructions) = instructions else { return messages };
    let is_system = |message: &&Value| message["role"] == "system" || message["role"] == "developer";
    let num_system = messages.iter().take_while(is_system).count();
    let rest = messages.split_off(num_system);
    let said = messages.iter().map(|message| message["content"].as_str().unwrap_or_default());
    let parts: Vec<&str> = [instructions.as_str()].into_iter().chain(said).collect();
    let system = message("system", parts.join("\n\n"));
    [system].into_iter().chain(rest).collect()
}

#[derive(Default)]
struct Chat {
    messages: Vec<Value>,
    /// Thoughts that belong to the next message of the assistant.
    thoughts: Option<String>,
}

impl Chat {
    fn add(&mut self, item: &Value, name: &str) -> Result<(), ApiError> {
        convert::object(item, name)?;
        let at = |field: &str| format!("{name}.{field}");
        match item["type"].as_str() {
            Some("message") => self.add_message(item, name),
            None if item["type"].is_null() && !item["role"].is_null() => self.add_message(item, name),
            Some("function_call") => {
                let id = text(&item["call_id"], &at("call_id"))?;
                let function = text(&item["name"], &at("name"))?;
                let arguments = text(&item["arguments"], &at("arguments"))?;
                self.add_call(call(id, function, arguments));
                Ok(())
            }
            Some("function_call_output") => {
                let id = text(&item["call_id"], &at("call_id"))?;
                let output = texts(&item["output"], &at("output"), &TEXT_PARTS)?.join("\n");
                self.attach_thoughts();
                self.messages.push(json!({"role": "tool", "tool_call_id": id, "content": output}));
                Ok(())
            }
            Some("reasoning") => self.add_thoughts(item, name),
            _ => Err(mistyped(&at("type"), ITEMS, &item["type"])),
        }
    }

    fn add_message(&mut self, item: &Value, name: &str) -> Result<(), ApiError> {
        let role = item["role"].as_str().filter(|role| ROLES.contains(role));
        let role =
            role.ok_or_else(|| mistyped(&format!("{name}.role"), &ROLES.join(" or "), &item["role"]))?;
        let content = texts(&item["content"], &format!("{name}.content"), &TEXT_PARTS)?.join("\n");
        let mut message = message(role, content);
        if role == "assistant" {
            self.take_thoughts(&mut message);
        }
        self.attach_thoughts();
        self.messages.push(message);
        Ok(())
    }

    /// Calls of one answer are one message, together with its text.
    fn add_call(&mut self, call: Value) {
        let last = self.messages.last_mut().filter(|message| message["role"] == "assistant");
        if let (Some(last), None) = (last, &self.thoughts) {
            match last["tool_calls"].as_array_mut() {
                Some(calls) => calls.push(call),
                None => last["tool_calls"] = json!([call]),
            }
            return;
        }
        let mut message = json!({"role": "assistant", "content": null, "tool_calls": [call]});
        self.take_thoughts(&mut message);
        self.messages.push(message);
    }

    fn add_thoughts(&mut self, item: &Value, name: &str) -> Result<(), ApiError> {
        let read = |field: &str, part: &str| match &item[field] {
            Value::Null => Ok(Vec::new()),
            found => texts(found, &format!("{name}.{field}"), &[part]),
        };
        let (content, summary) = (read("content", "reasoning_text")?, read("summary", "summary_text")?);
        // What is encrypted comes from another server.
        let thoughts = if content.is_empty() { summary } else { content };
        if !thoughts.is_empty() {
            self.attach_thoughts();
            self.thoughts = Some(thoughts.join("\n"));
        }
        Ok(())
    }

    fn take_thoughts(&mut self, message: &mut Value) {
        if let Some(thoughts) = self.thoughts.take() {
            message["reasoning_content"] = thoughts.into();
        }
    }

    /// Thoughts that nothing followed are a message of their own.
    fn attach_thoughts(&mut self) {
        if self.thoughts.is_some() {
            let mut message = message("assistant", "");
            self.take_thoughts(&mut message);
            self.messages.push(message);
        }
    }
}

const ROLES: [&str; 4] = ["user", "assistant", "system", "developer"];

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: Value) -> Result<Value, ApiError> {
        messages(json!({"input": input}).as_object().unwrap(), "input").map(Value::from)
    }

    #[test]
    fn items_become_messages() {
        assert_eq!(read(json!("hi")), Ok(json!([{"role": "user", "content": "hi"}])));
        let found = read(json!([
            {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
            {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "c", "annotations": []}]},
            {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
            {"type": "function_call", "call_id": "2", "name": "g", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "1", "output": "x"},
            {"type": "function_call_output", "call_id": "2", "output": [{"type": "input_text", "text": "y"}]},
            {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "so"}]},
            {"type": "function_call", "call_id": "3", "name": "f", "arguments": "{}"},
        ]));
        let function = |id, name| call(id, name, "{}");
        let expect = json!([
            {"role": "user", "content": "a\nb"},
            {"role": "assistant", "content": "c", "reasoning_content": "hm",
             "tool_calls": [function("1", "f"), function("2", "g")]},
            {"role": "tool", "tool_call_id": "1", "content": "x"},
            {"role": "tool", "tool_call_id": "2", "content": "y"},
            {"role": "assistant", "content": null, "tool_calls": [function("3", "f")], "reasoning_content": "so"},
        ]);
        assert_eq!(found, Ok(expect));
    }

    #[test]
    fn other_items_and_parts_are_refused_by_name() {
        let check = |input: Value, param: &str, message: &str| {
            let error = read(input).unwrap_err();
            assert_eq!((error.param.as_deref(), error.message.as_str()), (Some(param), message));
        };
        check(json!([]), "input", "input: expected at least one item, found none");
        check(json!(1), "input", "input: expected a string or a list of items, found 1");
        check(
            json!([{"type": "item_reference", "id": "a"}]),
            "input[0].type",
            "input[0].type: expected message, function_call, function_call_output or reasoning, found \"item_reference\"",
        );
        check(
            json!([{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]),
            "input[0].content[0].type",
            "input[0].content[0].type: expected input_text or output_text or text or refusal, found \"input_image\"",
        );
        check(
            json!([{"role": "tool", "content": "a"}]),
            "input[0].role",
            "input[0].role: expected user or assistant or system or developer, found \"tool\"",
        );
    }

    #[test]
    fn instructions_are_one_system_message() {
        let input =
            read(json!([{"role": "developer", "content": "b"}, {"role": "user", "content": "c"}])).unwrap();
        let found = with_instructions(Some("a".to_owned()), input.as_array().unwrap().clone());
        assert_eq!(found, [message("system", "a\n\nb"), message("user", "c")]);
    }
}
