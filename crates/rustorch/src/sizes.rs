//! The sizes of steps and caches that follow from a configuration.

use model::{BatchLimits, LlamaConfig, ModelShard, Rank};

use crate::{Error, Result};

/// Rows of logits that a step yields for a sequence that is scored token by token, beside one of every other.
const SCORED_ROWS: usize = 32;

/// The largest step of so many sequences over so many pages.
pub(crate) fn limits(config: &LlamaConfig, num_seqs: usize, num_pages: usize) -> BatchLimits {
    let max_tokens = config.max_batch_tokens.max(num_seqs);
    BatchLimits {
        max_tokens,
        max_seqs: num_seqs,
        max_logit_rows: (num_seqs + SCORED_ROWS).min(max_tokens),
        max_blocks: config.pages_per_seq(),
        num_pages,
    }
}

/// Bytes of a KV page on that one of so many ranks which has the most of it.
///
/// # Errors
/// When the model cannot be cut into so many.
pub(crate) fn page_bytes(config: &LlamaConfig, ranks: usize) -> Result<u64> {
    let shard = ModelShard::new(&config.spec, Rank::new(0, ranks))?;
    Ok(shard.spec.kv_shape(1, config.page_size, config.kv_dtype).bytes())
}

/// Pages of `num_slots` full sequences, however many.
pub(crate) fn pages_of(config: &LlamaConfig, num_slots: usize) -> usize {
    num_slots.saturating_mul(config.pages_per_seq())
}

/// Pages of `num_slots` full sequences, if slots can number them.
pub(crate) fn checked_pages(config: &LlamaConfig, num_slots: usize) -> Result<usize> {
    let tokens = num_slots.checked_mul(config.pages_per_seq() * config.page_size);
    match tokens {
        Some(tokens) if num_slots > 0 && u32::try_from(tokens).is_ok() => {
            Ok(num_slots * config.pages_per_seq())
        }
        _ => Err(Error::InvalidValue {
            what: "batch size",
            expected: format!("1 to {}", u32::MAX as usize / (config.pages_per_seq() * config.page_size)),
            found: num_slots.to_string(),
        }),
    }
}
