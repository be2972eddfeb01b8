//! What the converters of other APIs' bodies to chats share.

use serde_json::{Value, json};

use crate::body::Sampling;
use crate::error::ApiError;
use crate::field_list::Field;
use crate::fields::{Object, mistyped};

/// Copies the fields about sampling from a body to that of a chat.
pub(crate) fn copy_sampling(body: &Object, chat: &mut Object) {
    copy_fields(Sampling::FIELDS, body, chat);
}

/// Copies fields from a body to that of a chat.
pub(crate) fn copy_fields(fields: &[Field], body: &Object, chat: &mut Object) {
    let names = fields.iter().flat_map(|field| [field.name].into_iter().chain(field.aliases.iter().copied()));
    for name in names {
        if let Some(value) = body.get(name) {
            chat.insert(name.to_owned(), value.clone());
        }
    }
}

/// An error of the chat that a body was converted to, with the names of that body's fields: `names` has pairs of a chat's
/// field and the body's.
pub(crate) fn renamed(error: ApiError, names: &[(&str, &str)]) -> ApiError {
    let Some(param) = &error.param else { return error };
    let found = names.iter().find_map(|&(from, to)| {
        let rest = param.strip_prefix(from)?;
        (rest.is_empty() || rest.starts_with(['.', '['])).then(|| format!("{to}{rest}"))
    });
    let renamed = found.unwrap_or_else(|| param.clone()).replace("].function.", "].");
    let message = match error.message.strip_prefix(param.as_str()) {
        Some(rest) => format!("{renamed}{rest}"),
        None => error.message.clone(),
    };
    ApiError { param: Some(renamed), message, ..error }
}

/// A value that must be an object.
pub(crate) fn object<'v>(value: &'v Value, name: &str) -> Result<&'v Object, ApiError> {
    value.as_object().ok_or_else(|| mistyped(name, "an object", value))
}

/// A value that must be a string.
pub(crate) fn text<'v>(value: &'v Value, name: &str) -> Result<&'v str, ApiError> {
    value.as_str().ok_or_else(|| mistyped(name, "a string", value))
}

/// A text, or a list of parts of these types, as the texts.
pub(crate) fn texts(value: &Value, name: &str, types: &[&str]) -> Result<Vec<String>, ApiError> {
    match value {
        Value::String(text) => Ok(vec![text.clone()]),
        Value::Array(parts) => {
            let read = |(index, part)| part_text(part, &format!("{name}[{index}]"), types);
            parts.iter().enumerate().map(read).collect()
        }
        found => Err(mistyped(name, "a string or a list of parts", found)),
    }
}

/// The text of a part of one of these types.
pub(crate) fn part_text(part: &Value, name: &str, types: &[&str]) -> Result<String, ApiError> {
    object(part, name)?;
    if !part["type"].as_str().is_some_and(|found| types.contains(&found)) {
        return Err(mistyped(&format!("{name}.type"), &types.join(" or "), &part["type"]));
    }
    let field = if part["type"] == "refusal" { "refusal" } else { "text" };
    text(&part[field], &format!("{name}.{field}")).map(str::to_owned)
}

/// A message of a chat.
pub(crate) fn message(role: &str, content: impl Into<Value>) -> Value {
    json!({"role": role, "content": content.into()})
}

/// A call of a function, as a chat has it.
pub(crate) fn call(id: &str, name: &str, arguments: &str) -> Value {
    json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
}
