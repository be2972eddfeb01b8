//! Ranks on one machine: thread groups that run a model together and gather their parts of rows through memory.
//!
//! ```text
//! gather k of a rank:  copy its part into its own shelf k % 2
//!                      say that it has come to k; wait until all have
//!                      copy the shelves k % 2 of all into its rows
//! ```
//! A rank fills a shelf again two gathers later, when all have come to the gather between, and so have read it. The locks on
//! shelves are therefore never waited for; they let this be said without unsafe code.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};

use model::{Departure, Error, Rank, Result, Shards};

/// Looks at the other ranks before the thread gives its core away: what a small difference between ranks takes.
const SPINS: u32 = 2000;
/// Then it lets others run so many times, in case the rank that is waited for is among them.
const YIELDS: u32 = 50;

/// A rank's part of the rows of a gather.
type Shelf = RwLock<Vec<f32>>;

/// What the ranks of a group share.
struct Group {
    members: Vec<Member>,
    departure: Departure,
    left: AtomicBool,
    /// Ranks that sleep.
    sleepers: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
}

#[derive(Default)]
struct Member {
    shelves: [Shelf; 2],
    /// Gathers that it has come to.
    come: AtomicU64,
}

/// A rank's place in a group.
pub(crate) struct Place {
    rank: Rank,
    group: Arc<Group>,
}

impl Place {
    /// The places of a group.
    pub fn all(count: usize) -> Vec<Self> {
        let group = Arc::new(Group {
            members: (0..count).map(|_| Member::default()).collect(),
            departure: Departure::default(),
            left: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
        });
        (0..count).map(|idx| Self { rank: Rank::new(idx, count), group: Arc::clone(&group) }).collect()
    }

    /// The place.
    pub fn rank(&self) -> Rank {
        self.rank
    }

    /// Makes room for parts of so many values, so that no gather has to.
    pub fn reserve(&self, len: usize) -> Result<()> {
        for shelf in &self.own().shelves {
            let mut values = shelf.write().unwrap_or_else(PoisonError::into_inner);
            let more = len.saturating_sub(values.len());
            values
                .try_reserve_exact(more)
                .map_err(|_| Error::OutOfMemory { what: "parts".to_owned(), needed: 4 * more as u64 })?;
            if more > 0 {
                values.resize(len, 0.0);
            }
        }
        Ok(())
    }

    /// Brings this rank's part, waits for the others, and calls `each(columns, part)` with that of every rank; with none when one
    /// has left.
    pub fn gather(&self, part: &[f32], shards: &Shards, mut each: impl FnMut(Range<usize>, &[f32])) {
        let Group { members, left, .. } = &*self.group;
        let own = self.own();
        let number = own.come.load(Ordering::Relaxed);
        let shelf = number as usize % 2;
        let mut values = own.shelves[shelf].write().unwrap_or_else(PoisonError::into_inner);
        values[..part.len()].copy_from_slice(part);
        drop(values);
        own.come.store(number + 1, Ordering::SeqCst);
        self.group.wake();
        self.group.wait(|| members.iter().all(|member| member.come.load(Ordering::SeqCst) > number));
        if left.load(Ordering::SeqCst) {
            return;
        }
        for (rank, member) in members.iter().enumerate() {
            each(shards.of(rank), &member.shelves[shelf].read().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Ends all waiting, now and from now on.
    pub fn leave(&self, reason: &str) {
        self.group.departure.set(self.rank, reason);
        self.group.left.store(true, Ordering::SeqCst);
        self.group.wake();
    }

    /// Whether all are still there.
    pub fn check(&self) -> Result<()> {
        self.group.departure.check()
    }

    fn own(&self) -> &Member {
        &self.group.members[self.rank.idx()]
    }
}

impl Group {
    /// Waits until `is_done`, or a rank has left.
    fn wait(&self, is_done: impl Fn() -> bool) {
        let is_done = || is_done() || self.left.load(Ordering::SeqCst);
        for spin in 0..SPINS + YIELDS {
            if is_done() {
                return;
            }
            if spin < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        // A sleeper counts itself before its last look, and others look at the count after what they have to say: one
        // sees the other. The lock keeps a call from coming between the look and the sleep.
        let mut sleep = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while !is_done() {
            sleep = self.wake.wait(sleep).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    fn wake(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            let _sleep = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
            self.wake.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Three ranks with parts of 3, 2 and 1 columns, whose values tell the gather, the rank and the place.
    #[test]
    fn ranks_gather_what_each_has_brought() {
        const GATHERS: usize = 500;
        let shards = Shards::new([3, 2, 1]);
        let value = |gather: usize, column: usize| (gather * 10 + column) as f32;
        thread::scope(|scope| {
            for place in Place::all(3) {
                let shards = &shards;
                scope.spawn(move || {
                    place.reserve(3).unwrap();
                    let own = shards.of(place.rank().idx());
                    for gather in 0..GATHERS {
                        let part: Vec<f32> = own.clone().map(|column| value(gather, column)).collect();
                        // Ranks that are ahead, and ranks that sleep.
                        if gather % 100 == 37 * place.rank().idx() {
                            (0..20_000).for_each(|_| thread::yield_now());
                        }
                        let mut row = [0.0; 6];
                        place.gather(&part, shards, |columns, part| {
                            let width = columns.len();
                            row[columns].copy_from_slice(&part[..width]);
                        });
                        let want: Vec<f32> = (0..6).map(|column| value(gather, column)).collect();
                        assert_eq!(row[..], want, "gather {gather}");
                    }
                });
            }
        });
    }

    #[test]
    fn nobody_waits_for_a_rank_that_has_left() {
        let shards = Shards::new([1, 1]);
        let places = Place::all(2);
        thread::scope(|scope| {
            scope.spawn(|| places[0].gather(&[], &shards, |_, _| panic!("there is no part of rank 1")));
            // Some of these come before the other waits, some while it spins, some while it sleeps.
            (0..20_000).for_each(|_| thread::yield_now());
            places[1].leave("a fault");
        });
        places[0].gather(&[], &shards, |_, _| panic!("it stays so"));
        for place in &places {
            assert_eq!(place.check().unwrap_err().to_string(), "device: rank 1 of 2: a fault");
        }
    }
}
