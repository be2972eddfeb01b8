//! A response in pieces: the bodies of server-sent events.

use std::collections::VecDeque;
use std::mem;

use rustorch_llama::{Event, TokenEvent, Tokenizer};
use serde::Serialize;

use crate::answer::{Answer, Identity, Kind, UsageBody, id};
use crate::body::StreamOptions;
use crate::error::ApiError;
use crate::logprobs::{ChatLogprobs, CompletionLogprobs, Echo, TextOffset};
use crate::message::{Delta, call_id};
use crate::timings::Timings;

/// Makes chunks of a request's events. After the last chunk the API sends `[DONE]`, which the caller writes.
#[derive(Debug)]
pub struct Chunks {
    answer: Answer,
    id: String,
    /// The end of the id.
    suffix: String,
    created: u64,
    options: StreamOptions,
    /// `[choices]`
    unlisted: Vec<Unlisted>,
}

/// Tokens of a choice whose log-probabilities were not sent yet, as a stop string may yet cut them away.
#[derive(Debug, Default)]
struct Unlisted {
    tokens: VecDeque<TokenEvent>,
    /// Tokens before them.
    num_listed: usize,
    /// Where the text of the first begins.
    offset: Option<TextOffset>,
    /// Whether the ids of the prompt were told.
    has_told_prompt: bool,
}

impl Unlisted {
    /// The tokens to be listed now that so many are certain to be in the text.
    fn take(&mut self, num_in_text: usize) -> Vec<TokenEvent> {
        let count = num_in_text.saturating_sub(self.num_listed).min(self.tokens.len());
        self.num_listed += count;
        self.tokens.drain(..count).collect()
    }
}

/// One piece of a response; serialises to the body of a server-sent event.
#[derive(Debug, Serialize)]
pub struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_fingerprint: Option<&'a str>,
    choices: Vec<ChunkChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<Vec<u32>>,
    /// Absent unless asked for; then null in all chunks but the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<UsageBody>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<Timings>,
}

#[derive(Debug, Serialize)]
struct ChunkChoice {
    index: usize,
    #[serde(flatten)]
    content: ChunkContent,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<Vec<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Vec<u32>>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum ChunkContent {
    Completion { text: String, logprobs: Option<CompletionLogprobs> },
    Chat { delta: Delta, logprobs: Option<ChatLogprobs> },
}

/// Ids of tokens, as far as they are to be told.
struct Ids {
    prompt: Option<Vec<u32>>,
    tokens: Option<Vec<u32>>,
}

impl Chunk<'_> {
    /// The same with these ids for its choice.
    fn with_ids(mut self, ids: Option<Ids>) -> Self {
        if let (Some(choice), Some(Ids { prompt, tokens })) = (self.choices.first_mut(), ids) {
            (choice.prompt_token_ids, choice.token_ids) = (prompt, tokens);
        }
        self
    }
}

impl Answer {
    /// Streams the answer instead of collecting it. To be called before the first event is added.
    pub fn into_chunks(self, identity: &Identity<'_>, options: StreamOptions) -> Chunks {
        let (id, created) = (id(self.kind, identity), identity.created);
        let unlisted = self.choices.iter().map(|_| Unlisted::default()).collect();
        let suffix = identity.suffix.to_owned();
        Chunks { answer: self, id, suffix, created, options, unlisted }
    }
}

