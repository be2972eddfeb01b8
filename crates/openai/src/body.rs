//! The supported request bodies of OpenAI's API, with the extensions that vLLM made common.
//!
//! Each line of a `body!` is a field. Fields that are known but not served are in [`crate::refusals`].

use std::collections::BTreeMap;

use rustorch_llama::{GenerationPrompt, Pooling};
use serde::Deserialize;
use serde_json::{Number, Value};

use crate::error::ApiError;
use crate::field_list::body;
use crate::fields::{
    BOOL, COUNT, INTEGER, NUMBER, Object, TEXT, field, flag, mistyped, optional, refused, required,
    required_text,
};
use crate::tools::Thoughts;

body! {
    /// What only text completions read.
    pub struct CompletionBody {
        prompt: Prompt = required_prompt, "text or token ids, one prompt or a list of them";
        logprobs: Option<usize> = alternatives, "log-probabilities, with so many alternatives for each token";
        echo: bool = flag, "the prompt before the answer, also in the log-probabilities";
        suffix: Option<String> = optional(TEXT), "what comes after the text that is to be filled in, for models with tokens for that";
        best_of: Option<u32> = optional(COUNT), "so many choices are generated for each prompt; the `n` most likely for each token are the answer";
    }
}

body! {
    /// What only chats read.
    pub struct ChatBody {
        messages: Vec<Message> = messages, "the chat so far";
        max_completion_tokens: MaxTokens = max_tokens, "the newer name of `max_tokens`, which it overrides";
        logprobs: bool = flag, "log-probabilities of the tokens";
        top_logprobs: Option<usize> = alternatives, "alternatives for each token, beside `logprobs`";
        chat_template_kwargs: Option<Object> = template_variables, "variables of the template, such as `enable_thinking`";
        add_generation_prompt: Option<bool> = optional(BOOL), "false: the prompt ends as the chat does";
        continue_final_message: bool = flag, "the model goes on with the last message";
        reasoning_effort: Option<&'static str> = effort,
            "how much the model is to think, for templates that know `reasoning_effort`; `none` for all that know `enable_thinking`";
        reasoning_format: Thoughts = thoughts,
            "`none` leaves the model's thoughts in the content; `auto`, `deepseek`: they are `reasoning_content`";
    }
}

body! {
    /// Body of `/v1/embeddings`.
    pub struct EmbeddingBody {
        model: Option<String> = optional(TEXT), "one of the names in `/v1/models`";
        input: Prompt = required_prompt, "text or token ids, one input or a list of them";
        dimensions: Option<usize> = optional(COUNT), "so many values, the first, scaled to length 1 again";
        encoding_format: Encoding = encoding, "`float` or `base64`";
        pooling: Option<Pooling> = pooling, "`last` or `mean`; otherwise what the model's file says, or `last`";
        truncate_prompt_tokens: Option<usize> = truncation, "only so many tokens of a prompt, the last";
    }
}

body! {
    /// Fields of both kinds of completion.
    pub struct Common {
        model: Option<String> = optional(TEXT), "one of the names in `/v1/models`";
        n: Option<u32> = optional(COUNT), "choices for each prompt";
        max_tokens or n_predict: MaxTokens = max_tokens,
            "most tokens to generate, 0 for none; -1 or null: what the context holds";
        stop: Vec<String> = stop, "strings that end the text";
        truncate_prompt_tokens: Option<usize> = truncation, "only so many tokens of a prompt, the last";
        return_token_ids: bool = flag, "the ids of the tokens of prompt and answer";
        include_stop_str_in_output: bool = flag, "the stop string that ends the text is its end";
        prompt_logprobs: Option<usize> = alternatives, "log-probabilities of the prompt, with so many alternatives for each token; not in a stream";
        skip_special_tokens: Option<bool> = optional(BOOL), "false: control tokens of the answer show in its text";
        timings_per_token: bool = flag, "how long prompt and answer took, as `timings`; in a stream, so far in each chunk";
        stream: bool = flag, "send the answer as server-sent events";
        stream_options: Option<StreamOptions> = stream_options, "beside `stream`";
    }
}

