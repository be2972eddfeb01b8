//! What the engine needs of a model: one method that runs a step.

use model::{Batch, BatchLimits};

use crate::error::RunError;

/// A model with its KV pages, ready to run steps.
///
/// The engine owns the runner and calls it on one thread. Whatever a step computes for a sequence may depend on that
/// sequence's tokens alone, not on what else is in the batch, nor on which pages it was given: the scheduler relies on it.
pub trait Runner: Send + 'static {
    /// What this runner was made for. Constant over its life.
    fn spec(&self) -> RunnerSpec;

    /// Runs one step: stores the K and V of every token of `batch` in the slots that it names, and returns what the
    /// batch asks for of its rows.
    ///
    /// # Errors
    /// When the device fails. The engine ends the running sequences with the error and goes on with the waiting ones.
    fn run(&mut self, batch: &Batch) -> Result<StepOutput<'_>, RunError>;
}

/// What a step yields: `R` rows of logits and `H` of hidden states, each in the order of the batch.
#[derive(Debug, Clone, Copy, Default)]
pub struct StepOutput<'a> {
    /// `[R, vocab_size]`, of `batch.logit_rows()`.
    pub logits: &'a [f32],
    /// `[H, hidden_size]` after the last layer and the final norm, of `batch.hidden_rows()`.
    pub hidden_states: &'a [f32],
}

/// The sizes of a runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunnerSpec {
    /// The largest step.
    pub limits: BatchLimits,
    /// Tokens of a KV page.
    pub page_size: usize,
    /// KV pages of the pool.
    pub num_pages: usize,
    /// Logits of a row.
    pub vocab_size: usize,
    /// Values of a hidden state.
    pub hidden_size: usize,
    /// Most tokens of one sequence, prompt and generated.
    pub max_seq_len: usize,
}

impl<R: Runner + ?Sized> Runner for Box<R> {
    fn spec(&self) -> RunnerSpec {
        (**self).spec()
    }

    fn run(&mut self, batch: &Batch) -> Result<StepOutput<'_>, RunError> {
        (**self).run(batch)
    }
}
