//! How an engine uses its runner.

use std::time::Duration;

use model::RunnerSpec;

use crate::error::{EngineError, Result};
use crate::prefix_index::PrefixCache;
use crate::scheduler::SchedulerLimits;

/// How an engine uses its runner. What is `None` is as large as the runner allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineOptions {
    /// Most sequences that run at a time.
    pub max_num_seqs: Option<usize>,
    /// Most tokens of a step; decodes come first, prompts share the rest.
    pub token_budget: Option<usize>,
    /// Most tokens of one sequence in a step.
    pub max_chunk: Option<usize>,
    /// Time wanted between two tokens of a sequence: prompts take no more of a step than that leaves, by what steps were
    /// measured to cost, but as much time as its decodes at least. Without it, which is best for throughput, they take the
    /// whole token budget.
    pub itl_target: Option<Duration>,
    /// Whether prompts that begin alike share what was computed.
    pub prefix_cache: PrefixCache,
}

impl EngineOptions {
    /// The limits of a step, or the first option that the runner cannot serve.
    pub(crate) fn resolve(&self, spec: &RunnerSpec) -> Result<SchedulerLimits> {
        let RunnerSpec { limits, page_size, vocab_size, hidden_size: _, max_seq_len, draws } = *spec;
        check("page_size", page_size, usize::MAX)?;
        check("num_pages", limits.num_pages, u32::MAX as usize / page_size)?;
        check("vocab_size", vocab_size, u32::MAX as usize)?;
        check("max_seq_len", max_seq_len, limits.max_blocks.saturating_mul(page_size))?;

        let token_budget = self.token_budget.unwrap_or(limits.max_tokens);
        check("token_budget", token_budget, limits.max_tokens)?;
        let most_seqs = limits.max_seqs.min(limits.max_logit_rows);
        let max_num_seqs = self.max_num_seqs.unwrap_or(most_seqs.min(token_budget));
        check("max_num_seqs", max_num_seqs, most_seqs.min(token_budget))?;
        let max_chunk = self.max_chunk.unwrap_or(token_budget);
        check("max_chunk", max_chunk, usize::MAX)?;
        if self.itl_target.is_some_and(|target| target.is_zero()) {
            return Err(EngineError::InvalidOption {
                name: "itl_target",
                expected: "a time above 0".to_owned(),
                found: 0,
            });
        }
        let max_head_rows = limits.max_logit_rows;
        Ok(SchedulerLimits { max_num_seqs, token_budget, max_chunk, max_head_rows, draws })
    }
}

fn check(name: &'static str, found: usize, most: usize) -> Result<()> {
    if (1..=most).contains(&found) {
        return Ok(());
    }
    let expected = if most == usize::MAX { "at least 1".to_owned() } else { format!("1 to {most}") };
    Err(EngineError::InvalidOption { name, expected, found })
}
