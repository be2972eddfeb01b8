//! llama.cpp's own `/completion` and `/infill`. Bodies become those of completions.

use rustorch_llama::{Bos, FinishReason, Infill, Special, Usage};
use serde_json::{Value, json};

use crate::blocks::{Change, Said};
use crate::body::{MaxTokens, Sampling, alternatives, max_tokens};
use crate::convert::{self, copy_fields, copy_sampling};
use crate::error::ApiError;
use crate::field_list::{FieldList, Refused, body};
use crate::fields::{Object, TEXT, field, flag, mistyped, optional, refused};
use crate::logprobs::{TokenIds, Told};
use crate::prepare::{Context, encode_prompt};
use crate::refusals::{ADAPTERS, BOOKKEEPING, OUTPUT, SAMPLING, SAMPLING_DETAILS};
use crate::stream::{self, Framing};
use crate::structured::{self, Structured};

body! {
    /// What both endpoints read.
    pub struct CommonBody {
        model: Option<String> = optional(TEXT), "one of the names in `/v1/models`";
        n_predict or max_tokens: MaxTokens = max_tokens, "most tokens to generate, 0 for none; -1 or none: what the context holds";
        n_probs: Option<usize> = alternatives, "log-probabilities, with so many alternatives for each token; 0 for none";
        stop: Option<Value> = optional("a string or a list of strings"), "strings that end the text";
        timings_per_token: bool = flag, "how long it took so far, in each chunk of a stream";
        stream: bool = flag, "send the answer as server-sent events";
    }
}

body! {
    /// What only `/completion` reads.
    pub struct CompletionBody {
        prompt: Value = prompt, "a text or token ids, also mixed, or a list of such prompts, each with its answer in a list";
    }
}

body! {
    /// What only `/infill` reads.
    pub struct InfillBody {
        input_prefix: Option<String> = optional(TEXT), "what comes before the gap";
        input_suffix: Option<String> = optional(TEXT), "what comes after it";
        input_extra: Vec<(String, String)> = files, "other files, each with `filename` and `text`";
        prompt: Option<String> = optional(TEXT), "the beginning of what fills it";
    }
}

/// The fields of `/completion`.
pub const COMPLETION: FieldList = FieldList {
    served: &[CompletionBody::FIELDS, CommonBody::FIELDS, Sampling::FIELDS, Structured::FIELDS],
    refused: &[PROMPT, SAMPLING, structured::REFUSED, OUTPUT, ADAPTERS],
    accepted: &[BOOKKEEPING, SAMPLING_DETAILS, structured::DETAILS],
    nested: &[],
};

/// The fields of `/infill`.
pub const INFILL: FieldList = FieldList {
    served: &[InfillBody::FIELDS, CommonBody::FIELDS, Sampling::FIELDS, Structured::FIELDS],
    refused: &[PROMPT, SAMPLING, structured::REFUSED, OUTPUT, ADAPTERS],
    accepted: &[BOOKKEEPING, SAMPLING_DETAILS, structured::DETAILS],
    nested: &[],
};

const PROMPT: &[Refused] = &[
    Refused::new("image_data", "[]", "the model reads text alone"),
    Refused::new("n", "[1]", "/v1/completions has several choices"),
    Refused::new("n_cmpl", "[1]", "/v1/completions has several choices"),
    Refused::new("logprobs", "[]", "/v1/completions has log-probabilities"),
];

/// The body of a completion for one of `/completion`.
pub(crate) fn completion(body: &Object, context: &Context<'_>) -> Result<(Object, Style), ApiError> {
    let CompletionBody { prompt } = CompletionBody::read(body)?;
    let (mut completion, style) = common(body)?;
    completion.insert("prompt".to_owned(), in_tokens(prompt, context));
    Ok((completion, style))
}

