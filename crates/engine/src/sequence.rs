//! One request on its way through the engine.
//!
//! A preemption takes a sequence's pages and nothing else: its tokens, its generator, its penalty counts and its text stay.
//! So the tokens whose K and V have to be computed again are a longer prompt, and no other code path knows of it.

use model::{Output, Rows, Want};

use crate::embedding::Pooler;
use crate::error::EngineError;
use crate::events::EventSender;
use crate::generation::{Generation, Stuck};
use crate::prefix_index::PageName;
use crate::replicas::LoadShare;
use crate::request::{Client, FinishReason, Pooling, Priority, Usage};
use crate::sampler::Sampler;
use crate::scoring::Scoring;

/// A prompt and what was generated so far, with the pages that hold their K and V.
///
/// Between steps `num_cached_tokens < token_ids.len()`: the last token is still to be run.
#[derive(Debug)]
pub(crate) struct Sequence {
    /// Rises in the order of arrival. Given by the scheduler.
    pub id: u64,
    pub priority: Priority,
    pub client: Client,
    /// Its turn among those of its priority. Given by the scheduler.
    pub turn: u64,
    /// The prompt, then the generated tokens.
    pub token_ids: Vec<u32>,
    pub num_prompt_tokens: usize,
    /// Guesses of the tokens that follow, which the step under way checks. Empty between steps.
    pub drafts: Vec<u32>,
    /// Tokens whose K and V will be stored at most.
    pub max_cached_tokens: usize,
    /// Tokens, from the first on, whose K and V are in the pages.
    pub num_cached_tokens: usize,
    /// Of those, how many were found in the cache when the sequence was first given pages; `None` before.
    pub num_found_tokens: Option<usize>,
    /// The pages, in the order of positions. Empty while the sequence waits.
    pub block_table: Vec<u32>,
    /// What the full pages of its tokens are called, as far as that was needed yet. Tokens never change, so names stay.
    pub page_names: Vec<PageName>,
    /// Pages, from the first on, that were found or made findable.
    pub num_published_pages: usize,
    pub task: Task,
    pub events: EventSender,
    /// What it adds to the load of its engine, if that is one of several.
    pub load: Option<LoadShare>,
}

/// What is done with the prompt.
#[derive(Debug)]
pub(crate) enum Task {
    Generate(Box<Generation>),
    Embed(Pooler),
}

impl Sequence {
    /// Tokens that have to be run before the next one can be sampled.
    pub fn num_pending_tokens(&self) -> usize {
        self.token_ids.len() - self.num_cached_tokens
    }

    /// Who runs and stays first: by priority, then by turn, then by arrival.
    pub fn rank(&self) -> (Priority, u64, u64) {
        (self.priority, self.turn, self.id)
    }

    /// Forgets what belongs to an engine, so that another can take it in. Its pages were taken back.
    pub fn leave(&mut self) {
        debug_assert!(self.block_table.is_empty(), "sequence {} leaves with pages", self.id);
        self.page_names.clear();
        self.drafts.clear();
        self.load = None;
    }

    /// Whether it generates tokens.
    pub fn is_generating(&self) -> bool {
        matches!(self.task, Task::Generate(_))
    }

    /// Whether guesses may run behind its last token: it generates, and the rows of its prompt, whose scores are counted from
    /// the first token on, are all scored.
    pub fn takes_drafts(&self) -> bool {
        self.is_generating() && self.num_scored_rows().is_none()
    }

    /// What the next `num_tokens` tokens have to yield: its own, and then the drafts; on a device that `draws` or does not.
    pub fn want(&self, num_tokens: usize, draws: bool) -> Want {
        let is_last = num_tokens == self.num_pending_tokens() + self.drafts.len();
        let rows = if self.drafts.is_empty() { Rows::Last } else { Rows::LastN(1 + self.drafts.len()) };
        if let Some(num_scored) = self.num_scored_rows() {
            let end = self.num_cached_tokens + num_tokens;
            return match end.saturating_sub(num_scored.max(self.num_cached_tokens)) {
                0 => Want::None,
                num_rows => Want::Logits(Rows::LastN(num_rows)),
            };
        }
        match &self.task {
            Task::Embed(pooler) if pooler.pooling() == Pooling::Mean => Want::Hidden(Rows::All),
            _ if !is_last => Want::None,
            Task::Embed(_) => Want::Hidden(Rows::Last),
            Task::Generate(generation) => {
                // A constraint may set in at any token, and then asks for the logits of the next.
                let is_alone = self.drafts.is_empty() || generation.constraint.is_none();
                match is_alone {
                    true => generation.want(self.num_generated_tokens(), rows, draws),
                    false => Want::Logits(rows),
                }
            }
        }
    }

    /// Takes in what `num_tokens` tokens yielded, which have just run, and tells the caller; ends the events if the
    /// sequence ends by it. Returns how many tokens were generated.
    pub fn advance(&mut self, num_tokens: usize, output: Output<'_>, sampler: &mut Sampler) -> usize {
        match (&mut self.task, output) {
            (Task::Generate(_), output) => return self.advance_generation(num_tokens, output, sampler),
            (Task::Embed(pooler), Output::Hidden(hidden_states)) => {
                if num_tokens == self.num_cached_tokens {
                    pooler.restart();
                }
                pooler.push(hidden_states);
                if self.num_pending_tokens() == 0 {
                    self.finish_embedding();
                }
            }
            (task, output) => unreachable!("{output:?} for {task:?}"),
        }
        0
    }

