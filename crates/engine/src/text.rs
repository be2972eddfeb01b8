//! The text of one sequence, as it is generated.

use std::collections::VecDeque;
use std::sync::Arc;

use tokenizer::{ControlTokens, Detokenizer, Tokenizer};

use crate::stop::{Matched, StopMatcher};

/// Turns generated tokens into text that can be shown: whole characters, cut at the first stop string.
#[derive(Debug)]
pub(crate) struct TextStream {
    tokenizer: Arc<Tokenizer>,
    detokenizer: Detokenizer,
    stop: StopMatcher,
    /// Bytes of the text, and those of them that were passed on.
    len: usize,
    num_passed: usize,
    /// Where the text of tokens begins of which a stop string may yet cut away all.
    undecided: VecDeque<usize>,
    num_in_text: usize,
}

impl TextStream {
    /// Text that goes on after a prompt, up to the first of `stop`.
    pub fn new(tokenizer: Arc<Tokenizer>, stop: Vec<String>, control_tokens: ControlTokens) -> Self {
        let detokenizer = tokenizer.detokenizer().continuing().control_tokens(control_tokens);
        Self {
            tokenizer,
            detokenizer,
            stop: StopMatcher::new(stop),
            len: 0,
            num_passed: 0,
            undecided: VecDeque::new(),
            num_in_text: 0,
        }
    }

    /// How many of the tokens are certain to have a part in the text.
    pub fn num_in_text(&self) -> usize {
        self.num_in_text
    }

    /// The stop string that has ended the text.
    pub fn stop_string(&self) -> Option<&str> {
        self.stop.found()
    }

    /// The text that a token completes, without looking for stop strings in it.
    pub fn push_unstopped(&mut self, token_id: u32) -> String {
        let piece = self.detokenize(token_id);
        self.pass(&piece);
        piece
    }

    /// The text that a token completes, and whether a stop string is among it.
    pub fn push(&mut self, token_id: u32) -> Matched {
        let piece = self.detokenize(token_id);
        let matched = self.stop.push(&piece);
        let (Matched::Continue(text) | Matched::Stop(text)) = &matched;
        self.pass(text);
        matched
    }

    /// Ends the text: what was withheld, in case it became a stop string or a whole character.
    pub fn finish(&mut self) -> String {
        self.num_in_text += self.undecided.drain(..).len();
        self.stop.take_withheld() + &self.detokenizer.finish()
    }

    fn detokenize(&mut self, token_id: u32) -> String {
        self.undecided.push_back(self.len);
        let piece = self.detokenizer.push(&self.tokenizer, token_id);
        self.len += piece.len();
        piece
    }

    fn pass(&mut self, text: &str) {
        self.num_passed += text.len();
        let is_decided = |&start: &usize| start < self.num_passed || self.stop.is_empty();
        while self.undecided.front().is_some_and(is_decided) {
            self.undecided.pop_front();
            self.num_in_text += 1;
        }
    }
}
