//! `/v1/responses`: OpenAI's Responses API, without state. A body becomes that of a chat, and the answer a list of items.

mod input;
mod output;

use serde_json::{Value, json};

use crate::body::{Sampling, alternatives, effort};
use crate::convert::{self, copy_sampling};
use crate::error::ApiError;
use crate::field_list::{Field, FieldList, Refused, body};
use crate::fields::{BOOL, NUMBER, Object, TEXT, field, flag, mistyped, optional};
use crate::refusals::{BOOKKEEPING, SAMPLING, SAMPLING_DETAILS, accepted};

pub(crate) use output::Style;

body! {
    /// What only these bodies have.
    pub struct ResponsesBody {
        model: Option<String> = optional(TEXT), "one of the names in `/v1/models`";
        input: Vec<Value> = input::messages, "text, or a list of messages, calls, results of calls and thoughts";
        instructions: Option<String> = optional(TEXT), "a system message before the input";
        max_output_tokens: Option<usize> = optional("a whole number, 0 or more"), "most tokens to generate; null: what the context holds";
        tools: Vec<Value> = tools, "functions that the model may call";
        tool_choice: Option<Value> = tool_choice, "`none`, `auto`, `required` or the name of a function";
        parallel_tool_calls: Option<bool> = optional(BOOL), "false: at most one call";
        text: Option<Value> = text_format, "beside it `format`";
        chat_template_kwargs: Option<Object> = optional("an object"), "variables of the template, such as `enable_thinking`";
        reasoning: Option<&'static str> = reasoning, "beside it `effort`";
        include: bool = includes_logprobs, "`message.output_text.logprobs`: log-probabilities of the text; thoughts are always included, and nothing else could be";
        top_logprobs: Option<usize> = alternatives, "alternatives for each token of the text, with their log-probabilities";
        stream: bool = flag, "send the answer as server-sent events";
    }
}

body! {
    /// What is wanted of the text.
    pub struct TextFormat {
        format: Option<Value> = optional("an object"), "`text`, `json_object` or `json_schema`; enforced whether or not `strict`";
    }
}

body! {
    /// How the model is to think.
    pub struct Reasoning {
        effort: Option<&'static str> = effort, "how much, for templates that know `reasoning_effort`; `none` for those that know `enable_thinking`; others think as they do";
    }
}

/// The fields of `/v1/responses`.
pub const RESPONSES: FieldList = FieldList {
    served: &[ResponsesBody::FIELDS, Sampling::FIELDS],
    refused: &[STATE, HOSTED, SAMPLING],
    accepted: &[BOOKKEEPING, DETAILS, SAMPLING_DETAILS],
    nested: &[("text", &TEXT_FIELDS), ("reasoning", &REASONING), ("stream_options", &STREAM_OPTIONS)],
};

