//! Collects a request's events into its response.

use rustorch_llama::{Event, FinishReason, TokenEvent, Tokenizer, Usage};
use serde::Serialize;

use crate::blocks::{Blocks, Change};
use crate::embeddings::{EmbeddingFormat, EmbeddingList};
use crate::error::ApiError;
use crate::logprobs::{ChatLogprobs, CompletionLogprobs, TextOffset};
use crate::message::{Message, MessageBody, call_id};
use crate::stream::{Style, Styled};
use crate::tools::Reading;

/// Which API answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Completion,
    Chat,
    Embedding(EmbeddingFormat),
}

/// A response that is being collected.
#[derive(Debug)]
pub struct Answer {
    pub(crate) model: String,
    pub(crate) kind: Kind,
    /// `[prompts * n]`
    pub(crate) choices: Vec<Choice>,
    /// Choices of each prompt.
    n: usize,
    pub(crate) has_logprobs: bool,
    /// The field that demands a form of the answer.
    pub(crate) form_field: Option<String>,
    /// How its one choice is answered in blocks; `None` if it is answered in choices.
    pub(crate) styled: Option<Styled>,
}

#[derive(Debug, Default)]
pub(crate) struct Choice {
    pub message: Message,
    tokens: Vec<TokenEvent>,
    /// Tokens, from the first on, that have a part in the text.
    num_in_text: usize,
    embedding: Vec<f32>,
    pub end: Option<(FinishReason, Usage)>,
}

impl Choice {
    /// Why it ended, as the API says it.
    pub fn finish_reason(&self) -> &'static str {
        match self.end {
            Some((FinishReason::Stop, _)) if self.message.has_calls() => "tool_calls",
            Some((reason, _)) => reason.as_str(),
            None => FinishReason::Length.as_str(),
        }
    }
}

/// What tells one response from another.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// The end of its id, after a prefix such as `chatcmpl-`.
    pub suffix: &'a str,
    /// Seconds since 1970.
    pub created: u64,
}

impl Answer {
    /// For `n` choices of each of `num_prompts` prompts, with log-probabilities if the request wants any.
    pub(crate) fn new(
        kind: Kind,
        model: &str,
        num_prompts: usize,
        n: usize,
        logprobs: Option<usize>,
    ) -> Self {
        let choices = (0..num_prompts * n).map(|_| Choice::default()).collect();
        let has_logprobs = logprobs.is_some();
        Self { model: model.to_owned(), kind, choices, n, has_logprobs, form_field: None, styled: None }
    }

    /// The answer to a body whose field of this name demands a form.
    pub(crate) fn with_form_field(self, form_field: Option<String>) -> Self {
        Self { form_field, ..self }
    }

    /// The answer to a chat of one choice in blocks.
    pub(crate) fn styled_by(mut self, style: Box<dyn Style>, num_prompt_tokens: usize) -> Self {
        let reading = self.choices.first_mut().and_then(|choice| choice.message.take_reading());
        let blocks = Blocks::new(reading);
        self.styled = Some(Styled { style, blocks, num_prompt_tokens, stop_string: None });
        self
    }

    /// The answer to a chat that is read in this way.
    pub(crate) fn read_by(mut self, reading: Option<Reading>) -> Self {
        for choice in &mut self.choices {
            choice.message = Message::new(reading.clone());
        }
        self
    }

    /// Adds an event of the sequence with this index.
    ///
    /// # Errors
    /// An error event. The request has then failed, although its other sequences may still run.
    pub fn add(&mut self, choice: usize, event: Event) -> Result<(), ApiError> {
        if self.styled.is_some() {
            return self.add_to_blocks(choice, event).map(drop);
        }
        let choice = &mut self.choices[choice];
        match event {
            Event::Token(token) => {
                choice.message.push(&token);
                choice.num_in_text = token.num_in_text;
                if token.logprobs.is_some() {
                    choice.tokens.push(token);
                }
            }
            Event::Finished { reason, usage, .. } => {
                choice.message.finish();
                choice.end = Some((reason, usage));
            }
            Event::Embedding { values, usage } => {
                choice.embedding = values;
                choice.end = Some((FinishReason::Stop, usage));
            }
            Event::Error(error) => return Err(ApiError::of_engine(error, self.form_field.as_deref())),
        }
        Ok(())
    }

    /// As [`add`](Self::add) for an answer in blocks; what changes in them.
    ///
    /// # Errors
    /// An error event.
    pub(crate) fn add_to_blocks(&mut self, choice: usize, event: Event) -> Result<Vec<Change>, ApiError> {
        let Some(styled) = &mut self.styled else { return Ok(Vec::new()) };
        match event {
            Event::Token(token) => Ok(styled.blocks.push(&token)),
            Event::Finished { reason, usage, stop_string } => {
                self.choices[choice].end = Some((reason, usage));
                styled.stop_string = stop_string;
                Ok(styled.blocks.finish())
            }
            Event::Embedding { .. } => Ok(Vec::new()),
            Event::Error(error) => Err(ApiError::of_engine(error, self.form_field.as_deref())),
        }
    }

