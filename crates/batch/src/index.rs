//! The ids of a batch, what their lines hold, and which are done, in at most 32 bytes a line.

use std::fmt;
use std::hash::Hasher;

use siphasher::sip::SipHasher13;
use siphasher::sip128::{Hasher128, SipHasher13 as SipHasher128};

/// A set of 96-bit hashes of ids. Each has 31 bits of its line's hash, and may be marked.
///
/// Open addressing in 256 tables, one for each value of a hash's first byte. A table grows by a quarter, so an id takes at
/// most [`GROWTH`] / [`LOAD`] * 16 bytes, and tables grow one at a time, so growing needs little extra memory. A `HashSet`
/// doubles, and while it grows it holds the old and the new table.
#[derive(Debug)]
pub(crate) struct Index {
    tables: Vec<Table>, // [TABLES]
}

/// The hash of an id, in the upper 96 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IdHash(u128);

/// The hash of a request's line. A result carries it, so that a line that was changed is answered again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LineHash(u64);

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
/// The bits of a place that hold the id.
const ID: u128 = !0 << 32;

impl IdHash {
    /// Digits of its text.
    pub const DIGITS: usize = 24;

    /// The upper 96 bits of SipHash-1-3 with 128: two of a billion ids collide with a chance of about 10^-11.
    pub fn of(custom_id: &str) -> Self {
        let mut hasher = SipHasher128::new_with_keys(0, 0);
        hasher.write(custom_id.as_bytes());
        let hash = hasher.finish128().as_u128() & ID;
        // 0 is a free place.
        Self(if hash == 0 { 1 << 32 } else { hash })
    }
}

impl fmt::Display for IdHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0width$x}", self.0 >> 32, width = Self::DIGITS)
    }
}

impl LineHash {
    /// SipHash-1-3 of a line without the white space at its ends.
    pub fn of(text: &[u8]) -> Self {
        let mut hasher = SipHasher13::new_with_keys(0, 0);
        hasher.write(text.trim_ascii());
        Self(hasher.finish())
    }

    /// Reads what `Display` writes.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok().map(Self)).flatten()
    }

    /// Its bits in a place of the index: those between the id and the mark.
    fn tag(self) -> u128 {
        u128::from(self.0 as u32) & !MARK
    }
}

impl fmt::Display for LineHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Index {
    pub fn new() -> Self {
        Self { tables: (0..TABLES).map(|_| Table::default()).collect() }
    }

    /// Adds an id without a mark, and the hash of its line; false if the id was there.
    pub fn insert(&mut self, id: IdHash, line: Option<LineHash>) -> bool {
        self.put(id, line.map_or(0, LineHash::tag), 0) == Known::New
    }

    /// Adds an id if it is new, and marks it.
    pub fn mark(&mut self, id: IdHash) -> Known {
        self.put(id, 0, MARK)
    }

    /// Whether an id is there and marked.
    pub fn is_marked(&self, id: IdHash) -> bool {
        self.slot(id) & MARK != 0
    }

    /// Whether an id is there, with a line of this hash if it is known.
    pub fn has_line(&self, id: IdHash, line: Option<LineHash>) -> bool {
        let slot = self.slot(id);
        slot != 0 && line.is_none_or(|line| slot & !ID & !MARK == line.tag())
    }

    /// Removes all marks.
    pub fn unmark_all(&mut self) {
        self.tables.iter_mut().flat_map(|table| &mut table.slots).for_each(|slot| *slot &= !MARK);
    }

    /// What is known of an id; 0 if it is not there.
    fn slot(&self, id: IdHash) -> u128 {
        let table = &self.tables[Self::table(id)];
        if table.slots.is_empty() { 0 } else { table.slots[table.place(id.0)] }
    }

    fn put(&mut self, id: IdHash, tag: u128, mark: u128) -> Known {
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
            *slot = id.0 | tag;
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
        while self.slots[place] != 0 && self.slots[place] & ID != id {
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
            let place = self.place(slot & ID);
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

    fn line(n: u32) -> LineHash {
        LineHash::of(format!("line {n}").as_bytes())
    }

    #[test]
    fn a_line_s_hash_is_read_back() {
        let hash = LineHash::of(b" {} \r\n");
        assert_eq!((LineHash::parse(&hash.to_string()), hash), (Some(hash), LineHash::of(b"{}")));
        assert_eq!(LineHash(5).to_string(), "0000000000000005");
        for wrong in ["", "5", "000000000000000g", "00000000000000005"] {
            assert_eq!(LineHash::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn ids_are_found_again() {
        let mut index = Index::new();
        for n in 0..10_000 {
            assert!(!index.has_line(id(n), None));
            assert!(index.insert(id(n), Some(line(n))), "{n}");
        }
        for n in 0..10_000 {
            assert!(index.has_line(id(n), None) && !index.insert(id(n), None), "{n}");
            assert!(index.has_line(id(n), Some(line(n))) && !index.has_line(id(n), Some(line(n + 1))), "{n}");
        }
        assert!(!index.has_line(id(10_000), None));
    }

    #[test]
    fn marks_stay_while_tables_grow() {
        let mut index = Index::new();
        for n in 0..1000 {
            index.insert(id(n), Some(line(n)));
        }
        for n in 0..2000 {
            assert_eq!(index.mark(id(n)), if n < 1000 { Known::Unmarked } else { Known::New });
        }
        for n in 2000..20_000 {
            index.insert(id(n), Some(line(n)));
        }
        for n in 0..20_000 {
            assert_eq!(index.is_marked(id(n)), n < 2000);
            assert!(
                (1000..2000).contains(&n) || index.has_line(id(n), Some(line(n))),
                "a mark leaves the line"
            );
        }
        index.unmark_all();
        assert!((0..20_000).all(|n| !index.is_marked(id(n)) && index.has_line(id(n), None)));
    }

    #[test]
    fn an_id_takes_less_than_32_bytes() {
        let mut index = Index::new();
        for n in 0..200_000u32 {
            index.insert(id(n), Some(line(n)));
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
