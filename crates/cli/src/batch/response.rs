//! From a request's events to its line of output.

use std::collections::BTreeMap;

use rustorch_llama::{FinishReason, TokenEvent, Tokenizer, Usage};
use serde::Serialize;

use super::request::LineError;

/// Which API answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Completion,
    Chat,
}

/// An answer in the making.
pub struct Answer {
    pub custom_id: String,
    model: String,
    kind: Kind,
    /// `[prompts * n]`
    choices: Vec<Choice>,
    /// Choices of each prompt.
    n: usize,
    has_logprobs: bool,
}

#[derive(Default)]
struct Choice {
    text: String,
    tokens: Vec<TokenEvent>,
    end: Option<(FinishReason, Usage)>,
}

impl Answer {
    /// For `n` choices of each of `num_prompts` prompts, with log-probabilities if the request wants any.
    pub fn new(
        custom_id: String,
        model: String,
        kind: Kind,
        num_prompts: usize,
        n: usize,
        logprobs: Option<usize>,
    ) -> Self {
        let choices = (0..num_prompts * n).map(|_| Choice::default()).collect();
        Self { custom_id, model, kind, choices, n, has_logprobs: logprobs.is_some() }
    }

    pub fn add_token(&mut self, choice: usize, token: TokenEvent) {
        let choice = &mut self.choices[choice];
        choice.text.push_str(&token.text);
        if token.logprobs.is_some() {
            choice.tokens.push(token);
        }
    }

    /// Ends a choice; true once all have ended.
    pub fn finish(&mut self, choice: usize, reason: FinishReason, usage: Usage) -> bool {
        self.choices[choice].end = Some((reason, usage));
        self.choices.iter().all(|choice| choice.end.is_some())
    }

    /// Tokens of all, those of a prompt counted once, however many choices it has.
    pub fn usage(&self) -> Usage {
        let ends = || self.choices.iter().filter_map(|choice| choice.end).map(|(_, usage)| usage);
        Usage {
            prompt_tokens: ends().step_by(self.n).map(|usage| usage.prompt_tokens).sum(),
            completion_tokens: ends().map(|usage| usage.completion_tokens).sum(),
            cached_tokens: ends().step_by(self.n).map(|usage| usage.cached_tokens).sum(),
        }
    }
}

/// One line of output, in OpenAI's batch format.
#[derive(Serialize)]
pub struct OutputLine {
    id: String,
    custom_id: Option<String>,
    response: Option<Response>,
    error: Option<ErrorBody>,
}

#[derive(Serialize)]
struct Response {
    status_code: u16,
    request_id: String,
    body: Body,
}

#[derive(Serialize)]
struct ErrorBody {
    code: &'static str,
    message: String,
}

#[derive(Serialize)]
struct Body {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    choices: Vec<ChoiceBody>,
    usage: UsageBody,
}

#[derive(Serialize)]
struct ChoiceBody {
    index: usize,
    #[serde(flatten)]
    content: ContentBody,
    finish_reason: &'static str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum ContentBody {
    Completion { text: String, logprobs: Option<CompletionLogprobs> },
    Chat { message: MessageBody, logprobs: Option<ChatLogprobs> },
}

#[derive(Serialize)]
struct MessageBody {
    role: &'static str,
    content: String,
    refusal: Option<String>,
}

#[derive(Serialize)]
struct CompletionLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<f32>,
    top_logprobs: Vec<BTreeMap<String, f32>>,
    text_offset: Vec<usize>,
}

#[derive(Serialize)]
struct ChatLogprobs {
    content: Vec<TokenLogprob>,
    refusal: Option<String>,
}

#[derive(Serialize)]
struct TokenLogprob {
    #[serde(flatten)]
    token: Alternative,
    top_logprobs: Vec<Alternative>,
}

