//! From a line of input to the sequences that the engine runs.

use std::hash::Hasher;

use rustorch_llama::{Bos, ChatMessage, GenerationPrompt, Request, SamplingParams, Special, Tokenizer};
use serde_json::Value;
use siphasher::sip::SipHasher13;

use super::api::{ChatBody, Common, CompletionBody, Message, Object, Prompt, mistyped, shown};
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

impl Line {
    /// Parses line `number` of the input, which has no line ending.
    pub fn parse(line: &[u8], number: usize) -> Result<Line, LineError> {
        let object = parse_object(line).map_err(|message| LineError::new(None, "invalid_json", message))?;
        let custom_id = match object.get("custom_id") {
            None | Some(Value::Null) => format!("line-{number}"),
            Some(Value::String(id)) => id.clone(),
            Some(found) => {
                return Err(LineError::new(
                    None,
                    "invalid_request",
                    mistyped("custom_id", "a string", found),
                ));
            }
        };
        match parse_body(&object) {
            Ok(body) => Ok(Line { custom_id, body }),
            Err((code, message)) => Err(LineError::new(Some(custom_id), code, message)),
        }
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
        let Prepared { kind, prompts, n, params } = prepared
            .map_err(|message| LineError::new(Some(custom_id.clone()), "invalid_request", message))?;
        let answer = Answer::new(custom_id, model.to_owned(), kind, prompts.len(), n, params.logprobs);
        Ok(Job { answer, requests: requests(&prompts, n, &params) })
    }
}

fn parse_object(line: &[u8]) -> Result<Object, String> {
    let text = std::str::from_utf8(line).map_err(|error| {
        let at = error.valid_up_to();
        format!("expected UTF-8, found byte {:#04x} at offset {at}", line[at])
    })?;
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(found) => Err(format!("expected a JSON object, found {}", shown(&found))),
        Err(error) => {
            let (message, column) = (error.to_string(), error.column());
            // The line that the parser names is that of the text it was given, which is always the first.
            let what = message.split_once(" at line ").map_or(&*message, |(what, _)| what);
            Err(format!("not JSON: {what} at column {column}"))
        }
    }
}

/// A body in OpenAI's envelope, or a plain one. Errors are a code and a message.
fn parse_body(object: &Object) -> Result<Body, (&'static str, String)> {
    let invalid = |message| ("invalid_request", message);
    let (chat, body) = if object.contains_key("url") || object.contains_key("body") {
        let value = |name| object.get(name).unwrap_or(&Value::Null);
        let method = value("method");
        if !(method.is_null() || method == "POST") {
            return Err(("invalid_method", mistyped("method", "\"POST\"", method)));
        }
        let chat = match value("url").as_str() {
            Some("/v1/completions") => false,
            Some("/v1/chat/completions") => true,
            _ => {
                let expected = "/v1/completions or /v1/chat/completions";
                return Err(("invalid_url", mistyped("url", expected, value("url"))));
            }
        };
        match value("body") {
            Value::Object(body) => (chat, body),
            found => return Err(invalid(mistyped("body", "an object", found))),
        }
    } else {
        (object.contains_key("messages"), object)
    };
    if chat {
        Ok(Body::Chat(Box::new(ChatBody::read(body).map_err(invalid)?)))
    } else {
        Ok(Body::Completion(Box::new(CompletionBody::read(body).map_err(invalid)?)))
    }
}

/// A request's prompts, each to be answered `n` times.
struct Prepared {
    kind: Kind,
    prompts: Vec<Vec<u32>>,
    n: usize,
    params: SamplingParams,
}

fn prepare_completion(body: CompletionBody, tokenizer: &Tokenizer, seed: u64) -> Result<Prepared, String> {
    let num_prompts = match &body.prompt {
        Prompt::Text(_) | Prompt::Tokens(_) => 1,
        Prompt::Texts(texts) => texts.len(),
        Prompt::TokenLists(lists) => lists.len(),
    };
    let n = checked_n(body.common.n, num_prompts)?;
    let mut params = sampling_params(body.common, seed);
    params.max_tokens = params.max_tokens.or(Some(DEFAULT_MAX_TOKENS));
    params.logprobs = body.logprobs;
    let encode = |text: &String| tokenizer.encode(text, Special::Parse, Bos::Add);
    let prompts = match body.prompt {
        Prompt::Text(text) => vec![encode(&text)],
        Prompt::Texts(texts) => texts.iter().map(encode).collect(),
        Prompt::Tokens(ids) => vec![ids],
        Prompt::TokenLists(lists) => lists,
    };
    Ok(Prepared { kind: Kind::Completion, prompts, n, params })
}

