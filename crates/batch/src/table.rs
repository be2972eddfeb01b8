//! Outputs that are no journal: texts and comma-separated values, made of one when all results are there.
//!
//! `OUT.csv` is made of the journal `OUT.csv.jsonl`, as a whole and by a rename. So a run that was killed goes on as any other, and
//! a table is never there in part.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::durable;
use crate::error::{Error, Result};
use crate::kept::each_line;

/// A file that is made of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    path: PathBuf,
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// The text of each result in a line, in the order of the input. `\n`, `\r` and `\\` stand for a line feed, a carriage return and a
    /// backslash. The line of an error is empty.
    Text,
    /// A row for each result, as in RFC 4180.
    Csv,
}

/// The names of the columns.
const COLUMNS: [&str; 6] =
    ["custom_id", "text", "finish_reason", "prompt_tokens", "completion_tokens", "error"];
/// Bytes written at once.
const BUFFER: usize = 1 << 16;

impl Table {
    /// The table that an output of this name is; `None` if it is a journal itself.
    pub fn by_name(path: &Path) -> Option<Self> {
        let end = path.extension()?;
        let format = match () {
            () if end.eq_ignore_ascii_case("txt") => Format::Text,
            () if end.eq_ignore_ascii_case("csv") => Format::Csv,
            () => return None,
        };
        Some(Self { path: path.to_owned(), format })
    }

    /// The journal that it is made of.
    pub fn journal(&self) -> PathBuf {
        durable::with_suffix(&self.path, ".jsonl")
    }

    /// Whether its rows do not say which line they answer.
    pub fn is_ordered(&self) -> bool {
        self.format == Format::Text
    }

    /// Refuses a name that is a device's, a pipe's or a folder's.
    pub fn must_be_a_file(&self) -> Result<()> {
        match fs::metadata(&self.path) {
            Ok(found) if !found.is_file() => {
                let found = if found.is_dir() { "a folder" } else { "a pipe or a device" };
                Err(Error::job(&self.path, "a regular file, or another name than .txt and .csv", found))
            }
            _ => Ok(()),
        }
    }

    /// Refuses to be a file that the run reads.
    pub fn must_not_be(&self, other: &Path) -> Result<()> {
        // What is not there is no other file.
        let same = match (self.path.canonicalize(), other.canonicalize()) {
            (Ok(own), Ok(other)) => own == other,
            _ => false,
        };
        if same {
            return Err(Error::SameFile { output: self.path.clone(), other: other.to_owned() });
        }
        Ok(())
    }

    /// Refuses a file with contents, which is not of this run as its journal has none.
    pub fn must_be_new(&self) -> Result<()> {
        match fs::metadata(&self.path) {
            Ok(found) if found.len() > 0 => {
                Err(Error::NoJournal { output: self.path.clone(), journal: self.journal() })
            }
            _ => Ok(()),
        }
    }

    /// Removes it, if it is there.
    pub fn remove(&self) -> Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(&self.path)(error)),
            _ => Ok(()),
        }
    }

    /// Makes it of all results of a journal: after a crash the old one is there or the new one.
    pub fn write(&self, journal: &File) -> Result<()> {
        // Without links, so that the file itself is replaced.
        let path = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
        let temporary = durable::temporary(&path);
        let written = self.write_to(&temporary, journal).and_then(|()| durable::rename(&temporary, &path));
        if written.is_err() {
            // It is of no use any more.
            let _ = fs::remove_file(&temporary);
        }
        written.map_err(Error::writing(&self.path.display().to_string()))
    }

    fn write_to(&self, path: &Path, journal: &File) -> io::Result<()> {
        let mut out = BufWriter::with_capacity(BUFFER, durable::create(path)?);
        match self.format {
            Format::Text => each_line(journal, |_, line, _| {
                let text = Row::read(line)?.text.unwrap_or_default();
                out.write_all(in_one_line(&text).as_bytes())?;
                out.write_all(b"\n")
            })?,
            Format::Csv => {
                let mut rows = csv::Writer::from_writer(&mut out);
                rows.write_record(COLUMNS)?;
                each_line(journal, |_, line, _| Ok(rows.write_record(Row::read(line)?.fields())?))?;
                rows.flush()?;
            }
        }
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }
}

