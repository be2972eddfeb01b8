//! From a line of input to the sequences that the engine runs.

use std::hash::Hasher;

use rustorch_llama::{Bos, ChatMessage, GenerationPrompt, Request, SamplingParams, Special, Tokenizer};
use serde::Deserialize;
use serde_json::Value;
use siphasher::sip::SipHasher13;

use super::api::{ChatBody, Common, CompletionBody, Content, Message, Prompt};
use super::response::{Answer, Kind};

/// OpenAI's default for completions.
const DEFAULT_MAX_TOKENS: usize = 16;
/// Most sequences of one request.
const MAX_CHOICES: usize = 128;

/// Why a line was not served. Becomes an output line.
#[derive(Debug)]
pub struct LineError {
    pub custom_id: Option<String>,
    pub code: &'static str,
    pub message: String,
}

impl LineError {
    pub fn new(custom_id: Option<String>, code: &'static str, message: String) -> Self {
        Self { custom_id, code, message }
    }
}

/// A parsed line.
pub struct Line {
    custom_id: String,
    body: Body,
}

enum Body {
    Completion(Box<CompletionBody>),
    Chat(Box<ChatBody>),
}

/// What a line asks of the engine, and the answer in the making.
pub struct Job {
    pub answer: Answer,
    pub requests: Vec<Request>,
}

/// OpenAI's envelope.
#[derive(Deserialize)]
struct Envelope {
    method: Option<String>,
    url: String,
    body: Value,
}

impl Line {
    /// Parses line `number` of the input.
    pub fn parse(bytes: &[u8], number: usize) -> Result<Line, LineError> {
        let value: Value = serde_json::from_slice(bytes)
            .map_err(|error| LineError::new(None, "invalid_json", format!("not a JSON object: {error}")))?;
        let custom_id = match value.get("custom_id") {
            Some(Value::String(id)) if !id.is_empty() => id.clone(),
            _ => format!("line-{number}"),
        };
        let refuse = |code, message| LineError::new(Some(custom_id.clone()), code, message);
        if !value.is_object() {
            return Err(refuse("invalid_json", "expected a JSON object".to_owned()));
        }
        let (chat, body) = if value.get("url").is_some() || value.get("body").is_some() {
            let envelope: Envelope =
                serde_json::from_value(value).map_err(|e| refuse("invalid_request", e.to_string()))?;
            if let Some(method) = envelope.method.filter(|method| method != "POST") {
                return Err(refuse("invalid_method", format!("method: expected POST, found {method}")));
            }
            match envelope.url.as_str() {
                "/v1/completions" => (false, envelope.body),
                "/v1/chat/completions" => (true, envelope.body),
                url => {
                    let message =
                        format!("url: expected /v1/completions or /v1/chat/completions, found {url}");
                    return Err(refuse("invalid_url", message));
                }
            }
        } else {
            (value.get("messages").is_some(), value)
        };
        let invalid = |error: serde_json::Error| refuse("invalid_request", error.to_string());
        let body = if chat {
            Body::Chat(serde_json::from_value(body).map_err(invalid)?)
        } else {
            Body::Completion(serde_json::from_value(body).map_err(invalid)?)
        };
        Ok(Line { custom_id, body })
    }

    /// Tokenises the prompts and settles the parameters. `seed` is the run's, from which a request without one of its own
    /// derives its seed: the same for the same `custom_id`, whatever else is in the file.
    pub fn prepare(self, tokenizer: &Tokenizer, model: &str, seed: u64) -> Result<Job, LineError> {
        let custom_id = self.custom_id;
        let derived_seed = derive_seed(seed, &custom_id);
        let prepared = match self.body {
            Body::Completion(body) => prepare_completion(*body, tokenizer, derived_seed),
            Body::Chat(body) => prepare_chat(*body, tokenizer, derived_seed),
        };
        let (kind, requests) = prepared
            .map_err(|message| LineError::new(Some(custom_id.clone()), "invalid_request", message))?;
        Ok(Job { answer: Answer::new(custom_id, model.to_owned(), kind, requests.len()), requests })
    }
}

type Prepared = Result<(Kind, Vec<Request>), String>;

fn prepare_completion(body: CompletionBody, tokenizer: &Tokenizer, seed: u64) -> Prepared {
    refuse_if(body.echo == Some(true), "echo: expected false, found true (not supported)")?;
    refuse_if(body.suffix.is_some_and(|s| !s.is_empty()), "suffix: expected none (not supported)")?;
    refuse_if(body.stream == Some(true), "stream: expected false in a batch, found true")?;
    let n = body.common.n.unwrap_or(1);
    refuse_if(
        body.best_of.is_some_and(|best| best != n),
        "best_of: expected it to equal n (not supported otherwise)",
    )?;
    let mut params = sampling_params(body.common, seed)?;
    params.max_tokens = params.max_tokens.or(Some(DEFAULT_MAX_TOKENS));
    params.logprobs = body.logprobs;
    let encode = |text: &String| tokenizer.encode(text, Special::Parse, Bos::Add);
    let prompts: Vec<Vec<u32>> = match &body.prompt {
        Prompt::Text(text) => vec![encode(text)],
        Prompt::Texts(texts) => texts.iter().map(encode).collect(),
        Prompt::Tokens(ids) => vec![ids.clone()],
        Prompt::TokenLists(lists) => lists.clone(),
    };
    Ok((Kind::Completion, requests(prompts, n, &params)?))
}

