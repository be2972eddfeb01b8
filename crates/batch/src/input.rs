//! The input: scanned once if it can be read twice, then read line by line as places for requests come free.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;

use openai::ApiError;

use crate::error::{Error, Result};
use crate::hashed::{Hashed, Verified};
use crate::index::{IdHash, Index, Known, LineHash};
use crate::ledger::Ledger;
use crate::lines::{Line, strip_mark};
use crate::manifest::{FileHash, Hasher};
use crate::records::{Compression, InputFormat, Records, decompressed};
use crate::request::{custom_id, duplicate, invalid_json, line_name};
use crate::shard::Shard;
use crate::sniff;

/// Longest line that is read. A prompt of a million tokens takes a few megabytes. A longer line is no request: the file
/// is not made of lines, and reading it whole could take all memory.
const MAX_LINE_BYTES: u64 = 16 << 20;

/// Requests, one a line or row.
pub struct Input {
    path: PathBuf,
    format: InputFormat,
    compression: Compression,
    source: Source,
    /// The number of its first line.
    first_line: u64,
    /// Whether it is part of an input that was looked at as a whole.
    is_part: bool,
}

enum Source {
    /// A regular file, which can be read twice.
    File(File),
    /// Standard input, a pipe or a device.
    Stream(Box<dyn BufRead + Send>),
}

/// What a scan of the input found.
#[derive(Debug)]
pub struct Scan {
    /// What the file holds.
    pub file: FileHash,
    /// Bytes of its records, after decompression.
    pub bytes: u64,
    /// Lines of the shard that are not blank.
    pub lines: u64,
    /// Their ids, and those of the other lines.
    pub(crate) ids: Index,
    /// The lines of the shard, to be read once more.
    pub(crate) again: (Input, Shard),
}

/// A line to answer.
#[derive(Debug)]
pub(crate) struct RawLine {
    /// Counted from 1; blank lines count.
    pub number: u64,
    /// Bytes that it takes in the input. Progress is measured in them.
    pub bytes: u64,
    /// Bytes of the lines between the last line to answer and this one, which need no answer.
    pub skipped: u64,
    /// Its id, or `line-N` if it has none.
    pub custom_id: String,
    /// Of its bytes.
    pub hash: LineHash,
    /// Its bytes without the line ending, or why it cannot be used.
    pub text: std::result::Result<Vec<u8>, ApiError>,
}

impl Input {
    /// Opens a file, or standard input for `-`.
    ///
    /// # Errors
    /// When there is no such file or it cannot be read.
    pub fn open(path: &Path, format: InputFormat, compression: Compression) -> Result<Self> {
        let with = |source| Self {
            path: path.to_owned(),
            format: format.clone(),
            compression,
            source,
            first_line: 1,
            is_part: false,
        };
        let stream = |input: Box<dyn BufRead + Send>| with(Source::Stream(input));
        if path == Path::new("-") {
            return Ok(stream(Box::new(BufReader::new(io::stdin()))));
        }
        let file = File::open(path).map_err(Error::io(path))?;
        let metadata = file.metadata().map_err(Error::io(path))?;
        if metadata.is_dir() {
            return Err(Error::io(path)(io::ErrorKind::IsADirectory.into()));
        }
        if metadata.is_file() {
            return Ok(with(Source::File(file)));
        }
        Ok(stream(Box::new(BufReader::new(file))))
    }

    /// Lines in memory.
    pub(crate) fn of_text(text: Vec<u8>) -> Self {
        let source = Source::Stream(Box::new(io::Cursor::new(text)));
        let (path, format) = (PathBuf::from("lines"), InputFormat::JsonLines);
        Self { path, format, compression: Compression::Refuse, source, first_line: 1, is_part: false }
    }

    /// The same input as part of another, where the number of its first line is `first_line`. Lines are named by their numbers
    /// there, and what they are made of is not questioned again.
    #[must_use]
    pub(crate) fn part_from(self, first_line: u64) -> Self {
        Self { first_line, is_part: true, ..self }
    }

