//! What an engine is given beside its options: the rules of the prefix cache, what drafts tokens, the threads that choose tokens,
//! and the clock.
//!
//! The engine runs with [`Policies::default`]. Tests inject rules that are broken, which they must notice, drafters, threads for the
//! smallest steps, and clocks that go as the test wants.

use std::fmt;

use crate::choosing::Choosing;
use crate::pacing::{Clock, SystemClock};
use crate::prefix_index::{PageName, PrefixIndex};

/// The rules that make it sound to share pages.
pub(crate) trait CacheRules: fmt::Debug + Send {
    /// The name of a page of `token_ids` that follows one called `before`, or that is the first.
    fn name(&self, index: &PrefixIndex, before: Option<PageName>, token_ids: &[u32]) -> PageName {
        index.name(before, token_ids)
    }

    /// Pages of a sequence, from its first on, that others may find once K and V of `num_cached_tokens` of its `num_tokens`
    /// tokens are in its pages.
    fn num_findable_pages(&self, num_cached_tokens: usize, num_tokens: usize, page_size: usize) -> usize {
        let _ = num_tokens;
        num_cached_tokens / page_size
    }

    /// Whether a step that failed counts as one that has run.
    fn trusts_failed_steps(&self) -> bool {
        false
    }
}

/// The rules as they should be.
#[derive(Debug)]
pub(crate) struct SoundRules;

impl CacheRules for SoundRules {}

/// Guesses the tokens that follow a sequence's own, so that one step can check several.
///
/// A guess never shows in what is generated: each row samples the token that it would have sampled without the guess, and the
/// rows behind a wrong guess are thrown away.
pub(crate) trait Drafter: fmt::Debug + Send {
    /// Up to `most` tokens that may follow `token_ids`, appended to `drafts`.
    fn draft(&mut self, token_ids: &[u32], most: usize, drafts: &mut Vec<u32>);
}

/// Guesses nothing.
#[derive(Debug)]
pub(crate) struct NoDrafts;

impl Drafter for NoDrafts {
    fn draft(&mut self, _: &[u32], _: usize, _: &mut Vec<u32>) {}
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Policies {
    pub cache_rules: Box<dyn CacheRules>,
    pub drafter: Box<dyn Drafter>,
    pub choosing: Choosing,
    pub clock: Box<dyn Clock>,
}

impl Default for Policies {
    fn default() -> Self {
        Self {
            cache_rules: Box::new(SoundRules),
            drafter: Box::new(NoDrafts),
            choosing: Choosing::default(),
            clock: Box::new(SystemClock::default()),
        }
    }
}
