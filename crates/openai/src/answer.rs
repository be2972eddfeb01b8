//! Collects a request's events into its response.

use std::sync::Arc;

use rustorch_llama::{ControlTokens, Event, FinishReason, TokenEvent, TokenLogprobs, Tokenizer, Usage};
use serde::Serialize;

use crate::blocks::{Blocks, Change};
use crate::embeddings::{EmbeddingFormat, EmbeddingList, OllamaEmbeddings};
use crate::error::ApiError;
use crate::logprobs::{ChatLogprobs, CompletionLogprobs, Echo, PromptLogprobs, Scores, TextOffset};
use crate::message::{Message, MessageBody, call_id};
use crate::prepare::Context;
use crate::rerank::{Compared, Comparison};
use crate::stream::{Style, Styled, StyledChoice};
use crate::timings::{Times, Timings};
use crate::tools::Reading;

/// Which API answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Completion,
    Chat,
    Embedding(EmbeddingFormat),
    Comparison(Comparison),
}

/// A response that is being collected.
#[derive(Debug)]
pub struct Answer {
    pub(crate) model: String,
    pub(crate) kind: Kind,
    /// `[prompts * n]`
    pub(crate) choices: Vec<Choice>,
    /// Choices of each prompt that are generated, and those of them that are told.
    pub(crate) n: usize,
    num_best: usize,
    /// Alternatives for each token, if log-probabilities are wanted.
    pub(crate) logprobs: Option<usize>,
    pub(crate) prompts: Prompts,
    pub(crate) fingerprint: Option<String>,
    /// Whether control tokens show in the text.
    pub(crate) control_tokens: ControlTokens,
    pub(crate) times: Times,
    /// Whether the times are told.
    is_timed: bool,
    /// The field that demands a form of the answer.
    pub(crate) form_field: Option<String>,
    /// How its one choice is answered in blocks; `None` if it is answered in choices.
    pub(crate) styled: Option<Styled>,
}

/// The prompts, and what an answer tells of them beside its own text.
#[derive(Debug, Default)]
pub(crate) struct Prompts {
    pub token_ids: Vec<Vec<u32>>,
    /// The prompts as texts, if they come before the answers.
    pub texts: Vec<String>,
    /// Alternatives for each token of the list of log-probabilities, if there is to be one.
    pub listed: Option<usize>,
    /// Whether the stop string that ends an answer belongs to it.
    pub keeps_stop: bool,
    /// Whether the ids of all tokens are told.
    pub returns_ids: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Choice {
    /// Of the prompt's tokens from the second on.
    pub prompt_logprobs: Vec<TokenLogprobs>,
    pub message: Message,
    tokens: Vec<TokenEvent>,
    /// The ids of its tokens that were not told yet, if they are to be.
    pub token_ids: Vec<u32>,
    /// Tokens generated so far.
    pub num_tokens: usize,
    /// Tokens, from the first on, that have a part in the text.
    num_in_text: usize,
    embedding: Vec<f32>,
    pub end: Option<(FinishReason, Usage)>,
}

impl Choice {
    /// The mean of its tokens' log-probabilities.
    fn mean_logprob(&self) -> f64 {
        let logprobs = self.tokens.iter().filter_map(|token| token.logprobs.as_ref());
        let sum: f64 = logprobs.map(|logprobs| f64::from(logprobs.logprob)).sum();
        sum / self.tokens.len().max(1) as f64
    }

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
        context: &Context<'_>,
        num_prompts: usize,
        n: usize,
        logprobs: Option<usize>,
    ) -> Self {
        let choices = (0..num_prompts * n).map(|_| Choice::default()).collect();
        Self {
            model: context.model.to_owned(),
            kind,
            choices,
            n,
            num_best: n,
            logprobs,
            prompts: Prompts::default(),
            fingerprint: context.fingerprint.map(str::to_owned),
            control_tokens: ControlTokens::Hide,
            times: Times::start(),
            is_timed: false,
            form_field: None,
            styled: None,
        }
    }

    /// The answer to these prompts.
    pub(crate) fn to(self, prompts: Prompts) -> Self {
        Self { prompts, ..self }
    }

    /// Of the choices of each prompt, only so many are told: those that are the most likely for each token.
    pub(crate) fn with_best(self, num_best: usize) -> Self {
        Self { num_best, ..self }
    }

