//! `/v1/messages`: Anthropic's API. A body becomes that of a chat, and the answer a list of blocks.

mod input;
mod output;

use serde_json::{Value, json};

use crate::body::{MaxTokens, Sampling};
use crate::convert::{self, copy_sampling};
use crate::error::ApiError;
use crate::field_list::{Field, FieldList, Refused, body};
use crate::fields::{Object, TEXT, field, flag, mistyped, optional};
use crate::refusals::{SAMPLING, SAMPLING_DETAILS, accepted};

pub(crate) use output::Style;
pub use output::error_body;

body! {
    /// What only these bodies have.
    pub struct MessagesBody {
        model: Option<String> = optional(TEXT), "one of the names in `/v1/models`";
        messages: Vec<Value> = input::messages, "the chat so far: texts, thoughts, calls and their results";
        system: Option<String> = input::system, "a text or a list of them";
        max_tokens: Option<usize> = optional("a whole number, 0 or more"), "most tokens to generate";
        stop_sequences: Option<Vec<String>> = optional("a list of strings"), "strings that end the text";
        tools: Vec<Value> = tools, "functions that the model may call";
        tool_choice: Option<Choice> = tool_choice, "`auto`, `any`, `none` or the name of a function";
        thinking: Option<bool> = thinking, "`disabled` or else: `enable_thinking` of the template";
        output_config: Option<Value> = output_format, "beside it `format`";
        stream: bool = flag, "send the answer as server-sent events";
    }
}

body! {
    /// What is wanted of the text.
    pub struct OutputConfig {
        format: Option<Value> = optional("an object"), "`json_schema`; enforced";
    }
}

/// The fields of `/v1/messages`.
pub const MESSAGES: FieldList = FieldList {
    served: &[MessagesBody::FIELDS, Sampling::FIELDS],
    refused: &[HOSTED, SAMPLING],
    accepted: &[BOOKKEEPING, SAMPLING_DETAILS],
    nested: &[("output_config", &OUTPUT_CONFIG), ("thinking", &THINKING)],
};

const OUTPUT_CONFIG: FieldList = FieldList {
    served: &[OutputConfig::FIELDS],
    refused: &[],
    accepted: &[&[accepted("effort", "the model thinks as its template has it")]],
    nested: &[],
};

const THINKING: FieldList = FieldList {
    served: &[&[Field { name: "type", aliases: &[], doc: "`enabled`, `adaptive` or `disabled`" }]],
    refused: &[],
    accepted: &[&[
        accepted("budget_tokens", "thoughts are bounded by `max_tokens` alone"),
        accepted("display", "thoughts are always shown"),
    ]],
    nested: &[],
};

/// What the server does not do.
const HOSTED: &[Refused] = &[
    Refused::new("container", "[]", "the server has no tools of its own"),
    Refused::new("mcp_servers", "[]", "the server has no tools of its own"),
    Refused::new("context_management", "[]", "nothing is left out of the messages"),
    Refused::new("stop", "[]", "use stop_sequences"),
    Refused::new("max_tokens_to_sample", "[]", "use max_tokens"),
    Refused::new("prompt", "[]", "use messages"),
];

/// What the API's provider keeps for itself.
const BOOKKEEPING: &[Field] = &[
    accepted("metadata", "nothing is kept"),
    accepted("service_tier", "there is one"),
    accepted("cache_control", "the prefix cache finds what it has by itself"),
    accepted("inference_geo", "there is one place"),
    accepted("speed", "there is one"),
    accepted("diagnostics", "nothing is kept"),
    accepted("user_profile_id", "nothing is kept of who asks"),
    accepted("workspace_id", "nothing is kept of who asks"),
];

/// Which functions are called, and how many.
pub struct Choice {
    /// As a chat has it.
    choice: Value,
    is_parallel: bool,
}

