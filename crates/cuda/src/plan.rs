//! The batch on the card: one piece of memory, written once a step.

use std::ops::Range;
use std::sync::Arc;

use model::{Batch, BatchLimits, Draw, QkvShape, Result};

use crate::attention::partial_words;
use crate::driver::{Context, Memory};

/// A batch on the card, and room for attention's partial results.
pub struct CudaPlan {
    limits: BatchLimits,
    memory: Memory,
    partials: Memory,
    partial_words: u64,
    words: Vec<u32>,
    offsets: [usize; SECTIONS],
    counts: Counts,
}

/// What a plan has, one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Section {
    TokenIds,
    Positions,
    SlotMapping,
    SeqOfRow,
    WantedRows,
    /// Rows that are no part of a run.
    Singles,
    /// Runs of up to 16 tokens: of each its first row, and its rows.
    Runs16,
    /// Of up to 32 tokens.
    Runs32,
    /// Of up to 64 tokens.
    Runs64,
    /// How tokens are drawn, `DRAW_WORDS` each; nothing if all take the highest logit.
    Draws,
    /// `[sequence][max_blocks]`.
    BlockTables,
}

const SECTIONS: usize = 11;

/// Words of a draw, as the kernel has them.
const DRAW_WORDS: usize = 6;

/// The most tokens of a run, of each section of runs.
const RUNS: [(Section, usize); 3] = [(Section::Runs16, 16), (Section::Runs32, 32), (Section::Runs64, 64)];

/// The sizes of a planned batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub num_tokens: usize,
    pub num_wanted_rows: usize,
    /// Pages of a block table.
    pub max_blocks: usize,
    /// Tokens of the longest context.
    pub max_context: usize,
    /// Tokens of a page.
    pub page_size: usize,
    /// Past the highest page of any block table or slot.
    pub end_page: usize,
    /// Past the highest token id.
    pub end_token: usize,
    /// Rows that are no part of a run.
    pub singles: usize,
    /// Tokens of the longest context of these.
    pub max_single_context: usize,
    /// Runs of up to 16, 32 and 64 tokens.
    pub runs: [usize; 3],
    /// Draws.
    pub draws: usize,
}

impl CudaPlan {
    /// Room for the largest batch.
    pub(crate) fn new(context: &Arc<Context>, limits: BatchLimits, shapes: &[QkvShape]) -> Result<Self> {
        let partial_words = partial_words(limits, shapes);
        Ok(Self {
            limits,
            memory: Memory::new(context, "the plan of a step", 4 * max_words(limits))?,
            partials: Memory::new(context, "partial results of attention", 4 * partial_words)?,
            partial_words,
            words: Vec::with_capacity(max_words(limits) as usize),
            offsets: [0; SECTIONS],
            counts: Counts::default(),
        })
    }

    /// Bytes on the card.
    pub(crate) fn bytes(limits: BatchLimits, shapes: &[QkvShape]) -> u64 {
        Memory::rounded(4 * max_words(limits)) + Memory::rounded(4 * partial_words(limits, shapes))
    }

    /// Brings a batch to the card.
    ///
    /// # Panics
    /// When the batch exceeds the limits.
    pub(crate) fn upload(&mut self, batch: &Batch) -> Result<()> {
        let page_size = batch.page_size();
        let max_context = highest(batch.context_lens());
        let max_blocks = max_context.div_ceil(page_size);
        self.words.clear();
        let mut end_page = end(batch.slot_mapping()).div_ceil(page_size);
        self.put(Section::TokenIds, batch.token_ids(), self.limits.max_tokens);
        self.put(Section::Positions, batch.positions(), self.limits.max_tokens);
        self.put(Section::SlotMapping, batch.slot_mapping(), self.limits.max_tokens);
        self.put(Section::SeqOfRow, batch.seq_of_row(), self.limits.max_tokens);
        self.put(Section::WantedRows, batch.wanted_rows(), self.limits.max_tokens);
        let stretches = stretches(batch.positions(), batch.seq_of_row());
        let is_single = |rows: &&Range<usize>| rows.len() == 1;
        let singles: Vec<u32> = stretches.iter().filter(is_single).map(|rows| rows.start as u32).collect();
        let single_contexts = singles.iter().map(|&row| batch.positions()[row as usize] as usize + 1);
        let max_single_context = single_contexts.max().unwrap_or(0);
        self.put(Section::Singles, &singles, self.limits.max_tokens);
        let mut runs = [0; 3];
        for ((section, most), runs) in RUNS.into_iter().zip(&mut runs) {
            let words = runs_of(&stretches, most);
            self.put(section, &words, self.limits.max_tokens);
            *runs = words.len() / 2;
        }
        let draws = if batch.size().has_draws { batch.draws() } else { &[] };
        let words: Vec<u32> = draws.iter().flat_map(words_of).collect();
        self.put(Section::Draws, &words, DRAW_WORDS * self.limits.max_logit_rows);
        self.offsets[Section::BlockTables as usize] = self.words.len();
        let (seqs, blocks) = (batch.num_seqs(), self.limits.max_blocks);
        assert!(
            seqs <= self.limits.max_seqs && max_blocks <= blocks,
            "plan: {seqs} sequences of {max_blocks}"
        );
        for seq_idx in 0..seqs {
            let table = &batch.block_table(seq_idx)[..max_blocks];
            end_page = end_page.max(end(table));
            self.words.extend_from_slice(table);
        }
        self.counts = Counts {
            num_tokens: batch.num_tokens(),
            num_wanted_rows: batch.wanted_rows().len(),
            max_blocks,
            max_context,
            page_size,
            end_page,
            end_token: end(batch.token_ids()),
            singles: singles.len(),
            max_single_context,
            runs,
            draws: draws.len(),
        };
        self.memory.write(0, &self.words)
    }

