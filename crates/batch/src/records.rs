//! An input's records: lines of JSON, or texts and rows that become such lines.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use csv::ByteRecord;
use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use serde_json::json;

use crate::lines::{Line, Lines, strip_mark};

/// How an input is written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum InputFormat {
    /// A JSON object a line.
    #[default]
    JsonLines,
    /// A prompt a line.
    Text,
    /// Comma-separated values (RFC 4180) under a row of names. A column `custom_id` has the ids, if there is one.
    Csv {
        /// Name of the column that has the prompts.
        prompt_column: String,
    },
}

impl InputFormat {
    /// That of a file with this name: texts for `.txt`, values for `.csv`, also behind `.gz` and `.zst`.
    pub fn by_name(path: &Path, prompt_column: &str) -> Self {
        let is = |path: &Path, ends: &[&str]| {
            path.extension().is_some_and(|end| ends.iter().any(|known| end.eq_ignore_ascii_case(known)))
        };
        let inner = path.with_extension("");
        let path = if is(path, &["gz", "zst"]) { &inner } else { path };
        match () {
            () if is(path, &["txt"]) => Self::Text,
            () if is(path, &["csv"]) => Self::Csv { prompt_column: prompt_column.to_owned() },
            () => Self::JsonLines,
        }
    }
}

/// What becomes of compressed input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// gzip and Zstandard are decompressed.
    #[default]
    Decompress,
    /// It is refused: whoever wrote it may have made much of little.
    Refuse,
}

/// Reads the records of an input as lines of JSON.
pub(crate) enum Records<R> {
    JsonLines(Lines<R>),
    Text(Lines<R>),
    Csv(Box<Rows<R>>),
}

impl<R: BufRead> Records<R> {
    /// Records of at most `max_bytes`, counted from `first`.
    ///
    /// # Errors
    /// An input that cannot be read; values without the column of prompts.
    pub fn new(input: R, format: &InputFormat, max_bytes: u64, first: u64) -> io::Result<Self> {
        Ok(match format {
            InputFormat::JsonLines => Self::JsonLines(Lines::new(input, max_bytes).from(first)),
            InputFormat::Text => Self::Text(Lines::new(input, max_bytes).from(first)),
            InputFormat::Csv { prompt_column } => {
                Self::Csv(Box::new(Rows::new(input, prompt_column, max_bytes)?))
            }
        })
    }

    /// Reads the next record into `text`, as a line of JSON without its ending. `None` at the end.
    pub fn next(&mut self, text: &mut Vec<u8>) -> io::Result<Option<Line>> {
        match self {
            Self::JsonLines(lines) => lines.next(text),
            Self::Text(lines) => {
                let line = lines.next(text)?;
                if let Some(line) = line
                    && !line.is_too_long
                {
                    strip_mark(line, text);
                    if text.ends_with(b"\r") {
                        text.pop();
                    }
                    if !text.trim_ascii().is_empty() {
                        *text = to_json(text, None);
                    }
                }
                Ok(line)
            }
            Self::Csv(rows) => rows.next(text),
        }
    }
}

/// A prompt as a line of JSON. What is not UTF-8 stays what it is, and is refused as a line that is not JSON.
fn to_json(prompt: &[u8], custom_id: Option<&str>) -> Vec<u8> {
    let Ok(prompt) = std::str::from_utf8(prompt) else { return prompt.to_vec() };
    let line = match custom_id {
        Some(id) => json!({"custom_id": id, "prompt": prompt}),
        None => json!({"prompt": prompt}),
    };
    line.to_string().into_bytes()
}

/// The rows of a file of comma-separated values.
pub(crate) struct Rows<R> {
    rows: csv::Reader<Bounded<R>>,
    row: ByteRecord,
    prompt: usize,
    custom_id: Option<usize>,
    max_bytes: u64,
    number: u64,
    /// Bytes up to the end of the last row.
    read: u64,
}

impl<R: BufRead> Rows<R> {
    fn new(input: R, prompt_column: &str, max_bytes: u64) -> io::Result<Self> {
        let input = Bounded { input, left: max_bytes };
        let mut rows = csv::ReaderBuilder::new().flexible(true).from_reader(input);
        let names = rows.headers().map_err(readable)?;
        let column = |wanted: &str| names.iter().position(|name| name == wanted);
        let Some(prompt) = column(prompt_column) else {
            let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("expected a column {prompt_column:?}, found {}", names.join(", ")),
            ));
        };
        let custom_id = column("custom_id");
        Ok(Self { rows, row: ByteRecord::new(), prompt, custom_id, max_bytes, number: 0, read: 0 })
    }

    fn next(&mut self, text: &mut Vec<u8>) -> io::Result<Option<Line>> {
        self.rows.get_mut().left = self.max_bytes;
        if !self.rows.read_byte_record(&mut self.row).map_err(readable)? {
            return Ok(None);
        }
        self.number += 1;
        // An id that is not UTF-8 is none.
        let id = self.custom_id.and_then(|column| std::str::from_utf8(self.row.get(column)?).ok());
        *text = match self.row.get(self.prompt) {
            Some(prompt) => to_json(prompt, id.filter(|id| !id.is_empty())),
            // A row that is too short is refused as a request without a prompt.
            None => b"{}".to_vec(),
        };
        let end = self.rows.position().byte();
        let bytes = end - std::mem::replace(&mut self.read, end);
        Ok(Some(Line { number: self.number, bytes, is_ended: true, is_too_long: false }))
    }
}

/// Errors of reading as they were.
fn readable(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        csv::ErrorKind::Utf8 { err, .. } => io::Error::new(io::ErrorKind::InvalidData, err.to_string()),
        kind => io::Error::new(io::ErrorKind::InvalidData, format!("{kind:?}")),
    }
}

