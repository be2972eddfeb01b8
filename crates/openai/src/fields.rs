//! Reads JSON objects so that every refusal names the field, what was expected and what was found, which derived deserialisers
//! do not.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::ApiError;

/// A JSON object.
pub type Object = Map<String, Value>;

pub(crate) const NUMBER: &str = "a number";
pub(crate) const COUNT: &str = "a whole number, 0 or more";
pub(crate) const INTEGER: &str = "a whole number";
pub(crate) const BOOL: &str = "true or false";
pub(crate) const TEXT: &str = "a string";

/// Parses a body or a line that must be an object.
///
/// # Errors
/// 400, saying where it is not UTF-8, not JSON, or what it is instead.
pub fn parse_object(json: &[u8]) -> Result<Object, ApiError> {
    let text = std::str::from_utf8(json).map_err(|error| {
        let at = error.valid_up_to();
        ApiError::malformed(format!("expected UTF-8, found byte {:#04x} at offset {at}", json[at]))
    })?;
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(found) => Err(ApiError::malformed(format!("expected a JSON object, found {}", shown(&found)))),
        Err(error) => {
            let (message, line, column) = (error.to_string(), error.line(), error.column());
            let what = message.split_once(" at line ").map_or(&*message, |(what, _)| what);
            // A single line needs no line number.
            let line = if line > 1 { format!("line {line} ") } else { String::new() };
            Err(ApiError::malformed(format!("not JSON: {what} at {line}column {column}")))
        }
    }
}

/// A field that may be absent or null. `expected` says what `T` takes.
pub(crate) fn field<T: DeserializeOwned>(
    body: &Object,
    name: &str,
    expected: &str,
) -> Result<Option<T>, ApiError> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => T::deserialize(value).map(Some).map_err(|_| mistyped(name, expected, value)),
    }
}

pub(crate) fn required<T: DeserializeOwned>(
    body: &Object,
    name: &str,
    expected: &str,
) -> Result<T, ApiError> {
    field(body, name, expected)?.ok_or_else(|| mistyped(name, expected, &Value::Null))
}

/// Reads a field that may be absent or null.
pub(crate) fn optional<T: DeserializeOwned>(
    expected: &'static str,
) -> impl Fn(&Object, &str) -> Result<Option<T>, ApiError> {
    move |body, name| field(body, name, expected)
}

/// Reads true or false; without the field, false.
pub(crate) fn flag(body: &Object, name: &str) -> Result<bool, ApiError> {
    Ok(field(body, name, BOOL)?.unwrap_or(false))
}

pub(crate) fn required_text(body: &Object, name: &str) -> Result<String, ApiError> {
    required(body, name, TEXT)
}

/// Message for a value of the wrong type.
pub(crate) fn mistyped(name: &str, expected: &str, found: &Value) -> ApiError {
    let found = if found.is_null() { "none".to_owned() } else { shown(found) };
    ApiError::invalid(name, format!("{name}: expected {expected}, found {found}"))
}

/// Message for an invalid value of the right type.
pub(crate) fn refused(name: &str, rest: impl std::fmt::Display) -> ApiError {
    ApiError::invalid(name, format!("{name}: {rest}"))
}

/// Most characters of a value that a message repeats.
const SHOWN: usize = 60;

/// A value as JSON for messages, cut if it is long.
pub fn shown(value: &Value) -> String {
    let mut text = value.to_string();
    if let Some((end, _)) = text.char_indices().nth(SHOWN) {
        text.truncate(end);
        text.push_str("..");
    }
    text
}
