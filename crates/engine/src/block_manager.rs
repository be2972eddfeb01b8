//! The pool of KV pages, and what can be found in it.
//!
//! A page holds the K and V of `page_size` consecutive positions of a sequence, in every layer. Pages are plain numbers
//! here; what they hold is the runner's. Sequences take them one at a time as they grow and give all back at once, so the
//! pool has no fragments and no sequence reserves what it may never fill.
//!
//! A full page is findable from the end of the step that computed its last token until it is taken for something else. A
//! sequence that begins, or begins again, shares the pages that hold its first tokens: these are never written again, as
//! every sequence writes behind the tokens that it has cached. Free pages that cannot be found are taken first, then the
//! least recently used; of a sequence's own, the last before the first, without which it could not be found.

use crate::free_list::FreeList;
use crate::policies::CacheRules;
use crate::prefix_index::{PageName, PrefixCache, PrefixIndex};
use crate::request::Pooling;
use crate::sequence::{Sequence, Task};
use crate::stats::EngineStats;

/// Which pages are used by how many, and which are free.
#[derive(Debug)]
pub(crate) struct BlockManager {
    page_size: usize,
    pages: Vec<Page>,
    free: FreeList,
    /// None if nothing is to be found.
    index: Option<PrefixIndex>,
    /// Free pages that can be found.
    num_cached_pages: usize,
    counts: Counts,
    rules: Box<dyn CacheRules>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Page {
    /// Sequences that have it in their block tables.
    num_users: u32,
    /// Its name in the index, if it is there.
    name: Option<PageName>,
}

/// What sequences looked for and found, in tokens.
#[derive(Debug, Default)]
struct Counts {
    queried: u64,
    hit: u64,
    /// Of the hits, those of sequences that began for the first time.
    hit_first: u64,
}

impl BlockManager {
    pub fn new(
        page_size: usize,
        num_pages: usize,
        prefix_cache: PrefixCache,
        rules: Box<dyn CacheRules>,
    ) -> Self {
        Self {
            page_size,
            pages: vec![Page::default(); num_pages],
            free: FreeList::all(num_pages),
            index: (prefix_cache == PrefixCache::On).then(|| PrefixIndex::new(num_pages)),
            num_cached_pages: 0,
            counts: Counts::default(),
            rules,
        }
    }

    pub fn num_free_pages(&self) -> usize {
        self.free.len()
    }

    /// Writes down what the pool knows.
    pub fn report(&self, stats: &mut EngineStats) {
        stats.used_pages = self.pages.len() - self.free.len();
        stats.cached_pages = self.num_cached_pages;
        stats.prefix_queried_tokens = self.counts.queried;
        stats.prefix_hit_tokens = self.counts.hit;
        stats.cached_prompt_tokens = self.counts.hit_first;
    }

    /// Pages that this many tokens of one sequence fill.
    pub fn pages_for(&self, num_tokens: usize) -> usize {
        num_tokens.div_ceil(self.page_size)
    }

    /// Names the pages that a sequence's tokens so far will fill, so that they can be looked for.
    pub fn name_pages(&self, seq: &mut Sequence) {
        let Some(index) = &self.index else { return };
        let pages = seq.token_ids.chunks_exact(self.page_size);
        for token_ids in pages.skip(seq.page_names.len()) {
            let before = seq.page_names.last().copied();
            seq.page_names.push(self.rules.name(index, before, token_ids));
        }
    }

    /// Free pages that [`allocate`](Self::allocate) would take for a sequence: all but those found that others use.
    pub fn pages_to_take(&self, seq: &Sequence) -> usize {
        let in_use = self.findable(seq).filter(|&page| self.pages[page as usize].num_users > 0).count();
        self.pages_for(seq.token_ids.len()) - in_use
    }

    /// Whether one of `running` is about to fill the first page that a sequence looks for and does not find. It is worth a
    /// wait: of many that begin alike at the same time, one computes what they share.
    pub fn will_find_more(&self, seq: &Sequence, running: &[Sequence]) -> bool {
        let num_found = self.findable(seq).count();
        let Some(name) = self.wanted_names(seq).get(num_found) else { return false };
        let will_fill = |other: &Sequence| {
            other.num_published_pages <= num_found && other.page_names.get(num_found) == Some(name)
        };
        running.iter().any(will_fill)
    }