/// Fails where a row does not end: a quote left open would make the rest of the file one row, in memory.
struct Bounded<R> {
    input: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            let message = "expected rows of at most 16 MiB, found a longer one: is a quote left open?";
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let len = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let bytes = self.input.read(&mut buffer[..len])?;
        self.left -= bytes as u64;
        Ok(bytes)
    }
}

/// What `input` holds, decompressed if that is wanted and its first bytes say that it is compressed.
pub(crate) fn decompressed<'a>(
    mut input: impl BufRead + Send + 'a,
    compression: Compression,
) -> io::Result<Box<dyn BufRead + Send + 'a>> {
    const GZIP: &[u8] = b"\x1f\x8b";
    const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";
    const BUFFER: usize = 1 << 16;
    let beginning = match compression {
        Compression::Decompress => input.fill_buf()?,
        Compression::Refuse => &[],
    };
    if beginning.starts_with(GZIP) {
        return Ok(Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(input))));
    }
    if beginning.starts_with(ZSTD) {
        return Ok(Box::new(BufReader::with_capacity(BUFFER, Zstd::Between(input))));
    }
    Ok(Box::new(input))
}

/// Decompresses Zstandard frames, one after another.
enum Zstd<R: BufRead> {
    /// Before a frame, or at the end.
    Between(R),
    In(Box<StreamingDecoder<R, FrameDecoder>>),
    /// After an error.
    Failed,
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match std::mem::replace(self, Self::Failed) {
                Self::Between(mut input) => {
                    if input.fill_buf()?.is_empty() {
                        *self = Self::Between(input);
                        return Ok(0);
                    }
                    let frame = StreamingDecoder::new(input);
                    let invalid =
                        |error| io::Error::new(io::ErrorKind::InvalidData, format!("zstd: {error}"));
                    *self = Self::In(Box::new(frame.map_err(invalid)?));
                }
                Self::In(mut frame) => {
                    let bytes = frame.read(buffer)?;
                    if bytes > 0 || buffer.is_empty() {
                        *self = Self::In(frame);
                        return Ok(bytes);
                    }
                    *self = Self::Between(frame.into_inner());
                }
                Self::Failed => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    /// Each record's number, bytes and text.
    fn read(input: &[u8], format: &InputFormat) -> io::Result<Vec<(u64, u64, String)>> {
        let mut records = Records::new(BufReader::with_capacity(5, input), format, 200, 1)?;
        let (mut found, mut text) = (Vec::new(), Vec::new());
        while let Some(line) = records.next(&mut text)? {
            found.push((line.number, line.bytes, String::from_utf8_lossy(&text).into_owned()));
        }
        Ok(found)
    }

    #[test]
    fn a_text_has_a_prompt_a_line() {
        let found = read(b"\xef\xbb\xbfOne \"day\"\r\n \n\tThe\xff\n b", &InputFormat::Text).unwrap();
        let expect = [
            (1, 14, r#"{"prompt":"One \"day\""}"#),
            (2, 2, " "),
            (3, 6, "\tThe\u{fffd}"),
            (4, 2, r#"{"prompt":" b"}"#),
        ];
        assert_eq!(found, expect.map(|(number, bytes, text)| (number, bytes, text.to_owned())));
    }

    #[test]
    fn values_have_prompts_and_ids_in_columns() {
        let csv = |column: &str| InputFormat::Csv { prompt_column: column.to_owned() };
        let input = b"id,prompt,custom_id\n1,\"One\nday, \"\"he\"\"\",a\n2,The,\n\n3\n";
        let found = read(input, &csv("prompt")).unwrap();
        let expect =
            [(1, r#"{"custom_id":"a","prompt":"One\nday, \"he\""}"#), (2, r#"{"prompt":"The"}"#), (3, "{}")];
        let texts: Vec<_> = found.iter().map(|(number, _, text)| (*number, text.as_str())).collect();
        assert_eq!(texts, expect);
        assert_eq!(found.iter().map(|record| record.1).sum::<u64>(), input.len() as u64);
        let error = read(input, &csv("text")).unwrap_err().to_string();
        assert_eq!(error, "expected a column \"text\", found \"id\", \"prompt\", \"custom_id\"");
        let open = format!("prompt\n\"{}\n", "x\n".repeat(200));
        let error = read(open.as_bytes(), &csv("prompt")).unwrap_err().to_string();
        assert!(error.ends_with("is a quote left open?"), "{error}");
    }

    #[test]
    fn compressed_input_is_known_by_its_first_bytes() {
        let (mut gzip, mut zstd) = (Vec::new(), Vec::new());
        for part in ["One day\n", "The bird"] {
            let mut encoder = flate2::write::GzEncoder::new(&mut gzip, flate2::Compression::fast());
            encoder.write_all(part.as_bytes()).unwrap();
            encoder.finish().unwrap();
            zstd.extend(compress_to_vec(part.as_bytes(), CompressionLevel::Fastest));
        }
        for input in [gzip.as_slice(), zstd.as_slice(), b"One day\nThe bird"] {
            let mut text = String::new();
            decompressed(BufReader::new(input), Compression::Decompress)
                .unwrap()
                .read_to_string(&mut text)
                .unwrap();
            assert_eq!(text, "One day\nThe bird");
        }
        for input in [gzip, zstd] {
            let cut = &input[..input.len() - 3];
            let mut cut = decompressed(cut, Compression::Decompress).unwrap();
            assert!(cut.read_to_string(&mut String::new()).is_err());
        }
    }
}
