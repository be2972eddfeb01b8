//! Ollama's messages as those of a chat.

use std::collections::VecDeque;

use serde_json::{Value, json};

use crate::convert::{self, call, message, text};
use crate::error::ApiError;
use crate::fields::{Object, mistyped, refused};

/// Reads the messages.
pub(crate) fn messages(body: &Object, name: &str) -> Result<Vec<Value>, ApiError> {
    let Some(Value::Array(messages)) = body.get(name) else {
        return Err(mistyped(name, "a list of messages", body.get(name).unwrap_or(&Value::Null)));
    };
    if messages.is_empty() {
        return Err(refused(name, "expected at least one, found none"));
    }
    // Calls have no ids here, but some templates want them: those of calls without a result, with the functions' names.
    let mut waiting = VecDeque::new();
    let mut num_calls = 0;
    let mut read = |(index, found): (usize, &Value)| {
        let name = format!("{name}[{index}]");
        convert::object(found, &name)?;
        let role = text(&found["role"], &format!("{name}.role"))?;
        let said = match &found["content"] {
            Value::Null => "",
            content => text(content, &format!("{name}.content"))?,
        };
        let mut chat = message(role, said);
        if let Some(thoughts) = found["thinking"].as_str().filter(|thoughts| !thoughts.is_empty()) {
            chat["reasoning_content"] = thoughts.into();
        }
        let calls = found["tool_calls"].as_array().into_iter().flatten().enumerate();
        let calls = calls.map(|(place, found)| {
            let at = format!("{name}.tool_calls[{place}].function");
            let function = text(&found["function"]["name"], &format!("{at}.name"))?;
            let arguments = convert::object(&found["function"]["arguments"], &format!("{at}.arguments"))?;
            num_calls += 1;
            // As long as the strictest templates want them.
            let id = found["id"].as_str().map_or_else(|| format!("call{num_calls:05}"), str::to_owned);
            waiting.push_back((id.clone(), function.to_owned()));
            Ok(call(&id, function, &json!(arguments).to_string()))
        });
        let calls = calls.collect::<Result<Vec<_>, ApiError>>()?;
        if !calls.is_empty() {
            chat["tool_calls"] = calls.into();
        }
        if role == "tool" {
            let function = found["tool_name"].as_str();
            let place = waiting.iter().position(|(_, name)| function.is_none_or(|function| function == name));
            let answered = place.and_then(|place| waiting.remove(place)).map(|(id, _)| id);
            let id = found["tool_call_id"].as_str().map(str::to_owned).or(answered);
            chat["tool_call_id"] = id.unwrap_or_else(|| "call00000".to_owned()).into();
            if let Some(function) = function {
                chat["name"] = function.into();
            }
        }
        Ok(chat)
    };
    messages.iter().enumerate().map(&mut read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(found: Value) -> Result<Value, ApiError> {
        messages(json!({"messages": found}).as_object().unwrap(), "messages").map(Value::from)
    }

    #[test]
    fn results_belong_to_the_calls_of_their_functions() {
        let found = read(json!([
            {"role": "user", "content": "a"},
            {"role": "assistant", "thinking": "hm", "tool_calls": [
                {"function": {"name": "f", "arguments": {"x": 1}}}, {"function": {"name": "g", "arguments": {}}},
            ]},
            {"role": "tool", "tool_name": "g", "content": "y"},
            {"role": "tool", "content": "z"},
        ]));
        let expect = json!([
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "", "reasoning_content": "hm",
             "tool_calls": [call("call00001", "f", "{\"x\":1}"), call("call00002", "g", "{}")]},
            {"role": "tool", "content": "y", "tool_call_id": "call00002", "name": "g"},
            {"role": "tool", "content": "z", "tool_call_id": "call00001"},
        ]);
        assert_eq!(found, Ok(expect));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let param = |found: Value| read(found).unwrap_err().param.unwrap();
        assert_eq!(param(json!([])), "messages");
        assert_eq!(param(json!([{"content": "a"}])), "messages[0].role");
        assert_eq!(param(json!([{"role": "user", "content": 1}])), "messages[0].content");
        let call = json!({"function": {"name": "f", "arguments": "{}"}});
        let found = param(json!([{"role": "assistant", "tool_calls": [call]}]));
        assert_eq!(found, "messages[0].tool_calls[0].function.arguments");
    }
}
