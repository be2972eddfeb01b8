//! What can be known of an engine from outside.

use crate::events::Ending;
use crate::request::FinishReason;

/// What an engine has done since it started, and what it is doing; of an engine with replicas, their sum.
///
/// Every count is over the engine's life; a request is counted in one of `finished_stop`, `finished_length`,
/// `finished_embeddings`, `failed` and `cancelled` when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineStats {
    /// Steps that ran.
    pub steps: u64,
    /// Tokens that ran in them: prompts, generated tokens and both again after a preemption.
    pub tokens: u64,
    /// Of those, tokens of prompts.
    pub prompt_tokens: u64,
    /// Tokens of prompts that did not run as their K and V were found in the cache, when a sequence first began: the sum
    /// of [`Usage::cached_tokens`](crate::Usage::cached_tokens).
    pub cached_prompt_tokens: u64,
    /// Tokens that were generated.
    pub generated_tokens: u64,
    /// Tokens that were looked for in the prefix cache: all of a sequence that begins, or begins again after a preemption.
    pub prefix_queried_tokens: u64,
    /// Of those, tokens that were found.
    pub prefix_hit_tokens: u64,
    /// How often a sequence lost its pages to an older one or one of higher priority.
    pub preemptions: u64,
    /// Requests that ended by a stop token or stop string.
    pub finished_stop: u64,
    /// Requests that ended at their length.
    pub finished_length: u64,
    /// Embeddings.
    pub finished_embeddings: u64,
    /// Requests that ended with an error.
    pub failed: u64,
    /// Requests whose events nobody wanted any more.
    pub cancelled: u64,
    /// Sequences with pages.
    pub running: usize,
    /// Sequences without.
    pub waiting: usize,
    /// Most sequences that run at a time: `running / max_num_seqs` is the occupancy of the batch.
    pub max_num_seqs: usize,
    /// Pages in use.
    pub used_pages: usize,
    /// Pages that are free and hold a prefix that can still be found.
    pub cached_pages: usize,
    /// Pages of the pool.
    pub num_pages: usize,
}

impl EngineStats {
    /// Adds another engine's figures.
    pub(crate) fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.tokens += other.tokens;
        self.prompt_tokens += other.prompt_tokens;
        self.cached_prompt_tokens += other.cached_prompt_tokens;
        self.generated_tokens += other.generated_tokens;
        self.prefix_queried_tokens += other.prefix_queried_tokens;
        self.prefix_hit_tokens += other.prefix_hit_tokens;
        self.preemptions += other.preemptions;
        self.finished_stop += other.finished_stop;
        self.finished_length += other.finished_length;
        self.finished_embeddings += other.finished_embeddings;
        self.failed += other.failed;
        self.cancelled += other.cancelled;
        self.running += other.running;
        self.waiting += other.waiting;
        self.max_num_seqs += other.max_num_seqs;
        self.used_pages += other.used_pages;
        self.cached_pages += other.cached_pages;
        self.num_pages += other.num_pages;
    }

    /// Counts a request that ended in a step.
    pub(crate) fn count(&mut self, ending: Ending) {
        let count = match ending {
            Ending::Finished(FinishReason::Stop) => &mut self.finished_stop,
            Ending::Finished(FinishReason::Length) => &mut self.finished_length,
            Ending::Embedding => &mut self.finished_embeddings,
            Ending::Error => &mut self.failed,
            Ending::Forgotten => return,
        };
        *count += 1;
    }
}
