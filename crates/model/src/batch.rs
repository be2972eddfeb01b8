//! One ragged step: the tokens of many sequences, flat, with what each kernel needs to know about them.
//!
//! A decode is a row range of length 1 and a prompt chunk a longer one; nothing distinguishes the two. The arrays
//! are filled by the scheduler, uploaded once by [`Backend::plan`](crate::Backend::plan) and read by every kernel.

use std::ops::Range;

/// The largest step that buffers are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Most tokens of a step, over all its sequences.
    pub max_tokens: usize,
    /// Most sequences of a step.
    pub max_seqs: usize,
    /// Most rows of a step whose logits are wanted.
    pub max_logit_rows: usize,
    /// Most pages of one sequence: `ceil(max_seq_len / page_size)`.
    pub max_blocks: usize,
}

/// Which rows of a sequence's chunk yield logits, or the hidden states that logits would be made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logits {
    /// None: a prompt chunk that is not the last.
    Skip,
    /// The last row alone.
    Last,
    /// Every row of the chunk (perplexity, prompt log-probabilities).
    All,
    /// The last row's hidden state instead of its logits (embeddings).
    LastHidden,
    /// Every row's hidden state instead of its logits (embeddings by mean).
    AllHidden,
}

/// How much a planned step has of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepSize {
    /// `T`.
    pub tokens: usize,
    /// `R`.
    pub logit_rows: usize,
    /// `H`.
    pub hidden_rows: usize,
}

/// One ragged step. `T` tokens, `S` sequences, `R` logit rows, `H` hidden rows.
///
/// Invariants, kept by [`Batch::push`]: `cu_seqlens_q` has `S + 1` rising entries from 0 to `T`;
/// `positions` of a sequence are consecutive and end at `context_lens[s] - 1`; every `slot_mapping` entry is
/// `block_tables[s][position / page_size] * page_size + position % page_size`; the first `R` of `wanted_rows` rise, and so
/// do the other `H`.
#[derive(Debug, Clone)]
pub struct Batch {
    /// `[T]` token ids.
    pub token_ids: Vec<u32>,
    /// `[T]` absolute position of each token in its sequence.
    pub positions: Vec<u32>,
    /// `[T]` where the token's K and V go: `page * page_size + offset`.
    pub slot_mapping: Vec<u32>,
    /// `[T]` the sequence (index within this batch) that owns the row.
    pub seq_of_row: Vec<u32>,
    /// `[S + 1]` first row of each sequence, then `T`.
    pub cu_seqlens_q: Vec<u32>,
    /// `[S]` tokens of the sequence in the cache once this step has stored its own.
    pub context_lens: Vec<u32>,
    /// `[S, max_blocks]` page ids; entries past a sequence's last page are 0 and never read.
    pub block_tables: Vec<u32>,
    /// `[R + H]` rows whose logits are wanted, then those whose hidden states are: so that one gather and one norm serve
    /// both, and the LM head runs on the first `R` of them.
    pub wanted_rows: Vec<u32>,
    num_logit_rows: usize,
    limits: BatchLimits,
    page_size: usize,
}

impl Batch {
    /// An empty batch with room for `limits`; pushing never allocates.
    pub fn new(limits: BatchLimits, page_size: usize) -> Self {
        assert!(page_size > 0, "page size must be at least 1");
        let mut cu_seqlens_q = Vec::with_capacity(limits.max_seqs + 1);
        cu_seqlens_q.push(0);
        Self {
            token_ids: Vec::with_capacity(limits.max_tokens),
            positions: Vec::with_capacity(limits.max_tokens),
            slot_mapping: Vec::with_capacity(limits.max_tokens),
            seq_of_row: Vec::with_capacity(limits.max_tokens),
            cu_seqlens_q,
            context_lens: Vec::with_capacity(limits.max_seqs),
            block_tables: Vec::with_capacity(limits.max_seqs * limits.max_blocks),
            wanted_rows: Vec::with_capacity(limits.max_tokens),
            num_logit_rows: 0,
            limits,
            page_size,
        }
    }