/// The body of a completion for one of `/infill`.
pub(crate) fn infill(body: &Object, context: &Context<'_>) -> Result<(Object, Style), ApiError> {
    let InfillBody { input_prefix, input_suffix, input_extra, prompt } = InfillBody::read(body)?;
    let (mut completion, style) = common(body)?;
    let prefix = input_prefix.unwrap_or_default() + &prompt.unwrap_or_default();
    let text = Infill { prefix: &prefix, suffix: &input_suffix.unwrap_or_default(), files: &input_extra };
    let tokens = context.tokenizer.encode_infill(&text).ok_or_else(|| {
        let rest = "expected none, as the model's vocabulary has no tokens to fill in with, found a text";
        refused("input_prefix", rest)
    })?;
    completion.insert("prompt".to_owned(), tokens.into());
    Ok((completion, style))
}

fn common(body: &Object) -> Result<(Object, Style), ApiError> {
    let CommonBody { model, n_predict, n_probs, stop, timings_per_token: is_timed, stream } =
        CommonBody::read(body)?;
    let mut completion = Object::new();
    copy_sampling(body, &mut completion);
    copy_fields(Structured::FIELDS, body, &mut completion);
    let mut insert = |name: &str, value: Option<Value>| {
        completion.extend(value.map(|value| (name.to_owned(), value)));
    };
    insert(
        "max_tokens",
        Some(match n_predict {
            MaxTokens::Tokens(tokens) => tokens.into(),
            MaxTokens::Unset | MaxTokens::Context => Value::Null,
        }),
    );
    insert("model", model.map(Value::from));
    insert("stop", stop);
    insert("logprobs", n_probs.filter(|&count| count > 0).map(Value::from));
    insert("stream", Some(stream.into()));
    Ok((completion, Style { is_timed, told: Told::default() }))
}

/// A completion's error, with the names of this API's fields.
pub(crate) fn renamed(error: ApiError) -> ApiError {
    convert::renamed(error, &[("max_tokens", "n_predict"), ("logprobs", "n_probs")])
}

/// A prompt, or a list of them.
fn prompt(body: &Object, name: &str) -> Result<Value, ApiError> {
    let is_part = |value: &Value| value.is_u64() || value.is_string();
    let is_prompt = |value: &Value| match value {
        Value::Array(parts) => !parts.is_empty() && parts.iter().all(is_part),
        value => value.is_string(),
    };
    match body.get(name) {
        Some(found) if is_prompt(found) => Ok(found.clone()),
        Some(Value::Array(prompts)) if !prompts.is_empty() && prompts.iter().all(is_prompt) => {
            Ok(prompts.clone().into())
        }
        found => {
            let expected = "a string, a list of token ids and strings, or a list of prompts";
            Err(mistyped(name, expected, found.unwrap_or(&Value::Null)))
        }
    }
}

/// A prompt as completions have it: lists in which texts and tokens are mixed become tokens.
fn in_tokens(prompt: Value, context: &Context<'_>) -> Value {
    let Value::Array(parts) = &prompt else { return prompt };
    let (has_texts, has_ids) = (parts.iter().any(Value::is_string), parts.iter().any(Value::is_u64));
    if has_ids {
        // One prompt.
        return if has_texts { tokens(&prompt, context) } else { prompt };
    }
    let is_uniform = parts.iter().all(Value::is_string) || {
        parts.iter().all(|part| part.as_array().is_some_and(|ids| ids.iter().all(Value::is_u64)))
    };
    if is_uniform { prompt } else { parts.iter().map(|part| tokens(part, context)).collect() }
}

/// The tokens of one prompt. Only its beginning gets what begins every prompt.
fn tokens(prompt: &Value, context: &Context<'_>) -> Value {
    let parts = prompt.as_array().map_or(std::slice::from_ref(prompt), Vec::as_slice);
    let mut ids: Vec<Value> = Vec::new();
    for part in parts {
        match part.as_str() {
            Some(text) if ids.is_empty() => ids.extend(to_values(encode_prompt(text, context.tokenizer))),
            Some(text) => ids.extend(to_values(context.tokenizer.encode(text, Special::Parse, Bos::Skip))),
            None => ids.push(part.clone()),
        }
    }
    ids.into()
}