    /// Whether control tokens show in its text, and whether its times are told.
    pub(crate) fn shown(self, control_tokens: ControlTokens, is_timed: bool) -> Self {
        Self { control_tokens, is_timed, ..self }
    }

    /// Embeddings in Ollama's form.
    pub(crate) fn in_ollamas_form(self) -> Self {
        match self.kind {
            Kind::Embedding(format) => {
                Self { kind: Kind::Embedding(EmbeddingFormat { is_ollamas: true, ..format }), ..self }
            }
            _ => self,
        }
    }

    /// The times so far, if they are told.
    pub(crate) fn timings(&self) -> Option<Timings> {
        self.is_timed.then(|| {
            let num_prompt_tokens = self.prompts.token_ids.iter().map(Vec::len).sum();
            self.times.timings(num_prompt_tokens, self.is_complete().then(|| self.usage()))
        })
    }

    /// Leaves of each prompt's choices the best, the most likely first; of equal ones the first.
    fn keep_best(&mut self) {
        if self.num_best == self.n {
            return;
        }
        let mut choices = std::mem::take(&mut self.choices).into_iter();
        while choices.len() > 0 {
            let mut tried: Vec<_> = choices.by_ref().take(self.n).collect();
            tried.sort_by(|a, b| b.mean_logprob().total_cmp(&a.mean_logprob()));
            tried.truncate(self.num_best);
            self.choices.append(&mut tried);
        }
        self.n = self.num_best;
    }

    /// The prompt of a choice, if it comes before the answer.
    pub(crate) fn echo(&self, choice: usize, tokenizer: &Tokenizer) -> Option<Echo> {
        let prompt = choice / self.n;
        let text = self.prompt_text(choice)?.to_owned();
        let logprobs = self.logprobs.map(|num_top| {
            let scored = &self.choices[choice].prompt_logprobs;
            CompletionLogprobs::of_prompt(&self.prompts.token_ids[prompt], scored, num_top, tokenizer, &text)
        });
        Some(Echo { text, logprobs })
    }

    /// The text of a choice's prompt, if it comes before the answer.
    pub(crate) fn prompt_text(&self, choice: usize) -> Option<&str> {
        self.prompts.texts.get(choice / self.n).map(String::as_str)
    }

    /// The list of log-probabilities of a choice's prompt, if there is to be one.
    fn listed_prompt(&self, choice: usize, tokenizer: &Tokenizer) -> Option<PromptLogprobs> {
        let (num_top, token_ids) = (self.prompts.listed?, &self.prompts.token_ids[choice / self.n]);
        Some(PromptLogprobs::new(token_ids, &self.choices[choice].prompt_logprobs, num_top, tokenizer))
    }

    /// The answer to a body whose field of this name demands a form.
    pub(crate) fn with_form_field(self, form_field: Option<String>) -> Self {
        Self { form_field, ..self }
    }

