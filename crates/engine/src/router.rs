//! Which of several engines is likely to have a prompt's beginning in its prefix cache.
//!
//! A guess from what was sent where: engines are not asked, and what they forget stays known here for a while. A wrong guess
//! costs time and nothing else.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

/// Tokens of a block. Shorter beginnings are not worth a thought.
const BLOCK: usize = 64;

/// Blocks known in each of the two generations: beginnings of some millions of tokens.
const MAX_BLOCKS: usize = 1 << 16;

/// A set of engines, one a bit.
type Engines = u64;

/// Most engines behind one handle.
pub(crate) const MAX_ENGINES: usize = Engines::BITS as usize;

/// The blocks of a prompt, each named by all tokens up to its end.
pub(crate) struct Blocks(Vec<u64>);

/// Who was sent which blocks.
#[derive(Debug, Default)]
pub(crate) struct Router {
    hasher: RandomState,
    recent: HashMap<u64, Engines>,
    /// What was recent before that was full. What is seen again becomes recent again.
    older: HashMap<u64, Engines>,
}

impl Router {
    pub fn blocks(&self, token_ids: &[u32]) -> Blocks {
        let mut name = 0;
        let names = token_ids.chunks_exact(BLOCK).map(|block| {
            name = self.hasher.hash_one((name, block));
            name
        });
        Blocks(names.collect())
    }

    /// Tokens of the beginning that were sent to an engine.
    pub fn num_known(&self, blocks: &Blocks, engine: usize) -> usize {
        let is_known = |&name: &&u64| self.engines(*name) & (1 << engine) != 0;
        BLOCK * blocks.0.iter().take_while(is_known).count()
    }

    /// Takes note that an engine is sent these.
    pub fn note(&mut self, blocks: &Blocks, engine: usize) {
        for &name in &blocks.0 {
            let engines = self.engines(name) | 1 << engine;
            if self.recent.len() >= MAX_BLOCKS {
                self.older = std::mem::take(&mut self.recent);
            }
            self.recent.insert(name, engines);
        }
    }

    fn engines(&self, name: u64) -> Engines {
        self.recent.get(&name).or_else(|| self.older.get(&name)).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(router: &Router, token_ids: &[u32], engine: usize) -> usize {
        router.num_known(&router.blocks(token_ids), engine)
    }

    #[test]
    fn the_longest_beginning_is_known() {
        let mut router = Router::default();
        let prompt: Vec<u32> = (0..200).collect();
        router.note(&router.blocks(&prompt), 1);
        assert_eq!([0, 1].map(|engine| known(&router, &prompt, engine)), [0, 192]);
        let mut other = prompt.clone();
        other[100] = 7;
        assert_eq!(known(&router, &other, 1), 64);
        router.note(&router.blocks(&other), 0);
        assert_eq!([0, 1].map(|engine| known(&router, &other, engine)), [128 + 64, 64]);
        assert_eq!(known(&router, &prompt[64..], 1), 0, "the same tokens elsewhere are another block");
        assert_eq!(known(&router, &prompt[..63], 1), 0);
    }

    #[test]
    fn memory_is_bounded_and_what_is_seen_again_stays() {
        let mut router = Router::default();
        let often = vec![1; BLOCK];
        for first in 0..4 * MAX_BLOCKS as u32 {
            let mut prompt = vec![2; BLOCK];
            prompt[0] = first;
            router.note(&router.blocks(&prompt), 0);
            if first.is_multiple_of(1000) {
                router.note(&router.blocks(&often), 1);
            }
        }
        assert!(router.recent.len() + router.older.len() <= 2 * MAX_BLOCKS);
        assert_eq!(known(&router, &often, 1), BLOCK);
    }
}
