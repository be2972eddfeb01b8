//! One ragged step: the tokens of many sequences, flat, with what each kernel needs to know about them.
//!
//! A decode is a row range of length 1 and a prompt chunk a longer one; nothing distinguishes the two. The arrays
//! are filled by the scheduler, uploaded once by [`Backend::plan`](crate::Backend::plan) and read by every kernel.

use std::ops::Range;

use crate::Draw;

/// The largest step that buffers are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Most tokens of a step, over all its sequences.
    pub max_tokens: usize,
    /// Most sequences of a step.
    pub max_seqs: usize,
    /// Most rows of a step that go through the LM head: those that yield logits or the index of the highest.
    pub max_logit_rows: usize,
    /// Most pages of one sequence: `ceil(max_seq_len / page_size)`.
    pub max_blocks: usize,
    /// Pages of the KV cache.
    pub num_pages: usize,
}

/// Some rows of a sequence's chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// The last row.
    Last,
    /// The last `n` rows: a decode that also checks `n - 1` drafted tokens.
    LastN(usize),
    /// Every row.
    All,
}

impl Rows {
    /// Which of a chunk of `len` rows.
    ///
    /// # Panics
    /// When there are fewer.
    fn of(self, len: usize) -> Range<usize> {
        let count = match self {
            Rows::Last => 1,
            Rows::LastN(count) => count,
            Rows::All => len,
        };
        assert!(count <= len, "{count} rows wanted of a chunk of {len}");
        len - count..len
    }
}

/// What a sequence's chunk yields.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Want {
    /// Nothing: a prompt chunk that is not the last.
    None,
    /// The index of the highest logit of each row: greedy decoding. No logits leave the device.
    Argmax(Rows),
    /// A token drawn from the logits of the last row, on a device that [can](crate::RunnerSpec::draws). No logits leave it.
    Draw(Draw),
    /// The logits of each row.
    Logits(Rows),
    /// The hidden state of each row after the last layer and the final norm: embeddings.
    Hidden(Rows),
}

/// How many tokens and rows of each kind a step has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StepSize {
    /// `T`.
    pub tokens: usize,
    /// `A`.
    pub token_rows: usize,
    /// Whether any of these is drawn; otherwise all take the highest logit.
    pub has_draws: bool,
    /// `L`.
    pub logit_rows: usize,
    /// `H`.
    pub hidden_rows: usize,
}

impl StepSize {
    /// Rows that go through the LM head: `A + L`.
    pub fn head_rows(&self) -> usize {
        self.token_rows + self.logit_rows
    }

    /// Rows that yield anything: `A + L + H`.
    pub fn wanted_rows(&self) -> usize {
        self.head_rows() + self.hidden_rows
    }
}

/// One ragged step: `T` tokens, `S` sequences, and `A`, `L` and `H` rows that yield a token, logits or a hidden state.
///
/// Invariants, kept by [`Batch::push`] and relied upon by kernels that check no bounds:
/// - `cu_seqlens_q` has `S + 1` rising entries from 0 to `T`;
/// - `positions` of a sequence are consecutive and end at `context_lens[s] - 1`;
/// - every entry of `block_tables` is less than `limits.num_pages`;
/// - every `slot_mapping` entry is `block_tables[s][position / page_size] * page_size + position % page_size`, and no two
///   rows have the same slot: each page is written by one sequence at most;
/// - `wanted_rows` lists the rows of each kind in rising order, first the `A`, then the `L`, then the `H`.
#[derive(Debug, Clone)]
pub struct Batch {
    token_ids: Vec<u32>,    // [T]
    positions: Vec<u32>,    // [T]
    slot_mapping: Vec<u32>, // [T]
    seq_of_row: Vec<u32>,   // [T]
    cu_seqlens_q: Vec<u32>, // [S + 1]
    context_lens: Vec<u32>, // [S]
    block_tables: Vec<u32>, // [S, max_blocks]
    wanted_rows: Vec<u32>,  // [A + L + H]
    draws: Vec<Draw>,       // [A]
    wants: Vec<Wanted>,     // [S]
    size: StepSize,
    /// Pages that this step writes are those whose entry is `step`.
    written_in: Vec<u32>, // [num_pages]
    step: u32,
    limits: BatchLimits,
    page_size: usize,
}

/// What a sequence yields, and where among the rows of its kind.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    want: Want,
    first: usize,
    count: usize,
}

