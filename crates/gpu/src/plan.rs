//! The batch on the device: one buffer of words, uploaded once a step, that every kernel reads.

use std::sync::Arc;

use model::{Batch, BatchLimits, QkvShape, Result};

use crate::buffer::DeviceBuffer;
use crate::device::Gpu;
use crate::plan_layout::{Count, HEADER_WORDS, Section, max_words};
use crate::recorder::Recorder;
use crate::tiling;

/// A batch as the words of a plan.
pub(crate) struct PlanWords {
    limits: BatchLimits,
    words: Vec<u32>,
    counts: PlanCounts,
}

/// The sizes of a planned batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct PlanCounts {
    pub num_tokens: usize,
    pub num_seqs: usize,
    pub num_wanted_rows: usize,
    /// Runs of rows that attention takes.
    pub num_runs: usize,
    /// Tokens of the longest context.
    pub max_context: usize,
    /// Tokens of a page.
    pub page_size: usize,
    /// Past the highest page of any block table or slot.
    pub end_page: usize,
    /// Past the highest token id.
    pub end_token: usize,
}

impl PlanWords {
    /// Words for the largest batch.
    pub fn new(limits: BatchLimits) -> Self {
        Self { limits, words: Vec::with_capacity(max_words(limits)), counts: PlanCounts::default() }
    }

    /// Takes in a batch. Allocates nothing for one within the limits.
    ///
    /// # Panics
    /// When the batch exceeds the limits, or wants a row that it does not have.
    pub fn fill(&mut self, batch: &Batch, rows_per_run: usize) {
        let (num_tokens, page_size) = (batch.num_tokens(), batch.page_size());
        let max_context = highest(batch.context_lens());
        let num_blocks = max_context.div_ceil(page_size);
        let tables = || (0..batch.num_seqs()).map(|seq_idx| &batch.block_table(seq_idx)[..num_blocks]);
        let end_wanted = end(batch.wanted_rows());
        assert!(end_wanted <= num_tokens, "plan: row {end_wanted} of {num_tokens} is wanted");
        self.words.clear();
        self.words.resize(HEADER_WORDS, 0);
        self.put(Section::TokenIds, batch.token_ids().iter().copied());
        self.put(Section::Positions, batch.positions().iter().copied());
        self.put(Section::SlotMapping, batch.slot_mapping().iter().copied());
        self.put(Section::SeqOfRow, batch.seq_of_row().iter().copied());
        self.put(Section::CuSeqlensQ, batch.cu_seqlens_q().iter().copied());
        self.put(Section::ContextLens, batch.context_lens().iter().copied());
        self.put(Section::BlockTables, tables().flatten().copied());
        self.put(Section::WantedRows, batch.wanted_rows().iter().copied());
        let mut num_runs = 0;
        self.put(Section::Runs, runs(batch, rows_per_run).inspect(|_| num_runs += 1).flatten());
        self.counts = PlanCounts {
            num_tokens,
            num_seqs: batch.num_seqs(),
            num_wanted_rows: batch.wanted_rows().len(),
            num_runs,
            max_context,
            page_size,
            end_page: tables().map(end).max().unwrap_or(0).max(end(batch.slot_mapping()).div_ceil(page_size)),
            end_token: end(batch.token_ids()),
        };
        for (count, value) in [
            (Count::Tokens, num_tokens),
            (Count::Seqs, batch.num_seqs()),
            (Count::WantedRows, batch.wanted_rows().len()),
            (Count::Runs, num_runs),
            (Count::Blocks, num_blocks),
            (Count::PageSize, page_size),
        ] {
            self.words[count.word()] = value as u32;
        }
    }

    /// Appends a section.
    fn put(&mut self, section: Section, values: impl Iterator<Item = u32>) {
        let start = self.words.len();
        self.words[section.word()] = start as u32;
        self.words.extend(values);
        let (len, most) = (self.words.len() - start, section.max_words(self.limits));
        assert!(
            len <= most,
            "plan: {section:?} takes {len} words, expected at most {most} for {:?}",
            self.limits
        );
    }

    /// The words of the batch last taken in.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// The sizes of the batch last taken in.
    pub fn counts(&self) -> PlanCounts {
        self.counts
    }
}

/// A batch on the device.
pub struct GpuPlan {
    words: PlanWords,
    /// The heads of the model's layers, each shape once.
    shapes: Vec<QkvShape>,
    /// The words, for kernels.
    pub(crate) buffer: DeviceBuffer,
    /// Where attention leaves the partial results of splits. Made with the first batch, whose pages tell how long contexts
    /// can be.
    partials: Option<DeviceBuffer>,
}

