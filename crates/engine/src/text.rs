//! The text of one sequence, as it is generated.

use std::sync::Arc;

use tokenizer::{Detokenizer, Tokenizer};

use crate::stop::{Matched, StopMatcher};

/// Turns generated tokens into text that can be shown: whole characters, cut at the first stop string.
#[derive(Debug)]
pub(crate) struct TextStream {
    tokenizer: Arc<Tokenizer>,
    detokenizer: Detokenizer,
    stop: StopMatcher,
}

impl TextStream {
    /// Text that goes on after a prompt, up to the first of `stop`.
    pub fn new(tokenizer: Arc<Tokenizer>, stop: Vec<String>) -> Self {
        let detokenizer = tokenizer.detokenizer().continuing();
        Self { tokenizer, detokenizer, stop: StopMatcher::new(stop) }
    }

    /// The text that a token completes, without looking for stop strings in it.
    pub fn push_unstopped(&mut self, token_id: u32) -> String {
        self.detokenizer.push(&self.tokenizer, token_id)
    }

    /// The text that a token completes, and whether a stop string is among it.
    pub fn push(&mut self, token_id: u32) -> Matched {
        let piece = self.detokenizer.push(&self.tokenizer, token_id);
        self.stop.push(&piece)
    }

    /// Ends the text: what was withheld, in case it became a stop string or a whole character.
    pub fn finish(&mut self) -> String {
        self.stop.take_withheld() + &self.detokenizer.finish()
    }
}