const TEXT_FIELDS: FieldList = FieldList {
    served: &[TextFormat::FIELDS],
    refused: &[&[Refused::new("verbosity", r#"["medium"]"#, "say it in a message")]],
    accepted: &[],
    nested: &[],
};

const REASONING: FieldList = FieldList {
    served: &[Reasoning::FIELDS],
    refused: &[],
    accepted: &[&[
        accepted("summary", "thoughts are told as they are"),
        accepted("generate_summary", "thoughts are told as they are"),
    ]],
    nested: &[],
};

const STREAM_OPTIONS: FieldList = FieldList {
    served: &[],
    refused: &[],
    accepted: &[&[accepted("include_obfuscation", "events are not padded")]],
    nested: &[],
};

/// What would need answers that are kept.
const STATE: &[Refused] = &[
    Refused::new("previous_response_id", "[]", "no answer is kept: send its items as input"),
    Refused::new("conversation", "[]", "no answer is kept: send its items as input"),
    Refused::new("background", "[]", "no answer is kept"),
    Refused::new("prompt", "[]", "no template of prompts is kept: send instructions and input"),
    Refused::new("truncation", r#"["disabled"]"#, "no item of the input is left out"),
    Refused::new("context_management", "[]", "no item of the input is left out"),
];

/// What the server does not do or has by another name.
const HOSTED: &[Refused] = &[
    Refused::new("moderation", "[]", ""),
    Refused::new("image", "[]", "the model writes text alone"),
    Refused::new("messages", "[]", "use input"),
    Refused::new("max_tokens", "[]", "use max_output_tokens"),
    Refused::new("max_completion_tokens", "[]", "use max_output_tokens"),
    Refused::new("response_format", "[]", "use text.format"),
    Refused::new("stop", "[]", "chats have stop strings"),
    Refused::new("n", "[1]", "chats have several choices"),
];

const DETAILS: &[Field] = &[
    accepted("max_tool_calls", "the server calls no tools itself"),
    accepted("stream_options", "events are not padded"),
    accepted("prompt_cache_options", "the prefix cache finds what it has by itself"),
    accepted("access_programs", "nothing is restricted"),
];

/// The body of a chat for a body of this API, and how its answer is written.
pub(crate) fn convert(body: &Object) -> Result<(Object, Style), ApiError> {
    let read = ResponsesBody::read(body)?;
    let echo = Style::new(body, &read);
    let ResponsesBody { model, input, instructions, max_output_tokens, tools, .. } = read;
    let mut chat = Object::new();
    copy_sampling(body, &mut chat);
    chat.insert("messages".to_owned(), input::with_instructions(instructions, input).into());
    let mut insert = |name: &str, value: Option<Value>| {
        chat.extend(value.map(|value| (name.to_owned(), value)));
    };
    insert("max_tokens", max_output_tokens.map(Value::from));
    insert("tools", (!tools.is_empty()).then(|| tools.into()));
    insert("model", model.map(Value::from));
    insert("tool_choice", read.tool_choice);
    insert("parallel_tool_calls", read.parallel_tool_calls.map(Value::from));
    insert("response_format", read.text);
    insert("chat_template_kwargs", variables(read.chat_template_kwargs, read.reasoning).map(Value::from));
    let has_logprobs = read.include || read.top_logprobs.is_some_and(|top| top > 0);
    insert("logprobs", has_logprobs.then_some(true.into()));
    insert("top_logprobs", read.top_logprobs.map(Value::from));
    insert("stream", Some(read.stream.into()));
    Ok((chat, echo))
}

/// A chat's error, with the names of this API's fields.
pub(crate) fn renamed(error: ApiError) -> ApiError {
    let names = [
        ("messages", "input"),
        ("max_tokens", "max_output_tokens"),
        ("response_format.json_schema.schema", "text.format.schema"),
        ("response_format", "text.format"),
    ];
    convert::renamed(error, &names)
}

fn includes_logprobs(body: &Object, name: &str) -> Result<bool, ApiError> {
    let include: Vec<String> = field(body, name, "a list of strings")?.unwrap_or_default();
    Ok(include.iter().any(|name| name == "message.output_text.logprobs"))
}

fn reasoning(body: &Object, name: &str) -> Result<Option<&'static str>, ApiError> {
    let Some(reasoning) = field::<Object>(body, name, "an object")? else { return Ok(None) };
    let read = Reasoning::read(&reasoning).map_err(|error| error.within(&format!("{name}.")))?;
    Ok(read.effort)
}

/// The template's variables with what templates call an effort, unless they have it already. Clients send one to every model, so
/// one that the template does not know is no error.
fn variables(given: Option<Object>, effort: Option<&str>) -> Option<Object> {
    let Some(effort) = effort else { return given };
    let mut variables = given.unwrap_or_default();
    variables.entry("reasoning_effort").or_insert(effort.into());
    if effort == "none" {
        variables.entry("enable_thinking").or_insert(false.into());
    }
    Some(variables)
}

/// Functions, each as an object of its own; a chat has them in a field `function`.
fn tools(body: &Object, name: &str) -> Result<Vec<Value>, ApiError> {
    let tools: Vec<Value> = field(body, name, "a list of tools")?.unwrap_or_default();
    let read = |(index, tool): (usize, &Value)| {
        let name = format!("{name}[{index}]");
        let mut function = convert::object(tool, &name)?.clone();
        let found = function.remove("type").unwrap_or_default();
        if found != "function" {
            let mut error = mistyped(&format!("{name}.type"), "\"function\"", &found);
            error.message.push_str("\nhint: the server has no tools of its own");
            return Err(error);
        }
        Ok(json!({"type": "function", "function": function}))
    };
    tools.iter().enumerate().map(read).collect()
}

fn tool_choice(body: &Object, name: &str) -> Result<Option<Value>, ApiError> {
    let expected = "\"none\", \"auto\", \"required\" or {\"type\": \"function\", \"name\": ..}";
    match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(word)) if matches!(word.as_str(), "none" | "auto" | "required") => {
            Ok(Some(word.as_str().into()))
        }
        Some(choice) if choice["type"] == "function" && choice["name"].is_string() => {
            Ok(Some(json!({"type": "function", "function": {"name": choice["name"]}})))
        }
        Some(found) => Err(mistyped(name, expected, found)),
    }
}

/// A chat's `response_format`.
fn text_format(body: &Object, name: &str) -> Result<Option<Value>, ApiError> {
    let Some(text) = field::<Object>(body, name, "an object")? else { return Ok(None) };
    let TextFormat { format } = TextFormat::read(&text).map_err(|error| error.within(&format!("{name}.")))?;
    let Some(format) = format else { return Ok(None) };
    match format["type"].as_str() {
        Some("json_schema") => Ok(Some(json!({"type": "json_schema", "json_schema": format}))),
        Some("text" | "json_object") => Ok(Some(format)),
        _ => Err(mistyped(&format!("{name}.format"), "the type text, json_object or json_schema", &format)),
    }
}

/// A number that is echoed.
fn number(body: &Object, name: &str) -> Option<f64> {
    field(body, name, NUMBER).ok().flatten()
}
