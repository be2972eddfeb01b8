//! What full pages are called, and which page has which name.
//!
//! A page's name is a hash of its tokens and of the name of the page before it, so of all tokens from the first on: pages
//! with equal names hold equal K and V, as these depend on nothing else (law 1). Names stand for tokens, which are not
//! compared. That is safe because they have 128 bits of SipHash under a key drawn anew for each process: a caller who does
//! not know the key can do no better than chance, and chance finds two equal names among a billion pages with a probability
//! of 10^-21, far below that of a memory error.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, Hasher, RandomState};

use siphasher::sip128::{Hasher128, SipHasher13};

/// Whether a sequence may begin with KV pages that another one, or itself before a preemption, has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PrefixCache {
    /// Full pages stay findable until they are needed for something else.
    #[default]
    On,
    /// Every token of every prompt is run.
    Off,
}

/// What a full page is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PageName(u128);

/// The pages that can be found by their names.
#[derive(Debug)]
pub(crate) struct PrefixIndex {
    key: (u64, u64),
    pages: HashMap<PageName, u32>,
}

impl PrefixIndex {
    /// An index with room for all pages, so that no step has to make any.
    pub fn new(num_pages: usize) -> Self {
        // The standard library's hash maps are keyed by the system's random numbers; this borrows them.
        let key = (RandomState::new().hash_one(0), RandomState::new().hash_one(1));
        Self { key, pages: HashMap::with_capacity(num_pages) }
    }

    /// The name of a page of `token_ids` that follows one called `before`, or that is the first.
    pub fn name(&self, before: Option<PageName>, token_ids: &[u32]) -> PageName {
        let mut hasher = SipHasher13::new_with_keys(self.key.0, self.key.1);
        // No page is called 0 but by chance, so the first of a sequence is not mistaken for a later one.
        hasher.write_u128(before.map_or(0, |PageName(hash)| hash));
        token_ids.iter().for_each(|&token_id| hasher.write_u32(token_id));
        PageName(hasher.finish128().as_u128())
    }

    pub fn find(&self, name: PageName) -> Option<u32> {
        self.pages.get(&name).copied()
    }

    /// Makes a page findable. False if another has the name: of two equal pages the first is as good.
    pub fn insert(&mut self, name: PageName, page: u32) -> bool {
        let Entry::Vacant(entry) = self.pages.entry(name) else { return false };
        entry.insert(page);
        true
    }

    pub fn remove(&mut self, name: PageName) {
        self.pages.remove(&name);
    }

    pub fn clear(&mut self) {
        self.pages.clear();
    }

    /// Findable pages.
    pub fn len(&self) -> usize {
        self.pages.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_all_tokens_from_the_first_on() {
        let index = PrefixIndex::new(1);
        let name = |pages: &[&[u32]]| {
            pages.iter().fold(None, |before, token_ids| Some(index.name(before, token_ids)))
        };
        assert_eq!(name(&[&[1, 2], &[3, 4]]), name(&[&[1, 2], &[3, 4]]));
        let names = [
            name(&[&[1, 2]]),
            name(&[&[2, 1]]),
            name(&[&[0, 0]]),
            name(&[&[3, 4]]),
            name(&[&[1, 2], &[3, 4]]),
            name(&[&[2, 1], &[3, 4]]),
            name(&[&[1, 2], &[3, 4], &[3, 4]]),
            name(&[&[3, 4], &[3, 4]]),
        ];
        for (i, a) in names.iter().enumerate() {
            assert!(names[..i].iter().all(|b| a != b), "{i}: {names:?}");
        }
    }

    #[test]
    fn every_index_has_a_key_of_its_own() {
        let [a, b] = [(); 2].map(|()| PrefixIndex::new(1));
        assert_ne!(a.name(None, &[1, 2]), b.name(None, &[1, 2]));
    }
}