    /// Gives a sequence without pages those for all its tokens, if they are there. It begins behind the tokens that are
    /// found.
    pub fn allocate(&mut self, seq: &mut Sequence) -> bool {
        debug_assert!(
            seq.block_table.is_empty() && seq.num_cached_tokens == 0,
            "sequence {} has pages",
            seq.id
        );
        if self.pages_to_take(seq) > self.free.len() {
            return false;
        }
        // What is found leaves the free list before anything is taken from it.
        let mut block_table = std::mem::take(&mut seq.block_table);
        block_table.extend(self.findable(seq));
        block_table.iter().for_each(|&page| self.share(page));
        let num_found = block_table.len();
        let num_pages = self.pages_for(seq.token_ids.len());
        block_table.extend((num_found..num_pages).map_while(|_| self.take()));
        seq.block_table = block_table;
        seq.num_published_pages = num_found;
        seq.num_cached_tokens = num_found * self.page_size;
        self.count(seq);
        self.publish(seq);
        true
    }

    /// Gives a sequence the pages for `num_tokens` tokens; false if one is missing that is not there.
    pub fn append(&mut self, seq: &mut Sequence, num_tokens: usize) -> bool {
        while seq.block_table.len() < self.pages_for(num_tokens) {
            let Some(page) = self.take() else { return false };
            seq.block_table.push(page);
        }
        true
    }

    /// Tokens that a sequence's pages could hold with all free ones but `spare`.
    pub fn max_tokens(&self, seq: &Sequence, spare: usize) -> usize {
        (seq.block_table.len() + self.free.len().saturating_sub(spare)) * self.page_size
    }

    /// Takes back what a sequence has in its pages beyond `num_tokens` tokens, and the pages that are then empty. Nothing of
    /// it may be findable.
    pub fn truncate(&mut self, seq: &mut Sequence, num_tokens: usize) {
        debug_assert!(
            seq.num_published_pages * self.page_size <= num_tokens,
            "sequence {} takes back what others can find",
            seq.id
        );
        seq.num_cached_tokens = seq.num_cached_tokens.min(num_tokens);
        let num_pages = self.pages_for(num_tokens).min(seq.block_table.len());
        for page in seq.block_table.drain(num_pages..).rev() {
            self.pages[page as usize].num_users = 0;
            self.free.push_front(page);
        }
    }

    /// Whether a step that failed counts as one that has run.
    pub fn trusts_failed_steps(&self) -> bool {
        self.rules.trusts_failed_steps()
    }

    /// Takes back a sequence's pages: its tokens will have to be run again, if they are not found by then.
    pub fn free(&mut self, seq: &mut Sequence) {
        for page in seq.block_table.drain(..).rev() {
            let Page { num_users, name } = &mut self.pages[page as usize];
            *num_users -= 1;
            match (*num_users, name) {
                (0, None) => self.free.push_front(page),
                (0, Some(_)) => {
                    self.free.push_back(page);
                    self.num_cached_pages += 1;
                }
                _ => {}
            }
        }
        seq.num_cached_tokens = 0;
        seq.num_published_pages = 0;
    }

    /// Makes no page findable any more: what they hold cannot be trusted.
    pub fn invalidate(&mut self) {
        let Some(index) = &mut self.index else { return };
        index.clear();
        self.pages.iter_mut().for_each(|page| page.name = None);
        self.num_cached_pages = 0;
    }

    /// The pages that hold a sequence's first tokens, as far as they can be found.
    fn findable(&self, seq: &Sequence) -> impl Iterator<Item = u32> {
        self.wanted_names(seq).iter().map_while(|&name| self.index.as_ref()?.find(name))
    }