#[derive(Serialize)]
struct Alternative {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

#[derive(Serialize)]
struct UsageBody {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
    prompt_tokens_details: PromptDetails,
}

#[derive(Serialize)]
struct PromptDetails {
    cached_tokens: usize,
}

impl OutputLine {
    /// The line of a request that was served.
    pub fn success(number: usize, answer: Answer, tokenizer: &Tokenizer, created: u64) -> Self {
        let usage = usage_body(answer.usage());
        let Answer { custom_id, model, kind, choices, has_logprobs, .. } = answer;
        let (object, prefix) = match kind {
            Kind::Completion => ("text_completion", "cmpl"),
            Kind::Chat => ("chat.completion", "chatcmpl"),
        };
        let choices = choices
            .into_iter()
            .enumerate()
            .map(|(index, choice)| ChoiceBody {
                index,
                finish_reason: choice.end.map_or(FinishReason::Length, |(reason, _)| reason).as_str(),
                content: choice_body(kind, choice, has_logprobs, tokenizer),
            })
            .collect();
        let body = Body { id: format!("{prefix}-{number}"), object, created, model, choices, usage };
        let response = Response { status_code: 200, request_id: format!("req-{number}"), body };
        Self { id: line_id(number), custom_id: Some(custom_id), response: Some(response), error: None }
    }

    /// The line of a request that was not.
    pub fn error(number: usize, error: LineError) -> Self {
        let LineError { custom_id, code, message } = error;
        Self {
            id: line_id(number),
            custom_id: Some(custom_id.unwrap_or_else(|| format!("line-{number}"))),
            response: None,
            error: Some(ErrorBody { code, message: format!("line {number}: {message}") }),
        }
    }
}

fn line_id(number: usize) -> String {
    format!("batch_req_{number}")
}

fn usage_body(usage: Usage) -> UsageBody {
    let Usage { prompt_tokens, completion_tokens, cached_tokens } = usage;
    UsageBody {
        prompt_tokens,
        completion_tokens,
        total_tokens: prompt_tokens + completion_tokens,
        prompt_tokens_details: PromptDetails { cached_tokens },
    }
}

fn choice_body(kind: Kind, choice: Choice, has_logprobs: bool, tokenizer: &Tokenizer) -> ContentBody {
    let Choice { text, mut tokens, .. } = choice;
    // The token that ends the text is no part of it.
    tokens.retain(|token| !tokenizer.is_eog(token.token_id));
    match kind {
        Kind::Completion => {
            let logprobs = has_logprobs.then(|| completion_logprobs(&tokens, tokenizer));
            ContentBody::Completion { text, logprobs }
        }
        Kind::Chat => {
            let content = || tokens.iter().map(|token| token_logprob(token, tokenizer)).collect();
            let logprobs = has_logprobs.then(|| ChatLogprobs { content: content(), refusal: None });
            ContentBody::Chat {
                message: MessageBody { role: "assistant", content: text, refusal: None },
                logprobs,
            }
        }
    }
}

fn completion_logprobs(tokens: &[TokenEvent], tokenizer: &Tokenizer) -> CompletionLogprobs {
    let mut out = CompletionLogprobs {
        tokens: Vec::new(),
        token_logprobs: Vec::new(),
        top_logprobs: Vec::new(),
        text_offset: Vec::new(),
    };
    let mut offset = 0;
    for token in tokens {
        let Some(logprobs) = &token.logprobs else { continue };
        let text = token_text(token.token_id, tokenizer);
        // The API lists the sampled token too, whether or not it is among the most likely.
        let listed = logprobs.top.iter().copied().chain([(token.token_id, logprobs.logprob)]);
        out.top_logprobs.push(listed.map(|(id, logprob)| (token_text(id, tokenizer), logprob)).collect());
        out.text_offset.push(offset);
        offset += text.chars().count();
        out.tokens.push(text);
        out.token_logprobs.push(logprobs.logprob);
    }
    out
}

fn token_logprob(token: &TokenEvent, tokenizer: &Tokenizer) -> TokenLogprob {
    let alternative = |id, logprob| Alternative {
        token: token_text(id, tokenizer),
        logprob,
        bytes: tokenizer.token_bytes(id).to_vec(),
    };
    let (logprob, top) = token.logprobs.as_ref().map_or((0.0, &[][..]), |l| (l.logprob, &l.top[..]));
    TokenLogprob {
        token: alternative(token.token_id, logprob),
        top_logprobs: top.iter().map(|&(id, p)| alternative(id, p)).collect(),
    }
}

fn token_text(id: u32, tokenizer: &Tokenizer) -> String {
    String::from_utf8_lossy(tokenizer.token_bytes(id)).into_owned()
}
