//! Ollama's API: `/api/chat`, `/api/generate` and `/api/embed`. Bodies become those of chats, completions and embeddings.

mod input;
mod output;

use serde_json::{Value, json};

use crate::body::{MaxTokens, Sampling, alternatives};
use crate::convert::{self, copy_sampling};
use crate::error::ApiError;
use crate::field_list::{Field, FieldList, Refused, body};
use crate::fields::{BOOL, COUNT, Object, TEXT, field, flag, mistyped, optional, refused};
use crate::limits;
use crate::prepare::Context;
use crate::refusals::{SAMPLING, SAMPLING_DETAILS, accepted};

pub(crate) use output::{Form, Style};
pub use output::{error_body, rfc3339};

body! {
    /// Fields of chats and completions.
    pub struct CommonBody {
        model: Option<String> = optional(TEXT), "one of the names in `/api/tags`, perhaps with `:latest` after it";
        format: Option<Value> = format, "`json` or a JSON schema; enforced";
        options: Option<Object> = optional("an object"), "how tokens are chosen";
        think: Option<Think> = think, "`enable_thinking` of the template; `low`, `medium` or `high` is also its `reasoning_effort`";
        logprobs: bool = flag, "log-probabilities of the tokens";
        top_logprobs: Option<usize> = alternatives, "alternatives for each token, beside `logprobs`";
        stream: Option<bool> = optional(BOOL), "false: the whole answer at once; otherwise a line for each part of it";
    }
}

body! {
    /// What only chats read.
    pub struct ChatBody {
        messages: Vec<Value> = input::messages, "the chat so far: texts, thoughts, calls and their results";
        tools: Option<Vec<Value>> = optional("a list of tools"), "functions that the model may call";
    }
}

body! {
    /// What only completions read.
    pub struct GenerateBody {
        prompt: Option<String> = optional(TEXT), "what the user says, or with `raw` the prompt itself";
        system: Option<String> = optional(TEXT), "the system message before it";
        suffix: Option<String> = optional(TEXT), "what comes after the text that is to be filled in, for models with tokens for that";
        raw: Option<bool> = optional(BOOL), "true: the prompt is no chat";
    }
}

body! {
    /// Body of `/api/embed`.
    pub struct EmbedBody {
        model: Option<String> = optional(TEXT), "one of the names in `/api/tags`, perhaps with `:latest` after it";
        input: Value = input, "a text or a list of them";
        truncate: Option<bool> = optional(BOOL), "false: a text beyond the context is refused instead of cut";
        dimensions: Option<usize> = optional(COUNT), "so many values, the first, scaled to length 1 again";
    }
}

body! {
    /// How tokens are chosen.
    pub struct Options {
        num_predict: MaxTokens = num_predict, "most tokens to generate; negative: what the context holds";
        stop: Option<Value> = optional("a string or a list of strings"), "strings that end the text";
    }
}

/// The fields of `/api/chat`.
pub const CHAT: FieldList = FieldList {
    served: &[CommonBody::FIELDS, ChatBody::FIELDS],
    refused: &[REFUSED],
    accepted: &[BOOKKEEPING],
    nested: &[("options", &OPTIONS), ("messages", &MESSAGE)],
};

/// The fields of `/api/generate`.
pub const GENERATE: FieldList = FieldList {
    served: &[CommonBody::FIELDS, GenerateBody::FIELDS],
    refused: &[REFUSED, COMPLETION],
    accepted: &[BOOKKEEPING],
    nested: &[("options", &OPTIONS)],
};

/// The fields of `/api/embed`.
pub const EMBED: FieldList = FieldList {
    served: &[EmbedBody::FIELDS],
    refused: &[],
    accepted: &[BOOKKEEPING, &[accepted("options", "an embedding has no choice of tokens")]],
    nested: &[],
};

const OPTIONS: FieldList = FieldList {
    served: &[Options::FIELDS, Sampling::FIELDS],
    refused: &[SAMPLING],
    accepted: &[SAMPLING_DETAILS, LOADING],
    nested: &[],
};

const MESSAGE: FieldList = FieldList {
    served: &[&[
        accepted("role", "who says it"),
        accepted("content", "what"),
        accepted("thinking", "the model's thoughts, for templates that show them"),
        accepted("tool_calls", "functions that the model has called"),
        accepted("tool_name", "the function whose result it is"),
        accepted("tool_call_id", "the call whose result it is"),
    ]],
    refused: &[IMAGES],
    accepted: &[],
    nested: &[],
};