impl Batch {
    /// An empty batch with room for `limits`; pushing never allocates.
    ///
    /// # Panics
    /// When `page_size` is 0, or slots of so many pages cannot be numbered in 32 bits.
    pub fn new(limits: BatchLimits, page_size: usize) -> Self {
        assert!(page_size > 0, "page size must be at least 1");
        let slots = limits.num_pages.checked_mul(page_size);
        assert!(
            slots.is_some_and(|slots| u32::try_from(slots).is_ok()),
            "more slots than 32 bits can number"
        );
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
            draws: Vec::with_capacity(limits.max_logit_rows),
            wants: Vec::with_capacity(limits.max_seqs),
            size: StepSize::default(),
            written_in: vec![0; limits.num_pages],
            step: 1,
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
        self.draws.clear();
        self.wants.clear();
        self.size = StepSize::default();
        self.step = self.step.checked_add(1).unwrap_or_else(|| {
            self.written_in.fill(0);
            1
        });
    }

    /// Appends `token_ids` of one sequence, the first at absolute position `start`, whose pages are `block_table`.
    ///
    /// # Panics
    /// When the chunk is empty, exceeds the limits, has fewer pages than `start + token_ids.len()` tokens need, names a
    /// page that does not exist, or writes a page that is written in this step already: these are the caller's
    /// invariants.
    pub fn push(&mut self, token_ids: &[u32], start: usize, block_table: &[u32], want: Want) {
        let (seq_idx, first_row) = (self.num_seqs(), self.num_tokens());
        let context_len = start + token_ids.len();
        let n_blocks = context_len.div_ceil(self.page_size);
        assert!(!token_ids.is_empty(), "a sequence's chunk must have at least one token");
        assert!(first_row + token_ids.len() <= self.limits.max_tokens, "batch exceeds its token limit");
        assert!(seq_idx < self.limits.max_seqs, "batch exceeds its sequence limit");
        assert!(n_blocks <= self.limits.max_blocks, "sequence exceeds its page limit");
        assert!(n_blocks <= block_table.len(), "sequence has fewer pages than its tokens need");
        let block_table = &block_table[..n_blocks];
        for &page in block_table {
            assert!((page as usize) < self.limits.num_pages, "page {page} does not exist");
        }
        for &page in &block_table[start / self.page_size..] {
            let written_in = &mut self.written_in[page as usize];
            assert!(*written_in != self.step, "page {page} is written twice in a step");
            *written_in = self.step;
        }

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
        self.block_tables.extend_from_slice(block_table);
        self.block_tables.resize((seq_idx + 1) * self.limits.max_blocks, 0);
        self.want(first_row, token_ids.len(), want);
        assert!(self.size.head_rows() <= self.limits.max_logit_rows, "batch exceeds its logit row limit");
    }

    /// Adds a chunk's wanted rows behind those of their kind.
    fn want(&mut self, first_row: usize, len: usize, want: Want) {
        let StepSize { token_rows, has_draws, logit_rows, hidden_rows, .. } = &mut self.size;
        let (end, kind, rows) = match want {
            Want::None => (0, &mut 0, Rows::LastN(0)),
            Want::Argmax(rows) => (*token_rows, token_rows, rows),
            Want::Draw(_) => (*token_rows, token_rows, Rows::Last),
            Want::Logits(rows) => (*token_rows + *logit_rows, logit_rows, rows),
            Want::Hidden(rows) => (*token_rows + *logit_rows + *hidden_rows, hidden_rows, rows),
        };
        let rows = rows.of(len);
        match want {
            Want::Argmax(_) => self.draws.extend(rows.clone().map(|_| Draw::HIGHEST)),
            Want::Draw(draw) => {
                self.draws.push(draw);
                *has_draws = true;
            }
            _ => {}
        }
        self.wants.push(Wanted { want, first: *kind, count: rows.len() });
        *kind += rows.len();
        self.size.tokens += len;
        self.wanted_rows.extend(rows.clone().map(|row| (first_row + row) as u32));
        self.wanted_rows[end..].rotate_right(rows.len());
    }

