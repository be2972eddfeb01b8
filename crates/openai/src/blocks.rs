//! An answer as a list of blocks: thoughts, text and calls, in the order in which the model wrote them.
//!
//! The APIs that have such lists share it: an answer that is collected and a stream are made of the same changes.

use rustorch_llama::{FinishReason, TokenEvent, Usage};

use crate::logprobs::Scores;
use crate::timings::Times;
use crate::tools::{Piece, Reading};

/// What a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlockKind {
    Thoughts,
    Text,
    /// A call of a function.
    Call,
}

/// A block of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    pub kind: BlockKind,
    /// The function of a call.
    pub name: String,
    /// The thoughts, the text, or the arguments of a call.
    pub text: String,
}

/// What happens to the block with this index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Opened(usize),
    /// This was added to its text.
    Grew(usize, String),
    Closed(usize),
}

/// The blocks of an answer that is being read.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    /// `None` if the answer is text alone.
    reading: Option<Reading>,
    list: Vec<Block>,
    /// Whether the last one may still grow.
    is_open: bool,
    /// White space that is the beginning of a text, or only stands between other blocks.
    blank: String,
    /// Tokens that belong to thoughts.
    num_thought_tokens: usize,
    /// `None` if no log-probabilities are wanted.
    scores: Option<Scores>,
}

/// An answer so far, and what tells it from another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Said<'a> {
    /// Which choice it is.
    pub index: usize,
    /// The end of its ids.
    pub suffix: &'a str,
    /// Seconds since 1970.
    pub created: u64,
    pub model: &'a str,
    pub blocks: &'a [Block],
    pub num_thought_tokens: usize,
    pub num_prompt_tokens: usize,
    pub end: Option<(FinishReason, Usage)>,
    /// The stop string that ended it.
    pub stop_string: Option<&'a str>,
    pub times: &'a Times,
    /// `None` if no log-probabilities are wanted.
    pub scores: Option<&'a Scores>,
}

impl Said<'_> {
    pub fn has_calls(&self) -> bool {
        self.blocks.iter().any(|block| block.kind == BlockKind::Call)
    }

    /// Whether it was cut off.
    pub fn is_cut(&self) -> bool {
        matches!(self.end, Some((FinishReason::Length, _)))
    }
}

impl Blocks {
    pub fn new(reading: Option<Reading>, scores: Option<Scores>) -> Self {
        Self { reading, scores, ..Self::default() }
    }

    pub fn list(&self) -> &[Block] {
        &self.list
    }

    pub fn scores(&self) -> Option<&Scores> {
        self.scores.as_ref()
    }

    pub fn num_thought_tokens(&self) -> usize {
        self.num_thought_tokens
    }

    /// Takes a token's text.
    pub fn push(&mut self, token: &TokenEvent) -> Vec<Change> {
        let pieces = match &mut self.reading {
            Some(reading) => {
                let text = reading.text(token.token_id, &token.text);
                reading.reader.push(&text)
            }
            None => vec![Piece::Content(token.text.clone())],
        };
        let mut changes = Vec::new();
        self.take(pieces, &mut changes);
        let in_thoughts = self.is_open && self.list.last().is_some_and(|b| b.kind == BlockKind::Thoughts);
        self.num_thought_tokens += usize::from(in_thoughts);
        if let Some(scores) = &mut self.scores {
            scores.push(token);
            // White space belongs to the block that may follow.
            if let Some(last) = self.list.len().checked_sub(1).filter(|_| self.blank.is_empty()) {
                scores.list(last);
            }
        }
        changes
    }

    /// Ends the answer.
    pub fn finish(&mut self) -> Vec<Change> {
        let pieces = self.reading.as_mut().map_or_else(Vec::new, |reading| reading.reader.finish());
        let mut changes = Vec::new();
        self.take(pieces, &mut changes);
        // An answer of white space alone is that.
        let blank = std::mem::take(&mut self.blank);
        if self.list.is_empty() && !blank.is_empty() {
            self.grow(BlockKind::Text, blank, &mut changes);
        }
        if let (Some(scores), Some(last)) = (&mut self.scores, self.list.len().checked_sub(1)) {
            scores.list(last);
        }
        self.close(&mut changes);
        changes
    }

