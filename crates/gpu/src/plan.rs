//! The batch on the device: one buffer of words, uploaded once a step, that every kernel reads.

use std::sync::Arc;

use model::{Batch, BatchLimits, QkvShape, Result};

use crate::attention;
use crate::buffer::DeviceBuffer;
use crate::device::Gpu;
use crate::recorder::Recorder;

/// Words of the header: counts, and where each section starts.
pub(crate) const HEADER: usize = 16;

/// Words of a run: its sequence, its first row, its rows.
pub(crate) const RUN_WORDS: usize = 3;

/// Most query rows of a tile: a run's tokens times the heads that share a cached head.
pub(crate) const TILE_ROWS: usize = 16;

/// Tokens of a run, for `group` query heads a cached head.
pub(crate) fn rows_per_run(group: usize) -> usize {
    (TILE_ROWS / group).max(1)
}

/// A batch as words:
///
/// ```text
/// [0] T tokens, [1] S sequences, [2] R wanted rows, [3] runs, [4] stride of block_tables, then where each starts:
/// [5] token_ids [T], [6] positions [T], [7] slot_mapping [T], [8] seq_of_row [T], [9] cu_seqlens_q [S + 1],
/// [10] context_lens [S], [11] block_tables [S, stride], [12] wanted_rows [R], [13] runs [runs, 3];
/// [14] page size, [15] unused
/// ```
///
/// Block tables are as wide as the longest context of the step needs, so that short contexts upload little.
pub(crate) struct PlanWords {
    words: Vec<u32>,
    counts: PlanCounts,
}

/// How much there is of what in a planned batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct PlanCounts {
    /// `T`.
    pub num_tokens: usize,
    /// `S`.
    pub num_seqs: usize,
    /// `R`.
    pub num_wanted_rows: usize,
    /// Runs of rows that attention takes.
    pub num_runs: usize,
    /// Tokens of the longest context.
    pub max_context: usize,
}

impl PlanWords {
    /// Room for the largest batch.
    pub fn new(limits: BatchLimits) -> Self {
        Self { words: Vec::with_capacity(max_words(limits)), counts: PlanCounts::default() }
    }

    /// Takes in a batch. Allocates nothing for one within the limits.
    pub fn fill(&mut self, batch: &Batch, rows_per_run: usize) {
        let max_context = batch.context_lens.iter().copied().max().unwrap_or(0) as usize;
        let num_blocks = max_context.div_ceil(batch.page_size());
        let words = &mut self.words;
        words.clear();
        words.resize(HEADER, 0);
        let sections: [(usize, &[u32]); 7] = [
            (5, &batch.token_ids),
            (6, &batch.positions),
            (7, &batch.slot_mapping),
            (8, &batch.seq_of_row),
            (9, &batch.cu_seqlens_q),
            (10, &batch.context_lens),
            (12, &batch.wanted_rows),
        ];
        for (header, section) in sections {
            words[header] = words.len() as u32;
            words.extend_from_slice(section);
        }
        words[11] = words.len() as u32;
        for seq_idx in 0..batch.num_seqs() {
            words.extend_from_slice(&batch.block_table(seq_idx)[..num_blocks]);
        }
        words[13] = words.len() as u32;
        append_runs(batch, rows_per_run, words);
        let num_runs = (words.len() - words[13] as usize) / RUN_WORDS;
        self.counts = PlanCounts {
            num_tokens: batch.num_tokens(),
            num_seqs: batch.num_seqs(),
            num_wanted_rows: batch.wanted_rows.len(),
            num_runs,
            max_context,
        };
        let counts = [batch.num_tokens(), batch.num_seqs(), batch.wanted_rows.len(), num_runs, num_blocks];
        for (word, count) in words.iter_mut().zip(counts) {
            *word = count as u32;
        }
        words[14] = batch.page_size() as u32;
    }

    /// The words of the batch last taken in.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// The counts of the batch last taken in.
    pub fn counts(&self) -> PlanCounts {
        self.counts
    }
}

/// A batch on the device.
pub struct GpuPlan {
    words: PlanWords,
    /// The words, for kernels.
    pub(crate) buffer: DeviceBuffer,
    /// Where attention leaves the parts of spans.
    pub(crate) scratch: DeviceBuffer,
    rows_per_run: usize,
}