body! {
    /// How tokens are chosen.
    pub struct Sampling {
        min_tokens: Option<usize> = optional(COUNT), "tokens before which nothing ends the text";
        stop_token_ids: Option<Vec<u32>> = optional("a list of token ids"), "tokens that end the text";
        ignore_eos: bool = flag, "generate on after an end-of-generation token";
        seed: Option<u64> = seed, "the same seed gives the same answer; -1 or none: random";
        temperature: Option<f32> = optional(NUMBER), "0 takes the most likely token";
        top_k: Option<i64> = optional(INTEGER), "choose among so many most likely tokens; 0 or -1: all";
        top_p: Option<f32> = optional(NUMBER), "choose among the most likely tokens with this sum of probabilities";
        min_p: Option<f32> = optional(NUMBER), "choose among tokens at least so likely, as a share of the most likely";
        typical_p: Option<f32> = optional(NUMBER), "choose among the tokens about as likely as is to be expected, with this sum";
        top_n_sigma: Option<f32> = optional(NUMBER), "choose among tokens at most so many standard deviations below the highest logit; 0 or less: all";
        xtc_probability: Option<f32> = optional(NUMBER), "how often the most likely tokens are excluded";
        xtc_threshold: Option<f32> = optional(NUMBER), "of tokens at least so likely, all but the least likely";
        mirostat: bool = mirostat, "2: choose among tokens that keep the surprise constant; 0: do not";
        mirostat_tau: Option<f32> = optional(NUMBER), "that surprise, in bits (5)";
        mirostat_eta: Option<f32> = optional(NUMBER), "how fast it is followed (0.1)";
        dry_multiplier: Option<f32> = optional(NUMBER), "for tokens that would continue a repetition; 0: none";
        dry_base: Option<f32> = optional(NUMBER), "factor for each token of the repetition (1.75)";
        dry_allowed_length: Option<usize> = optional(COUNT), "the shortest repetition that is penalised (2)";
        dry_penalty_last_n: Option<usize> = last_n, "tokens in which repetitions are looked for; -1: all";
        dry_sequence_breakers: Option<Vec<String>> = optional("a list of strings"), "what no repetition reaches over";
        repetition_penalty or repeat_penalty: Option<f32> = optional(NUMBER), "for tokens of prompt and answer, as a factor";
        presence_penalty: Option<f32> = optional(NUMBER), "for tokens of the answer";
        frequency_penalty: Option<f32> = optional(NUMBER), "for tokens of the answer, for each time";
        logit_bias: Vec<(u32, f32)> = logit_bias, "numbers added to the logits of tokens, by id";
    }
}

body! {
    /// How an answer is to be streamed.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct StreamOptions {
        include_usage: bool = flag, "a last chunk counts the tokens";
        continuous_usage_stats: bool = flag, "every chunk counts those of its choice so far";
    }
}

body! {
    /// A message of a chat.
    pub struct Message {
        role: String = required_text, "who says it";
        content: Option<String> = content, "a string, or a list of parts of type `text`, joined by a line break";
        name: Option<String> = optional(TEXT), "of who says it, for templates that show it";
        tool_calls: Vec<Value> = tool_calls, "functions that the model has called";
        tool_call_id: Option<String> = optional(TEXT), "the call whose result it is";
        reasoning_content: Option<String> = optional(TEXT), "the model's thoughts, for templates that show them";
    }
}

impl Message {
    /// A message that is text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        let (role, content) = (role.into(), Some(content.into()));
        Self {
            role,
            content,
            name: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
            reasoning_content: None,
        }
    }

    /// Its content, if only an empty one.
    pub fn text(&self) -> &str {
        self.content.as_deref().unwrap_or_default()
    }
}

/// How many tokens a request wants at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxTokens {
    /// It does not say.
    Unset,
    /// As many as the context holds.
    Context,
    /// So many.
    Tokens(usize),
}

/// Encoding of an embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// A list of numbers.
    Float,
    /// The bytes of little-endian `f32` in base64.
    Base64,
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

impl CompletionBody {
    /// Refuses fields that contradict each other.
    pub fn check(&self, n: u32, is_streamed: bool) -> Result<(), ApiError> {
        if let Some(found) = self.best_of.filter(|&best_of| best_of < n) {
            return Err(refused("best_of", format_args!("expected at least n, which is {n}, found {found}")));
        }
        if let Some(found) = self.best_of.filter(|&best_of| best_of > n && is_streamed) {
            let rest = format_args!("expected n, which is {n}, beside stream, found {found}");
            return Err(refused("best_of", rest));
        }
        if self.echo && self.suffix.is_some() {
            return Err(refused("echo", "expected false beside suffix, found true"));
        }
        Ok(())
    }
}

impl ChatBody {
    /// How the prompt ends.
    pub fn ending(&self) -> Result<GenerationPrompt, ApiError> {
        match (self.continue_final_message, self.add_generation_prompt) {
            (true, Some(true)) => {
                let rest = "expected false beside add_generation_prompt, found both true";
                Err(refused("continue_final_message", rest))
            }
            (true, _) => Ok(GenerationPrompt::Continue),
            (false, Some(false)) => Ok(GenerationPrompt::Omit),
            (false, _) => Ok(GenerationPrompt::Add),
        }
    }