impl GpuPlan {
    /// A plan for batches within the limits, of a model whose layers have heads of these shapes.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub(crate) fn new(
        gpu: &Gpu,
        recorder: &Arc<Recorder>,
        limits: BatchLimits,
        shapes: &[QkvShape],
    ) -> Result<Self> {
        let mut distinct = Vec::new();
        for shape in shapes {
            if !distinct.contains(shape) {
                distinct.push(*shape);
            }
        }
        let buffer = DeviceBuffer::new(gpu, recorder, "plan", word_bytes(limits))?;
        Ok(Self { words: PlanWords::new(limits), shapes: distinct, buffer, partials: None })
    }

    /// Bytes on the device of a plan for batches within the limits, over pages of `page_size` tokens.
    pub(crate) fn bytes(limits: BatchLimits, shapes: &[QkvShape], page_size: usize) -> u64 {
        DeviceBuffer::rounded(word_bytes(limits))
            + DeviceBuffer::rounded(partial_bytes(limits, shapes, page_size))
    }

    /// Takes in a batch and brings it to the device with one write.
    ///
    /// # Errors
    /// When the device has no memory left for the partials.
    ///
    /// # Panics
    /// When the batch exceeds the limits.
    pub(crate) fn upload(&mut self, gpu: &Gpu, recorder: &Arc<Recorder>, batch: &Batch) -> Result<()> {
        self.words.fill(batch, tiling::rows_per_run(&self.shapes));
        if self.partials.is_none() {
            let bytes = partial_bytes(self.words.limits, &self.shapes, batch.page_size());
            self.partials = Some(DeviceBuffer::new(gpu, recorder, "attention's partials", bytes)?);
        }
        let words = bytemuck::cast_slice(self.words.words());
        assert!(words.len() as u64 <= self.buffer.raw.size(), "plan: {} bytes of words", words.len());
        gpu.queue.write_buffer(&self.buffer.raw, 0, words);
        Ok(())
    }

    /// The sizes of the batch on the device.
    pub(crate) fn counts(&self) -> PlanCounts {
        self.words.counts()
    }

    /// Whether runs are cut for heads of this shape.
    pub(crate) fn suits(&self, shape: QkvShape) -> bool {
        self.shapes.contains(&shape)
    }

    /// Where attention leaves the partial results of splits.
    ///
    /// # Panics
    /// When no batch has been planned.
    pub(crate) fn partials(&self) -> &DeviceBuffer {
        self.partials.as_ref().expect("a batch is planned before its attention")
    }
}

fn word_bytes(limits: BatchLimits) -> u64 {
    max_words(limits) as u64 * 4
}

fn partial_bytes(limits: BatchLimits, shapes: &[QkvShape], page_size: usize) -> u64 {
    tiling::max_partial_bytes(shapes, limits.max_tokens, limits.max_blocks.saturating_mul(page_size))
}

fn highest(values: &[u32]) -> usize {
    values.iter().copied().max().unwrap_or(0) as usize
}

/// Past the highest of some numbers; 0 of none.
fn end(values: &[u32]) -> usize {
    values.iter().max().map_or(0, |&most| most as usize + 1)
}

/// Cuts every sequence's rows, from its first on, into runs of at most `rows_per_run`: sequence, first row, rows.
fn runs(batch: &Batch, rows_per_run: usize) -> impl Iterator<Item = [u32; 3]> {
    let rows_per_run = rows_per_run as u32;
    (0..).zip(batch.cu_seqlens_q().windows(2)).flat_map(move |(seq_idx, rows)| {
        let (first, end) = (rows[0], rows[1]);
        (first..end)
            .step_by(rows_per_run as usize)
            .map(move |row| [seq_idx, row, rows_per_run.min(end - row)])
    })
}

#[cfg(test)]
mod tests {
    use model::{Rows, Want};

    use super::*;