    /// Reads a regular file to its end, and refuses it if it is not made of JSON lines or if two of its lines have the same
    /// id. Returns `None` for a stream.
    ///
    /// # Errors
    /// [`Error::NotJsonLines`], [`Error::DuplicateId`], or a file that cannot be read.
    pub fn scan(&self, shard: Shard) -> Result<Option<Scan>> {
        let Source::File(file) = &self.source else { return Ok(None) };
        let failed = || Error::io(&self.path);
        self.sniff(file)?;
        let (mut ids, mut lines) = (Index::new(), 0);
        let mut hashed = Hashed { input: rewound(file).map_err(failed())?, hasher: Hasher::default() };
        let (bytes, second) = self
            .each_record(&mut hashed, |number, id, text| {
                lines += u64::from(shard.contains(number));
                if ids.insert(IdHash::of(&id), Some(LineHash::of(text))) { None } else { Some((number, id)) }
            })
            .map_err(failed())?;
        let Some((second, custom_id)) = second else {
            let again = (self.again(file).map_err(failed())?, shard);
            return Ok(Some(Scan { file: hashed.hasher.finish(), bytes, lines, ids, again }));
        };
        // The index does not store line numbers, so the first line with this id is searched for.
        drop(ids);
        let input = rewound(file).map_err(failed())?;
        let first = self.each_record(input, |number, id, _| (id == custom_id).then_some(number));
        let first = first.map_err(failed())?.1.unwrap_or(second);
        Err(Error::DuplicateId { input: self.path.clone(), custom_id, first, second })
    }

    /// The same input, to be read after this one or before.
    fn again(&self, file: &File) -> io::Result<Self> {
        Ok(Self {
            path: self.path.clone(),
            format: self.format.clone(),
            compression: self.compression,
            source: Source::File(file.try_clone()?),
            first_line: self.first_line,
            is_part: self.is_part,
        })
    }