fn to_values(ids: Vec<u32>) -> impl Iterator<Item = Value> {
    ids.into_iter().map(Value::from)
}

fn files(body: &Object, name: &str) -> Result<Vec<(String, String)>, ApiError> {
    let files: Vec<Value> = field(body, name, "a list of files")?.unwrap_or_default();
    let read = |(index, file): (usize, &Value)| {
        let at = |field: &str| format!("{name}[{index}].{field}");
        convert::object(file, &format!("{name}[{index}]"))?;
        let file_name = if file["filename"].is_null() {
            "tmp"
        } else {
            convert::text(&file["filename"], &at("filename"))?
        };
        Ok((file_name.to_owned(), convert::text(&file["text"], &at("text"))?.to_owned()))
    };
    files.iter().enumerate().map(read).collect()
}

/// How answers are written.
#[derive(Debug)]
pub(crate) struct Style {
    /// Whether each chunk has the times so far.
    is_timed: bool,
    told: Told,
}

impl stream::Style for Style {
    fn framing(&self) -> Framing {
        Framing::Data
    }

    fn body(&self, said: &Said<'_>) -> Value {
        let content = said.blocks.iter().map(|block| block.text.as_str()).collect();
        ended(said, content, said.logprobs(None, TokenIds::Shown))
    }

    fn opening(&mut self, _: &Said<'_>) -> Vec<Value> {
        Vec::new()
    }

    fn change(&mut self, said: &Said<'_>, change: &Change) -> Vec<Value> {
        let Change::Grew(_, text) = change else { return Vec::new() };
        let mut chunk = json!({
            "index": said.index,
            "content": text,
            "tokens": [],
            "stop": false,
            "id_slot": 0,
            "tokens_predicted": said.times.num_tokens(),
            "tokens_evaluated": said.num_prompt_tokens,
        });
        if self.is_timed {
            chunk["timings"] = timings(said);
        }
        if let Some(logprobs) = self.told.take(said, None, TokenIds::Shown) {
            chunk["completion_probabilities"] = logprobs.into();
        }
        vec![chunk]
    }

    fn closing(&mut self, said: &Said<'_>) -> Vec<Value> {
        let rest = self.told.take(said, None, TokenIds::Shown).filter(|rest| !rest.is_empty());
        vec![ended(said, String::new(), rest)]
    }

    fn failure(&mut self, _: &Said<'_>, error: &ApiError) -> Vec<Value> {
        vec![json!(error)]
    }
}

/// A whole answer, or the last chunk of one.
fn ended(said: &Said<'_>, content: String, logprobs: Option<Vec<Value>>) -> Value {
    let (reason, usage) = said.end.unwrap_or((FinishReason::Length, Usage::default()));
    let stop_type = match (reason, said.stop_string) {
        (FinishReason::Length, _) => "limit",
        (FinishReason::Stop, Some(_)) => "word",
        (FinishReason::Stop, None) => "eos",
    };
    let mut ended = json!({
        "index": said.index,
        "content": content,
        "tokens": [],
        "id_slot": 0,
        "stop": true,
        "model": said.model,
        "tokens_predicted": usage.completion_tokens,
        "tokens_evaluated": usage.prompt_tokens,
        "tokens_cached": usage.cached_tokens,
        "has_new_line": said.blocks.iter().any(|block| block.text.contains('\n')),
        "truncated": false,
        "stop_type": stop_type,
        "stopping_word": said.stop_string.unwrap_or_default(),
        "timings": timings(said),
    });
    if let Some(logprobs) = logprobs {
        ended["completion_probabilities"] = logprobs.into();
    }
    ended
}

fn timings(said: &Said<'_>) -> Value {
    json!(said.times.timings(said.num_prompt_tokens, said.end.map(|(_, usage)| usage)))
}
