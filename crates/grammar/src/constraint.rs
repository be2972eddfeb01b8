//! One text that follows a grammar: which tokens may come next.

use std::fmt;
use std::sync::Arc;

use llguidance::Matcher;
use tokenizer::Tokenizer;

use crate::error::{GrammarError, Result};

/// A set of tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    /// Bit `id % 32` of word `id / 32` says whether a token is in it.
    words: Vec<u32>,
}

impl Mask {
    /// Whether a token is in the set.
    pub fn allows(&self, token_id: u32) -> bool {
        self.words.get(token_id as usize / 32).is_some_and(|word| word >> (token_id % 32) & 1 == 1)
    }

    /// Its words: bit `id % 32` of word `id / 32` is a token's.
    pub fn into_words(self) -> Vec<u32> {
        self.words
    }

    fn remove(&mut self, token_id: u32) {
        if let Some(word) = self.words.get_mut(token_id as usize / 32) {
            *word &= !(1 << (token_id % 32));
        }
    }
}

/// The state of one text. It does not depend on other texts of the same grammar.
///
/// Tokens that end generation are in no mask: [`may_end`](Self::may_end) says whether the text may end where it is.
pub struct Constraint {
    tokenizer: Arc<Tokenizer>,
    phase: Phase,
}

enum Phase {
    /// Free text, until it has one of the openings.
    Free {
        openings: Arc<[String]>,
        fresh: Box<Matcher>,
        tail: Vec<u8>,
    },
    Following(Box<Matcher>),
}

impl Constraint {
    pub(crate) fn new(tokenizer: Arc<Tokenizer>, matcher: Matcher, openings: &Arc<[String]>) -> Self {
        let phase = if openings.is_empty() {
            Phase::Following(Box::new(matcher))
        } else {
            Phase::Free { openings: Arc::clone(openings), fresh: Box::new(matcher), tail: Vec::new() }
        };
        Self { tokenizer, phase }
    }

    /// Whether any token may follow and the text may end: before a lazy grammar's opening.
    pub fn is_free(&self) -> bool {
        matches!(self.phase, Phase::Free { .. })
    }

    /// The tokens that may follow. Empty once the grammar [is finished](Self::is_finished).
    ///
    /// # Errors
    /// [`GrammarError::Stuck`] if that takes more than the limits allow, or no token may follow and the text may not end.
    pub fn mask(&mut self) -> Result<Mask> {
        let num_words = self.tokenizer.vocab_size().div_ceil(32);
        if self.is_finished() {
            return Ok(Mask { words: vec![0; num_words] });
        }
        let Phase::Following(matcher) = &mut self.phase else {
            return Ok(Mask { words: vec![u32::MAX; num_words] });
        };
        let bits = matcher.compute_mask().map_err(stuck)?;
        let mut mask = Mask { words: bits.as_slice().to_vec() };
        self.tokenizer.eog_tokens().iter().for_each(|&token_id| mask.remove(token_id));
        Ok(mask)
    }

    /// Whether the text may end here.
    ///
    /// # Errors
    /// [`GrammarError::Stuck`] after an earlier one.
    pub fn may_end(&mut self) -> Result<bool> {
        if self.is_finished() {
            return Ok(true);
        }
        match &mut self.phase {
            Phase::Free { .. } => Ok(true),
            Phase::Following(matcher) => matcher.is_accepting().map_err(stuck),
        }
    }

    /// Whether nothing but the end may follow. If it is not, the [mask](Self::mask) may still be empty where the text may end.
    pub fn is_finished(&self) -> bool {
        matches!(&self.phase, Phase::Following(matcher) if matcher.is_stopped() && !matcher.is_error())
    }

    /// Goes on by a token that the mask allows.
    ///
    /// # Errors
    /// [`GrammarError::Stuck`] if the token may not follow.
    pub fn commit(&mut self, token_id: u32) -> Result<()> {
        let (openings, tail, fresh) = match &mut self.phase {
            Phase::Following(matcher) => return matcher.consume_token(token_id).map_err(stuck),
            Phase::Free { openings, fresh, tail } => (openings, tail, fresh),
        };
        tail.extend_from_slice(self.tokenizer.token_bytes(token_id));
        let ends =
            openings.iter().filter_map(|opening| Some(find(tail, opening.as_bytes())? + opening.len()));
        let Some(end) = ends.min() else {
            let longest = openings.iter().map(String::len).max().unwrap_or(0);
            tail.drain(..tail.len().saturating_sub(longest.saturating_sub(1)));
            return Ok(());
        };
        // The grammar begins inside this token: it takes the rest as the vocabulary's shorter tokens.
        let rest = tail.split_off(end);
        tail.clear();
        let mut matcher = fresh.deep_clone();
        if self.consume_bytes(&mut matcher, &rest) {
            self.phase = Phase::Following(Box::new(matcher));
        } else if let Phase::Free { tail, .. } = &mut self.phase {
            // What follows the opening is not the grammar's, so it was none.
            *tail = rest;
        }
        Ok(())
    }

    /// Whether a matcher takes these bytes.
    fn consume_bytes(&self, matcher: &mut Matcher, bytes: &[u8]) -> bool {
        let Ok(env) = matcher.tok_env() else { return false };
        let tokens = env.tok_trie().greedy_tokenize(bytes);
        let covered: usize = tokens.iter().map(|&id| self.tokenizer.token_bytes(id).len()).sum();
        covered == bytes.len() && matcher.try_consume_tokens(&tokens).is_ok_and(|taken| taken == tokens.len())
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

fn stuck(error: impl fmt::Display) -> GrammarError {
    let message = error.to_string();
    GrammarError::Stuck(message.lines().next().unwrap_or_default().to_owned())
}

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = match &self.phase {
            Phase::Free { .. } => "free",
            Phase::Following(_) => "following",
        };
        f.debug_struct("Constraint").field("phase", &phase).finish_non_exhaustive()
    }
}
