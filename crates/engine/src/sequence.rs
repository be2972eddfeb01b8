//! One request on its way through the engine.
//!
//! A preemption takes a sequence's pages and nothing else: its tokens, its generator, its penalty counts and its text stay.
//! So the tokens whose K and V have to be computed again are a longer prompt, and no other code path knows of it.

use crate::error::EngineError;
use crate::events::EventSender;
use crate::request::{FinishReason, TokenEvent, Usage};
use crate::sampler::{Sampler, SamplingState};
use crate::sampling_params::SamplingParams;
use crate::stop::Matched;
use crate::text::TextStream;

/// A prompt and what was generated so far, with the pages that hold their K and V.
///
/// Between steps `num_cached_tokens < token_ids.len()`: the last token is still to be run.
#[derive(Debug)]
pub(crate) struct Sequence {
    /// Rises in the order of arrival. Given by the scheduler.
    pub id: u64,
    /// The prompt, then the generated tokens.
    pub token_ids: Vec<u32>,
    pub num_prompt_tokens: usize,
    /// Tokens, from the first on, whose K and V are in the pages.
    pub num_cached_tokens: usize,
    /// Of those, how many were found there when the sequence was first given pages.
    pub num_found_tokens: usize,
    /// The pages, in the order of positions. Empty while the sequence waits.
    pub block_table: Vec<u32>,
    /// Most tokens to generate, so that the context suffices.
    pub max_tokens: usize,
    /// Tokens that end the sequence.
    pub stop_token_ids: Vec<u32>,
    pub params: SamplingParams,
    pub sampling: SamplingState,
    /// None if the engine has no tokenizer.
    pub text: Option<TextStream>,
    pub events: EventSender,
}

impl Sequence {
    /// Tokens that have to be run before the next one can be sampled.
    pub fn num_pending_tokens(&self) -> usize {
        self.token_ids.len() - self.num_cached_tokens
    }

    /// Tokens whose K and V will be stored at most: the last token generated is not run.
    pub fn max_cached_tokens(&self) -> usize {
        self.num_prompt_tokens + self.max_tokens - 1
    }

    fn num_generated_tokens(&self) -> usize {
        self.token_ids.len() - self.num_prompt_tokens
    }

    /// Samples the token after the last one from its `logits`, takes it in and tells the caller; ends the events if the
    /// sequence ends by it.
    pub fn advance(&mut self, logits: &[f32], sampler: &mut Sampler) {
        let may_end = self.num_generated_tokens() >= self.params.min_tokens;
        let forbidden = if may_end { &[][..] } else { &self.stop_token_ids };
        let Some(token_id) = sampler.sample(logits, &self.params, &mut self.sampling, forbidden) else {
            return self.events.fail(EngineError::NoFiniteLogit { position: self.token_ids.len() });
        };
        let logprobs = self.params.logprobs.map(|num_top| sampler.logprobs(logits, token_id, num_top));
        self.token_ids.push(token_id);
        self.sampling.count(token_id);

        let (mut text, stopped) = self.take_text(token_id, may_end);
        let is_full = self.num_generated_tokens() == self.max_tokens;
        if is_full && !stopped {
            text += &self.text.as_mut().map(TextStream::finish).unwrap_or_default();
        }
        self.events.token(TokenEvent { token_id, text, logprobs });
        if stopped {
            self.events.finish(FinishReason::Stop, self.usage());
        } else if is_full {
            self.events.finish(FinishReason::Length, self.usage());
        }
    }

    /// The text that a generated token completes, and whether it ends the sequence.
    fn take_text(&mut self, token_id: u32, may_end: bool) -> (String, bool) {
        let is_stop_token = may_end && self.stop_token_ids.contains(&token_id);
        let Some(text) = &mut self.text else { return (String::new(), is_stop_token) };
        if is_stop_token {
            return (text.finish(), true);
        }
        if !may_end {
            return (text.push_unstopped(token_id), false);
        }
        match text.push(token_id) {
            Matched::Continue(piece) => (piece, false),
            Matched::Stop(rest) => (rest, true),
        }
    }

    fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: self.num_prompt_tokens,
            completion_tokens: self.num_generated_tokens(),
            cached_tokens: self.num_found_tokens,
        }
    }
}
