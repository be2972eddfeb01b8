//! An input becomes the parts of a job.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use crate::durable;
use crate::error::{Error, Result};
use crate::index::{IdHash, Index, LineHash};
use crate::input::{Input, Reader, id};
use crate::job::{Description, Job, Part};
use crate::ledger::Ledger;
use crate::lines::{Line, MARK};
use crate::manifest::{Hasher, text};
use crate::shard::Shard;

/// So that the names of all parts sort.
const MAX_PARTS: usize = 100_000;

impl Job {
    /// Reads an input to its end and writes it in parts of `rows` lines that are not blank, as lines of JSON, with `job.json` into a
    /// folder that is not there yet or empty. After a crash there is no such folder, but perhaps one whose name ends in
    /// `.rustorch.tmp`. Memory holds one line and the ids of one part.
    ///
    /// # Errors
    /// A folder that holds something; an input that cannot be read or is not made of lines; an id that is twice in one part.
    pub fn split(input: Input, folder: &Path, rows: NonZeroU64) -> Result<Self> {
        // Without a separator at its end: what is beside it would be in it.
        let folder: PathBuf = folder.components().collect();
        must_be_free(&folder)?;
        let unfinished = durable::temporary(&folder);
        fs::create_dir(&unfinished).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                let expected = "no other split of this name (remove it if none is running)";
                Error::job(&unfinished, expected, "a folder")
            }
            _ => Error::io(&unfinished)(error),
        })?;
        let written = write_parts(input, &unfinished, rows).and_then(|description| {
            let path = unfinished.join(Description::FILE);
            durable::write(&path, &text(&description)).map_err(Error::io(&path))?;
            durable::rename(&unfinished, &folder).map_err(Error::io(&folder))?;
            Ok(description)
        });
        if written.is_err() {
            // It is of no use any more.
            let _ = fs::remove_dir_all(&unfinished);
        }
        Ok(Self { folder, description: written? })
    }
}

fn must_be_free(folder: &Path) -> Result<()> {
    match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io(folder)(error)),
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(Error::job(folder, "no such folder, or an empty one", "files in it")),
        },
    }
}

fn write_parts(input: Input, folder: &Path, rows: NonZeroU64) -> Result<Description> {
    let path = input.path().to_owned();
    let failed = || Error::io(&path);
    let reader = input.reader(Shard::WHOLE, Ledger::new(None), None);
    let Reader { mut records, .. } = reader.map_err(|error| error.unwrap_or(Error::EngineStopped))?;
    let (mut parts, mut open, mut text) = (Vec::new(), None::<Writing>, Vec::new());
    while let Some(line) = records.next(&mut text).map_err(failed())? {
        let Some(id) = id(line, &mut text) else {
            // It counts, so that the lines after it keep their numbers.
            if let Some(part) = &mut open {
                part.write(b"").map_err(Error::io(folder))?;
            }
            continue;
        };
        let part = match &mut open {
            Some(part) => part,
            None => open.insert(Writing::begin(folder, parts.len(), line)?),
        };
        if !part.ids.insert(IdHash::of(&id), Some(LineHash::of(&text))) {
            let first = part.first_line;
            let expected = format!("custom_id {id:?} once in the part that begins with line {first}");
            return Err(Error::job(&path, expected, format!("it again in line {}", line.number)));
        }
        part.push(line, &text).map_err(Error::io(folder))?;
        if part.rows == rows.get()
            && let Some(part) = open.take()
        {
            parts.push(part.finish().map_err(Error::io(folder))?);
        }
    }
    if let Some(part) = open {
        parts.push(part.finish().map_err(Error::io(folder))?);
    }
    let rows = parts.iter().map(|part| part.rows).sum();
    Ok(Description { format: Job::FORMAT, rustorch: env!("CARGO_PKG_VERSION").to_owned(), rows, parts })
}

/// A part that is being written.
struct Writing {
    name: String,
    out: BufWriter<File>,
    hasher: Hasher,
    ids: Index,
    rows: u64,
    first_line: u64,
}

impl Writing {
    /// The part with this index, whose first line is `line`.
    fn begin(folder: &Path, index: usize, line: Line) -> Result<Self> {
        if index == MAX_PARTS {
            let expected = format!("at most {MAX_PARTS} parts, with more rows in each");
            return Err(Error::job(folder, expected, "more"));
        }
        let name = Part::file(index);
        let path = folder.join(&name);
        let out = BufWriter::with_capacity(1 << 16, durable::create(&path).map_err(Error::io(&path))?);
        let (hasher, ids) = (Hasher::default(), Index::new());
        Ok(Self { name, out, hasher, ids, rows: 0, first_line: line.number })
    }

    fn push(&mut self, line: Line, text: &[u8]) -> io::Result<()> {
        self.rows += 1;
        // A second byte order mark belongs to the line; whoever reads the part removes the first.
        match line.number == 1 && text.starts_with(MARK) {
            true => self.write(&[MARK, text].concat()),
            false => self.write(text),
        }
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        for bytes in [text, b"\n"] {
            self.hasher.update(bytes);
            self.out.write_all(bytes)?;
        }
        Ok(())
    }

    /// The part, once it is on disk.
    fn finish(self) -> io::Result<Part> {
        let Self { name, out, hasher, rows, first_line, .. } = self;
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        Ok(Part { file: name, rows, first_line, hash: hasher.finish() })
    }
}