const IMAGES: &[Refused] = &[Refused::new("images", "[]", "the model reads text alone")];

const REFUSED: &[Refused] =
    &[Refused::new("template", "[]", "the server's --chat-template replaces the model file's")];

const COMPLETION: &[Refused] = &[
    IMAGES[0],
    Refused::new("context", "[]", "no chat is kept: send /api/chat all messages"),
    Refused::new("width", "[]", "the model writes text alone"),
    Refused::new("height", "[]", "the model writes text alone"),
    Refused::new("steps", "[]", "the model writes text alone"),
];

const BOOKKEEPING: &[Field] = &[accepted("keep_alive", "the model is always loaded")];

/// What the server was started with.
const LOADING: &[Field] = &[
    accepted("num_ctx", "the context is the server's --ctx"),
    accepted("num_batch", "the server's"),
    accepted("num_gpu", "the server's --device"),
    accepted("main_gpu", "the server's --device"),
    accepted("num_thread", "the server's --threads"),
    accepted("num_keep", "the context is not shifted"),
    accepted("numa", "the server's"),
    accepted("low_vram", "the server's"),
    accepted("f16_kv", "the server's --kv-type"),
    accepted("logits_all", "the server's"),
    accepted("vocab_only", "the server's"),
    accepted("use_mmap", "the server's"),
    accepted("use_mlock", "the server's"),
    accepted("embedding_only", "the server's"),
];

/// What a body becomes.
pub(crate) enum Converted {
    Chat(Object),
    Completion(Object),
}

/// The body of a chat for one of `/api/chat`.
pub(crate) fn chat(body: &Object, context: &Context<'_>) -> Result<Object, ApiError> {
    let ChatBody { messages, tools } = ChatBody::read(body)?;
    let mut chat = common(body, context)?;
    chat.insert("messages".to_owned(), messages.into());
    if let Some(tools) = tools.filter(|tools| !tools.is_empty()) {
        chat.insert("tools".to_owned(), tools.into());
    }
    Ok(chat)
}

/// What a body of `/api/generate` becomes: a chat, unless it is raw, has a suffix or the model no template.
pub(crate) fn generate(body: &Object, context: &Context<'_>) -> Result<Converted, ApiError> {
    let GenerateBody { prompt, system, suffix, raw } = GenerateBody::read(body)?;
    let prompt = prompt.unwrap_or_default();
    let mut converted = common(body, context)?;
    let (suffix, system) = (suffix.filter(|text| !text.is_empty()), system.filter(|text| !text.is_empty()));
    let is_plain = raw == Some(true) || suffix.is_some();
    if is_plain && system.is_some() {
        return Err(refused("system", "expected none beside raw and suffix, found a text"));
    }
    if !is_plain && context.tokenizer.chat_template().is_ok() {
        let system = system.map(|text| convert::message("system", text));
        let messages = system.into_iter().chain([convert::message("user", prompt)]).collect();
        converted.insert("messages".to_owned(), messages);
        return Ok(Converted::Chat(converted));
    }
    converted.remove("chat_template_kwargs");
    // A completion has the number of alternatives in one field.
    let top = converted.remove("top_logprobs").unwrap_or_else(|| 0.into());
    if let Some(logprobs) = converted.get_mut("logprobs") {
        *logprobs = top;
    }
    let prompt = system.map_or(prompt.clone(), |system| format!("{system}\n\n{prompt}"));
    converted.insert("prompt".to_owned(), prompt.into());
    converted.extend(suffix.map(|suffix| ("suffix".to_owned(), suffix.into())));
    Ok(Converted::Completion(converted))
}

/// The body of an embedding for one of `/api/embed`, and whether texts are cut to the context.
pub(crate) fn embed(body: &Object, context: &Context<'_>) -> Result<(Object, bool), ApiError> {
    let EmbedBody { model, input, truncate, dimensions } = EmbedBody::read(body)?;
    let mut converted = Object::from_iter([("input".to_owned(), input)]);
    converted.extend(named(model, context).map(|model| ("model".to_owned(), model)));
    converted.extend(dimensions.map(|dimensions| ("dimensions".to_owned(), dimensions.into())));
    Ok((converted, truncate.unwrap_or(true)))
}

