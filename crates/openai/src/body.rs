//! The supported request bodies of OpenAI's API, with the extensions that vLLM made common.
//!
//! Fields without an effect on the answer (`user`, `metadata`) are accepted and ignored. Unsupported fields that would change
//! the answer are refused by name.

use std::collections::BTreeMap;

use rustorch_llama::Pooling;
use serde::Deserialize;
use serde_json::{Number, Value};

use crate::error::ApiError;
use crate::fields::{BOOL, COUNT, INTEGER, NUMBER, Object, TEXT, field, mistyped, refused, required};

/// Body of `/v1/completions`.
pub struct CompletionBody {
    pub common: Common,
    pub prompt: Prompt,
    /// Number of alternatives for each token.
    pub logprobs: Option<usize>,
}

/// Body of `/v1/chat/completions`.
pub struct ChatBody {
    pub common: Common,
    pub messages: Vec<Message>,
    /// Number of alternatives for each token, if log-probabilities are wanted.
    pub logprobs: Option<usize>,
}

/// Body of `/v1/embeddings`.
pub struct EmbeddingBody {
    pub input: Prompt,
    pub encoding: Encoding,
    pub pooling: Pooling,
}

/// Encoding of an embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// A list of numbers.
    Float,
    /// The bytes of little-endian `f32` in base64.
    Base64,
}

/// Fields of both kinds of completion.
pub struct Common {
    pub temperature: Option<f32>,
    pub top_p: Option<f32>,
    pub n: Option<u32>,
    pub stop: Vec<String>,
    pub max_tokens: Option<usize>,
    pub presence_penalty: Option<f32>,
    pub frequency_penalty: Option<f32>,
    pub logit_bias: Vec<(u32, f32)>,
    pub seed: Option<u64>,
    pub stream: Option<StreamOptions>,
    // vLLM's extensions
    pub top_k: Option<i64>,
    pub min_p: Option<f32>,
    pub repetition_penalty: Option<f32>,
    pub ignore_eos: Option<bool>,
    pub stop_token_ids: Vec<u32>,
    pub min_tokens: Option<usize>,
}

/// How an answer is to be streamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamOptions {
    /// Whether a last chunk counts the tokens.
    pub include_usage: bool,
}

/// Input of a model: text or token ids, one or several.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Prompt {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    TokenLists(Vec<Vec<u32>>),
}

/// A message of a chat.
pub struct Message {
    pub role: String,
    pub content: String,
}

/// Unsupported fields that would change the answer. Absent, null, false and empty values have no effect and are accepted.
const UNSUPPORTED: [&str; 16] = [
    "allowed_token_ids",
    "audio",
    "bad_words",
    "echo",
    "functions",
    "grammar",
    "guided_choice",
    "guided_grammar",
    "guided_json",
    "guided_regex",
    "json_schema",
    "prompt_embeds",
    "structured_outputs",
    "suffix",
    "tools",
    "use_beam_search",
];

impl CompletionBody {
    /// Reads a body, or says which field is wrong.
    pub fn read(body: &Object) -> Result<Self, ApiError> {
        let common = Common::read(body)?;
        let n = common.n.unwrap_or(1);
        if let Some(best_of) = field::<u32>(body, "best_of", COUNT)?.filter(|&best_of| best_of != n) {
            let expected = format!("it to equal n, which is {n} (else not supported)");
            return Err(refused("best_of", format_args!("expected {expected}, found {best_of}")));
        }
        Ok(Self {
            common,
            prompt: required(body, "prompt", "a string, a list of token ids, or a list of either")?,
            logprobs: alternatives(body, "logprobs")?,
        })
    }
}

