//! Which results of an output count when a run goes on.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek};

use crate::index::IdHash;
use crate::input::{RawLine, Reader};
use crate::ledger::{Ledger, Verdict};
use crate::lines::Lines;
use crate::request::ResultLine;

/// What to do with errors that the output holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errors {
    /// Keep them like other results.
    Keep,
    /// Remove them and try their lines again. Those of a reproducible output stay: they would come again.
    Retry,
}

/// Results found in an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Found {
    /// All of them.
    pub results: u64,
    /// Those that are errors.
    pub errors: u64,
    /// Results that were removed, since their line was changed or removed; of a reproducible output, or one before it.
    pub stale: u64,
    /// Whether some may be of an older version, whose numbers may differ from this one's in the last bits.
    pub has_other_bits: bool,
}

/// Whether results are in the order of their lines.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LineOrder {
    last: u64,
    pub is_kept: bool,
}

impl LineOrder {
    pub const EMPTY: Self = Self { last: 0, is_kept: true };

    pub fn push(&mut self, number: u64) {
        self.is_kept &= number > self.last;
        self.last = number;
    }
}

/// Bytes read at once.
const BUFFER: usize = 1 << 16;

/// The results of a file that count as done.
pub(crate) struct Kept {
    pub found: Found,
    pub order: LineOrder,
    /// Where the last result ends.
    pub end: u64,
    /// Whether anything that does not count lies before `end`.
    pub has_gaps: bool,
    /// Results that do not say which line they answer.
    unhashed: u64,
    /// Answers, no errors, that were taken out because their line was changed or removed.
    lost_answers: u64,
}

impl Kept {
    const NOTHING: Self = Self {
        found: Found { results: 0, errors: 0, stale: 0, has_other_bits: false },
        order: LineOrder::EMPTY,
        end: 0,
        has_gaps: false,
        unhashed: 0,
        lost_answers: 0,
    };

    /// Reads a file whose results are in the order of their lines. Those count that are there without a gap from the first on,
    /// each of the line of `lines` whose turn it is; of a stream, which cannot be read twice, of any line.
    pub fn find_first(
        file: &File,
        ledger: &mut Ledger,
        mut lines: Option<Reader<impl BufRead>>,
    ) -> io::Result<Self> {
        let (mut kept, mut has_ended, mut is_damaged) = (Self::NOTHING, false, false);
        each_line(file, |line, _, bytes| {
            let Some(line) = line else {
                is_damaged |= !has_ended;
                has_ended = true;
                return Ok(());
            };
            let is_next = |line: &ResultLine, place: &RawLine| {
                place.custom_id == line.custom_id && Some(place.hash) == line.hash
            };
            has_ended = has_ended
                || match &mut lines {
                    Some(lines) => lines.next()?.is_none_or(|place| !is_next(&line, &place)),
                    None => false,
                }
                || ledger.enter(IdHash::of(&line.custom_id), line.hash) != Verdict::Kept;
            if has_ended {
                kept.found.stale += u64::from(!is_damaged);
                kept.lost_answers += u64::from(!line.is_error);
                return Ok(());
            }
            kept.end += bytes;
            kept.found.results += 1;
            kept.found.errors += u64::from(line.is_error);
            Ok(())
        })?;
        Ok(kept)
    }

    /// Reads a file and visits the results that count: whole ones, the first of each id, of lines of the input, no errors if
    /// those are retried.
    pub fn find(
        file: &File,
        errors: Errors,
        ledger: &mut Ledger,
        mut visit: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<Self> {
        let (mut kept, mut offset) = (Self::NOTHING, 0);
        each_line(file, |line, text, bytes| {
            let begin = offset;
            offset += bytes;
            let line = line.filter(|line| !(line.is_error && errors == Errors::Retry));
            let Some(line) = line else { return Ok(()) };
            kept.unhashed += u64::from(line.hash.is_none());
            match ledger.enter(IdHash::of(&line.custom_id), line.hash) {
                Verdict::Kept => {}
                Verdict::Repeated => return Ok(()),
                Verdict::Stale => {
                    kept.found.stale += 1;
                    kept.lost_answers += u64::from(!line.is_error);
                    return Ok(());
                }
            }
            kept.has_gaps |= kept.end < begin;
            kept.end = offset;
            kept.found.results += 1;
            kept.found.errors += u64::from(line.is_error);
            kept.order.push(line.number.unwrap_or_default());
            visit(text)
        })?;
        Ok(kept)
    }

    /// Whether these are results of an input that was replaced and not mended: most answers would be lost, or nothing says
    /// which line they answer.
    pub fn is_of_another_input(&self) -> bool {
        self.unhashed > 0 || self.lost_answers > self.found.results - self.found.errors
    }
}

/// Visits every line of a file with its result (`None` if it is not whole), its text and its length in bytes.
pub(crate) fn each_line(
    mut file: &File,
    mut visit: impl FnMut(Option<ResultLine>, &[u8], u64) -> io::Result<()>,
) -> io::Result<()> {
    file.rewind()?;
    // Lines of any length: each result was in memory when it was written.
    let mut lines = Lines::new(BufReader::with_capacity(BUFFER, file), u64::MAX - 1);
    let mut text = Vec::new();
    while let Some(line) = lines.next(&mut text)? {
        let result = if line.is_ended { ResultLine::read(&text) } else { None };
        visit(result, &text, line.bytes)?;
    }
    Ok(())
}