    /// Number of alternatives for each token, if log-probabilities are wanted.
    pub fn alternatives(&self) -> Result<Option<usize>, ApiError> {
        if let Some(found) = self.top_logprobs.filter(|&top| top > 0 && !self.logprobs) {
            let rest = format!("expected \"logprobs\": true beside it, found {found} alone");
            return Err(refused("top_logprobs", rest));
        }
        Ok(self.logprobs.then(|| self.top_logprobs.unwrap_or(0)))
    }
}

impl Common {
    /// How the answer is to be streamed, if it is.
    pub fn streaming(&self) -> Result<Option<StreamOptions>, ApiError> {
        if let Some(found) = self.prompt_logprobs.filter(|_| self.stream) {
            return Err(refused(
                "prompt_logprobs",
                format_args!("expected none beside stream, found {found}"),
            ));
        }
        match (self.stream, self.stream_options) {
            (true, options) => Ok(Some(options.unwrap_or(StreamOptions::default()))),
            (false, None) => Ok(None),
            (false, Some(_)) => {
                Err(refused("stream_options", "expected \"stream\": true beside it, found none"))
            }
        }
    }
}

fn required_prompt(body: &Object, name: &str) -> Result<Prompt, ApiError> {
    required(body, name, "a string, a list of token ids, or a list of either")
}

fn messages(body: &Object, name: &str) -> Result<Vec<Message>, ApiError> {
    let messages: Vec<Value> = required(body, name, "a list of messages")?;
    if messages.is_empty() {
        return Err(refused(name, "expected at least one, found none"));
    }
    let read = |(index, message): (usize, &Value)| match message {
        Value::Object(fields) => {
            Message::read(fields).map_err(|error| error.within(&format!("{name}[{index}].")))
        }
        found => Err(mistyped(&format!("{name}[{index}]"), "an object", found)),
    };
    messages.iter().enumerate().map(read).collect()
}

/// The text of a message.
fn content(message: &Object, name: &str) -> Result<Option<String>, ApiError> {
    let Some(Value::Array(parts)) = message.get(name) else {
        return field(message, name, "a string or a list of parts");
    };
    let text = |part: &Value| match (part["type"].as_str(), part["text"].as_str()) {
        (Some("text" | "input_text" | "output_text"), Some(text)) => Ok(text.to_owned()),
        _ => Err(mistyped(name, "parts of type text", part)),
    };
    Ok(Some(parts.iter().map(text).collect::<Result<Vec<_>, _>>()?.join("\n")))
}

/// Calls of functions, each with a name and arguments.
fn tool_calls(message: &Object, name: &str) -> Result<Vec<Value>, ApiError> {
    let calls: Vec<Value> = field(message, name, "a list of calls")?.unwrap_or_default();
    for (index, call) in calls.iter().enumerate() {
        let (function, name) = (&call["function"], format!("{name}[{index}].function"));
        if !function["name"].is_string() {
            return Err(mistyped(&format!("{name}.name"), TEXT, &function["name"]));
        }
        if !matches!(function["arguments"], Value::String(_) | Value::Object(_)) {
            return Err(mistyped(&format!("{name}.arguments"), "JSON as a string", &function["arguments"]));
        }
    }
    Ok(calls)
}

/// What every template has, and requests cannot replace.
const TEMPLATE_VARIABLES: [&str; 8] = [
    "messages",
    "tools",
    "documents",
    "add_generation_prompt",
    "bos_token",
    "eos_token",
    "unk_token",
    "pad_token",
];

fn template_variables(body: &Object, name: &str) -> Result<Option<Object>, ApiError> {
    let variables: Option<Object> = field(body, name, "an object")?;
    let taken =
        variables.iter().flatten().find(|(variable, _)| TEMPLATE_VARIABLES.contains(&variable.as_str()));
    match taken {
        Some((variable, _)) => {
            let rest = "expected a variable of this template alone, found one that the server sets";
            Err(refused(&format!("{name}.{variable}"), rest))
        }
        None => Ok(variables),
    }
}

pub(crate) fn effort(body: &Object, name: &str) -> Result<Option<&'static str>, ApiError> {
    const EFFORTS: [&str; 6] = ["none", "minimal", "low", "medium", "high", "xhigh"];
    let Some(found) = field::<String>(body, name, "a string")? else { return Ok(None) };
    let known = EFFORTS.into_iter().find(|effort| *effort == found);
    let rest = || format!("expected one of {}, found {found:?}", EFFORTS.join(", "));
    known.map(Some).ok_or_else(|| refused(name, rest()))
}

