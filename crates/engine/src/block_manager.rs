//! The pool of KV pages.
//!
//! A page holds the K and V of `page_size` consecutive positions of one sequence, in every layer. Pages are plain numbers
//! here; what they hold is the runner's. Sequences take them one at a time as they grow and give all back at once, so the
//! pool has no fragments and no sequence reserves what it may never fill.
//!
//! [`BlockManager::allocate`] alone decides what a sequence finds in its first pages, and [`BlockManager::free`] alone what
//! becomes of pages that are given back: whoever shares pages between sequences changes these two.

use crate::sequence::Sequence;
use crate::stats::EngineStats;

/// Which pages are free. Every page is either here or in the block table of one sequence.
#[derive(Debug)]
pub(crate) struct BlockManager {
    page_size: usize,
    num_pages: usize,
    free: Vec<u32>,
}

impl BlockManager {
    pub fn new(page_size: usize, num_pages: usize) -> Self {
        // Taken from the end: a new pool hands out page 0 first.
        Self { page_size, num_pages, free: (0..num_pages as u32).rev().collect() }
    }

    pub fn num_free_pages(&self) -> usize {
        self.free.len()
    }

    /// Writes down what the pool knows.
    pub fn report(&self, stats: &mut EngineStats) {
        stats.used_pages = self.num_pages - self.free.len();
    }

    /// Free pages that [`allocate`](Self::allocate) would take for a sequence.
    pub fn pages_to_take(&self, seq: &Sequence) -> usize {
        self.pages_for(seq.token_ids.len())
    }

    /// Pages that this many tokens of one sequence fill.
    pub fn pages_for(&self, num_tokens: usize) -> usize {
        num_tokens.div_ceil(self.page_size)
    }

    /// Gives a sequence without pages those for all its tokens, if they are there.
    pub fn allocate(&mut self, seq: &mut Sequence) -> bool {
        debug_assert!(
            seq.block_table.is_empty() && seq.num_cached_tokens == 0,
            "sequence {} has pages",
            seq.id
        );
        let num_pages = self.pages_for(seq.token_ids.len());
        let Some(first) = self.free.len().checked_sub(num_pages) else { return false };
        seq.block_table.extend(self.free.drain(first..).rev());
        seq.num_found_tokens.get_or_insert(0);
        true
    }

    /// Makes room for all tokens of a sequence that may have grown by one; false if that needs a page and none is free.
    pub fn append(&mut self, seq: &mut Sequence) -> bool {
        if self.pages_for(seq.token_ids.len()) == seq.block_table.len() {
            return true;
        }
        seq.block_table.extend(self.free.pop());
        self.pages_for(seq.token_ids.len()) == seq.block_table.len()
    }

    /// Takes back a sequence's pages: its tokens will have to be run again.
    pub fn free(&mut self, seq: &mut Sequence) {
        self.free.extend(seq.block_table.drain(..).rev());
        seq.num_cached_tokens = 0;
    }

    /// Checks that every page is in one place, and that the sequences' pages suffice for what is in them.
    pub fn check_integrity<'a>(&self, sequences: impl Iterator<Item = &'a Sequence>) -> Result<(), String> {
        let mut found = vec![false; self.num_pages];
        let mut find = |page: u32, place: &dyn Fn() -> String| match found.get_mut(page as usize) {
            None => Err(format!("{} has page {page} of {}", place(), self.num_pages)),
            Some(true) => Err(format!("{} has page {page}, and so has another", place())),
            Some(found) => {
                *found = true;
                Ok(())
            }
        };
        for &page in &self.free {
            find(page, &|| "the free list".to_owned())?;
        }
        for seq in sequences {
            for &page in &seq.block_table {
                find(page, &|| format!("sequence {}", seq.id))?;
            }
            if seq.num_cached_tokens > seq.block_table.len() * self.page_size {
                return Err(format!(
                    "sequence {} has {} tokens in too few pages",
                    seq.id, seq.num_cached_tokens
                ));
            }
        }
        found.iter().position(|&found| !found).map_or(Ok(()), |page| Err(format!("page {page} is lost")))
    }
}
