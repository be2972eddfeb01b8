//! The message of a choice: collected for a whole answer, or as deltas of a stream.

use rustorch_llama::TokenEvent;
use serde::Serialize;

use crate::tools::{Piece, Reading};

/// What a choice has said so far.
#[derive(Debug, Default)]
pub(crate) struct Message {
    /// `None` if the answer is text alone.
    reading: Option<Reading>,
    content: String,
    reasoning: String,
    calls: Vec<Call>,
}

#[derive(Debug)]
struct Call {
    name: String,
    arguments: String,
}

impl Message {
    pub fn new(reading: Option<Reading>) -> Self {
        Self { reading, ..Self::default() }
    }

    /// How it is read, for another reader.
    pub fn take_reading(&mut self) -> Option<Reading> {
        self.reading.take()
    }

    /// Takes a token's text.
    pub fn push(&mut self, token: &TokenEvent) {
        let pieces = self.read(token);
        self.collect(pieces);
    }

    /// Ends the text, with this at its end.
    pub fn finish(&mut self, end: Option<&str>) {
        let pieces = self.read_end(end);
        self.collect(pieces);
    }

    /// The delta of a token, for a stream.
    pub fn push_delta(&mut self, token: &TokenEvent, call_id: &dyn Fn(usize) -> String) -> Delta {
        let pieces = self.read(token);
        self.delta(pieces, call_id)
    }

    /// The delta of the end, for a stream.
    pub fn finish_delta(&mut self, end: Option<&str>, call_id: &dyn Fn(usize) -> String) -> Delta {
        let pieces = self.read_end(end);
        self.delta(pieces, call_id)
    }

    pub fn has_calls(&self) -> bool {
        !self.calls.is_empty()
    }

    /// Text alone, of a completion.
    pub fn into_text(self) -> String {
        self.content
    }

    pub fn into_body(self, call_id: &dyn Fn(usize) -> String) -> MessageBody {
        let Self { content, reasoning, calls, .. } = self;
        let tool_call = |(index, Call { name, arguments })| ToolCall {
            index: None,
            id: Some(call_id(index)),
            r#type: Some("function"),
            function: Function { name: Some(name), arguments },
        };
        MessageBody {
            role: "assistant",
            content: (!content.is_empty() || calls.is_empty()).then_some(content),
            reasoning_content: (!reasoning.is_empty()).then_some(reasoning),
            tool_calls: calls.into_iter().enumerate().map(tool_call).collect(),
            refusal: None,
        }
    }

    fn read(&mut self, token: &TokenEvent) -> Vec<Piece> {
        match &mut self.reading {
            Some(reading) => {
                let text = reading.text(token.token_id, &token.text);
                reading.reader.push(&text)
            }
            None if token.text.is_empty() => Vec::new(),
            None => vec![Piece::Content(token.text.clone())],
        }
    }

    fn read_end(&mut self, end: Option<&str>) -> Vec<Piece> {
        match &mut self.reading {
            Some(reading) => {
                let mut pieces = reading.reader.push(end.unwrap_or_default());
                pieces.extend(reading.reader.finish());
                pieces
            }
            None => end.map(|end| Piece::Content(end.to_owned())).into_iter().collect(),
        }
    }

    fn collect(&mut self, pieces: Vec<Piece>) {
        for piece in pieces {
            match piece {
                Piece::Content(text) => self.content.push_str(&text),
                Piece::Reasoning(text) => self.reasoning.push_str(&text),
                Piece::Call(name) => self.calls.push(Call { name, arguments: String::new() }),
                Piece::Arguments(text) => {
                    if let Some(call) = self.calls.last_mut() {
                        call.arguments.push_str(&text);
                    }
                }
            }
        }
    }

    /// Pieces as a delta. Of the calls only their number is kept.
    fn delta(&mut self, pieces: Vec<Piece>, call_id: &dyn Fn(usize) -> String) -> Delta {
        let mut delta = Delta::default();
        for piece in pieces {
            match piece {
                Piece::Content(text) => delta.content.get_or_insert_default().push_str(&text),
                Piece::Reasoning(text) => delta.reasoning_content.get_or_insert_default().push_str(&text),
                Piece::Call(name) => {
                    let index = self.calls.len();
                    self.calls.push(Call { name: String::new(), arguments: String::new() });
                    delta.tool_calls.push(ToolCall {
                        index: Some(index),
                        id: Some(call_id(index)),
                        r#type: Some("function"),
                        function: Function { name: Some(name), arguments: String::new() },
                    });
                }
                Piece::Arguments(text) => {
                    let index = self.calls.len().saturating_sub(1);
                    match delta.tool_calls.last_mut() {
                        Some(call) => call.function.arguments.push_str(&text),
                        None => delta.tool_calls.push(ToolCall {
                            index: Some(index),
                            id: None,
                            r#type: None,
                            function: Function { name: None, arguments: text },
                        }),
                    }
                }
            }
        }
        delta
    }
}

/// The id of a call: nine letters and digits, which is what the strictest templates take. It follows from the answer's id and
/// the call's place in it.
pub(crate) fn call_id(suffix: &str, choice: usize, call: usize) -> String {
    // FNV-1a.
    let text = format!("{suffix}/{choice}/{call}");
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let digit = |place: u32| {
        let digit = u32::try_from(hash / 36_u64.pow(place) % 36).unwrap_or_default();
        char::from_digit(digit, 36).unwrap_or_default()
    };
    (0..9).map(digit).collect()
}

/// A message of a whole answer.
#[derive(Debug, Serialize)]
pub(crate) struct MessageBody {
    role: &'static str,
    content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall>,
    refusal: Option<String>,
}

/// What a chunk adds to a message.
#[derive(Debug, Serialize, Default)]
pub(crate) struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
}

impl Delta {
    /// Whether it adds nothing.
    pub fn is_empty(&self) -> bool {
        let Self { role, content, reasoning_content, tool_calls } = self;
        role.is_none() && content.is_none() && reasoning_content.is_none() && tool_calls.is_empty()
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct ToolCall {
    /// In a stream: which call of the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
    function: Function,
}

#[derive(Debug, Serialize)]
struct Function {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    arguments: String,
}