    /// The answer in blocks, to prompts of so many tokens, each with one choice.
    pub(crate) fn styled_by(
        mut self,
        style: Box<dyn Style>,
        num_prompt_tokens: &[usize],
        tokenizer: &Arc<Tokenizer>,
    ) -> Self {
        let has_scores = self.logprobs.is_some();
        let choices = self.choices.iter_mut().zip(num_prompt_tokens).map(|(choice, &num_prompt_tokens)| {
            let scores = has_scores.then(|| Scores::new(Arc::clone(tokenizer)));
            let blocks = Blocks::new(choice.message.take_reading(), scores);
            StyledChoice { blocks, num_prompt_tokens, stop_string: None }
        });
        self.styled = Some(Styled { style, choices: choices.collect() });
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
            Event::Prompt(logprobs) => choice.prompt_logprobs = logprobs,
            Event::Token(token) => {
                self.times.token(choice.num_tokens == 0);
                choice.num_tokens += 1;
                choice.token_ids.extend(self.prompts.returns_ids.then_some(token.token_id));
                choice.message.push(&token);
                choice.num_in_text = token.num_in_text;
                if token.logprobs.is_some() {
                    choice.tokens.push(token);
                }
            }
            Event::Finished { reason, usage, stop_string } => {
                let stop_string = stop_string.filter(|_| self.prompts.keeps_stop);
                choice.message.finish(stop_string.as_deref());
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
        let Some(styled) = self.styled.as_mut().and_then(|styled| styled.choices.get_mut(choice)) else {
            return Ok(Vec::new());
        };
        match event {
            Event::Token(token) => {
                let choice = &mut self.choices[choice];
                self.times.token(choice.num_tokens == 0);
                choice.num_tokens += 1;
                Ok(styled.blocks.push(&token))
            }
            Event::Finished { reason, usage, stop_string } => {
                self.choices[choice].end = Some((reason, usage));
                styled.stop_string = stop_string;
                Ok(styled.blocks.finish())
            }
            Event::Prompt(_) | Event::Embedding { .. } => Ok(Vec::new()),
            Event::Error(error) => Err(ApiError::of_engine(error, self.form_field.as_deref())),
        }
    }

    /// Whether it is one text, that of the one choice of a completion or a chat.
    pub fn is_text(&self) -> bool {
        matches!(self.kind, Kind::Completion | Kind::Chat)
            && self.styled.is_none()
            && self.choices.len() == self.n
            && self.num_best == 1
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

    /// The ids of a choice's prompt, if they are to be told.
    pub(crate) fn prompt_ids(&self, choice: usize) -> Option<Vec<u32>> {
        let prompts = Some(&self.prompts).filter(|prompts| prompts.returns_ids)?;
        prompts.token_ids.get(choice / self.n).cloned()
    }

    /// The ids of a choice's tokens that were not told yet, if they are to be.
    pub(crate) fn take_ids(&mut self, choice: usize) -> Option<Vec<u32>> {
        self.prompts.returns_ids.then(|| std::mem::take(&mut self.choices[choice].token_ids))
    }

    /// Token counts of a choice so far.
    pub(crate) fn usage_of(&self, choice: usize) -> Usage {
        let &Choice { end, num_tokens, .. } = &self.choices[choice];
        let so_far = || Usage {
            prompt_tokens: self.prompts.token_ids.get(choice / self.n).map_or(0, Vec::len),
            completion_tokens: num_tokens,
            cached_tokens: 0,
        };
        end.map_or_else(so_far, |(_, usage)| usage)
    }

    /// The same answer without what depends on when and beside what it was made: it took no time and found nothing in the
    /// prefix cache, and has no field `timings`. Once [`is_complete`](Self::is_complete).
    #[must_use]
    pub fn reproducible(mut self) -> Self {
        for (_, usage) in self.choices.iter_mut().filter_map(|choice| choice.end.as_mut()) {
            usage.cached_tokens = 0;
        }
        Self { times: self.times.hidden(), is_timed: false, ..self }
    }

    /// The response, once [`is_complete`](Self::is_complete).
    pub fn body(mut self, identity: &Identity<'_>, tokenizer: &Tokenizer) -> ResponseBody {
        if self.styled.is_some() {
            return ResponseBody(Body::Blocks(self.blocks_body(identity)));
        }
        let (usage, timings) = (self.usage(), self.timings());
        self.keep_best();
        let kind = self.kind;
        let object = match kind {
            Kind::Completion => "text_completion",
            Kind::Chat => "chat.completion",
            Kind::Embedding(format) => {
                let embeddings = self.choices.into_iter().map(|choice| choice.embedding);
                if format.is_ollamas {
                    let took = self.times.until_now();
                    let body = OllamaEmbeddings::new(self.model, embeddings, format, usage, took);
                    return ResponseBody(Body::OllamaEmbeddings(body));
                }
                return ResponseBody(Body::Embeddings(EmbeddingList::new(
                    self.model, embeddings, format, usage,
                )));
            }
            Kind::Comparison(comparison) => {
                let embeddings: Vec<_> = self.choices.into_iter().map(|choice| choice.embedding).collect();
                let texts = (&embeddings[..], &self.prompts.texts[..]);
                let compared = Compared::new(comparison, identity, self.model, texts, usage);
                return ResponseBody(Body::Comparison(compared));
            }
        };
        // A chat has one prompt, and lists it beside its choices.
        let mut prompts: Vec<_> =
            (0..self.choices.len()).map(|choice| self.listed_prompt(choice, tokenizer)).collect();
        let prompt_logprobs = if kind == Kind::Chat { prompts[0].take() } else { None };
        let echoes: Vec<_> = (0..self.choices.len()).map(|choice| self.echo(choice, tokenizer)).collect();
        let mut ids: Vec<_> =
            (0..self.choices.len()).map(|choice| (self.prompt_ids(choice), self.take_ids(choice))).collect();
        let prompt_token_ids = if kind == Kind::Chat { ids[0].0.take() } else { None };
        let Answer { model, choices, logprobs, fingerprint: system_fingerprint, control_tokens, .. } = self;
        let of_prompts = echoes.into_iter().zip(prompts).zip(ids);
        let choices = choices.into_iter().zip(of_prompts).enumerate();
        let choices =
            choices.map(|(index, (choice, ((echo, prompt_logprobs), (prompt_token_ids, token_ids))))| {
                ChoiceBody {
                    index,
                    finish_reason: choice.finish_reason(),
                    content: content_body(
                        kind,
                        choice,
                        logprobs.map(|_| control_tokens),
                        echo,
                        tokenizer,
                        &|call| call_id(identity.suffix, index, call),
                    ),
                    prompt_logprobs: prompt_logprobs.filter(|_| kind == Kind::Completion),
                    prompt_token_ids: prompt_token_ids.filter(|_| kind == Kind::Completion),
                    token_ids,
                }
            });
        let (id, usage, choices) = (id(kind, identity), usage.into(), choices.collect());
        let created = identity.created;
        let body = CompletionBody {
            id,
            object,
            created,
            model,
            system_fingerprint,
            choices,
            prompt_logprobs,
            prompt_token_ids,
            usage,
            timings,
        };
        ResponseBody(Body::Completion(body))
    }
}

impl Answer {
    /// The response in blocks, or a list of them if there are several choices.
    fn blocks_body(&mut self, identity: &Identity<'_>) -> serde_json::Value {
        let bodies = (0..self.choices.len()).filter_map(|choice| {
            let (style, said) = self.said(choice, identity.suffix, identity.created)?;
            Some(style.body(&said))
        });
        let mut bodies: Vec<_> = bodies.collect();
        if bodies.len() == 1 { bodies.remove(0) } else { bodies.into() }
    }
}

/// The id of a response.
pub(crate) fn id(kind: Kind, identity: &Identity<'_>) -> String {
    let prefix = match kind {
        Kind::Completion => "cmpl",
        Kind::Chat => "chatcmpl",
        Kind::Embedding(_) => "embd",
        Kind::Comparison(_) => "score",
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
    OllamaEmbeddings(OllamaEmbeddings),
    Blocks(serde_json::Value),
    Comparison(Compared),
}

#[derive(Debug, Serialize)]
struct CompletionBody {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_fingerprint: Option<String>,
    choices: Vec<ChoiceBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_logprobs: Option<PromptLogprobs>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<Vec<u32>>,
    usage: UsageBody,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<Timings>,
}

#[derive(Debug, Serialize)]
struct ChoiceBody {
    index: usize,
    #[serde(flatten)]
    content: ContentBody,
    finish_reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_logprobs: Option<PromptLogprobs>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<Vec<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Vec<u32>>,
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
    logprobs: Option<ControlTokens>,
    echo: Option<Echo>,
    tokenizer: &Tokenizer,
    call_id: &dyn Fn(usize) -> String,
) -> ContentBody {
    let Choice { message, mut tokens, num_in_text, .. } = choice;
    tokens.truncate(num_in_text);
    match kind {
        Kind::Completion => {
            let Echo { text, logprobs: prompt } = echo.unwrap_or_default();
            let logprobs = logprobs.map(|control_tokens| {
                let mut offset = TextOffset::after(&text, control_tokens, tokenizer);
                prompt.unwrap_or_default().followed_by(CompletionLogprobs::new(
                    &tokens,
                    tokenizer,
                    &mut offset,
                ))
            });
            ContentBody::Completion { text: text + &message.into_text(), logprobs }
        }
        _ => {
            let logprobs = logprobs.map(|_| ChatLogprobs::new(&tokens, tokenizer));
            ContentBody::Chat { message: message.into_body(call_id), logprobs }
        }
    }
}