fn prepare_chat(body: ChatBody, tokenizer: &Tokenizer, seed: u64) -> Result<Prepared, String> {
    let n = checked_n(body.common.n, 1)?;
    let mut params = sampling_params(body.common, seed);
    params.logprobs = body.logprobs;
    let message = |Message { role, content }| ChatMessage::new(role, content);
    let messages: Vec<_> = body.messages.into_iter().map(message).collect();
    let prompt =
        tokenizer.apply_chat_template(&messages, GenerationPrompt::Add).map_err(|error| error.to_string())?;
    Ok(Prepared { kind: Kind::Chat, prompts: vec![prompt], n, params })
}

/// Answers for each prompt, if there are not too many over all prompts.
fn checked_n(n: Option<u32>, num_prompts: usize) -> Result<usize, String> {
    let n = n.unwrap_or(1) as usize;
    if num_prompts == 0 {
        return Err("prompt: expected at least one, found an empty list".to_owned());
    }
    let choices = num_prompts.saturating_mul(n);
    if !(1..=MAX_CHOICES).contains(&choices) {
        return Err(format!("n: expected 1 to {MAX_CHOICES} choices over all prompts, found {choices}"));
    }
    Ok(n)
}

/// `n` sequences for each prompt, each with a seed of its own.
fn requests(prompts: &[Vec<u32>], n: usize, params: &SamplingParams) -> Vec<Request> {
    let prompts = prompts.iter().flat_map(|prompt| std::iter::repeat_n(prompt, n));
    let request = |(choice, prompt): (u64, &Vec<u32>)| Request {
        prompt_token_ids: prompt.clone(),
        params: SamplingParams { seed: params.seed.wrapping_add(choice), ..params.clone() },
        ..Request::default()
    };
    (0..).zip(prompts).map(request).collect()
}

fn sampling_params(common: Common, derived_seed: u64) -> SamplingParams {
    SamplingParams {
        temperature: common.temperature.unwrap_or(1.0),
        // vLLM writes "all" as -1 as well as 0.
        top_k: common.top_k.map_or(0, |k| usize::try_from(k).unwrap_or(0)),
        top_p: common.top_p.unwrap_or(1.0),
        min_p: common.min_p.unwrap_or(0.0),
        repetition_penalty: common.repetition_penalty.unwrap_or(1.0),
        frequency_penalty: common.frequency_penalty.unwrap_or(0.0),
        presence_penalty: common.presence_penalty.unwrap_or(0.0),
        seed: common.seed.unwrap_or(derived_seed),
        logit_bias: common.logit_bias,
        stop: common.stop,
        stop_token_ids: common.stop_token_ids,
        ignore_eos: common.ignore_eos.unwrap_or(false),
        max_tokens: common.max_tokens,
        min_tokens: common.min_tokens.unwrap_or(0),
        logprobs: None,
    }
}

/// SipHash-1-3 of the id, keyed by the run's seed: stable over versions and machines.
fn derive_seed(seed: u64, custom_id: &str) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(seed, 0);
    hasher.write(custom_id.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values are CPython's, whose hash of bytes is SipHash-1-3: `PYTHONHASHSEED=0 python3.11 -c
    /// 'print(hash(b"a") % 2**64)'`.
    #[test]
    fn seeds_are_the_same_in_every_version() {
        assert_eq!(derive_seed(0, "a"), 4_644_417_185_603_328_019);
        assert_eq!(derive_seed(0, "request 5"), 12_830_733_451_262_006_835);
        assert_ne!(derive_seed(1, "a"), derive_seed(0, "a"));
    }
}