    /// Whether every sequence has ended.
    pub fn is_complete(&self) -> bool {
        self.choices.iter().all(|choice| choice.end.is_some())
    }

    /// Token counts of all sequences that have ended. A prompt is counted once, however many choices it has.
    pub fn usage(&self) -> Usage {
        let ends = || self.choices.iter().filter_map(|choice| choice.end).map(|(_, usage)| usage);
        Usage {
            prompt_tokens: ends().step_by(self.n).map(|usage| usage.prompt_tokens).sum(),
            completion_tokens: ends().map(|usage| usage.completion_tokens).sum(),
            cached_tokens: ends().step_by(self.n).map(|usage| usage.cached_tokens).sum(),
        }
    }

    /// The response, once [`is_complete`](Self::is_complete).
    pub fn body(mut self, identity: &Identity<'_>, tokenizer: &Tokenizer) -> ResponseBody {
        if let Some((style, said)) = self.said(identity.suffix, identity.created) {
            return ResponseBody(Body::Blocks(style.body(&said)));
        }
        let usage = self.usage();
        let Answer { model, kind, choices, has_logprobs, .. } = self;
        let object = match kind {
            Kind::Completion => "text_completion",
            Kind::Chat => "chat.completion",
            Kind::Embedding(format) => {
                let embeddings = choices.into_iter().map(|choice| choice.embedding);
                return ResponseBody(Body::Embeddings(EmbeddingList::new(model, embeddings, format, usage)));
            }
        };
        let choices = choices
            .into_iter()
            .enumerate()
            .map(|(index, choice)| ChoiceBody {
                index,
                finish_reason: choice.finish_reason(),
                content: content_body(kind, choice, has_logprobs, tokenizer, &|call| {
                    call_id(identity.suffix, index, call)
                }),
            })
            .collect();
        let (id, usage) = (id(kind, identity), usage.into());
        let created = identity.created;
        ResponseBody(Body::Completion(CompletionBody { id, object, created, model, choices, usage }))
    }
}

/// The id of a response.
pub(crate) fn id(kind: Kind, identity: &Identity<'_>) -> String {
    let prefix = match kind {
        Kind::Completion => "cmpl",
        Kind::Chat => "chatcmpl",
        Kind::Embedding(_) => "embd",
    };
    format!("{prefix}-{}", identity.suffix)
}

/// The body of a response; serialises to the JSON of the API.
#[derive(Debug, Serialize)]
pub struct ResponseBody(Body);

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Body {
    Completion(CompletionBody),
    Embeddings(EmbeddingList),
    Blocks(serde_json::Value),
}

#[derive(Debug, Serialize)]
struct CompletionBody {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    choices: Vec<ChoiceBody>,
    usage: UsageBody,
}

#[derive(Debug, Serialize)]
struct ChoiceBody {
    index: usize,
    #[serde(flatten)]
    content: ContentBody,
    finish_reason: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum ContentBody {
    Completion { text: String, logprobs: Option<CompletionLogprobs> },
    Chat { message: MessageBody, logprobs: Option<ChatLogprobs> },
}

/// Token counts as the API gives them.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct UsageBody {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
    prompt_tokens_details: PromptDetails,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct PromptDetails {
    cached_tokens: usize,
}

impl From<Usage> for UsageBody {
    fn from(usage: Usage) -> Self {
        let Usage { prompt_tokens, completion_tokens, cached_tokens } = usage;
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens + completion_tokens,
            prompt_tokens_details: PromptDetails { cached_tokens },
        }
    }
}

fn content_body(
    kind: Kind,
    choice: Choice,
    has_logprobs: bool,
    tokenizer: &Tokenizer,
    call_id: &dyn Fn(usize) -> String,
) -> ContentBody {
    let Choice { message, mut tokens, num_in_text, .. } = choice;
    tokens.truncate(num_in_text);
    match kind {
        Kind::Completion => {
            let logprobs = has_logprobs
                .then(|| CompletionLogprobs::new(&tokens, tokenizer, &mut TextOffset::new(tokenizer)));
            ContentBody::Completion { text: message.into_text(), logprobs }
        }
        Kind::Chat | Kind::Embedding(_) => {
            let logprobs = has_logprobs.then(|| ChatLogprobs::new(&tokens, tokenizer));
            ContentBody::Chat { message: message.into_body(call_id), logprobs }
        }
    }
}