    fn take(&mut self, pieces: Vec<Piece>, changes: &mut Vec<Change>) {
        for piece in pieces {
            match piece {
                Piece::Reasoning(text) => self.grow(BlockKind::Thoughts, text, changes),
                Piece::Content(text) => {
                    let is_in_text =
                        self.is_open && self.list.last().is_some_and(|b| b.kind == BlockKind::Text);
                    self.blank.push_str(&text);
                    if is_in_text || !text.trim().is_empty() {
                        let text = std::mem::take(&mut self.blank);
                        self.grow(BlockKind::Text, text, changes);
                    }
                }
                Piece::Call(name) => self.open(BlockKind::Call, name, changes),
                Piece::Arguments(text) => self.grow(BlockKind::Call, text, changes),
            }
        }
    }

    /// Adds text to the last block, if that is of this kind, or to a new one.
    fn grow(&mut self, kind: BlockKind, text: String, changes: &mut Vec<Change>) {
        if text.is_empty() {
            return;
        }
        if !(self.is_open && self.list.last().is_some_and(|block| block.kind == kind)) {
            self.open(kind, String::new(), changes);
        }
        let index = self.list.len() - 1;
        self.list[index].text.push_str(&text);
        changes.push(Change::Grew(index, text));
    }

    fn open(&mut self, kind: BlockKind, name: String, changes: &mut Vec<Change>) {
        self.close(changes);
        if kind != BlockKind::Text {
            self.blank.clear();
        }
        changes.push(Change::Opened(self.list.len()));
        self.list.push(Block { kind, name, text: String::new() });
        self.is_open = true;
    }

    fn close(&mut self, changes: &mut Vec<Change>) {
        if std::mem::take(&mut self.is_open) {
            changes.push(Change::Closed(self.list.len() - 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(pieces: Vec<Piece>) -> (Vec<Change>, Vec<(BlockKind, String)>) {
        let mut blocks = Blocks::default();
        let mut changes = Vec::new();
        for piece in pieces {
            blocks.take(vec![piece], &mut changes);
        }
        changes.extend(blocks.finish());
        (changes, blocks.list.into_iter().map(|block| (block.kind, block.name + &block.text)).collect())
    }

    #[test]
    fn blocks_open_and_close_in_order() {
        use BlockKind::{Call, Text, Thoughts};
        use Change::{Closed, Grew, Opened};
        let text = |text: &str| Piece::Content(text.to_owned());
        let call = |name: &str| Piece::Call(name.to_owned());
        let arguments = |text: &str| Piece::Arguments(text.to_owned());
        let (changes, list) = run(vec![
            Piece::Reasoning("so".to_owned()),
            text("\n"),
            text("He"),
            text(" y"),
            text("\n"),
            call("f"),
            arguments("{"),
            arguments("}"),
            text("\n"),
            call("g"),
        ]);
        let grew = |index, text: &str| Grew(index, text.to_owned());
        let expect = [
            Opened(0),
            grew(0, "so"),
            Closed(0),
            Opened(1),
            grew(1, "\nHe"),
            grew(1, " y"),
            grew(1, "\n"),
            Closed(1),
            Opened(2),
            grew(2, "{"),
            grew(2, "}"),
            Closed(2),
            Opened(3),
            Closed(3),
        ];
        assert_eq!(changes, expect);
        let expect = [(Thoughts, "so"), (Text, "\nHe y\n"), (Call, "f{}"), (Call, "g")];
        assert_eq!(list, expect.map(|(kind, text)| (kind, text.to_owned())));
        assert_eq!(run(vec![text(" ")]).1, [(Text, " ".to_owned())]);
        assert_eq!(run(vec![text("")]).1, []);
    }
}
