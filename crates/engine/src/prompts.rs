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
    /// The part of them that this step runs.
    pub num_tokens: usize,
}

/// What is left of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    pub num_tokens: usize,
    /// Most tokens of one sequence.
    pub max_chunk: usize,
    /// Whether the step has a chunk of another prompt, of a higher priority, so that these may have to wait.
    pub has_prompts: bool,
}

impl Prompt {
    pub fn new(seq_idx: usize, start: usize, num_pending: usize) -> Self {
        Self { seq_idx, start, num_pending, num_tokens: 0 }
    }

    /// Gives it up to `most` tokens, of what is left.
    fn give(&mut self, most: usize, room: &mut Room, allowance: &mut Allowance) {
        let wanted = self.num_pending.min(room.max_chunk) - self.num_tokens;
        let num_tokens = wanted.min(most).min(room.num_tokens);
        allowance.take(num_tokens, self.start + self.num_tokens, HeadRows::Last);
        room.num_tokens -= num_tokens;
        self.num_tokens += num_tokens;
    }

    /// Tokens that a share of the time suffices for.
    fn affordable(&self, share: f64, allowance: &Allowance) -> usize {
        allowance.tokens(share, self.start + self.num_tokens, HeadRows::Last)
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
