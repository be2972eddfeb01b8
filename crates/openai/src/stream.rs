//! An answer as the text of server-sent events, in the form of its API.

use rustorch_llama::{Event, Tokenizer};
use serde::Serialize;
use serde_json::Value;

use crate::answer::{Answer, Identity};
use crate::blocks::{Blocks, Change, Said};
use crate::body::StreamOptions;
use crate::chunks::Chunks;
use crate::error::ApiError;

/// Writes a request's events as server-sent events.
#[derive(Debug)]
pub struct Stream(Form);

#[derive(Debug)]
enum Form {
    Chunks(Box<Chunks>),
    Blocks(Box<BlockStream>),
}

/// How events are framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Server-sent events whose type is their field `type`.
    Typed,
    /// Server-sent events without a type.
    Data,
    /// A line of JSON each.
    Lines,
}

/// An API whose answers are made of blocks.
pub(crate) trait Style: std::fmt::Debug + Send {
    /// How its events are framed.
    fn framing(&self) -> Framing {
        Framing::Typed
    }
    /// The whole answer.
    fn body(&self, said: &Said<'_>) -> Value;
    /// Events before any block.
    fn opening(&mut self, said: &Said<'_>) -> Vec<Value>;
    /// Events of a change.
    fn change(&mut self, said: &Said<'_>, change: &Change) -> Vec<Value>;
    /// Events after all blocks.
    fn closing(&mut self, said: &Said<'_>) -> Vec<Value>;
    /// Events of a failure, the last.
    fn failure(&mut self, said: &Said<'_>, error: &ApiError) -> Vec<Value>;
}

/// An answer of blocks, and the API that it is for.
#[derive(Debug)]
pub(crate) struct Styled {
    pub style: Box<dyn Style>,
    pub choices: Vec<StyledChoice>,
}

/// A choice of an answer of blocks.
#[derive(Debug)]
pub(crate) struct StyledChoice {
    pub blocks: Blocks,
    pub num_prompt_tokens: usize,
    pub stop_string: Option<String>,
}

#[derive(Debug)]
struct BlockStream {
    answer: Answer,
    suffix: String,
    created: u64,
}

impl Answer {
    /// Streams the answer instead of collecting it. To be called before the first event is added.
    pub fn into_stream(self, identity: &Identity<'_>, options: StreamOptions) -> Stream {
        if self.styled.is_none() {
            return Stream(Form::Chunks(Box::new(self.into_chunks(identity, options))));
        }
        let Identity { suffix, created } = *identity;
        Stream(Form::Blocks(Box::new(BlockStream { answer: self, suffix: suffix.to_owned(), created })))
    }

    /// What a choice of an answer of blocks says so far, and the answer's style.
    pub(crate) fn said<'a>(
        &'a mut self,
        index: usize,
        suffix: &'a str,
        created: u64,
    ) -> Option<(&'a mut dyn Style, Said<'a>)> {
        let Styled { style, choices } = self.styled.as_mut()?;
        let StyledChoice { blocks, num_prompt_tokens, stop_string } = choices.get(index)?;
        let said = Said {
            index,
            suffix,
            created,
            model: &self.model,
            blocks: blocks.list(),
            num_thought_tokens: blocks.num_thought_tokens(),
            num_prompt_tokens: *num_prompt_tokens,
            end: self.choices[index].end,
            stop_string: stop_string.as_deref(),
            times: &self.times,
            scores: blocks.scores(),
        };
        Some((style.as_mut(), said))
    }
}

impl Stream {
    /// Its content type.
    pub fn content_type(&self) -> &'static str {
        match self.framing() {
            Framing::Typed | Framing::Data => "text/event-stream",
            Framing::Lines => "application/x-ndjson",
        }
    }

    /// What may be written at any time and means nothing, if there is such a thing.
    pub fn comment(&self) -> Option<&'static [u8]> {
        match self.framing() {
            Framing::Typed | Framing::Data => Some(b": waiting\n\n"),
            Framing::Lines => None,
        }
    }

    fn framing(&self) -> Framing {
        match &self.0 {
            Form::Chunks(_) => Framing::Data,
            Form::Blocks(stream) => {
                stream.answer.styled.as_ref().map_or(Framing::Data, |styled| styled.style.framing())
            }
        }
    }

    /// Writes what comes before any event.
    pub fn open(&mut self, out: &mut Vec<u8>) {
        match &mut self.0 {
            Form::Chunks(chunks) => chunks.opening().iter().for_each(|chunk| write(out, chunk)),
            Form::Blocks(stream) => {
                for choice in 0..stream.answer.choices.len() {
                    stream.write(choice, out, |style, said| style.opening(said));
                }
            }
        }
    }

    /// Writes an event of the sequence with this index, and after the last one what ends the stream.
    ///
    /// # Errors
    /// An error event, of which nothing is written: see [`fail`](Self::fail).
    pub fn add(
        &mut self,
        choice: usize,
        event: Event,
        tokenizer: &Tokenizer,
        out: &mut Vec<u8>,
    ) -> Result<(), ApiError> {
        match &mut self.0 {
            Form::Chunks(chunks) => {
                chunks.add(choice, event, tokenizer)?.iter().for_each(|chunk| write(out, chunk));
                if chunks.is_complete() {
                    chunks.closing().iter().for_each(|chunk| write(out, chunk));
                    out.extend_from_slice(b"data: [DONE]\n\n");
                }
            }
            Form::Blocks(stream) => {
                for change in stream.answer.add_to_blocks(choice, event)? {
                    stream.write(choice, out, |style, said| style.change(said, &change));
                }
                if stream.answer.choices[choice].end.is_some() {
                    stream.write(choice, out, |style, said| style.closing(said));
                }
            }
        }
        Ok(())
    }

    /// Whether every sequence has ended.
    pub fn is_complete(&self) -> bool {
        match &self.0 {
            Form::Chunks(chunks) => chunks.is_complete(),
            Form::Blocks(stream) => stream.answer.is_complete(),
        }
    }

    /// Writes an error, which ends the stream.
    pub fn fail(&mut self, error: &ApiError, out: &mut Vec<u8>) {
        match &mut self.0 {
            Form::Chunks(_) => write(out, error),
            Form::Blocks(stream) => stream.write(0, out, |style, said| style.failure(said, error)),
        }
    }
}

impl BlockStream {
    fn write(
        &mut self,
        choice: usize,
        out: &mut Vec<u8>,
        events: impl FnOnce(&mut dyn Style, &Said<'_>) -> Vec<Value>,
    ) {
        let Some((style, said)) = self.answer.said(choice, &self.suffix, self.created) else { return };
        let framing = style.framing();
        for event in events(style, &said) {
            match framing {
                Framing::Typed => {
                    out.extend_from_slice(b"event: ");
                    out.extend_from_slice(event["type"].as_str().unwrap_or_default().as_bytes());
                    out.push(b'\n');
                    write(out, &event);
                }
                Framing::Data => write(out, &event),
                Framing::Lines => {
                    out.extend_from_slice(event.to_string().as_bytes());
                    out.push(b'\n');
                }
            }
        }
    }
}

fn write(out: &mut Vec<u8>, body: &impl Serialize) {
    out.extend_from_slice(b"data: ");
    // Bodies of strings and numbers always serialise, and writing to a vector never fails.
    let _ = serde_json::to_writer(&mut *out, body);
    out.extend_from_slice(b"\n\n");
}