fn thoughts(body: &Object, name: &str) -> Result<Thoughts, ApiError> {
    let choices = [("auto", Thoughts::Apart), ("deepseek", Thoughts::Apart), ("none", Thoughts::InContent)];
    one_of(body, name, "\"none\", \"auto\" or \"deepseek\"", choices)
}

pub(crate) fn max_tokens(body: &Object, name: &str) -> Result<MaxTokens, ApiError> {
    match body.get(name) {
        None => Ok(MaxTokens::Unset),
        Some(Value::Null) => Ok(MaxTokens::Context),
        Some(found) if found.as_i64() == Some(-1) => Ok(MaxTokens::Context),
        Some(_) => required(body, name, "a whole number, 0 or more, or -1").map(MaxTokens::Tokens),
    }
}

fn stream_options(body: &Object, name: &str) -> Result<Option<StreamOptions>, ApiError> {
    let Some(options) = field::<Object>(body, name, "an object")? else { return Ok(None) };
    StreamOptions::read(&options).map(Some).map_err(|error| error.within(&format!("{name}.")))
}

fn encoding(body: &Object, name: &str) -> Result<Encoding, ApiError> {
    let choices = [("float", Encoding::Float), ("base64", Encoding::Base64)];
    one_of(body, name, "\"float\" or \"base64\"", choices)
}

pub(crate) fn pooling(body: &Object, name: &str) -> Result<Option<Pooling>, ApiError> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(found) if found == "last" => Ok(Some(Pooling::Last)),
        Some(found) if found == "mean" => Ok(Some(Pooling::Mean)),
        Some(found) => Err(mistyped(name, "\"last\" or \"mean\"", found)),
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
fn stop(body: &Object, name: &str) -> Result<Vec<String>, ApiError> {
    match body.get(name) {
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        _ => Ok(field(body, name, "a string or a list of strings")?.unwrap_or_default()),
    }
}

/// Mirostat's version, of which the second is served.
fn mirostat(body: &Object, name: &str) -> Result<bool, ApiError> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(found) => match found.as_f64() {
            Some(0.0) => Ok(false),
            Some(2.0) => Ok(true),
            _ => Err(mistyped(name, "0 or 2 (1 is not supported)", found)),
        },
    }
}

/// A number of tokens; -1 means all.
fn last_n(body: &Object, name: &str) -> Result<Option<usize>, ApiError> {
    match body.get(name) {
        Some(found) if found.as_i64() == Some(-1) => Ok(None),
        _ => field(body, name, "a whole number, 0 or more, or -1"),
    }
}

/// An object whose keys are token ids.
fn logit_bias(body: &Object, name: &str) -> Result<Vec<(u32, f32)>, ApiError> {
    let biases: BTreeMap<String, f32> =
        field(body, name, "an object of token ids and numbers")?.unwrap_or_default();
    let parse = |(id, bias): (String, f32)| match id.parse() {
        Ok(id) => Ok((id, bias)),
        Err(_) => Err(refused(name, format_args!("expected token ids as keys, found {id:?}"))),
    };
    biases.into_iter().map(parse).collect()
}

/// Most alternatives listed for a token, as in OpenAI's chats and vLLM: a whole vocabulary would fill the memory.
const MAX_ALTERNATIVES: usize = 20;

/// Number of alternatives for each token.
pub(crate) fn alternatives(body: &Object, name: &str) -> Result<Option<usize>, ApiError> {
    let count = field(body, name, COUNT)?;
    match count.filter(|&count| count > MAX_ALTERNATIVES) {
        Some(found) => Err(refused(name, format_args!("expected at most {MAX_ALTERNATIVES}, found {found}"))),
        None => Ok(count),
    }
}

/// A number of tokens to keep.
pub(crate) fn truncation(body: &Object, name: &str) -> Result<Option<usize>, ApiError> {
    let expected = "a whole number, 1 or more";
    let most = field(body, name, expected)?;
    match most.filter(|&most| most == 0) {
        Some(_) => Err(mistyped(name, expected, &body[name])),
        None => Ok(most),
    }
}

/// Seeds may be signed; their bits are used. As in llama.cpp, -1 asks for a random one.
fn seed(body: &Object, name: &str) -> Result<Option<u64>, ApiError> {
    let Some(number) = field::<Number>(body, name, INTEGER)? else { return Ok(None) };
    if number.as_i64() == Some(-1) {
        return Ok(None);
    }
    let seed = number.as_u64().or_else(|| number.as_i64().map(i64::cast_unsigned));
    seed.map(Some).ok_or_else(|| mistyped(name, "a whole number of 64 bits", &Value::Number(number)))
}