    /// The names by which a sequence looks for pages. Never for those of all its tokens: the last must be run, as something
    /// is wanted of it. The mean of all tokens' states needs all of them to be run, and a prompt that is
    /// scored those that were not scored yet.
    fn wanted_names<'a>(&self, seq: &'a Sequence) -> &'a [PageName] {
        let most = match &seq.task {
            Task::Embed(pooler) if pooler.pooling() == Pooling::Mean => 0,
            _ => seq.num_scored_rows().unwrap_or(usize::MAX).min(seq.token_ids.len() - 1) / self.page_size,
        };
        &seq.page_names[..most.min(seq.page_names.len())]
    }

    /// Adds a user to a page that was found.
    fn share(&mut self, page: u32) {
        let num_users = &mut self.pages[page as usize].num_users;
        *num_users += 1;
        if *num_users == 1 {
            self.free.remove(page);
            self.num_cached_pages -= 1;
        }
    }

    /// Takes a free page for new content. Nobody can find the old one any more.
    fn take(&mut self) -> Option<u32> {
        let page = self.free.pop_front()?;
        let Page { num_users, name } = &mut self.pages[page as usize];
        *num_users = 1;
        if let (Some(index), Some(name)) = (&mut self.index, name.take()) {
            index.remove(name);
            self.num_cached_pages -= 1;
        }
        Some(page)
    }

    /// Pages of a sequence that others may find.
    fn num_findable_pages(&self, seq: &Sequence) -> usize {
        self.rules.num_findable_pages(seq.num_cached_tokens, seq.token_ids.len(), self.page_size)
    }

    /// Makes a sequence's full pages findable whose tokens have all been computed.
    pub fn publish(&mut self, seq: &mut Sequence) {
        let num_pages = self.num_findable_pages(seq);
        self.name_pages(seq);
        let Some(index) = &mut self.index else { return };
        for idx in seq.num_published_pages..num_pages {
            let (name, page) = (seq.page_names[idx], seq.block_table[idx]);
            if index.insert(name, page) {
                self.pages[page as usize].name = Some(name);
            }
        }
        seq.num_published_pages = num_pages;
    }

    /// Takes note of what a sequence that begins has found.
    fn count(&mut self, seq: &mut Sequence) {
        if self.index.is_some() {
            self.counts.queried += seq.token_ids.len() as u64;
        }
        self.counts.hit += seq.num_cached_tokens as u64;
        if seq.num_found_tokens.is_none() {
            self.counts.hit_first += seq.num_cached_tokens as u64;
            seq.num_found_tokens = Some(seq.num_cached_tokens);
        }
    }

    /// Checks that every page has as many users as it should and is free if it has none, that what can be found is what its
    /// name says, and that the sequences' pages suffice for what is in them. `sequences` are all that have pages.
    pub fn check_integrity<'a>(&self, sequences: impl Iterator<Item = &'a Sequence>) -> Result<(), String> {
        let mut num_users = vec![0; self.pages.len()];
        let mut last_user = vec![None; self.pages.len()];
        for seq in sequences {
            self.check_sequence(seq)?;
            for &page in &seq.block_table {
                if page as usize >= self.pages.len() {
                    return Err(format!("sequence {} has page {page} of {}", seq.id, self.pages.len()));
                }
                if last_user[page as usize].replace(seq.id) == Some(seq.id) {
                    return Err(format!("sequence {} has page {page} twice", seq.id));
                }
                num_users[page as usize] += 1;
            }
        }
        let mut is_free = vec![false; self.pages.len()];
        self.free.iter().for_each(|page| is_free[page as usize] = true);
        for (page, (Page { num_users, name }, found)) in self.pages.iter().zip(num_users).enumerate() {
            let is_free = is_free[page];
            if *num_users != found {
                return Err(format!("page {page} counts {num_users} users and has {found}"));
            }
            if is_free != (found == 0) {
                return Err(format!("page {page} has {found} users and is free: {is_free}"));
            }
            if found > 1 && name.is_none() {
                return Err(format!("page {page} is shared but cannot be found"));
            }
        }
        self.check_index(is_free.into_iter().filter(|&is_free| is_free).count())
    }

    fn check_sequence(&self, seq: &Sequence) -> Result<(), String> {
        let num_findable = self.num_findable_pages(seq);
        if seq.num_cached_tokens > seq.block_table.len() * self.page_size {
            return Err(format!("sequence {} has {} tokens in too few pages", seq.id, seq.num_cached_tokens));
        }
        for (idx, &page) in seq.block_table.iter().enumerate() {
            let Some(Page { name: Some(name), .. }) = self.pages.get(page as usize) else { continue };
            if idx >= num_findable {
                return Err(format!("page {page} of sequence {} can be found but is not computed", seq.id));
            }
            if seq.page_names.get(idx) != Some(name) {
                return Err(format!("page {page} of sequence {} has a name of other tokens", seq.id));
            }
        }
        Ok(())
    }

    fn check_index(&self, num_free: usize) -> Result<(), String> {
        if num_free != self.free.len() {
            return Err(format!("{num_free} pages are free, not {}", self.free.len()));
        }
        let find = |name| self.index.as_ref().and_then(|index| index.find(name));
        let (mut num_named, mut num_cached) = (0, 0);
        for (page, Page { num_users, name }) in (0..).zip(&self.pages) {
            let Some(name) = *name else { continue };
            if find(name) != Some(page) {
                return Err(format!("page {page} has a name by which it is not found"));
            }
            num_named += 1;
            num_cached += usize::from(*num_users == 0);
        }
        let num_findable = self.index.as_ref().map_or(0, PrefixIndex::len);
        if (num_named, num_cached) != (num_findable, self.num_cached_pages) {
            return Err(format!(
                "{num_named} pages have names, {num_cached} of them free, but {num_findable} and {} were counted",
                self.num_cached_pages
            ));
        }
        Ok(())
    }
}