/// A text without line ends; see [`Format::Text`].
fn in_one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\\' => out.push_str("\\\\"),
            c => out.push(c),
        }
    }
    out
}

/// What a table has of a result.
#[derive(Debug, Default, PartialEq, Eq)]
struct Row {
    custom_id: String,
    text: Option<String>,
    finish_reason: Option<String>,
    usage: Option<Usage>,
    error: Option<String>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Usage {
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
}

#[derive(Deserialize)]
struct Line {
    custom_id: String,
    response: Option<Response>,
    /// Of earlier versions.
    error: Option<Message>,
}

#[derive(Deserialize)]
struct Response {
    body: Body,
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    error: Option<Message>,
}

#[derive(Deserialize)]
struct Message {
    message: String,
}

#[derive(Deserialize)]
struct Choice {
    text: Option<String>,
    message: Option<Content>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Content {
    /// None of a call of tools.
    content: Option<String>,
}

impl Row {
    fn read(line: &[u8]) -> io::Result<Self> {
        let Line { custom_id, response, error } = serde_json::from_slice(line)?;
        let Some(Response { body: Body { choices, usage, error: refusal } }) = response else {
            return Ok(Self { custom_id, error: error.map(|error| error.message), ..Self::default() });
        };
        let (mut text, mut finish_reason) = (None, None);
        if let Some(choice) = choices.into_iter().next() {
            text = choice.text.or_else(|| choice.message?.content);
            finish_reason = choice.finish_reason;
        }
        Ok(Self { custom_id, text, finish_reason, usage, error: refusal.map(|error| error.message) })
    }

    fn fields(self) -> [String; COLUMNS.len()] {
        let count = |count: fn(&Usage) -> u64| self.usage.as_ref().map(|usage| count(usage).to_string());
        let prompt_tokens = count(|usage| usage.prompt_tokens).unwrap_or_default();
        let completion_tokens = count(|usage| usage.completion_tokens).unwrap_or_default();
        let [text, finish_reason, error] =
            [self.text, self.finish_reason, self.error].map(Option::unwrap_or_default);
        [self.custom_id, text, finish_reason, prompt_tokens, completion_tokens, error]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_tables_by_their_names() {
        for (name, format) in [
            ("a.txt", Some(Format::Text)),
            ("a.b/c.CSV", Some(Format::Csv)),
            ("a.jsonl", None),
            ("a.csv.jsonl", None),
            ("-", None),
            (".csv", None),
            ("csv", None),
        ] {
            assert_eq!(Table::by_name(Path::new(name)).map(|table| table.format), format, "{name}");
        }
        assert_eq!(Table::by_name(Path::new("b/a.csv")).unwrap().journal(), Path::new("b/a.csv.jsonl"));
    }

    #[test]
    fn a_text_is_one_line_and_can_be_read_back() {
        assert_eq!(in_one_line("a\nb\r\n\\n\té"), "a\\nb\\r\\n\\\\n\té");
    }

    #[test]
    fn rows_are_read_of_results_of_all_versions() {
        let read = |rest: &str| {
            Row::read(format!(r#"{{"custom_id": "a", {rest}}}"#).as_bytes()).unwrap().fields().join("|")
        };
        let answer = |choice: &str| {
            let usage = r#""usage": {"prompt_tokens": 2, "completion_tokens": 3}"#;
            read(&format!(
                r#""response": {{"status_code": 200, "body": {{"choices": [{choice}], {usage}}}}}, "error": null"#
            ))
        };
        assert_eq!(answer(r#"{"text": "b", "finish_reason": "stop"}"#), "a|b|stop|2|3|");
        assert_eq!(answer(r#"{"message": {"content": "c"}, "finish_reason": "length"}"#), "a|c|length|2|3|");
        assert_eq!(
            answer(r#"{"message": {"content": null}, "finish_reason": "tool_calls"}"#),
            "a||tool_calls|2|3|"
        );
        let refusal =
            r#""response": {"status_code": 400, "body": {"error": {"message": "no"}}}, "error": null"#;
        assert_eq!(read(refusal), "a|||||no");
        assert_eq!(read(r#""response": null, "error": {"message": "no"}"#), "a|||||no");
        assert!(Row::read(b"{").is_err());
    }
}
