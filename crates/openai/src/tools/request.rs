//! The fields of a chat that are about tools.

use serde_json::{Value, json};

use crate::error::ApiError;
use crate::field_list::body;
use crate::fields::{BOOL, Object, field, mistyped, refused};

body! {
    /// What only chats with tools read.
    pub struct ToolFields {
        tools: Vec<Tool> = tools, "functions that the model may call";
        tool_choice: ToolChoice = tool_choice, "`none`, `auto`, `required` or the name of a function";
        parallel_tool_calls: Option<bool> = crate::fields::optional(BOOL), "false: at most one call";
    }
}

/// A function that the model may call.
#[derive(Debug, Clone)]
pub struct Tool {
    pub name: String,
    /// The schema of its arguments.
    pub parameters: Value,
    /// Whether a schema that cannot be enforced is refused.
    pub is_strict: bool,
    /// All that the request says of it.
    pub description: Value,
}

/// Whether the model calls functions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolChoice {
    /// As it likes, if there are any.
    Auto,
    None,
    Required,
    Named(String),
}

/// The tools of a request, as far as the model may use them.
#[derive(Debug)]
pub struct Toolbox {
    /// Empty if the model may call none.
    pub tools: Vec<Tool>,
    pub choice: ToolChoice,
    pub is_parallel: bool,
}

/// Longest name of a function. OpenAI has 64; servers of tools put their own name before it.
const MAX_NAME: usize = 128;

impl ToolFields {
    /// Refuses fields that contradict each other.
    pub fn check(self) -> Result<Toolbox, ApiError> {
        let Self { mut tools, tool_choice: choice, parallel_tool_calls } = self;
        match &choice {
            ToolChoice::Named(name) if !tools.iter().any(|tool| tool.name == *name) => {
                let rest = format_args!("expected the name of one of tools, found {name:?}");
                return Err(refused("tool_choice", rest));
            }
            ToolChoice::Required if tools.is_empty() => {
                return Err(refused("tool_choice", "expected tools beside \"required\", found none"));
            }
            ToolChoice::None => tools.clear(),
            _ => {}
        }
        for (index, tool) in tools.iter().enumerate() {
            if tools[..index].iter().any(|other| other.name == tool.name) {
                let name = format!("tools[{index}].function.name");
                return Err(refused(&name, format_args!("expected each once, found {:?} again", tool.name)));
            }
        }
        Ok(Toolbox { tools, choice, is_parallel: parallel_tool_calls.unwrap_or(true) })
    }
}

fn tools(body: &Object, name: &str) -> Result<Vec<Tool>, ApiError> {
    let tools: Vec<Value> = field(body, name, "a list of tools")?.unwrap_or_default();
    let read = |(index, tool)| Tool::read(tool).map_err(|error| error.within(&format!("{name}[{index}].")));
    tools.into_iter().enumerate().map(read).collect()
}

impl Tool {
    fn read(description: Value) -> Result<Self, ApiError> {
        if description["type"] != "function" {
            return Err(mistyped("type", "\"function\"", &description["type"]));
        }
        let Value::Object(function) = &description["function"] else {
            return Err(mistyped("function", "an object", &description["function"]));
        };
        let of_function = |error: ApiError| error.within("function.");
        let name = crate::fields::required_text(function, "name").map_err(of_function)?;
        let is_sign = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(is_sign) {
            let expected = format!("1 to {MAX_NAME} letters, digits, \"_\", \"-\" and \".\"");
            return Err(of_function(mistyped("name", &expected, &function["name"])));
        }
        let is_strict = crate::fields::flag(function, "strict").map_err(of_function)?;
        let parameters = match function.get("parameters") {
            None | Some(Value::Null) => {
                json!({"type": "object", "properties": {}, "additionalProperties": false})
            }
            Some(Value::Object(schema)) => Value::Object(schema.clone()),
            Some(found) => return Err(of_function(mistyped("parameters", "a JSON schema", found))),
        };
        Ok(Self { name, parameters, is_strict, description })
    }
}

fn tool_choice(body: &Object, name: &str) -> Result<ToolChoice, ApiError> {
    let expected =
        "\"none\", \"auto\", \"required\" or {\"type\": \"function\", \"function\": {\"name\": ..}}";
    match body.get(name) {
        None | Some(Value::Null) => Ok(ToolChoice::Auto),
        Some(Value::String(word)) => match word.as_str() {
            "auto" => Ok(ToolChoice::Auto),
            "none" => Ok(ToolChoice::None),
            // Mistral's word for it.
            "required" | "any" => Ok(ToolChoice::Required),
            _ => Err(mistyped(name, expected, &body[name])),
        },
        Some(choice) => match choice["function"]["name"].as_str() {
            Some(function) if choice["type"] == "function" => Ok(ToolChoice::Named(function.to_owned())),
            _ => Err(mistyped(name, expected, choice)),
        },
    }
}