fn prepare_chat(body: ChatBody, tokenizer: &Tokenizer, seed: u64) -> Prepared {
    refuse_if(body.tools.is_some_and(|tools| !tools.is_empty()), "tools: expected none (not supported)")?;
    refuse_if(body.stream == Some(true), "stream: expected false in a batch, found true")?;
    if let Some(format) = body.response_format.filter(|format| format.r#type != "text") {
        return Err(format!("response_format: expected text, found {} (not supported)", format.r#type));
    }
    if body.messages.is_empty() {
        return Err("messages: expected at least one, found none".to_owned());
    }
    let n = body.common.n.unwrap_or(1);
    let mut params = sampling_params(body.common, seed)?;
    params.max_tokens = body.max_completion_tokens.or(params.max_tokens);
    params.logprobs = (body.logprobs == Some(true)).then(|| body.top_logprobs.unwrap_or(0));
    let messages = body.messages.into_iter().enumerate().map(chat_message).collect::<Result<Vec<_>, _>>()?;
    let prompt =
        tokenizer.apply_chat_template(&messages, GenerationPrompt::Add).map_err(|error| error.to_string())?;
    Ok((Kind::Chat, requests(vec![prompt], n, &params)?))
}

fn chat_message((index, message): (usize, Message)) -> Result<ChatMessage, String> {
    let content = match message.content {
        None => String::new(),
        Some(Content::Text(text)) => text,
        Some(Content::Parts(parts)) => parts
            .into_iter()
            .map(|part| match (part.r#type.as_str(), part.text) {
                ("text", Some(text)) => Ok(text),
                (kind, _) => {
                    Err(format!("messages[{index}].content: expected parts of type text, found {kind}"))
                }
            })
            .collect::<Result<String, _>>()?,
    };
    Ok(ChatMessage::new(message.role, content))
}

/// `n` sequences for each prompt, each with a seed of its own.
fn requests(prompts: Vec<Vec<u32>>, n: u32, params: &SamplingParams) -> Result<Vec<Request>, String> {
    let choices = prompts.len().saturating_mul(n as usize);
    if !(1..=MAX_CHOICES).contains(&choices) {
        return Err(format!("n: expected 1 to {MAX_CHOICES} choices over all prompts, found {choices}"));
    }
    let mut requests = Vec::with_capacity(choices);
    for prompt in prompts {
        for _ in 0..n {
            let seed = params.seed.wrapping_add(requests.len() as u64);
            let params = SamplingParams { seed, ..params.clone() };
            requests.push(Request { prompt_token_ids: prompt.clone(), params });
        }
    }
    Ok(requests)
}

fn sampling_params(common: Common, derived_seed: u64) -> Result<SamplingParams, String> {
    let defaults = SamplingParams::default();
    let logit_bias = common.logit_bias.unwrap_or_default().into_iter().map(|(id, bias)| match id.parse() {
        Ok(id) => Ok((id, bias)),
        Err(_) => Err(format!("logit_bias: expected token ids as keys, found {id:?}")),
    });
    Ok(SamplingParams {
        temperature: common.temperature.unwrap_or(1.0),
        // vLLM writes "all" as -1 as well as 0.
        top_k: common.top_k.map_or(0, |k| usize::try_from(k).unwrap_or(0)),
        top_p: common.top_p.unwrap_or(1.0),
        min_p: common.min_p.unwrap_or(0.0),
        repetition_penalty: common.repetition_penalty.unwrap_or(1.0),
        frequency_penalty: common.frequency_penalty.unwrap_or(0.0),
        presence_penalty: common.presence_penalty.unwrap_or(0.0),
        seed: common.seed.map_or(derived_seed, i64::cast_unsigned),
        logit_bias: logit_bias.collect::<Result<_, _>>()?,
        stop: common.stop.map_or(Vec::new(), super::api::OneOrMany::into_vec),
        stop_token_ids: common.stop_token_ids.unwrap_or_default(),
        ignore_eos: common.ignore_eos.unwrap_or(false),
        max_tokens: common.max_tokens,
        min_tokens: common.min_tokens.unwrap_or(0),
        ..defaults
    })
}

fn refuse_if(refused: bool, message: &str) -> Result<(), String> {
    if refused { Err(message.to_owned()) } else { Ok(()) }
}

/// SipHash-1-3 of the id, keyed by the run's seed: stable over versions and machines.
fn derive_seed(seed: u64, custom_id: &str) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(seed, 0);
    hasher.write(custom_id.as_bytes());
    hasher.finish()
}
