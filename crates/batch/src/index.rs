//! The set of ids that are done, in at most 32 bytes a line.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

/// A set of 128-bit hashes of ids, each of which may be marked.
///
/// Open addressing in 256 tables, one for each value of a hash's first byte. A table grows by a quarter, so an id takes at
/// most [`GROWTH`] / [`LOAD`] * 16 bytes, and tables grow one at a time, so growing needs little extra memory. A `HashSet`
/// doubles, and while it grows it holds the old and the new table.
#[derive(Debug)]
pub(crate) struct Index {
    tables: Vec<Table>, // [TABLES]
}

/// The hash of an id. Its lowest bit is free for the mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IdHash(u128);

/// Whether an id was in the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// It was not.
    New,
    /// It was, without a mark.
    Unmarked,
    /// It was, with a mark.
    Marked,
}

#[derive(Debug, Default)]
struct Table {
    /// 0 is a free place.
    slots: Vec<u128>,
    len: usize,
}

const TABLES: usize = 256;
/// A table takes no more ids than this share of its places.
const LOAD: (usize, usize) = (7, 8);
/// By how much a full table grows.
const GROWTH: (usize, usize) = (5, 4);
const MARK: u128 = 1;

impl IdHash {
    /// SipHash-1-3 with 128 bits: two of a billion ids collide with a chance of about 10^-20.
    pub fn of(custom_id: &str) -> Self {
        let mut hasher = SipHasher13::new_with_keys(0, 0);
        hasher.write(custom_id.as_bytes());
        let hash = hasher.finish128().as_u128() & !MARK;
        // 0 is a free place.
        Self(if hash == 0 { 2 } else { hash })
    }
}

impl Index {
    pub fn new() -> Self {
        Self { tables: (0..TABLES).map(|_| Table::default()).collect() }
    }

    /// Adds an id without a mark; false if it was there.
    pub fn insert(&mut self, id: IdHash) -> bool {
        self.put(id, 0) == Known::New
    }

    /// Adds an id if it is new, and marks it.
    pub fn mark(&mut self, id: IdHash) -> Known {
        self.put(id, MARK)
    }

    pub fn contains(&self, id: IdHash) -> bool {
        let table = &self.tables[Self::table(id)];
        !table.slots.is_empty() && table.slots[table.place(id.0)] != 0
    }

    fn put(&mut self, id: IdHash, mark: u128) -> Known {
        let table = &mut self.tables[Self::table(id)];
        table.reserve_one();
        let place = table.place(id.0);
        let slot = &mut table.slots[place];
        let known = match *slot {
            0 => Known::New,
            found if found & MARK == 0 => Known::Unmarked,
            _ => Known::Marked,
        };
        if known == Known::New {
            *slot = id.0;
            table.len += 1;
        }
        *slot |= mark;
        known
    }

    fn table(id: IdHash) -> usize {
        (id.0 >> 120) as usize
    }
}

impl Table {
    /// Where the id is or would be.
    fn place(&self, id: u128) -> usize {
        // Bits that did not choose the table, spread over the places.
        let bits = (id >> 32) as u64;
        let mut place = ((u128::from(bits) * self.slots.len() as u128) >> 64) as usize;
        while self.slots[place] != 0 && self.slots[place] & !MARK != id {
            place += 1;
            if place == self.slots.len() {
                place = 0;
            }
        }
        place
    }

    /// Grows the table if it has no place for one more id.
    fn reserve_one(&mut self) {
        if (self.len + 1) * LOAD.1 <= self.slots.len() * LOAD.0 {
            return;
        }
        let places = (self.slots.len() * GROWTH.0 / GROWTH.1).max(self.slots.len() + 8);
        let old = std::mem::replace(&mut self.slots, vec![0; places]);
        for slot in old.into_iter().filter(|&slot| slot != 0) {
            let place = self.place(slot & !MARK);
            self.slots[place] = slot;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u32) -> IdHash {
        IdHash::of(&format!("request-{n}"))
    }

    #[test]
    fn ids_are_found_again() {
        let mut index = Index::new();
        for n in 0..10_000 {
            assert!(!index.contains(id(n)));
            assert!(index.insert(id(n)), "{n}");
        }
        for n in 0..10_000 {
            assert!(index.contains(id(n)) && !index.insert(id(n)), "{n}");
        }
        assert!(!index.contains(id(10_000)));
    }

    #[test]
    fn marks_stay_while_tables_grow() {
        let mut index = Index::new();
        for n in 0..1000 {
            index.insert(id(n));
        }
        for n in 0..2000 {
            assert_eq!(index.mark(id(n)), if n < 1000 { Known::Unmarked } else { Known::New });
        }
        for n in 2000..20_000 {
            index.insert(id(n));
        }
        for n in 0..20_000 {
            assert_eq!(index.mark(id(n)), if n < 2000 { Known::Marked } else { Known::Unmarked });
        }
    }

    #[test]
    fn an_id_takes_less_than_32_bytes() {
        let mut index = Index::new();
        for n in 0..200_000u32 {
            index.insert(id(n));
            if n >= 20_000 && n % 1000 == 0 {
                let places: usize = index.tables.iter().map(|table| table.slots.capacity()).sum();
                // The table that grows has its old places for a moment more.
                let largest = index.tables.iter().map(|table| table.slots.len()).max().unwrap();
                let bytes = (places + largest) * 16;
                assert!(bytes < 32 * (n as usize + 1), "{bytes} bytes for {} ids", n + 1);
            }
        }
    }
}