    /// Empties the batch, keeping its buffers.
    pub fn clear(&mut self) {
        self.token_ids.clear();
        self.positions.clear();
        self.slot_mapping.clear();
        self.seq_of_row.clear();
        self.cu_seqlens_q.truncate(1);
        self.context_lens.clear();
        self.block_tables.clear();
        self.wanted_rows.clear();
        self.num_logit_rows = 0;
    }

    /// Appends `token_ids` of one sequence, the first at absolute position `start`, whose pages are `block_table`.
    ///
    /// # Panics
    /// When the chunk is empty, exceeds the limits, or has fewer pages than `start + token_ids.len()` tokens need:
    /// these are the caller's invariants.
    pub fn push(&mut self, token_ids: &[u32], start: usize, block_table: &[u32], logits: Logits) {
        let context_len = start + token_ids.len();
        let n_blocks = context_len.div_ceil(self.page_size);
        let seq_idx = self.num_seqs();
        let first_row = self.num_tokens();
        assert!(!token_ids.is_empty(), "a sequence in a batch has at least one token");
        assert!(first_row + token_ids.len() <= self.limits.max_tokens, "batch exceeds its token limit");
        assert!(seq_idx < self.limits.max_seqs, "batch exceeds its sequence limit");
        assert!(n_blocks <= self.limits.max_blocks, "sequence exceeds its block table");
        assert!(n_blocks <= block_table.len(), "sequence has fewer pages than its tokens need");

        for (i, &token_id) in token_ids.iter().enumerate() {
            let position = start + i;
            let page = block_table[position / self.page_size] as usize;
            self.token_ids.push(token_id);
            self.positions.push(position as u32);
            self.slot_mapping.push((page * self.page_size + position % self.page_size) as u32);
            self.seq_of_row.push(seq_idx as u32);
        }
        self.cu_seqlens_q.push(self.token_ids.len() as u32);
        self.context_lens.push(context_len as u32);
        let row_start = seq_idx * self.limits.max_blocks;
        self.block_tables.extend_from_slice(&block_table[..n_blocks]);
        self.block_tables.resize(row_start + self.limits.max_blocks, 0);
        let rows = first_row as u32..self.token_ids.len() as u32;
        match logits {
            Logits::Skip => {}
            Logits::Last => self.want_logits(rows.end - 1..rows.end),
            Logits::All => self.want_logits(rows),
            Logits::LastHidden => self.wanted_rows.push(rows.end - 1),
            Logits::AllHidden => self.wanted_rows.extend(rows),
        }
        assert!(self.num_logit_rows <= self.limits.max_logit_rows, "batch exceeds its logit row limit");
    }

    /// Adds logit rows, before the hidden rows.
    fn want_logits(&mut self, rows: Range<u32>) {
        let first = self.num_logit_rows;
        self.num_logit_rows += rows.len();
        self.wanted_rows.extend(rows.clone());
        self.wanted_rows[first..].rotate_right(rows.len());
    }

    /// Becomes a copy of `other`, reusing the buffers.
    pub fn copy_from(&mut self, other: &Batch) {
        self.token_ids.clone_from(&other.token_ids);
        self.positions.clone_from(&other.positions);
        self.slot_mapping.clone_from(&other.slot_mapping);
        self.seq_of_row.clone_from(&other.seq_of_row);
        self.cu_seqlens_q.clone_from(&other.cu_seqlens_q);
        self.context_lens.clone_from(&other.context_lens);
        self.block_tables.clone_from(&other.block_tables);
        self.wanted_rows.clone_from(&other.wanted_rows);
        self.num_logit_rows = other.num_logit_rows;
        self.limits = other.limits;
        self.page_size = other.page_size;
    }

    /// `T`.
    pub fn num_tokens(&self) -> usize {
        self.token_ids.len()
    }

    /// `S`.
    pub fn num_seqs(&self) -> usize {
        self.context_lens.len()
    }

    /// `R`.
    pub fn num_logit_rows(&self) -> usize {
        self.num_logit_rows
    }