    /// Every line of the shard, in order.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn lines(self, shard: Shard) -> Result<Reader<Box<dyn BufRead + Send>>> {
        // Of a file that was scanned, no line is done.
        self.reader(shard, Ledger::new(Some(Index::new())), None)
            .map_err(|error| error.unwrap_or(Error::EngineStopped))
    }

    /// Refuses a file that is not made of JSON lines where these are expected.
    fn sniff(&self, file: &File) -> Result<()> {
        if self.format != InputFormat::JsonLines || self.is_part {
            return Ok(());
        }
        let mut beginning = Vec::new();
        let read = rewound(file)
            .and_then(|file| decompressed(BufReader::with_capacity(BUFFER, file), self.compression))
            .and_then(|input| input.take(BUFFER as u64).read_to_end(&mut beginning));
        read.map_err(Error::io(&self.path))?;
        match sniff::refuse(&beginning, beginning.len() < BUFFER) {
            Some(other) => Err(Error::not_json_lines(&self.path, other)),
            None => Ok(()),
        }
    }

    /// Visits the number, the id and the text of every record that is not blank, until a visit returns something; that, and the bytes
    /// that were read.
    fn each_record<T>(
        &self,
        raw: impl Read + Send,
        mut visit: impl FnMut(u64, String, &[u8]) -> Option<T>,
    ) -> io::Result<(u64, Option<T>)> {
        let input = decompressed(BufReader::with_capacity(BUFFER, raw), self.compression)?;
        let mut records = Records::new(input, &self.format, MAX_LINE_BYTES, self.first_line)?;
        let (mut text, mut bytes) = (Vec::new(), 0);
        while let Some(line) = records.next(&mut text)? {
            bytes += line.bytes;
            if let Some(id) = id(line, &mut text)
                && let Some(found) = visit(line.number, id, &text)
            {
                return Ok((bytes, Some(found)));
            }
        }
        Ok((bytes, None))
    }

    /// Reads lines of the shard that have no result, one for each permit, and passes them to `send`: `None` after the last.
    /// Of a file that was scanned, `scanned` bytes are read; it must still be what it was. Ends after that, after an
    /// error, without permits, or when `send` returns false because nobody listens.
    pub(crate) fn read(
        self,
        shard: Shard,
        ledger: Ledger,
        scanned: Option<FileHash>,
        permits: &Receiver<()>,
        mut send: impl FnMut(Result<Option<RawLine>>) -> bool,
    ) {
        let path = self.path.clone();
        let mut reader = self.reader(shard, ledger, scanned);
        while permits.recv().is_ok() {
            let line = match &mut reader {
                Ok(reader) => reader.next().map_err(Error::io(&path)),
                Err(error) => Err(error.take().unwrap_or(Error::EngineStopped)),
            };
            let is_last = !matches!(line, Ok(Some(_)));
            if !send(line) || is_last {
                return;
            }
        }
    }

    /// Its name.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A reader from the beginning, or why there is none.
    pub(crate) fn reader(
        self,
        shard: Shard,
        ledger: Ledger,
        scanned: Option<FileHash>,
    ) -> std::result::Result<Reader<Box<dyn BufRead + Send>>, Option<Error>> {
        let failed = |error| Some(Error::io(&self.path)(error));
        let raw: Box<dyn BufRead + Send> = match (self.source, scanned) {
            (Source::File(file), None) => {
                Box::new(BufReader::with_capacity(BUFFER, rewound(&file).map_err(failed)?))
            }
            (Source::File(file), Some(scanned)) => {
                let verified = Verified::new(rewound(&file).map_err(failed)?, scanned);
                Box::new(BufReader::with_capacity(BUFFER, verified))
            }
            (Source::Stream(input), _) => input,
        };
        let mut input = decompressed(raw, self.compression).map_err(failed)?;
        if self.format == InputFormat::JsonLines && matches!(ledger, Ledger::Stream(_)) && !self.is_part {
            let beginning = input.fill_buf().map_err(failed)?;
            if let Some(other) = sniff::refuse(beginning, beginning.is_empty()) {
                return Err(Some(Error::not_json_lines(&self.path, other)));
            }
        }
        let records = Records::new(input, &self.format, MAX_LINE_BYTES, self.first_line).map_err(failed)?;
        Ok(Reader { records, text: Vec::new(), shard, ledger })
    }
}

/// Bytes read at once.
const BUFFER: usize = 1 << 16;

/// A file from its beginning.
fn rewound(file: &File) -> io::Result<File> {
    let mut file = file.try_clone()?;
    file.rewind()?;
    Ok(file)
}

/// A line's id, or `line-N` if it has none; `None` for a blank line. Removes white space at the end of `text`.
pub(crate) fn id(line: Line, text: &mut Vec<u8>) -> Option<String> {
    if line.is_too_long {
        return Some(line_name(line.number));
    }
    strip_mark(line, text);
    text.truncate(text.trim_ascii_end().len());
    if text.trim_ascii_start().is_empty() {
        return None;
    }
    Some(custom_id(text).unwrap_or_else(|| line_name(line.number)))
}

/// Finds the lines to answer.
pub(crate) struct Reader<R> {
    pub records: Records<R>,
    text: Vec<u8>,
    shard: Shard,
    ledger: Ledger,
}

