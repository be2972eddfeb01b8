//! Lines of a file of any length, read into one buffer.

use std::io::{self, BufRead, Read};

/// A reader that counts lines and skips the rest of a line that is too long.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    input: R,
    max_bytes: u64,
    number: u64,
}

/// A line that was read; its text is in the caller's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line {
    /// Counted from 1.
    pub number: u64,
    /// Bytes that it takes in the file, with its ending.
    pub bytes: u64,
    /// Whether it has an ending, which the last line of a file may lack.
    pub is_ended: bool,
    /// Whether it is longer than the limit; the buffer holds its beginning then.
    pub is_too_long: bool,
}

impl<R: BufRead> Lines<R> {
    /// Lines of at most `max_bytes`, the ending not counted.
    pub fn new(input: R, max_bytes: u64) -> Self {
        Self { input, max_bytes, number: 0 }
    }

    /// The same lines, of which the first has this number.
    pub fn from(self, first: u64) -> Self {
        Self { number: first.saturating_sub(1), ..self }
    }

    /// Reads the next line into `text`, without its ending. `None` at the end.
    pub fn next(&mut self, text: &mut Vec<u8>) -> io::Result<Option<Line>> {
        text.clear();
        let mut bytes = (&mut self.input).take(self.max_bytes + 1).read_until(b'\n', text)? as u64;
        if bytes == 0 {
            return Ok(None);
        }
        self.number += 1;
        let mut is_ended = text.ends_with(b"\n");
        let is_too_long = bytes > self.max_bytes && !is_ended;
        if is_ended {
            text.pop();
        } else if is_too_long {
            let (skipped, ended) = self.skip_line()?;
            bytes += skipped;
            is_ended = ended;
        }
        Ok(Some(Line { number: self.number, bytes, is_ended, is_too_long }))
    }

    /// Passes over the rest of a line; its length, and whether it had an ending.
    fn skip_line(&mut self) -> io::Result<(u64, bool)> {
        let mut skipped = 0;
        loop {
            let buffer = self.input.fill_buf()?;
            let end = buffer.iter().position(|&byte| byte == b'\n');
            let bytes = end.map_or(buffer.len(), |end| end + 1);
            self.input.consume(bytes);
            skipped += bytes as u64;
            if end.is_some() || bytes == 0 {
                return Ok((skipped, end.is_some()));
            }
        }
    }
}

/// The byte order mark with which Windows programs begin text files.
pub(crate) const MARK: &[u8] = b"\xef\xbb\xbf";

/// Removes a byte order mark at the beginning of the first line.
pub(crate) fn strip_mark(line: Line, text: &mut Vec<u8>) {
    if line.number == 1 && text.starts_with(MARK) {
        text.drain(..MARK.len());
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    #[test]
    fn lines_are_counted_and_measured() {
        let check = |input: &str, expect: &[(&str, u64, bool, bool)]| {
            let mut lines = Lines::new(BufReader::with_capacity(3, input.as_bytes()), 4);
            let (mut text, mut found) = (Vec::new(), Vec::new());
            while let Some(line) = lines.next(&mut text).unwrap() {
                assert_eq!(line.number, found.len() as u64 + 1);
                let text = String::from_utf8(text.clone()).unwrap();
                found.push((text, line.bytes, line.is_ended, line.is_too_long));
            }
            let expect: Vec<_> = expect.iter().map(|&(t, b, e, l)| (t.to_owned(), b, e, l)).collect();
            assert_eq!(found, expect, "{input:?}");
        };
        check("", &[]);
        check("\n", &[("", 1, true, false)]);
        check("a\nb", &[("a", 2, true, false), ("b", 1, false, false)]);
        check("abcd\nx\n", &[("abcd", 5, true, false), ("x", 2, true, false)]);
        check("abcde\nx\n", &[("abcde", 6, true, true), ("x", 2, true, false)]);
        check("abcdefghij", &[("abcde", 10, false, true)]);
    }
}
