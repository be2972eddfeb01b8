//! Ranks on cards of one machine: each is sent the others' parts of rows by their kernels, or reads them (`kernels/group.cu`).
//!
//! ```text
//! gather n, few values:   write own values to the inbox n % 2 of every rank, each with n beside it
//!                         wait for values with n in the own inbox n % 2; they are the others'
//! gather n, many values:  write the part's address in the same way; wait for addresses; read the parts there
//! ```
//! An inbox is written again two gathers later, by ranks that have come through the gather between. All had come to that, each after
//! it was done with this one. The same holds for a part: between two gathers of it there is one of another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use model::{Departure, Rank, Result, Shards};

use crate::attention::words;
use crate::buffer::Half;
use crate::cards::Card;
use crate::driver::{Context, HostFlag, Memory};

/// The most ranks of a group (`MOST_RANKS`).
pub(crate) const MOST_RANKS: usize = 8;
/// Values of the widest part of a gather that are sent (`MOST_SENT`).
const MOST_SENT: usize = 131_072;
/// Bytes of an inbox (`Inbox`).
const INBOX_BYTES: u64 = 2 * MOST_RANKS as u64 * (16 + MOST_SENT as u64 / 2 * 16);

/// What the ranks of a group share.
struct Group {
    inboxes: Vec<Memory>,
    departure: Departure,
    /// Whether a rank has left, for kernels that wait.
    left: HostFlag,
}

/// A rank's place in a group.
pub(crate) struct Place {
    rank: Rank,
    group: Arc<Group>,
    context: Arc<Context>,
    /// The number of the next gather.
    next: AtomicU32,
    /// The most blocks of a kernel that waits.
    blocks: usize,
}

/// A gather, as its kernel takes it.
pub(crate) struct Gather {
    /// Whether values are sent.
    pub is_few: bool,
    pub blocks: usize,
    pub parameters: [u64; 20],
}

/// Where a gather reads and writes.
pub(crate) struct Ends {
    /// This rank's part.
    pub part: u64,
    /// The rows, and their f16 copy.
    pub out: u64,
    pub half: Half,
}

impl Place {
    /// The places of a group on these cards, whose contexts are those of its ranks.
    ///
    /// # Errors
    /// When the cards do not reach one another's memory.
    pub fn all(cards: &[Card], contexts: &[Arc<Context>]) -> Result<Vec<Self>> {
        for (context, card) in contexts.iter().zip(cards) {
            for (other, its_card) in contexts.iter().zip(cards) {
                context.reach(
                    other,
                    &format!("cuda:{}", card.index()),
                    &format!("cuda:{}", its_card.index()),
                )?;
            }
        }
        let inbox = |context| Memory::new(context, "what ranks are sent", INBOX_BYTES);
        let inboxes = contexts.iter().map(inbox).collect::<Result<_>>()?;
        // Nobody writes to an inbox that is not cleared yet.
        contexts.iter().try_for_each(|context| context.wait())?;
        let group =
            Arc::new(Group { inboxes, departure: Departure::default(), left: HostFlag::new(&contexts[0])? });
        let count = cards.len();
        let place = |(idx, context): (usize, &Arc<Context>)| {
            let ranks_here = cards.iter().filter(|card| card.index() == cards[idx].index()).count();
            Ok(Self {
                rank: Rank::new(idx, count),
                group: Arc::clone(&group),
                context: Arc::clone(context),
                next: AtomicU32::new(1),
                // Ranks of one card leave each other multiprocessors without blocks that wait.
                blocks: cards[idx].multiprocessors()? as usize / (2 * ranks_here - 1).max(1),
            })
        };
        contexts.iter().enumerate().map(place).collect()
    }

    /// The place.
    pub fn rank(&self) -> Rank {
        self.rank
    }

    /// The next gather.
    ///
    /// # Panics
    /// When there are more values than kernels count.
    pub fn gather(&self, rows: usize, shards: &Shards, ends: &Ends) -> Gather {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if number == u32::MAX {
            // Zero is what inboxes have in the beginning.
            self.next.store(1, Ordering::Relaxed);
        }
        let (ranks, cols) = (self.rank.count(), shards.cols());
        assert!(u32::try_from(rows * cols).is_ok(), "all_gather: {rows} rows of {cols}");
        // What a kernel is taken by is the same on all ranks.
        let widest = rows * (0..ranks).map(|rank| shards.of(rank).len()).max().unwrap_or(0);
        let is_few = widest <= MOST_SENT;
        let at_a_time = if is_few { 2 * 256 } else { 4 * 4 * 256 };
        let mut parameters = [0; 20];
        parameters[..4].copy_from_slice(&[ends.part, ends.out, ends.half.address, self.group.left.address()]);
        for (word, inbox) in parameters[4..].iter_mut().zip(&self.group.inboxes) {
            *word = inbox.address();
        }
        let mut starts = [0; MOST_RANKS + 2];
        starts[..=ranks].copy_from_slice(shards.starts());
        for (word, pair) in parameters[12..].iter_mut().zip(starts.chunks(2)) {
            *word = words(pair[0], pair[1]);
        }
        parameters[17] = words(rows, 0) | u64::from(ends.half.shape) << 32;
        parameters[18] = words(self.rank.idx(), ranks);
        parameters[19] = u64::from(number);
        let blocks = if is_few { widest } else { rows * cols }.div_ceil(at_a_time).min(self.blocks);
        Gather { is_few, blocks, parameters }
    }

    /// Ends all waiting, now and from now on.
    pub fn leave(&self, reason: &str) {
        self.group.departure.set(self.rank, reason);
        self.group.left.set();
    }

    /// Whether all are still there.
    pub fn check(&self) -> Result<()> {
        self.group.departure.check()
    }
}

impl Drop for Place {
    /// Its kernels write to the others' inboxes.
    fn drop(&mut self) {
        self.leave("it is closed");
        // A card that is lost writes nothing any more.
        let _ = self.context.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inbox_is_laid_out_as_kernels_have_it() {
        assert_eq!(INBOX_BYTES, 2 * 8 * 16 + 2 * 8 * 65_536 * 16);
    }
}