impl ChatBody {
    /// Reads a body, or says which field is wrong.
    pub fn read(body: &Object) -> Result<Self, ApiError> {
        let mut common = Common::read(body)?;
        common.max_tokens = field(body, "max_completion_tokens", COUNT)?.or(common.max_tokens);
        let messages: Vec<Value> = required(body, "messages", "a list of messages")?;
        if messages.is_empty() {
            return Err(refused("messages", "expected at least one, found none"));
        }
        let messages = messages.iter().enumerate().map(|(index, message)| Message::read(index, message));
        let messages = messages.collect::<Result<_, _>>()?;
        let logprobs = field(body, "logprobs", BOOL)?.unwrap_or(false);
        let top_logprobs = alternatives(body, "top_logprobs")?;
        if let Some(found) = top_logprobs.filter(|&top| top > 0 && !logprobs) {
            let rest = format!("expected \"logprobs\": true beside it, found {found} alone");
            return Err(refused("top_logprobs", rest));
        }
        Ok(Self { common, messages, logprobs: logprobs.then(|| top_logprobs.unwrap_or(0)) })
    }
}

impl EmbeddingBody {
    /// Reads a body, or says which field is wrong. Embeddings have `hidden_size` dimensions, and no others.
    pub fn read(body: &Object, hidden_size: usize) -> Result<Self, ApiError> {
        let dimensions = field::<usize>(body, "dimensions", COUNT)?;
        if let Some(found) = dimensions.filter(|&dimensions| dimensions != hidden_size) {
            let rest = format!("expected {hidden_size}, all that the model has, found {found}");
            return Err(refused("dimensions", rest));
        }
        let choices = [("float", Encoding::Float), ("base64", Encoding::Base64)];
        let encoding = one_of(body, "encoding_format", "\"float\" or \"base64\"", choices)?;
        let choices = [("last", Pooling::Last), ("mean", Pooling::Mean)];
        let pooling = one_of(body, "pooling", "\"last\" or \"mean\"", choices)?;
        let input = required(body, "input", "a string, a list of token ids, or a list of either")?;
        Ok(Self { input, encoding, pooling })
    }
}

impl Common {
    fn read(body: &Object) -> Result<Self, ApiError> {
        refuse_unsupported(body)?;
        Ok(Self {
            temperature: field(body, "temperature", NUMBER)?,
            top_p: field(body, "top_p", NUMBER)?,
            n: field(body, "n", COUNT)?,
            stop: stop(body)?,
            max_tokens: field(body, "max_tokens", COUNT)?,
            presence_penalty: field(body, "presence_penalty", NUMBER)?,
            frequency_penalty: field(body, "frequency_penalty", NUMBER)?,
            logit_bias: logit_bias(body)?,
            seed: seed(body)?,
            stream: StreamOptions::read(body)?,
            top_k: field(body, "top_k", INTEGER)?,
            min_p: field(body, "min_p", NUMBER)?,
            repetition_penalty: field(body, "repetition_penalty", NUMBER)?,
            ignore_eos: field(body, "ignore_eos", BOOL)?,
            stop_token_ids: field(body, "stop_token_ids", "a list of token ids")?.unwrap_or_default(),
            min_tokens: field(body, "min_tokens", COUNT)?,
        })
    }
}

impl StreamOptions {
    /// `None` if the answer is not streamed.
    fn read(body: &Object) -> Result<Option<Self>, ApiError> {
        let options: Option<Object> = field(body, "stream_options", "an object")?;
        if !field(body, "stream", BOOL)?.unwrap_or(false) {
            return match options {
                None => Ok(None),
                Some(_) => Err(refused("stream_options", "expected \"stream\": true beside it, found none")),
            };
        }
        let include_usage = field(&options.unwrap_or_default(), "include_usage", BOOL);
        let include_usage = include_usage.map_err(|error| {
            ApiError::invalid("stream_options.include_usage", format!("stream_options.{}", error.message))
        })?;
        Ok(Some(Self { include_usage: include_usage.unwrap_or(false) }))
    }
}