impl Chunks {
    /// Chunks to send before any event: for a chat the role of each choice, for a completion its prompt if that is wanted.
    pub fn opening(&self) -> Vec<Chunk<'_>> {
        if self.answer.kind != Kind::Chat {
            // With log-probabilities it waits for those of the prompt.
            let texts = if self.answer.logprobs.is_none() { &self.answer.prompts.texts[..] } else { &[] };
            let echo = |(index, text): (usize, &String)| {
                self.chunk(index, ChunkContent::Completion { text: text.clone(), logprobs: None }, None)
            };
            let n = self.answer.choices.len().checked_div(texts.len()).unwrap_or(0);
            return texts
                .iter()
                .flat_map(|text| std::iter::repeat_n(text, n))
                .enumerate()
                .map(echo)
                .collect();
        }
        let role = |index| {
            let delta = Delta { role: Some("assistant"), content: Some(String::new()), ..Delta::default() };
            let chunk = self.chunk(index, ChunkContent::Chat { delta, logprobs: None }, None);
            Chunk { prompt_token_ids: self.answer.prompt_ids(index), ..chunk }
        };
        (0..self.answer.choices.len()).map(role).collect()
    }

    /// The chunk of an event of the sequence with this index, if it changes what the reader sees.
    ///
    /// # Errors
    /// An error event. After it only the error is to be sent.
    pub fn add(
        &mut self,
        choice: usize,
        event: Event,
        tokenizer: &Tokenizer,
    ) -> Result<Option<Chunk<'_>>, ApiError> {
        match event {
            Event::Prompt(logprobs) => {
                self.answer.choices[choice].prompt_logprobs = logprobs;
                let echo = self.answer.echo(choice, tokenizer);
                Ok(echo.map(|Echo { text, logprobs }| {
                    self.chunk(choice, ChunkContent::Completion { text, logprobs }, None)
                }))
            }
            Event::Token(token) => {
                let returns_ids = self.answer.prompts.returns_ids;
                let of_choice = &mut self.answer.choices[choice];
                self.answer.times.token(of_choice.num_tokens == 0);
                of_choice.num_tokens += 1;
                of_choice.token_ids.extend(returns_ids.then_some(token.token_id));
                let content = self.content(choice, token, tokenizer);
                let ids = content.as_ref().map(|_| self.take_ids(choice));
                Ok(content.map(|content| self.chunk(choice, content, None).with_ids(ids)))
            }
            Event::Finished { reason, usage, stop_string } => {
                let end = stop_string.filter(|_| self.answer.prompts.keeps_stop);
                let ended = &mut self.answer.choices[choice];
                ended.end = Some((reason, usage));
                let content = match self.answer.kind {
                    Kind::Completion => {
                        ChunkContent::Completion { text: end.unwrap_or_default(), logprobs: None }
                    }
                    _ => {
                        let suffix = &self.suffix;
                        let delta =
                            ended.message.finish_delta(end.as_deref(), &|call| call_id(suffix, choice, call));
                        ChunkContent::Chat { delta, logprobs: None }
                    }
                };
                let finish_reason = ended.finish_reason();
                let ids = Some(self.take_ids(choice));
                Ok(Some(self.chunk(choice, content, Some(finish_reason)).with_ids(ids)))
            }
            // Requests for embeddings are not streamed.
            Event::Embedding { .. } => Ok(None),
            Event::Error(error) => Err(ApiError::of_engine(error, self.answer.form_field.as_deref())),
        }
    }

    /// Whether every sequence has ended.
    pub fn is_complete(&self) -> bool {
        self.answer.is_complete()
    }

    /// The chunk to send after all events: the token counts, if they were asked for.
    pub fn closing(&self) -> Option<Chunk<'_>> {
        let usage = self.options.include_usage.then(|| Some(self.answer.usage().into()))?;
        Some(Chunk { choices: Vec::new(), usage: Some(usage), ..self.frame() })
    }

    /// The ids to tell in a chunk of a choice: those of its tokens and, in a completion's first, those of its prompt.
    fn take_ids(&mut self, choice: usize) -> Ids {
        let is_first = !mem::replace(&mut self.unlisted[choice].has_told_prompt, true);
        let is_wanted = is_first && self.answer.kind == Kind::Completion;
        let prompt = if is_wanted { self.answer.prompt_ids(choice) } else { None };
        Ids { prompt, tokens: self.answer.take_ids(choice) }
    }

    /// The content of a token's chunk. `None` if its text is held back and no log-probabilities are to be listed.
    fn content(
        &mut self,
        choice: usize,
        mut token: TokenEvent,
        tokenizer: &Tokenizer,
    ) -> Option<ChunkContent> {
        let (kind, num_in_text) = (self.answer.kind, token.num_in_text);
        let (text, delta) = match kind {
            Kind::Completion => (mem::take(&mut token.text), Delta::default()),
            _ => {
                let (suffix, message) = (&self.suffix, &mut self.answer.choices[choice].message);
                (String::new(), message.push_delta(&token, &|call| call_id(suffix, choice, call)))
            }
        };
        let unlisted = &mut self.unlisted[choice];
        if self.answer.logprobs.is_some() {
            unlisted.tokens.push_back(token);
        }
        let tokens = unlisted.take(num_in_text);
        let is_listed = !tokens.is_empty();
        if text.is_empty() && delta.is_empty() && !is_listed {
            return None;
        }
        Some(match kind {
            Kind::Completion => {
                let offset = unlisted.offset.get_or_insert_with(|| {
                    let text = self.answer.prompt_text(choice).unwrap_or_default();
                    TextOffset::after(text, self.answer.control_tokens, tokenizer)
                });
                let logprobs = is_listed.then(|| CompletionLogprobs::new(&tokens, tokenizer, offset));
                ChunkContent::Completion { text, logprobs }
            }
            _ => {
                let logprobs = is_listed.then(|| ChatLogprobs::new(&tokens, tokenizer));
                ChunkContent::Chat { delta, logprobs }
            }
        })
    }

    fn chunk(&self, index: usize, content: ChunkContent, finish_reason: Option<&'static str>) -> Chunk<'_> {
        let mut chunk = Chunk {
            choices: vec![ChunkChoice {
                index,
                content,
                finish_reason,
                prompt_token_ids: None,
                token_ids: None,
            }],
            ..self.frame()
        };
        if self.options.continuous_usage_stats {
            chunk.usage = Some(Some(self.answer.usage_of(index).into()));
        }
        chunk
    }

    fn frame(&self) -> Chunk<'_> {
        let object = match self.answer.kind {
            Kind::Completion => "text_completion",
            _ => "chat.completion.chunk",
        };
        Chunk {
            id: &self.id,
            object,
            created: self.created,
            model: &self.answer.model,
            system_fingerprint: self.answer.fingerprint.as_deref(),
            choices: Vec::new(),
            prompt_token_ids: None,
            usage: self.options.include_usage.then_some(None),
            timings: self.answer.timings(),
        }
    }
}