    /// Becomes a copy of `other`, reusing the buffers. Nothing can be pushed to a copy before it is cleared.
    pub fn copy_from(&mut self, other: &Batch) {
        self.token_ids.clone_from(&other.token_ids);
        self.positions.clone_from(&other.positions);
        self.slot_mapping.clone_from(&other.slot_mapping);
        self.seq_of_row.clone_from(&other.seq_of_row);
        self.cu_seqlens_q.clone_from(&other.cu_seqlens_q);
        self.context_lens.clone_from(&other.context_lens);
        self.block_tables.clone_from(&other.block_tables);
        self.wanted_rows.clone_from(&other.wanted_rows);
        self.draws.clone_from(&other.draws);
        self.wants.clone_from(&other.wants);
        self.size = other.size;
        self.limits = other.limits;
        self.page_size = other.page_size;
        self.written_in.resize(other.limits.num_pages, 0);
        // Every page counts as written.
        self.written_in.fill(self.step);
    }

    /// `[T]` token ids.
    pub fn token_ids(&self) -> &[u32] {
        &self.token_ids
    }

    /// `[T]` absolute position of each token in its sequence.
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// `[T]` where the token's K and V go: `page * page_size + offset`. No two are equal.
    pub fn slot_mapping(&self) -> &[u32] {
        &self.slot_mapping
    }

    /// `[T]` the sequence (index within this batch) that owns the row.
    pub fn seq_of_row(&self) -> &[u32] {
        &self.seq_of_row
    }

    /// `[S + 1]` first row of each sequence, then `T`.
    pub fn cu_seqlens_q(&self) -> &[u32] {
        &self.cu_seqlens_q
    }

    /// `[S]` tokens of the sequence in the cache once this step has stored its own.
    pub fn context_lens(&self) -> &[u32] {
        &self.context_lens
    }

    /// `[max_blocks]` pages of one sequence; entries past its last page are 0 and never read.
    pub fn block_table(&self, seq_idx: usize) -> &[u32] {
        &self.block_tables[seq_idx * self.limits.max_blocks..][..self.limits.max_blocks]
    }

    /// `[A + L + H]` rows that yield something: one gather and one norm serve all, and the LM head runs on the first
    /// `A + L`.
    pub fn wanted_rows(&self) -> &[u32] {
        &self.wanted_rows
    }

    /// `[A]` rows that yield a token.
    pub fn token_rows(&self) -> &[u32] {
        &self.wanted_rows[..self.size.token_rows]
    }

    /// `[A]` how their tokens are chosen.
    pub fn draws(&self) -> &[Draw] {
        &self.draws
    }

    /// `[L]` rows whose logits are wanted.
    pub fn logit_rows(&self) -> &[u32] {
        &self.wanted_rows[self.size.token_rows..self.size.head_rows()]
    }

    /// `[H]` rows whose hidden states are wanted.
    pub fn hidden_rows(&self) -> &[u32] {
        &self.wanted_rows[self.size.head_rows()..]
    }

    /// What a sequence yields, and which of the rows of that kind are its own.
    pub fn wanted(&self, seq_idx: usize) -> (Want, Range<usize>) {
        let Wanted { want, first, count } = self.wants[seq_idx];
        (want, first..first + count)
    }

    /// `T`.
    pub fn num_tokens(&self) -> usize {
        self.token_ids.len()
    }

    /// `S`.
    pub fn num_seqs(&self) -> usize {
        self.context_lens.len()
    }