    /// Scores the prompt's tokens, if that is wanted, and generates what follows the last.
    fn advance_generation(&mut self, num_tokens: usize, output: Output<'_>, sampler: &mut Sampler) -> usize {
        let end = self.num_cached_tokens;
        let mut output = output;
        if let Some(first) = self.num_scored_rows() {
            let first = first.max(end - num_tokens);
            for row in first..end {
                self.score(output.row(row - first, end - first), sampler);
            }
            if self.events.has_ended() || self.num_pending_tokens() > 0 {
                return 0;
            }
            output = output.row(end - 1 - first, end - first);
        }
        self.check_drafts(output, sampler)
    }

    /// Rows of the prompt, from the first on, whose next tokens were scored; `None` if that is done or nobody wants it.
    pub fn num_scored_rows(&self) -> Option<usize> {
        match &self.task {
            Task::Generate(generation) => generation.scoring.as_ref().map(Scoring::num_rows),
            Task::Embed(_) => None,
        }
    }

    /// Scores the token behind the next row of the prompt, unless that is the last.
    pub fn score(&mut self, row: Output<'_>, sampler: &mut Sampler) {
        let Task::Generate(generation) = &mut self.task else { unreachable!("a score for {:?}", self.task) };
        let Some(scoring) = &mut generation.scoring else { return };
        let num_rows = scoring.num_rows();
        if num_rows + 1 < self.num_prompt_tokens && !scoring.push(row, self.token_ids[num_rows + 1], sampler)
        {
            return self.events.fail(EngineError::NoFiniteLogit { position: num_rows + 1 });
        }
        if scoring.num_rows() + 1 == self.num_prompt_tokens {
            let logprobs = generation.scoring.take().map(Scoring::into_logprobs);
            self.events.prompt(logprobs.unwrap_or_default());
        }
    }

    /// Generates a token from each row, as long as the drafts that were run are the tokens that are generated.
    fn check_drafts(&mut self, output: Output<'_>, sampler: &mut Sampler) -> usize {
        let mut drafts = std::mem::take(&mut self.drafts);
        let (num_before, num_rows) = (self.token_ids.len(), 1 + drafts.len());
        for row in 0..num_rows {
            self.generate(output.row(row, num_rows), sampler);
            if self.events.has_ended() || drafts.get(row) != self.token_ids.last() {
                break;
            }
        }
        drafts.clear();
        self.drafts = drafts;
        self.token_ids.len() - num_before
    }

    /// Whether the row yields the next token, by logits alone: no draft, score or constraint has a say.
    pub fn can_choose_ahead(&self, output: Output<'_>) -> bool {
        let Task::Generate(generation) = &self.task else { return false };
        let is_alone =
            self.drafts.is_empty() && generation.scoring.is_none() && generation.constraint.is_none();
        is_alone && generation.max_tokens > 0 && matches!(output, Output::Logits(_))
    }

    /// Chooses the token that `generate` then takes from the same row.
    pub fn choose_ahead(&mut self, output: Output<'_>, sampler: &mut Sampler) {
        let num_generated = self.num_generated_tokens();
        if let (Task::Generate(generation), Output::Logits(logits)) = (&mut self.task, output) {
            generation.choose_ahead(num_generated, logits, sampler);
        }
    }

    #[cfg(test)]
    pub fn has_chosen(&self) -> bool {
        matches!(&self.task, Task::Generate(generation) if generation.chosen.is_some())
    }

    /// Chooses the token after the last one, from what the last one's row yielded.
    pub fn generate(&mut self, output: Output<'_>, sampler: &mut Sampler) {
        let num_generated = self.num_generated_tokens();
        let Task::Generate(generation) = &mut self.task else { unreachable!("a token for {:?}", self.task) };
        if generation.max_tokens == 0 {
            return self.events.finish(FinishReason::Length, self.usage(), None);
        }
        let (token, reason) = match generation.advance(num_generated, output, sampler) {
            Ok(generated) => generated,
            Err(Stuck::NoFiniteLogit) => {
                return self.events.fail(EngineError::NoFiniteLogit { position: self.token_ids.len() });
            }
            Err(Stuck::Constraint(error)) => return self.events.fail(EngineError::Constraint(error)),
        };
        self.token_ids.push(token.token_id);
        self.events.token(token);
        if let Some(reason) = reason {
            let stop_string = generation.text.as_ref().and_then(|text| text.stop_string());
            let stop_string = stop_string.map(str::to_owned);
            self.events.finish(reason, self.usage(), stop_string);
        }
    }

    fn finish_embedding(&mut self) {
        let Task::Embed(pooler) = &self.task else { unreachable!("an embedding for {:?}", self.task) };
        match pooler.finish() {
            Some(values) => self.events.embedding(values, self.usage()),
            None => self.events.fail(EngineError::NoFiniteEmbedding { prompt: self.num_prompt_tokens }),
        }
    }

    fn num_generated_tokens(&self) -> usize {
        self.token_ids.len() - self.num_prompt_tokens
    }

    fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: self.num_prompt_tokens,
            completion_tokens: self.num_generated_tokens(),
            cached_tokens: self.num_found_tokens.unwrap_or(0),
        }
    }
}