impl Message {
    fn read(index: usize, message: &Value) -> Result<Self, ApiError> {
        let name = |field: &str| format!("messages[{index}]{field}");
        let Value::Object(fields) = message else {
            return Err(mistyped(&name(""), "an object", message));
        };
        let role = match fields.get("role") {
            Some(Value::String(role)) => role.clone(),
            found => return Err(mistyped(&name(".role"), TEXT, found.unwrap_or(&Value::Null))),
        };
        let content = match fields.get("content") {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(parts)) => parts
                .iter()
                .map(|part| match (part["type"].as_str(), part["text"].as_str()) {
                    (Some("text"), Some(text)) => Ok(text),
                    _ => Err(mistyped(&name(".content"), "parts of type text", part)),
                })
                .collect::<Result<_, _>>()?,
            Some(found) => return Err(mistyped(&name(".content"), "a string or a list of parts", found)),
        };
        Ok(Self { role, content })
    }
}

fn refuse_unsupported(body: &Object) -> Result<(), ApiError> {
    for name in UNSUPPORTED {
        let found = body.get(name).unwrap_or(&Value::Null);
        let changes_nothing = match found {
            Value::Null => true,
            Value::Bool(value) => !value,
            Value::Number(_) => false,
            Value::String(text) => text.is_empty(),
            Value::Array(values) => values.is_empty(),
            Value::Object(fields) => fields.is_empty(),
        };
        if !changes_nothing {
            return Err(mistyped(name, "none (not supported)", found));
        }
    }
    match body.get("response_format") {
        None | Some(Value::Null) => Ok(()),
        Some(format) if format["type"] == "text" => Ok(()),
        Some(format) => Err(mistyped("response_format", "the type text (no other is supported)", format)),
    }
}

/// A field that takes one of these words; the first is the default.
fn one_of<T, const N: usize>(
    body: &Object,
    name: &str,
    expected: &str,
    choices: [(&str, T); N],
) -> Result<T, ApiError> {
    let mut choices = choices.into_iter();
    match body.get(name) {
        None | Some(Value::Null) => choices.next(),
        Some(found) => choices.find(|(word, _)| found == word),
    }
    .map(|(_, choice)| choice)
    .ok_or_else(|| mistyped(name, expected, &body[name]))
}

/// One string or a list of them.
fn stop(body: &Object) -> Result<Vec<String>, ApiError> {
    match body.get("stop") {
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        _ => Ok(field(body, "stop", "a string or a list of strings")?.unwrap_or_default()),
    }
}

/// An object whose keys are token ids.
fn logit_bias(body: &Object) -> Result<Vec<(u32, f32)>, ApiError> {
    let biases: BTreeMap<String, f32> =
        field(body, "logit_bias", "an object of token ids and numbers")?.unwrap_or_default();
    let parse = |(id, bias): (String, f32)| match id.parse() {
        Ok(id) => Ok((id, bias)),
        Err(_) => Err(refused("logit_bias", format_args!("expected token ids as keys, found {id:?}"))),
    };
    biases.into_iter().map(parse).collect()
}

/// Most alternatives listed for a token, as in OpenAI's chats and vLLM: a whole vocabulary would fill the memory.
const MAX_ALTERNATIVES: usize = 20;

/// Number of alternatives for each token.
fn alternatives(body: &Object, name: &str) -> Result<Option<usize>, ApiError> {
    let count = field(body, name, COUNT)?;
    match count.filter(|&count| count > MAX_ALTERNATIVES) {
        Some(found) => Err(refused(name, format_args!("expected at most {MAX_ALTERNATIVES}, found {found}"))),
        None => Ok(count),
    }
}

/// Seeds may be signed; their bits are used.
fn seed(body: &Object) -> Result<Option<u64>, ApiError> {
    let Some(number) = field::<Number>(body, "seed", INTEGER)? else { return Ok(None) };
    let seed = number.as_u64().or_else(|| number.as_i64().map(i64::cast_unsigned));
    seed.map(Some).ok_or_else(|| mistyped("seed", "a whole number of 64 bits", &Value::Number(number)))
}