    /// How many tokens and rows of each kind the batch has.
    pub fn size(&self) -> StepSize {
        self.size
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
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BatchLimits =
        BatchLimits { max_tokens: 8, max_seqs: 3, max_logit_rows: 4, max_blocks: 4, num_pages: 8 };

    fn batch() -> Batch {
        Batch::new(LIMITS, 2)
    }

    #[test]
    fn a_step_mixes_prompt_chunks_and_decodes() {
        let mut batch = batch();
        batch.push(&[7, 8, 9], 1, &[5, 3], Want::None);
        batch.push(&[4], 4, &[0, 1, 2], Want::Logits(Rows::Last));
        batch.push(&[1, 2], 0, &[6], Want::Logits(Rows::All));
        assert_eq!(batch.token_ids(), [7, 8, 9, 4, 1, 2]);
        assert_eq!(batch.positions(), [1, 2, 3, 4, 0, 1]);
        assert_eq!(batch.slot_mapping(), [11, 6, 7, 4, 12, 13]);
        assert_eq!(batch.seq_of_row(), [0, 0, 0, 1, 2, 2]);
        assert_eq!(batch.cu_seqlens_q(), [0, 3, 4, 6]);
        assert_eq!(batch.context_lens(), [4, 5, 2]);
        assert_eq!(batch.block_tables, [5, 3, 0, 0, 0, 1, 2, 0, 6, 0, 0, 0]);
        assert_eq!(batch.logit_rows(), [3, 4, 5]);
        assert!(batch.hidden_rows().is_empty() && batch.token_rows().is_empty());
        batch.clear();
        assert!(batch.is_empty());
        assert_eq!(batch.cu_seqlens_q(), [0]);
    }

    #[test]
    fn rows_are_listed_by_kind_and_found_by_sequence() {
        let mut batch = batch();
        batch.push(&[7, 8], 0, &[0], Want::Hidden(Rows::All));
        batch.push(&[4, 5, 6], 0, &[1, 2], Want::Argmax(Rows::LastN(2)));
        batch.push(&[1, 2], 0, &[3], Want::Logits(Rows::Last));
        let rows = |batch: &Batch| {
            [batch.token_rows().to_vec(), batch.logit_rows().to_vec(), batch.hidden_rows().to_vec()]
        };
        assert_eq!(rows(&batch), [vec![3, 4], vec![6], vec![0, 1]]);
        assert_eq!(batch.wanted_rows(), [3, 4, 6, 0, 1]);
        assert_eq!(
            batch.size(),
            StepSize { tokens: 7, token_rows: 2, has_draws: false, logit_rows: 1, hidden_rows: 2 }
        );
        assert_eq!((batch.size().head_rows(), batch.size().wanted_rows()), (3, 5));
        assert_eq!(batch.wanted(0), (Want::Hidden(Rows::All), 0..2));
        assert_eq!(batch.wanted(1), (Want::Argmax(Rows::LastN(2)), 0..2));
        assert_eq!(batch.wanted(2), (Want::Logits(Rows::Last), 0..1));
        let mut copy = Batch::new(LIMITS, 2);
        copy.copy_from(&batch);
        assert_eq!(rows(&copy), rows(&batch));
        batch.clear();
        assert_eq!(batch.size(), StepSize::default());
        batch.push(&[7], 0, &[0], Want::Argmax(Rows::Last));
        batch.push(&[7], 0, &[1], Want::None);
        batch.push(&[7], 0, &[2], Want::Argmax(Rows::All));
        assert_eq!(rows(&batch), [vec![0, 2], vec![], vec![]]);
        assert_eq!([0, 1, 2].map(|seq| batch.wanted(seq).1), [0..1, 0..0, 1..2]);
    }

    #[test]
    fn a_page_may_be_read_by_many_and_written_again_in_the_next_step() {
        let mut batch = batch();
        for _ in 0..3 {
            batch.push(&[1], 2, &[7, 0], Want::None);
            batch.push(&[1], 2, &[7, 1], Want::None);
            batch.clear();
        }
        batch.step = u32::MAX;
        batch.push(&[1], 0, &[0], Want::None);
        batch.clear();
        batch.push(&[1], 0, &[0], Want::None);
    }

    #[test]
    #[should_panic(expected = "fewer pages")]
    fn a_sequence_needs_its_pages() {
        batch().push(&[1, 2, 3], 0, &[0], Want::None);
    }

    #[test]
    #[should_panic(expected = "page 8 does not exist")]
    fn pages_exist() {
        batch().push(&[1], 2, &[8, 0], Want::None);
    }

    #[test]
    #[should_panic(expected = "page 3 is written twice")]
    fn two_sequences_do_not_write_one_page() {
        let mut batch = batch();
        batch.push(&[1], 0, &[3], Want::None);
        batch.push(&[1], 3, &[2, 3], Want::None);
    }

    #[test]
    #[should_panic(expected = "page 3 is written twice")]
    fn a_sequence_has_a_page_once() {
        batch().push(&[1, 2, 3], 0, &[3, 3], Want::None);
    }

    #[test]
    #[should_panic(expected = "written twice")]
    fn a_copy_takes_no_further_sequences() {
        let mut copy = batch();
        copy.copy_from(&batch());
        copy.push(&[1], 0, &[0], Want::None);
    }

    #[test]
    #[should_panic(expected = "3 rows wanted of a chunk of 2")]
    fn a_chunk_has_the_rows_that_are_wanted() {
        batch().push(&[1, 2], 0, &[3], Want::Argmax(Rows::LastN(3)));
    }

    #[test]
    #[should_panic(expected = "logit row limit")]
    fn the_head_has_a_limit() {
        batch().push(&[1, 2, 3, 4, 5], 0, &[0, 1, 2], Want::Argmax(Rows::All));
    }
}