impl<R: BufRead> Reader<R> {
    pub fn next(&mut self) -> io::Result<Option<RawLine>> {
        let mut read = 0;
        while let Some(line) = self.records.next(&mut self.text)? {
            let skipped = read;
            read += line.bytes;
            let is_ours = self.shard.contains(line.number);
            // The ids of other shards' lines matter only if a line of this shard may repeat them.
            if !is_ours && matches!(self.ledger, Ledger::File(_)) {
                continue;
            }
            let Some(id) = id(line, &mut self.text) else { continue };
            if let Some((custom_id, repeated)) = self.admit(line.number, id)
                && is_ours
            {
                let hash = LineHash::of(&self.text);
                let text = match repeated {
                    Some(error) => Err(error),
                    None if line.is_too_long => Err(invalid_json(format!(
                        "expected at most {MAX_LINE_BYTES} bytes, found a longer line"
                    ))),
                    None => Ok(mem::take(&mut self.text)),
                };
                let (number, bytes) = (line.number, line.bytes);
                return Ok(Some(RawLine { number, bytes, skipped, custom_id, hash, text }));
            }
        }
        Ok(None)
    }

    /// The id under which this line is answered, and an error if its own id was used before. `None` if the line has been
    /// answered already.
    fn admit(&mut self, number: u64, id: String) -> Option<(String, Option<ApiError>)> {
        let index = match &mut self.ledger {
            // The scan found no id twice.
            Ledger::File(index) => return (!index.is_marked(IdHash::of(&id))).then_some((id, None)),
            Ledger::Stream(index) => index,
        };
        match index.mark(IdHash::of(&id)) {
            Known::New => return Some((id, None)),
            Known::Unmarked => return None,
            Known::Marked => {}
        }
        // A repeated id cannot be used. The line gets the id `line-N`, with as many `+` as it takes to be free.
        let error = duplicate(&id);
        let mut name = line_name(number);
        loop {
            match index.mark(IdHash::of(&name)) {
                Known::New => return Some((name, Some(error))),
                Known::Unmarked => return None,
                Known::Marked => name.push('+'),
            }
        }
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the input can be scanned.
    #[derive(Debug, Clone, Copy)]
    enum Kind {
        File,
        Stream,
    }

    fn scan(input: &[u8], visit: impl FnMut(u64, String, &[u8]) -> Option<()>) {
        Input::of_text(Vec::new()).each_record(input, visit).unwrap();
    }

    fn reader(input: &[u8], shard: Shard, done: &[&str], kind: Kind) -> Reader<impl BufRead + use<>> {
        let scanned = match kind {
            Kind::File => {
                let mut ids = Index::new();
                let visit = |_, id: String, text: &[u8]| -> Option<()> {
                    ids.insert(IdHash::of(&id), Some(LineHash::of(text)));
                    None
                };
                scan(input, visit);
                Some(ids)
            }
            Kind::Stream => None,
        };
        let mut ledger = Ledger::new(scanned);
        for id in done {
            ledger.enter(IdHash::of(id), None);
        }
        let input = io::Cursor::new(input.to_vec());
        let input = BufReader::with_capacity(7, input);
        let records = Records::new(input, &InputFormat::JsonLines, MAX_LINE_BYTES, 1).unwrap();
        Reader { records, text: Vec::new(), shard, ledger }
    }

    /// Each line's number, bytes read since the line before, id and text or error.
    #[track_caller]
    fn check(mut reader: Reader<impl BufRead>, expect: &[(u64, u64, &str, &str)]) {
        let mut found = Vec::new();
        while let Some(line) = reader.next().unwrap() {
            let text = match line.text {
                Ok(text) => String::from_utf8(text).unwrap(),
                Err(error) => error.code.unwrap().to_owned(),
            };
            found.push((line.number, line.skipped + line.bytes, line.custom_id, text));
        }
        let expect: Vec<_> =
            expect.iter().map(|&(n, b, id, text)| (n, b, id.to_owned(), text.to_owned())).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn blank_lines_are_counted_and_passed_over() {
        let check = |input: &str, expect: &[(u64, u64, &str, &str)]| {
            for kind in [Kind::File, Kind::Stream] {
                check(reader(input.as_bytes(), Shard::WHOLE, &[], kind), expect);
            }
        };
        check("", &[]);
        check("\n \r\n\t", &[]);
        check("a", &[(1, 1, "line-1", "a")]);
        check("a\r\nb\n", &[(1, 3, "line-1", "a"), (2, 2, "line-2", "b")]);
        check("\n\na \n\n b", &[(3, 5, "line-3", "a"), (5, 3, "line-5", " b")]);
        check("\u{feff}a\n\u{feff}b\n", &[(1, 5, "line-1", "a"), (2, 5, "line-2", "\u{feff}b")]);
    }

    #[test]
    fn a_line_beyond_the_limit_costs_itself_alone() {
        let max = MAX_LINE_BYTES as usize;
        let input = format!("a\n{}\n{}\n{}\nb\n", "x".repeat(max), "y".repeat(max + 1), "z".repeat(2 * max));
        let mut reader = reader(input.as_bytes(), Shard::WHOLE, &[], Kind::File);
        let mut found = Vec::new();
        while let Some(line) = reader.next().unwrap() {
            found.push((
                line.number,
                line.skipped + line.bytes,
                line.text.map(|text| text.len()).map_err(|e| e.code.unwrap()),
            ));
        }
        let bytes = MAX_LINE_BYTES;
        let expect = [
            (1, 2, Ok(1)),
            (2, bytes + 1, Ok(max)),
            (3, bytes + 2, Err("invalid_json")),
            (4, 2 * bytes + 1, Err("invalid_json")),
            (5, 2, Ok(1)),
        ];
        assert_eq!(found, expect);
    }

    #[test]
    fn what_is_done_is_passed_over() {
        let (a, b) = (r#"{"custom_id": "a"}"#, r#"{"custom_id": "b"}"#);
        let input = format!("{a}\nx\n{b}\ny\n");
        for kind in [Kind::File, Kind::Stream] {
            let done = &["a", "line-4", "c"];
            let expect = [(2, 21, "line-2", "x"), (3, 19, "b", b)];
            check(reader(input.as_bytes(), Shard::WHOLE, done, kind), &expect);
        }
    }

    #[test]
    fn a_repeated_id_gives_an_error_under_the_line_s_number() {
        let a = r#"{"custom_id": "a"}"#;
        let taken = r#"{"custom_id": "line-4"}"#;
        let input = format!("{a}\n{a}\n{taken}\n{a}\n");
        let stream = |done: &[&str]| reader(input.as_bytes(), Shard::WHOLE, done, Kind::Stream);
        let error = "duplicate_custom_id";
        let all =
            [(1, 19, "a", a), (2, 19, "line-2", error), (3, 24, "line-4", taken), (4, 19, "line-4+", error)];
        check(stream(&[]), &all);
        // Whatever is done already, the others are what they were.
        check(stream(&["a"]), &[(2, 38, "line-2", error), all[2], all[3]]);
        check(stream(&["line-2", "line-4"]), &[all[0], (4, 62, "line-4+", error)]);
        check(stream(&["a", "line-2", "line-4", "line-4+"]), &[]);
    }

    #[test]
    fn shards_are_every_nth_line() {
        let a = r#"{"custom_id": "a"}"#;
        let input = format!("{a}\n\nx\ny\nz\n{a}\n");
        let shard = |text: &str| text.parse::<Shard>().unwrap();
        let file = |text: &str| reader(input.as_bytes(), shard(text), &[], Kind::File);
        check(file("1/3"), &[(1, 19, "a", a), (4, 5, "line-4", "y")]);
        check(file("2/3"), &[(5, 26, "line-5", "z")]);
        check(file("3/3"), &[(3, 22, "line-3", "x"), (6, 23, "a", a)]);
        // In a stream, a line of another shard may be the one that has the id.
        let stream = reader(input.as_bytes(), shard("3/3"), &[], Kind::Stream);
        check(stream, &[(3, 22, "line-3", "x"), (6, 23, "line-6", "duplicate_custom_id")]);
        for wrong in ["", "1", "0/4", "5/4", "1/0", "a/b", "-1/4", "1/4/2"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
        assert_eq!(shard("3/8").to_string(), "3/8");
    }
}
