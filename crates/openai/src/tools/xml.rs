//! Reads calls in Qwen3-Coder's tags, whose values become JSON by the types of the function's schema.

use serde_json::Value;

use super::json::Progress;

/// Reads `<function=f>`, parameters and `</function>`.
#[derive(Debug, Clone)]
pub(crate) struct XmlReader {
    at: At,
    text: String,
    function: String,
    num_parameters: usize,
    /// The name, once it is known.
    pub name: Option<String>,
    /// Text of the arguments that has not been taken.
    pub arguments: String,
}

#[derive(Debug, Clone)]
enum At {
    Function,
    /// Before a parameter, or the end.
    Parameter,
    /// In the value of the parameter of this name.
    Value(String),
}

const FUNCTION: &str = "<function=";
const FUNCTION_END: &str = "</function>";
const PARAMETER: &str = "<parameter=";
const PARAMETER_END: &str = "</parameter>";
/// Longest name of a function or parameter with its tag.
const MAX_TAG: usize = 512;

impl XmlReader {
    pub fn new() -> Self {
        Self {
            at: At::Function,
            text: String::new(),
            function: String::new(),
            num_parameters: 0,
            name: None,
            arguments: String::new(),
        }
    }

    /// Takes the next character. `schemas` are those of the functions' arguments, by name.
    pub fn push(&mut self, c: char, schemas: &[(String, Value)]) -> Progress {
        if self.text.is_empty() && c.is_whitespace() && !matches!(self.at, At::Value(_)) {
            return Progress::More;
        }
        self.text.push(c);
        match &self.at {
            At::Function => match tag(&self.text, FUNCTION) {
                Tag::Name(name) => {
                    self.function.clone_from(&name);
                    self.name = Some(name);
                    self.go_to(At::Parameter);
                }
                Tag::Begun => {}
                Tag::None => return Progress::Invalid,
            },
            At::Parameter if self.text == FUNCTION_END => {
                self.arguments.push_str(if self.num_parameters == 0 { "{}" } else { "}" });
                return Progress::Done;
            }
            At::Parameter => match tag(&self.text, PARAMETER) {
                Tag::Name(name) => self.go_to(At::Value(name)),
                Tag::None if !FUNCTION_END.starts_with(&self.text) => return Progress::Invalid,
                Tag::Begun | Tag::None => {}
            },
            At::Value(name) => {
                if let Some(value) = self.text.strip_suffix(PARAMETER_END) {
                    let value = value.strip_prefix('\n').unwrap_or(value);
                    let value = value.strip_suffix('\n').unwrap_or(value);
                    let separator = if self.num_parameters == 0 { "{" } else { ", " };
                    let value = typed(value, schema_of(schemas, &self.function, name));
                    self.arguments.push_str(&format!("{separator}{}: {value}", Value::from(name.as_str())));
                    self.num_parameters += 1;
                    self.go_to(At::Parameter);
                }
            }
        }
        Progress::More
    }

    fn go_to(&mut self, at: At) {
        self.text.clear();
        self.at = at;
    }
}

enum Tag {
    Name(String),
    Begun,
    None,
}

/// What a text is that may be a tag such as `<function=f>`.
fn tag(text: &str, opening: &str) -> Tag {
    match text.strip_prefix(opening) {
        Some(rest) if rest.ends_with('>') => Tag::Name(rest[..rest.len() - 1].trim().to_owned()),
        Some(rest) if rest.len() < MAX_TAG => Tag::Begun,
        None if opening.starts_with(text) => Tag::Begun,
        _ => Tag::None,
    }
}

fn schema_of<'s>(schemas: &'s [(String, Value)], function: &str, parameter: &str) -> &'s Value {
    let schema = schemas.iter().find(|(name, _)| name == function).map(|(_, schema)| schema);
    schema.map_or(&Value::Null, |schema| &schema["properties"][parameter])
}

/// A value as JSON: what the schema says is a string is one, anything else if it is no JSON.
fn typed(text: &str, schema: &Value) -> Value {
    if is_text(schema) {
        return text.into();
    }
    serde_json::from_str(text.trim()).unwrap_or_else(|_| text.into())
}

/// Whether a schema's instances are strings alone, as far as is to be seen.
pub(crate) fn is_text(schema: &Value) -> bool {
    let are_texts = |values: &Value| {
        values.as_array().is_some_and(|values| !values.is_empty() && values.iter().all(Value::is_string))
    };
    schema["type"] == "string" || are_texts(&schema["enum"]) || schema["const"].is_string()
}
