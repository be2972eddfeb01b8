//! Log-probabilities of a prompt's own tokens: what the model thought of each before it was there.
//!
//! The row of a token tells of the next. So every row but the last goes through the LM head, and none of them may be hidden by
//! a page that was found in the prefix cache. How many rows a step has is bounded, which bounds the chunks of such a prompt
//! (`prompts.rs`).

use model::Output;

use crate::request::TokenLogprobs;
use crate::sampler::Sampler;

/// A prompt whose tokens are being scored. It is gone once all are.
#[derive(Debug)]
pub(crate) struct Scoring {
    /// The most likely tokens that are listed beside each.
    num_top: usize,
    /// Of the tokens from the second on, as far as they are known. A preemption leaves them.
    logprobs: Vec<TokenLogprobs>,
}

impl Scoring {
    pub fn new(num_top: usize) -> Self {
        Self { num_top, logprobs: Vec::new() }
    }

    /// Rows, from the first on, that have told of the token behind them.
    pub fn num_rows(&self) -> usize {
        self.logprobs.len()
    }

    /// Takes the next row, and `token_id`, which is the token behind it. False if the row has no finite logit.
    pub fn push(&mut self, row: Output<'_>, token_id: u32, sampler: &mut Sampler) -> bool {
        let Output::Logits(logits) = row else { unreachable!("a token is scored from {row:?}") };
        let logprobs = sampler.logprobs(logits, token_id, self.num_top);
        let is_finite = !logprobs.logprob.is_nan();
        self.logprobs.push(logprobs);
        is_finite
    }

    pub fn into_logprobs(self) -> Vec<TokenLogprobs> {
        self.logprobs
    }
}