    #[test]
    fn a_batch_becomes_words() {
        let limits =
            BatchLimits { max_tokens: 8, max_seqs: 3, max_logit_rows: 4, max_blocks: 9, num_pages: 7 };
        let mut batch = Batch::new(limits, 2);
        let mut words = PlanWords::new(limits);
        let capacity = words.words.capacity();
        batch.push(&[7, 8, 9, 10, 11], 1, &[5, 3, 4], Want::None);
        batch.push(&[4], 4, &[0, 1, 2], Want::Logits(Rows::Last));
        batch.push(&[1, 2], 0, &[6], Want::Logits(Rows::All));
        words.fill(&batch, 2);
        let counts = PlanCounts {
            num_tokens: 8,
            num_seqs: 3,
            num_wanted_rows: 3,
            num_runs: 5,
            max_context: 6,
            page_size: 2,
            end_page: 7,
            end_token: 12,
        };
        assert_eq!(words.counts(), counts);
        let plan = words.words();
        let counts =
            [Count::Tokens, Count::Seqs, Count::WantedRows, Count::Runs, Count::Blocks, Count::PageSize];
        assert_eq!(counts.map(|count| plan[count.word()]), [8, 3, 3, 5, 3, 2]);
        let section = |section: Section, len: usize| &plan[plan[section.word()] as usize..][..len];
        assert_eq!(section(Section::TokenIds, 8), batch.token_ids());
        assert_eq!(section(Section::Positions, 8), batch.positions());
        assert_eq!(section(Section::SlotMapping, 8), batch.slot_mapping());
        assert_eq!(section(Section::SeqOfRow, 8), batch.seq_of_row());
        assert_eq!(section(Section::CuSeqlensQ, 4), [0, 5, 6, 8]);
        assert_eq!(section(Section::ContextLens, 3), [6, 5, 2]);
        assert_eq!(section(Section::BlockTables, 9), [5, 3, 4, 0, 1, 2, 6, 0, 0]);
        assert_eq!(section(Section::WantedRows, 3), [5, 6, 7]);
        assert_eq!(section(Section::Runs, 15), [0, 0, 2, 0, 2, 2, 0, 4, 1, 1, 5, 1, 2, 6, 2]);
        assert_eq!(plan[Section::Runs.word()] as usize + 15, plan.len());
        assert_eq!(words.words.capacity(), capacity);
    }

    #[test]
    fn an_empty_batch_has_a_header() {
        let limits =
            BatchLimits { max_tokens: 1, max_seqs: 1, max_logit_rows: 1, max_blocks: 1, num_pages: 1 };
        let mut words = PlanWords::new(limits);
        words.fill(&Batch::new(limits, 16), 16);
        assert_eq!(words.counts(), PlanCounts { page_size: 16, ..PlanCounts::default() });
        assert_eq!(words.words()[..5], [0; 5]);
        assert_eq!(words.words().len(), HEADER_WORDS + 1);
    }

    #[test]
    fn a_plan_takes_what_its_limits_need() {
        let shapes = [QkvShape { num_heads: 32, num_kv_heads: 8, head_dim: 128 }; 2];
        let bytes = |max_tokens, max_seqs, max_context: usize| {
            let max_blocks = max_context.div_ceil(32);
            GpuPlan::bytes(
                BatchLimits { max_tokens, max_seqs, max_logit_rows: max_seqs, max_blocks, num_pages: 1 },
                &shapes,
                32,
            )
        };
        // No context is split: words alone, 8 for a token, and for a sequence 2 and its pages.
        assert_eq!(
            bytes(64, 1, 256),
            (4 * (HEADER_WORDS as u64 + 8 * 64 + 2 + 8 + 1)).next_multiple_of(16) + 16
        );
        // Two splits of 64 tokens.
        assert!((2 << 20..3 << 20).contains(&bytes(64, 1, 512)), "{}", bytes(64, 1, 512));
        // Long contexts of many sequences: no more than a large device is worth splitting for.
        assert!((32 << 20..33 << 20).contains(&bytes(512, 16, 8192)), "{}", bytes(512, 16, 8192));
    }

    /// A step of nothing but rows that are wanted, each a run of its own, fills a plan to its last word.
    #[test]
    fn the_largest_batch_fits_exactly() {
        let limits =
            BatchLimits { max_tokens: 12, max_seqs: 3, max_logit_rows: 1, max_blocks: 2, num_pages: 6 };
        let mut batch = Batch::new(limits, 4);
        for pages in [[0, 1], [2, 3], [4, 5]] {
            batch.push(&[0; 4], 4, &pages, Want::Hidden(Rows::All));
        }
        let mut words = PlanWords::new(limits);
        words.fill(&batch, 1);
        assert_eq!(words.words().len(), max_words(limits));
    }

    #[test]
    #[should_panic(expected = "plan: TokenIds takes 2 words, expected at most 1")]
    fn a_batch_beyond_the_limits_is_named() {
        let limits =
            BatchLimits { max_tokens: 2, max_seqs: 1, max_logit_rows: 1, max_blocks: 1, num_pages: 1 };
        let mut batch = Batch::new(limits, 4);
        batch.push(&[0, 1], 0, &[0], Want::Logits(Rows::Last));
        PlanWords::new(BatchLimits { max_tokens: 1, ..limits }).fill(&batch, 1);
    }
}