    /// `H`.
    pub fn num_hidden_rows(&self) -> usize {
        self.wanted_rows.len() - self.num_logit_rows
    }

    /// `[R]` rows whose logits are wanted.
    pub fn logit_rows(&self) -> &[u32] {
        &self.wanted_rows[..self.num_logit_rows]
    }

    /// `[H]` rows whose hidden states are wanted.
    pub fn hidden_rows(&self) -> &[u32] {
        &self.wanted_rows[self.num_logit_rows..]
    }

    /// How much of everything is in the batch.
    pub fn size(&self) -> StepSize {
        StepSize {
            tokens: self.num_tokens(),
            logit_rows: self.num_logit_rows(),
            hidden_rows: self.num_hidden_rows(),
        }
    }

    /// True when no sequence was pushed.
    pub fn is_empty(&self) -> bool {
        self.token_ids.is_empty()
    }

    /// The limits that the batch was made for.
    pub fn limits(&self) -> BatchLimits {
        self.limits
    }

    /// Tokens of a page.
    pub fn page_size(&self) -> usize {
        self.page_size
    }

    /// `[max_blocks]` pages of one sequence.
    pub fn block_table(&self, seq_idx: usize) -> &[u32] {
        &self.block_tables[seq_idx * self.limits.max_blocks..][..self.limits.max_blocks]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BatchLimits = BatchLimits { max_tokens: 8, max_seqs: 3, max_logit_rows: 4, max_blocks: 4 };

    #[test]
    fn a_step_mixes_prompt_chunks_and_decodes() {
        let mut batch = Batch::new(LIMITS, 2);
        batch.push(&[7, 8, 9], 1, &[5, 3], Logits::Skip);
        batch.push(&[4], 4, &[0, 1, 2], Logits::Last);
        batch.push(&[1, 2], 0, &[6], Logits::All);
        assert_eq!(batch.token_ids, [7, 8, 9, 4, 1, 2]);
        assert_eq!(batch.positions, [1, 2, 3, 4, 0, 1]);
        assert_eq!(batch.slot_mapping, [11, 6, 7, 4, 12, 13]);
        assert_eq!(batch.seq_of_row, [0, 0, 0, 1, 2, 2]);
        assert_eq!(batch.cu_seqlens_q, [0, 3, 4, 6]);
        assert_eq!(batch.context_lens, [4, 5, 2]);
        assert_eq!(batch.block_tables, [5, 3, 0, 0, 0, 1, 2, 0, 6, 0, 0, 0]);
        assert_eq!(batch.logit_rows(), [3, 4, 5]);
        assert!(batch.hidden_rows().is_empty());
        batch.clear();
        assert!(batch.is_empty());
        assert_eq!(batch.cu_seqlens_q, [0]);
    }

    #[test]
    fn logit_rows_come_before_hidden_rows() {
        let mut batch = Batch::new(LIMITS, 2);
        batch.push(&[7, 8], 0, &[0], Logits::AllHidden);
        batch.push(&[4, 5, 6], 0, &[1, 2], Logits::All);
        batch.push(&[1, 2], 0, &[3], Logits::LastHidden);
        assert_eq!((batch.logit_rows(), batch.hidden_rows()), (&[2, 3, 4][..], &[0, 1, 6][..]));
        assert_eq!(batch.wanted_rows, [2, 3, 4, 0, 1, 6]);
        assert_eq!(batch.size(), StepSize { tokens: 7, logit_rows: 3, hidden_rows: 3 });
        let mut copy = Batch::new(LIMITS, 2);
        copy.copy_from(&batch);
        assert_eq!((copy.logit_rows(), copy.hidden_rows()), (batch.logit_rows(), batch.hidden_rows()));
        batch.clear();
        assert_eq!(batch.size(), StepSize { tokens: 0, logit_rows: 0, hidden_rows: 0 });
    }

    #[test]
    #[should_panic(expected = "fewer pages")]
    fn a_sequence_needs_its_pages() {
        Batch::new(LIMITS, 2).push(&[1, 2, 3], 0, &[0], Logits::Last);
    }
}