/// What chats and completions share.
fn common(body: &Object, context: &Context<'_>) -> Result<Object, ApiError> {
    let CommonBody { model, format, options, think, logprobs, top_logprobs, stream } =
        CommonBody::read(body)?;
    let options = options.unwrap_or_default();
    let Options { num_predict, stop } = Options::read(&options).map_err(|error| error.within("options."))?;
    let mut converted = Object::new();
    copy_sampling(&options, &mut converted);
    let mut insert = |name: &str, value: Option<Value>| {
        converted.extend(value.map(|value| (name.to_owned(), value)));
    };
    insert(
        "max_tokens",
        Some(match num_predict {
            MaxTokens::Tokens(tokens) => tokens.into(),
            MaxTokens::Unset | MaxTokens::Context => Value::Null,
        }),
    );
    insert("stop", stop);
    insert("model", named(model, context));
    insert("response_format", format);
    insert("chat_template_kwargs", think.map(Think::variables));
    insert("logprobs", logprobs.then_some(true.into()));
    insert("top_logprobs", top_logprobs.map(Value::from));
    insert("stream", Some(stream.unwrap_or(true).into()));
    // Those of the options lie too deep in the body for the check of the whole.
    limits::check(&converted).map_err(renamed)?;
    Ok(converted)
}

/// A model's name without the tag that clients add to names without one.
fn named(model: Option<String>, context: &Context<'_>) -> Option<Value> {
    let model = model?;
    let plain = model.strip_suffix(":latest").filter(|_| !context.names.has(&model));
    Some(plain.unwrap_or(&model).into())
}

/// The error of what a body became, with the names of this API's fields.
pub(crate) fn renamed(error: ApiError) -> ApiError {
    let names = [
        ("response_format.json_schema.schema", "format"),
        ("response_format", "format"),
        ("max_tokens", "options.num_predict"),
        ("stop", "options.stop"),
    ];
    let error = convert::renamed(error, &names);
    let is_sampling = |param: &str| {
        Sampling::FIELDS.iter().any(|field| field.name == param || field.aliases.contains(&param))
    };
    match error.param.as_deref().is_some_and(is_sampling) {
        true => error.within("options."),
        false => error,
    }
}

/// A chat's `response_format`.
fn format(body: &Object, name: &str) -> Result<Option<Value>, ApiError> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(word)) if word.is_empty() => Ok(None),
        Some(Value::String(word)) if word == "json" => Ok(Some(json!({"type": "json_object"}))),
        Some(schema @ Value::Object(_)) => {
            Ok(Some(json!({"type": "json_schema", "json_schema": {"name": "format", "schema": schema}})))
        }
        Some(found) => Err(mistyped(name, "\"json\" or a JSON schema", found)),
    }
}

/// Whether the model is to think, or how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Think {
    /// As much as it likes, or not at all.
    Toggle(bool),
    /// So much.
    Level(&'static str),
}

impl Think {
    /// What templates call it; one takes what it knows.
    fn variables(self) -> Value {
        match self {
            Self::Toggle(thinks) => json!({"enable_thinking": thinks}),
            Self::Level(level) => json!({"enable_thinking": true, "reasoning_effort": level}),
        }
    }
}

fn think(body: &Object, name: &str) -> Result<Option<Think>, ApiError> {
    let known = |level: &str| ["low", "medium", "high"].into_iter().find(|known| *known == level);
    match body.get(name).and_then(Value::as_str).and_then(known) {
        Some(level) => Ok(Some(Think::Level(level))),
        None => Ok(field(body, name, "true, false, low, medium or high")?.map(Think::Toggle)),
    }
}

fn num_predict(options: &Object, name: &str) -> Result<MaxTokens, ApiError> {
    match field::<i64>(options, name, "a whole number")? {
        None => Ok(MaxTokens::Unset),
        Some(tokens) => Ok(usize::try_from(tokens).map_or(MaxTokens::Context, MaxTokens::Tokens)),
    }
}

fn input(body: &Object, name: &str) -> Result<Value, ApiError> {
    let expected = "a string or a list of strings";
    match body.get(name) {
        Some(text @ Value::String(_)) => Ok(text.clone()),
        Some(Value::Array(texts)) if texts.iter().all(Value::is_string) => Ok(texts.clone().into()),
        found => Err(mistyped(name, expected, found.unwrap_or(&Value::Null))),
    }
}
