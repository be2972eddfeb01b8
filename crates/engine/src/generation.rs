//! What a sequence that generates is made of, beside its tokens: how they are chosen, their text, and when it ends.

use model::{NO_INDEX, Output, Rows, Want};

use crate::constraint::{Constrained, TokenMask};
use crate::request::{FinishReason, TokenEvent, TokenLogprobs};
use crate::sampler::Sampler;
use crate::sampling_params::SamplingParams;
use crate::sampling_state::SamplingState;
use crate::scoring::Scoring;
use crate::stop::Matched;
use crate::text::TextStream;

/// The state of one generation. A preemption leaves it as it is.
#[derive(Debug)]
pub(crate) struct Generation {
    /// Most tokens to generate, so that the context suffices.
    pub max_tokens: usize,
    /// Tokens that end the sequence.
    pub stop_token_ids: Vec<u32>,
    pub params: SamplingParams,
    pub sampling: SamplingState,
    /// The prompt's log-probabilities, until they are known.
    pub scoring: Option<Scoring>,
    /// What the text must be.
    pub constraint: Option<Constrained>,
    /// None if the engine has no tokenizer.
    pub text: Option<TextStream>,
    /// The token that the row of logits gave that comes next, if that was chosen before the row is taken in.
    pub chosen: Option<Chosen>,
}

/// A token that was chosen, if the row has a finite logit, and its log-probabilities if they are wanted.
pub(crate) type Chosen = Option<(u32, Option<TokenLogprobs>)>;

/// Why there is no next token.
#[derive(Debug)]
pub(crate) enum Stuck {
    NoFiniteLogit,
    /// What a constraint says.
    Constraint(String),
}

impl Generation {
    /// What the token after `num_generated` others takes of these rows: tokens that the device chooses, if that is all, and
    /// it `draws`.
    pub fn want(&self, num_generated: usize, rows: Rows, draws: bool) -> Want {
        let ends_freely = num_generated >= self.params.min_tokens || self.stop_token_ids.is_empty();
        let is_free = self.constraint.as_ref().is_none_or(Constrained::is_free);
        if !ends_freely || !is_free {
            return Want::Logits(rows);
        }
        if self.params.takes_highest_logit() {
            return Want::Argmax(rows);
        }
        let draw = (draws && rows == Rows::Last).then(|| self.sampling.next_draw(&self.params)).flatten();
        draw.map_or(Want::Logits(rows), Want::Draw)
    }

    /// Chooses the token after `num_generated` others, from a row of logits or as the device chose it, and says whether it
    /// is the last.
    pub fn advance(
        &mut self,
        num_generated: usize,
        output: Output<'_>,
        sampler: &mut Sampler,
    ) -> Result<(TokenEvent, Option<FinishReason>), Stuck> {
        let mut may_end = num_generated >= self.params.min_tokens;
        let mut mask = None;
        if let Some(constraint) = &mut self.constraint
            && let Some(next) = constraint.next().map_err(Stuck::Constraint)?
        {
            let ends = self.stop_token_ids.iter().filter(|_| next.may_end);
            ends.for_each(|&token_id| next.mask.allow(token_id));
            // Where a grammar ends, nothing else can follow.
            may_end |= next.is_finished;
            mask = Some(std::mem::take(&mut next.mask));
        }
        let (token_id, logprobs) = match output {
            Output::Tokens(&[token_id]) => {
                if !self.params.takes_highest_logit() {
                    self.sampling.take_draw();
                }
                (Some(token_id).filter(|&id| id != NO_INDEX).ok_or(Stuck::NoFiniteLogit)?, None)
            }
            Output::Logits(logits) => {
                let chosen = self.chosen.take();
                let chosen = chosen.unwrap_or_else(|| self.choose(logits, may_end, mask.as_ref(), sampler));
                chosen.ok_or(Stuck::NoFiniteLogit)?
            }
            output => unreachable!("a token from {output:?}"),
        };
        self.sampling.count(token_id);

        let (mut text, stopped) = self.take_text(token_id, may_end);
        let mut has_ended = stopped;
        if !stopped && let Some(constraint) = &mut self.constraint {
            constraint.commit(token_id, &mut sampler.mask_threads).map_err(Stuck::Constraint)?;
            // Without a token that could end it, the text ends with the grammar.
            has_ended = self.stop_token_ids.is_empty()
                && constraint.next().map_err(Stuck::Constraint)?.is_some_and(|next| next.is_finished);
        }
        let is_full = num_generated + 1 == self.max_tokens;
        if (has_ended || is_full) && !stopped {
            text += &self.text.as_mut().map(TextStream::finish).unwrap_or_default();
        }
        let reason = match (has_ended, is_full) {
            (true, _) => Some(FinishReason::Stop),
            (false, true) => Some(FinishReason::Length),
            (false, false) => None,
        };
        let num_in_text = match &self.text {
            Some(text) => text.num_in_text(),
            None => num_generated + usize::from(!stopped),
        };
        Ok((TokenEvent { token_id, text, logprobs, num_in_text }, reason))
    }

    /// Chooses the token after `num_generated` others, from a row of logits that `advance` takes in next.
    ///
    /// # Panics
    /// With a constraint: its mask is asked for when the row is taken in.
    pub fn choose_ahead(&mut self, num_generated: usize, logits: &[f32], sampler: &mut Sampler) {
        assert!(self.constraint.is_none(), "a token of a constrained sequence was chosen without its mask");
        let may_end = num_generated >= self.params.min_tokens;
        self.chosen = Some(self.choose(logits, may_end, None, sampler));
    }

    fn choose(
        &mut self,
        logits: &[f32],
        may_end: bool,
        mask: Option<&TokenMask>,
        sampler: &mut Sampler,
    ) -> Chosen {
        let forbidden = if may_end { &[][..] } else { &self.stop_token_ids };
        let token_id = sampler.sample(logits, &self.params, &mut self.sampling, forbidden, mask)?;
        let logprobs = self.params.logprobs.map(|num_top| sampler.logprobs(logits, token_id, num_top));
        Some((token_id, logprobs))
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
}
