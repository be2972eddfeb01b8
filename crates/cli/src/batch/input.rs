//! The lines of the input, read on a thread of their own as places for them come free.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender};

use anyhow::{Context, Result};

use super::Message;

/// Longest line that is read. The prompt of a million tokens takes a few megabytes; what is longer is no request, but a
/// file that is not of lines, and would take all memory.
const MAX_LINE_BYTES: u64 = 16 << 20;

/// A line that is not blank.
pub struct RawLine {
    /// Counted from 1, blank ones included.
    pub number: usize,
    /// Bytes read since the line before, which is what progress is measured in.
    pub consumed: u64,
    /// Without its ending.
    pub text: Result<Vec<u8>, TooLong>,
}

/// A line longer than [`MAX_LINE_BYTES`], and left out.
pub struct TooLong;

impl TooLong {
    pub fn message(&self) -> String {
        format!("expected at most {MAX_LINE_BYTES} bytes, found a longer line")
    }
}

/// The input, and its length if it is a file.
pub fn open(path: &Path) -> Result<(Box<dyn BufRead + Send>, Option<u64>)> {
    if path == Path::new("-") {
        return Ok((Box::new(BufReader::new(io::stdin())), None));
    }
    let name = || path.display().to_string();
    let file = File::open(path).with_context(name)?;
    let metadata = file.metadata().with_context(name)?;
    let len = metadata.is_file().then_some(metadata.len());
    Ok((Box::new(BufReader::new(file)), len))
}

/// Reads a line for each permit.
pub fn read_lines(input: Box<dyn BufRead + Send>, messages: &Sender<Message>, permits: &Receiver<()>) {
    let mut lines = Lines { input, number: 0 };
    while permits.recv().is_ok() {
        let message = match lines.next() {
            Ok(Some(line)) => Message::Line(line),
            Ok(None) => Message::EndOfInput,
            Err(error) => Message::ReadFailed(error),
        };
        let ended = !matches!(message, Message::Line(_));
        if messages.send(message).is_err() || ended {
            return;
        }
    }
}

struct Lines<R> {
    input: R,
    number: usize,
}

impl<R: BufRead> Lines<R> {
    fn next(&mut self) -> io::Result<Option<RawLine>> {
        let mut consumed = 0;
        loop {
            let mut text = Vec::new();
            let bytes = (&mut self.input).take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut text)? as u64;
            if bytes == 0 {
                return Ok(None);
            }
            self.number += 1;
            consumed += bytes;
            if bytes > MAX_LINE_BYTES && !text.ends_with(b"\n") {
                consumed += self.skip_line()?;
                return Ok(Some(RawLine { number: self.number, consumed, text: Err(TooLong) }));
            }
            // Windows programs begin text files with a byte order mark.
            if self.number == 1 && text.starts_with(b"\xef\xbb\xbf") {
                text.drain(..3);
            }
            text.truncate(text.trim_ascii_end().len());
            if !text.trim_ascii_start().is_empty() {
                return Ok(Some(RawLine { number: self.number, consumed, text: Ok(text) }));
            }
        }
    }

    /// Passes over the rest of a line; its length.
    fn skip_line(&mut self) -> io::Result<u64> {
        let mut skipped = 0;
        loop {
            let buffer = self.input.fill_buf()?;
            let end = buffer.iter().position(|&byte| byte == b'\n');
            let bytes = end.map_or(buffer.len(), |end| end + 1);
            self.input.consume(bytes);
            skipped += bytes as u64;
            if end.is_some() || bytes == 0 {
                return Ok(skipped);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each line's number, bytes consumed and text.
    fn lines(input: &[u8]) -> Vec<(usize, u64, Option<String>)> {
        let mut lines = Lines { input: BufReader::with_capacity(7, input), number: 0 };
        let mut read = Vec::new();
        while let Some(RawLine { number, consumed, text }) = lines.next().unwrap() {
            read.push((number, consumed, text.ok().map(|text| String::from_utf8(text).unwrap())));
        }
        read
    }

    #[track_caller]
    fn check(input: &str, expect: &[(usize, u64, &str)]) {
        let expect = expect.iter().map(|&(number, bytes, text)| (number, bytes, Some(text.to_owned())));
        assert_eq!(lines(input.as_bytes()), expect.collect::<Vec<_>>(), "{input:?}");
    }

    #[test]
    fn blank_lines_are_counted_and_passed_over() {
        check("", &[]);
        check("\n \r\n\t", &[]);
        check("a", &[(1, 1, "a")]);
        check("a\r\nb\n", &[(1, 3, "a"), (2, 2, "b")]);
        check("\n\na \n\n b", &[(3, 5, "a"), (5, 3, " b")]);
        check("\u{feff}a\n\u{feff}b\n", &[(1, 5, "a"), (2, 5, "\u{feff}b")]);
    }

    #[test]
    fn a_line_beyond_the_limit_costs_itself_alone() {
        let max = MAX_LINE_BYTES as usize;
        let input = format!("a\n{}\n{}\n{}\nb\n", "x".repeat(max), "y".repeat(max + 1), "z".repeat(2 * max));
        let found: Vec<_> = lines(input.as_bytes())
            .into_iter()
            .map(|(n, bytes, text)| (n, bytes, text.map(|t| t.len())))
            .collect();
        let max_bytes = MAX_LINE_BYTES;
        let expect = [
            (1, 2, Some(1)),
            (2, max_bytes + 1, Some(max)),
            (3, max_bytes + 2, None),
            (4, 2 * max_bytes + 1, None),
            (5, 2, Some(1)),
        ];
        assert_eq!(found, expect);
    }
}