    fn put(&mut self, section: Section, values: &[u32], most: usize) {
        let len = values.len();
        assert!(len <= most, "plan: {section:?} takes {len} words, expected at most {most}");
        self.offsets[section as usize] = self.words.len();
        self.words.extend_from_slice(values);
    }

    /// The address of a section.
    pub(crate) fn section(&self, section: Section) -> u64 {
        self.memory.address() + 4 * self.offsets[section as usize] as u64
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// The address of the room for partial results, and its words.
    pub(crate) fn partials(&self) -> (u64, u64) {
        (self.partials.address(), self.partial_words)
    }
}

/// The longest stretches of rows that are consecutive tokens of a sequence.
fn stretches(positions: &[u32], seq_of_row: &[u32]) -> Vec<Range<usize>> {
    let follows =
        |row: usize| seq_of_row[row] == seq_of_row[row - 1] && positions[row] == positions[row - 1] + 1;
    let mut stretches: Vec<Range<usize>> = Vec::new();
    for row in 0..positions.len() {
        match stretches.last_mut() {
            Some(last) if follows(row) => last.end = row + 1,
            _ => stretches.push(row..row + 1),
        }
    }
    stretches
}

/// Those of more than one row, cut into runs of at most so many: of each its first row, and its rows. Later tokens see more and take
/// longer, so they come first.
fn runs_of(stretches: &[Range<usize>], most: usize) -> Vec<u32> {
    let is_run = |rows: &&Range<usize>| rows.len() > 1;
    let cut = |rows: &Range<usize>| {
        rows.clone().step_by(most).rev().map(|first| (first, rows.end)).collect::<Vec<_>>()
    };
    let runs = stretches.iter().filter(is_run).flat_map(cut);
    runs.flat_map(|(first, end)| [first as u32, most.min(end - first) as u32]).collect()
}

fn words_of(draw: &Draw) -> [u32; DRAW_WORDS] {
    let Draw { temperature, top_k, top_p, min_p, point } = *draw;
    [temperature.to_bits(), top_k, top_p.to_bits(), min_p.to_bits(), point as u32, (point >> 32) as u32]
}

fn max_words(limits: BatchLimits) -> u64 {
    // A run has two rows at least, but for the last of a stretch, and takes two words.
    (9 * limits.max_tokens + DRAW_WORDS * limits.max_logit_rows + limits.max_seqs * limits.max_blocks) as u64
}

fn highest(values: &[u32]) -> usize {
    values.iter().copied().max().unwrap_or(0) as usize
}

fn end(values: &[u32]) -> usize {
    values.iter().copied().max().map_or(0, |highest| highest as usize + 1)
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;

    #[test]
    fn consecutive_tokens_of_a_sequence_are_runs() {
        // A prompt of 40, a decode, a draft of two, and two sequences that meet at the same position.
        let mut positions: Vec<u32> = (0..40).collect();
        positions.extend([99, 7, 8, 9, 20]);
        let mut seqs = vec![0; 40];
        seqs.extend([1, 2, 2, 3, 4]);
        let stretches = stretches(&positions, &seqs);
        assert_eq!(stretches, [0..40, 40..41, 41..43, 43..44, 44..45]);
        assert_eq!(runs_of(&stretches, 16), [32, 8, 16, 16, 0, 16, 41, 2]);
        assert_eq!(runs_of(&stretches, 64), [0, 40, 41, 2]);
    }

    #[test]
    fn runs_fit_their_section() {
        for len in 2..200 {
            let stretch = 0..len;
            assert!(runs_of(slice::from_ref(&stretch), 16).len() <= len);
        }
    }
}
