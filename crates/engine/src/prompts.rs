//! How the prompts of a step share what decodes leave of it.
//!
//! The oldest prompt gets half of the time and of the tokens; the rest goes to the others, those first that have the least to
//! run, and what nobody wants to the oldest again. So a short prompt has its first token after few steps, however long
//! those before it are, and every prompt comes to its end, however many short ones follow: once it is the oldest, it has
//! half of every step.
//!
//! Time is a wish, progress is not: the oldest and the first of the others get [`LEAST_CHUNK`] tokens in any case.

use crate::pacing::{Allowance, HeadRows};

/// Tokens of a chunk that no lack of time makes smaller. Attention passes over all keys of a chunk's past, however short the
/// chunk is, so chunks of fewer tokens would slow long prompts down for little.
pub(crate) const LEAST_CHUNK: usize = 4;

/// A running sequence with a prompt to run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Prompt {
    /// Index in the list of running sequences.
    pub seq_idx: usize,
    /// The position of the first token to run.
    start: usize,
    /// Tokens to run until it can generate.
    num_pending: usize,
    /// Of those, how many, from the first on, need no row of the LM head; `None` if only the last needs one.
    num_headless: Option<usize>,
    /// The part of them that this step runs.
    pub num_tokens: usize,
}

/// What is left of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    pub num_tokens: usize,
    /// Most tokens of one sequence.
    pub max_chunk: usize,
    /// Rows of the LM head beside one of each sequence.
    pub num_rows: usize,
    /// Whether the step has a chunk of another prompt, of a higher priority, so that these may have to wait.
    pub has_prompts: bool,
}

impl Prompt {
    pub fn new(seq_idx: usize, start: usize, num_pending: usize) -> Self {
        Self { seq_idx, start, num_pending, num_headless: None, num_tokens: 0 }
    }

    /// The same if the tokens from this position on need rows of the LM head.
    pub fn with_rows_from(self, first: Option<usize>) -> Self {
        Self { num_headless: first.map(|first| first.saturating_sub(self.start)), ..self }
    }

    fn rows(&self) -> HeadRows {
        if self.num_headless.is_some() { HeadRows::All } else { HeadRows::Last }
    }

    /// Rows that so many tokens need beside the one that every sequence has.
    fn spare_rows(&self, num_tokens: usize) -> usize {
        let num_headless = self.num_headless.unwrap_or(usize::MAX);
        num_tokens.saturating_sub(num_headless).saturating_sub(1)
    }

    /// The most tokens that it could have in all, as far as there are rows for them.
    fn most_with_rows(&self, room: &Room) -> usize {
        match self.num_headless {
            None => usize::MAX,
            Some(num_headless) => num_headless + 1 + self.spare_rows(self.num_tokens) + room.num_rows,
        }
    }

    /// Gives it up to `most` tokens, of what is left.
    fn give(&mut self, most: usize, room: &mut Room, allowance: &mut Allowance) {
        let wanted = self.num_pending.min(room.max_chunk).min(self.most_with_rows(room)) - self.num_tokens;
        let num_tokens = wanted.min(most).min(room.num_tokens);
        allowance.take(num_tokens, self.start + self.num_tokens, self.rows());
        let num_rows = self.spare_rows(self.num_tokens + num_tokens) - self.spare_rows(self.num_tokens);
        room.num_rows -= num_rows;
        room.num_tokens -= num_tokens;
        self.num_tokens += num_tokens;
    }

    /// Tokens that a share of the time suffices for.
    fn affordable(&self, share: f64, allowance: &Allowance) -> usize {
        allowance.tokens(share, self.start + self.num_tokens, self.rows())
    }
}

/// Divides the rest of a step among prompts, which come in the order of their rank, the oldest first.
pub(crate) fn divide(prompts: &mut [Prompt], mut room: Room, allowance: &mut Allowance) {
    let Some((oldest, others)) = prompts.split_first_mut() else { return };
    let least = if room.has_prompts { 0 } else { LEAST_CHUNK };
    let (share, most) = match others.is_empty() {
        true => (1.0, room.num_tokens),
        false => (0.5, room.num_tokens.div_ceil(2)),
    };
    let num_tokens = oldest.affordable(share, allowance).max(least).min(most);
    oldest.give(num_tokens, &mut room, allowance);
    // The sort is stable: of those that have as much to run, the older goes first.
    others.sort_by_key(|prompt| prompt.num_pending);
    for (idx, prompt) in others.iter_mut().enumerate() {
        let least = if idx == 0 { least } else { 0 };
        let num_tokens = prompt.affordable(1.0, allowance).max(least);
        prompt.give(num_tokens, &mut room, allowance);
    }
    let num_tokens = oldest.affordable(1.0, allowance);
    oldest.give(num_tokens, &mut room, allowance);
}
