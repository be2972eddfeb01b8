//! Which lines have a result.

use crate::index::{IdHash, Index, Known, LineHash};

/// Which lines have a result. A regular file is scanned first, so all ids are known and a mark says that one is done. Of a
/// stream the ids that are done are there without a mark, and the ids that were read get one.
#[derive(Debug)]
pub(crate) enum Ledger {
    /// Of an input that was scanned.
    File(Index),
    /// Of an input that can be read once.
    Stream(Index),
}

/// What becomes of a result that the output holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It counts.
    Kept,
    /// The output has another result of the same id.
    Repeated,
    /// No line of the input has its id, or that line was changed.
    Stale,
}

impl Ledger {
    /// Nothing is done. `scanned` has the ids of a regular file.
    pub fn new(scanned: Option<Index>) -> Self {
        scanned.map_or_else(|| Self::Stream(Index::new()), Self::File)
    }

    /// Takes in a result of the output, with the hash of the line that it answers, if it has one.
    pub fn enter(&mut self, id: IdHash, line: Option<LineHash>) -> Verdict {
        let is_new = match self {
            Self::File(index) if !index.has_line(id, line) => return Verdict::Stale,
            Self::File(index) => index.mark(id) != Known::Marked,
            Self::Stream(index) => index.insert(id, line),
        };
        if is_new { Verdict::Kept } else { Verdict::Repeated }
    }

    /// Nothing is done again.
    pub fn reset(&mut self) {
        match self {
            Self::File(index) => index.unmark_all(),
            Self::Stream(index) => *index = Index::new(),
        }
    }
}
