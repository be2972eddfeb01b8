//! Products of more than a few tokens on compute capability 9.0: how they are spread over the card.

use std::sync::Arc;

use model::Result;

use crate::driver::{Context, Kernel, Memory};
use crate::modules::has_wide_kernels;

/// Tokens beyond which the kernels of `wide.cuh` take a product.
pub(crate) const WIDE_FROM: usize = 16;
/// Rows of a block (`WIDE_ROWS`).
pub(crate) const WIDE_ROWS: usize = 128;
/// Parts of a row's columns, each with sums of its own (`LEAVES`).
const LEAVES: usize = 8;
/// The most tokens of a block.
const MOST_TOKENS: usize = 128;

/// A launch. How it is spread changes no result.
#[derive(Clone, Copy)]
pub(crate) struct Wide<'a> {
    pub kernel: &'a Kernel,
    pub grid: [usize; 3],
    /// Blocks that share the leaves of a tile.
    pub splits: usize,
}

/// Blocks that a multiprocessor holds at a time, of so many tokens.
pub(crate) fn wide_blocks(tokens: usize) -> usize {
    if tokens < MOST_TOKENS { 2 } else { 1 }
}

/// Blocks for the leaves of each of `tiles`, on a card that holds `slots` blocks: as many as there is room for.
pub(crate) fn splits_of(tiles: usize, slots: usize) -> usize {
    [8, 4, 2].into_iter().find(|splits| tiles * splits <= slots).unwrap_or(1)
}

/// Room for the sums of leaves that several blocks share.
pub(crate) struct Leaves {
    sums: Memory,     // [tile][leaf][rows * tokens]
    arrivals: Memory, // [tile]
}

impl Leaves {
    /// For any product of a card; none where no kernel takes it.
    pub fn new(
        context: &Arc<Context>,
        capability: (u32, u32),
        multiprocessors: usize,
    ) -> Result<Option<Self>> {
        if !has_wide_kernels(capability) {
            return Ok(None);
        }
        let what = "partial sums of products";
        let tiles = |tokens| multiprocessors * wide_blocks(tokens) / 2;
        let words = |tokens: usize| tiles(tokens) * LEAVES * WIDE_ROWS * tokens;
        let most = [32, 64, MOST_TOKENS].map(words).into_iter().max().unwrap_or(0);
        Ok(Some(Self {
            sums: Memory::new(context, what, 4 * most as u64)?,
            arrivals: Memory::new(context, what, 4 * tiles(32) as u64)?,
        }))
    }

    pub fn addresses(&self) -> (u64, u64) {
        (self.sums.address(), self.arrivals.address())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_of_few_tiles_is_shared_by_more_blocks() {
        assert_eq!(splits_of(32, 264), 8);
        assert_eq!(splits_of(48, 264), 4);
        assert_eq!(splits_of(132, 264), 2);
        assert_eq!(splits_of(133, 264), 1);
    }

    #[test]
    fn what_is_shared_has_room() {
        for tokens in [32, 64, 128] {
            let slots = 132 * wide_blocks(tokens);
            let most = (1..1000).filter(|tiles| splits_of(*tiles, slots) > 1).max();
            assert_eq!(most, Some(132 * wide_blocks(tokens) / 2));
        }
    }
}
