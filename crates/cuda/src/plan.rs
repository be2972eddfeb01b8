//! The batch on the card: one piece of memory, written once a step.

use std::sync::Arc;

use model::{Batch, BatchLimits, QkvShape, Result};

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
    /// `[sequence][max_blocks]`.
    BlockTables,
}

const SECTIONS: usize = 6;

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

fn max_words(limits: BatchLimits) -> u64 {
    (5 * limits.max_tokens + limits.max_seqs * limits.max_blocks) as u64
}

fn highest(values: &[u32]) -> usize {
    values.iter().copied().max().unwrap_or(0) as usize
}

fn end(values: &[u32]) -> usize {
    values.iter().copied().max().map_or(0, |highest| highest as usize + 1)
}
