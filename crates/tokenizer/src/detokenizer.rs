//! Streaming detokenisation: from tokens to text, token by token.
//!
//! A token is a string of bytes, and a character may be spread over several tokens. Bytes that may be the beginning of a
//! character are held back until the character is complete. Invalid bytes become U+FFFD, one for each maximal invalid part, as
//! in [`String::from_utf8_lossy`]. The pieces together are the text that decoding all tokens at once would give.

use crate::tokenizer::Tokenizer;

/// Turns one sequence's tokens into text. Made by [`Tokenizer::detokenizer`]; a clone continues from the same
/// point.
#[derive(Clone, Debug)]
pub struct Detokenizer {
    /// The beginning of a character; at most three bytes between calls.
    held: Vec<u8>,
    /// Whether a space at the beginning of the next token is the one that encoding put there.
    strips_space: bool,
    control: ControlTokens,
}

/// Whether control tokens (`<|im_end|>`, BOS, ..) show in text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ControlTokens {
    /// They have no text.
    #[default]
    Hide,
    /// They are text as the vocabulary spells them.
    Show,
}

impl Tokenizer {
    /// The text of `tokens`, as a [`Detokenizer`] makes it: invalid UTF-8 becomes U+FFFD, ids beyond the vocabulary have no
    /// text, and the space that a SentencePiece vocabulary puts before every text is removed.
    pub fn decode(&self, tokens: &[u32], control: ControlTokens) -> String {
        let mut detokenizer = self.detokenizer().control_tokens(control);
        let mut text: String = tokens.iter().map(|&id| detokenizer.push(self, id)).collect();
        text.push_str(&detokenizer.finish());
        text
    }

    /// Decodes the tokens of a new text one by one; see [`Detokenizer::continuing`] for a text that continues another.
    pub fn detokenizer(&self) -> Detokenizer {
        Detokenizer {
            held: Vec::new(),
            strips_space: self.adds_space_prefix(),
            control: ControlTokens::default(),
        }
    }
}

impl Detokenizer {
    /// For a text that continues another, such as a model's answer to a prompt: a space at its beginning is kept, and not
    /// taken for the one that a SentencePiece vocabulary puts before every text.
    #[must_use]
    pub fn continuing(mut self) -> Self {
        self.strips_space = false;
        self
    }

    /// Shows or hides control tokens; by default they are hidden.
    #[must_use]
    pub fn control_tokens(mut self, control: ControlTokens) -> Self {
        self.control = control;
        self
    }

    /// Takes the next token of the sequence and returns what text is now complete, often nothing.
    ///
    /// An id beyond the vocabulary has no text: models pad their output to a round number of rows.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> String {
        if self.control == ControlTokens::Show || !tokenizer.is_control(id) {
            let bytes = tokenizer.token_bytes(id);
            let bytes = bytes.strip_prefix(b" ").filter(|_| self.strips_space).unwrap_or(bytes);
            self.held.extend_from_slice(bytes);
        }
        self.strips_space = tokenizer.adds_space_after(id);
        self.take_complete()
    }

    /// Ends the text: returns what was held back, as U+FFFD.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.held)).into_owned()
    }

    fn take_complete(&mut self) -> String {
        let mut text = String::with_capacity(self.held.len());
        let mut rest = self.held.as_slice();
        let incomplete = loop {
            let error = match str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    break &[][..];
                }
                Err(error) => error,
            };
            let (valid, invalid) = rest.split_at(error.valid_up_to());
            text.push_str(str::from_utf8(valid).expect("checked just now"));
            match error.error_len() {
                Some(len) => {
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &invalid[len..];
                }
                None => break invalid,
            }
        };
        self.held = incomplete.to_vec();
        text
    }
}