impl GpuPlan {
    /// Room for the largest batch of a model with heads of this shape.
    ///
    /// # Errors
    /// When the device has none.
    pub(crate) fn new(
        gpu: &Gpu,
        recorder: &Arc<Recorder>,
        limits: BatchLimits,
        shape: QkvShape,
    ) -> Result<Self> {
        let buffer = DeviceBuffer::new(gpu, recorder, "plan", max_words(limits) as u64 * 4)?;
        let scratch = DeviceBuffer::new(gpu, recorder, "attention's parts", attention::SCRATCH_BYTES)?;
        let rows_per_run = rows_per_run(shape.num_heads / shape.num_kv_heads);
        Ok(Self { words: PlanWords::new(limits), buffer, scratch, rows_per_run })
    }

    /// Takes in a batch and brings it to the device with one write.
    pub(crate) fn upload(&mut self, gpu: &Gpu, batch: &Batch) {
        self.words.fill(batch, self.rows_per_run);
        let (len, most) = (self.words.words().len(), max_words(batch.limits()));
        assert!(len <= most, "a plan of {:?} takes {len} words, expected at most {most}", self.counts());
        gpu.queue.write_buffer(&self.buffer.raw, 0, bytemuck::cast_slice(self.words.words()));
    }

    /// The counts of the batch on the device.
    pub(crate) fn counts(&self) -> PlanCounts {
        self.words.counts()
    }
}

/// Words of the largest batch.
fn max_words(limits: BatchLimits) -> usize {
    let BatchLimits { max_tokens, max_seqs, max_blocks, .. } = limits;
    // Every row may be wanted, for its hidden state if not for its logits.
    let max_wanted_rows = max_tokens;
    HEADER + (4 + RUN_WORDS) * max_tokens + max_seqs * (2 + max_blocks) + 1 + max_wanted_rows
}

/// Cuts every sequence's rows, from its first on, into runs of at most `rows_per_run`.
fn append_runs(batch: &Batch, rows_per_run: usize, words: &mut Vec<u32>) {
    let rows_per_run = rows_per_run as u32;
    for (seq_idx, rows) in (0..).zip(batch.cu_seqlens_q.windows(2)) {
        let mut first_row = rows[0];
        while first_row < rows[1] {
            let count = rows_per_run.min(rows[1] - first_row);
            words.extend_from_slice(&[seq_idx, first_row, count]);
            first_row += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use model::Logits;

    use super::*;

    #[test]
    fn a_batch_becomes_words() {
        let limits = BatchLimits { max_tokens: 8, max_seqs: 3, max_logit_rows: 4, max_blocks: 9 };
        let mut batch = Batch::new(limits, 2);
        let mut words = PlanWords::new(limits);
        let capacity = words.words.capacity();
        batch.push(&[7, 8, 9, 10, 11], 1, &[5, 3, 4], Logits::Skip);
        batch.push(&[4], 4, &[0, 1, 2], Logits::Last);
        batch.push(&[1, 2], 0, &[6], Logits::All);
        words.fill(&batch, 2);
        let counts =
            PlanCounts { num_tokens: 8, num_seqs: 3, num_wanted_rows: 3, num_runs: 5, max_context: 6 };
        assert_eq!(words.counts(), counts);
        let plan = words.words();
        assert_eq!(plan[..5], [8, 3, 3, 5, 3]);
        assert_eq!(plan[14], 2);
        let section = |header: usize, len: usize| &plan[plan[header] as usize..][..len];
        assert_eq!(section(5, 8), batch.token_ids);
        assert_eq!(section(6, 8), batch.positions);
        assert_eq!(section(7, 8), batch.slot_mapping);
        assert_eq!(section(8, 8), batch.seq_of_row);
        assert_eq!(section(9, 4), [0, 5, 6, 8]);
        assert_eq!(section(10, 3), [6, 5, 2]);
        assert_eq!(section(11, 9), [5, 3, 4, 0, 1, 2, 6, 0, 0]);
        assert_eq!(section(12, 3), [5, 6, 7]);
        assert_eq!(section(13, 15), [0, 0, 2, 0, 2, 2, 0, 4, 1, 1, 5, 1, 2, 6, 2]);
        assert_eq!(plan[13] as usize + 15, plan.len());
        assert_eq!(words.words.capacity(), capacity);
    }

    #[test]
    fn an_empty_batch_has_a_header() {
        let limits = BatchLimits { max_tokens: 1, max_seqs: 1, max_logit_rows: 1, max_blocks: 1 };
        let mut words = PlanWords::new(limits);
        words.fill(&Batch::new(limits, 16), 16);
        assert_eq!(words.counts(), PlanCounts::default());
        assert_eq!(words.words()[..5], [0; 5]);
        assert_eq!(words.words().len(), HEADER + 1);
    }

    #[test]
    fn a_tile_holds_a_run_for_a_group() {
        for (group, rows) in [(1, 16), (3, 5), (4, 4), (16, 1), (32, 1)] {
            assert_eq!(rows_per_run(group), rows);
        }
    }
}