/// The body of a chat for a body of this API. If that has no `max_tokens`, then `default`, or else it is refused.
pub(crate) fn convert(body: &Object, default: MaxTokens) -> Result<Object, ApiError> {
    let read = MessagesBody::read(body)?;
    let MessagesBody { model, messages, system, max_tokens, tools, tool_choice, .. } = read;
    if max_tokens.is_none() && default == MaxTokens::Unset {
        return Err(mistyped("max_tokens", "a whole number, 0 or more", &Value::Null));
    }
    let is_begun = messages.last().is_some_and(|last| {
        last["role"] == "assistant" && last["tool_calls"].is_null() && last["content"] != ""
    });
    let mut chat = Object::new();
    copy_sampling(body, &mut chat);
    let system = system.map(|text| convert::message("system", text));
    chat.insert("messages".to_owned(), system.into_iter().chain(messages).collect());
    let mut insert = |name: &str, value: Option<Value>| {
        chat.extend(value.map(|value| (name.to_owned(), value)));
    };
    insert("max_tokens", max_tokens.map(Value::from));
    // A last message of the assistant is the beginning of its answer.
    insert("continue_final_message", is_begun.then_some(Value::Bool(true)));
    insert("model", model.map(Value::from));
    insert("stop", read.stop_sequences.map(Value::from));
    insert("tools", (!tools.is_empty()).then(|| tools.into()));
    insert("parallel_tool_calls", tool_choice.as_ref().map(|choice| choice.is_parallel.into()));
    insert("tool_choice", tool_choice.map(|choice| choice.choice));
    insert("chat_template_kwargs", read.thinking.map(|thinks| json!({"enable_thinking": thinks})));
    insert("response_format", read.output_config);
    insert("stream", Some(read.stream.into()));
    Ok(chat)
}

/// A chat's error, with the names of this API's fields.
pub(crate) fn renamed(error: ApiError) -> ApiError {
    let names = [
        ("stop", "stop_sequences"),
        ("response_format.json_schema.schema", "output_config.format.schema"),
        ("response_format", "output_config.format"),
    ];
    let error = convert::renamed(error, &names);
    let Some(param) = error.param.as_deref().filter(|param| param.starts_with("tools[")) else {
        return error;
    };
    let param = param.replace("].parameters", "].input_schema");
    let message = error.message.replacen("].parameters", "].input_schema", 1);
    ApiError { param: Some(param), message, ..error }
}

/// Functions with an `input_schema`.
fn tools(body: &Object, name: &str) -> Result<Vec<Value>, ApiError> {
    let tools: Vec<Value> = field(body, name, "a list of tools")?.unwrap_or_default();
    let read = |(index, tool): (usize, &Value)| {
        let name = format!("{name}[{index}]");
        let tool = convert::object(tool, &name)?;
        if let Some(found) = tool.get("type").filter(|found| !(found.is_null() || *found == "custom")) {
            let mut error = mistyped(&format!("{name}.type"), "\"custom\" or none", found);
            error.message.push_str("\nhint: the server has no tools of its own");
            return Err(error);
        }
        let schema = tool.get("input_schema").unwrap_or(&Value::Null);
        convert::object(schema, &format!("{name}.input_schema"))?;
        let mut function = Object::new();
        for name in ["name", "description", "strict"] {
            function.extend(tool.get(name).map(|value| (name.to_owned(), value.clone())));
        }
        function.insert("parameters".to_owned(), schema.clone());
        Ok(json!({"type": "function", "function": function}))
    };
    tools.iter().enumerate().map(read).collect()
}

fn tool_choice(body: &Object, name: &str) -> Result<Option<Choice>, ApiError> {
    let Some(found) = field::<Object>(body, name, "an object")? else { return Ok(None) };
    let is_single = flag(&found, "disable_parallel_tool_use").map_err(|e| e.within(&format!("{name}.")))?;
    let choice = match (found.get("type").and_then(Value::as_str), found.get("name")) {
        (Some("auto"), _) => json!("auto"),
        (Some("any"), _) => json!("required"),
        (Some("none"), _) => json!("none"),
        (Some("tool"), Some(Value::String(function))) => {
            json!({"type": "function", "function": {"name": function}})
        }
        _ => return Err(mistyped(name, "the type auto, any, none, or tool with a name", &body[name])),
    };
    Ok(Some(Choice { choice, is_parallel: !is_single }))
}

fn thinking(body: &Object, name: &str) -> Result<Option<bool>, ApiError> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(found) => match found["type"].as_str() {
            Some("enabled" | "adaptive") => Ok(Some(true)),
            Some("disabled") => Ok(Some(false)),
            _ => Err(mistyped(name, "the type enabled, adaptive or disabled", found)),
        },
    }
}

/// A chat's `response_format`.
fn output_format(body: &Object, name: &str) -> Result<Option<Value>, ApiError> {
    let Some(config) = field::<Object>(body, name, "an object")? else { return Ok(None) };
    let OutputConfig { format } =
        OutputConfig::read(&config).map_err(|error| error.within(&format!("{name}.")))?;
    match format {
        None => Ok(None),
        Some(format) if format["type"] == "json_schema" => {
            Ok(Some(json!({"type": "json_schema", "json_schema": {"schema": format["schema"]}})))
        }
        Some(found) => Err(mistyped(&format!("{name}.format"), "the type json_schema", &found)),
    }
}
