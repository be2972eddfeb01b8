//! A job: an input in parts that any number of runs answer, each where and when it likes, to results that together are those
//! of one run over the whole.
//!
//! ```text
//! DIR/job.json               the parts, with their hashes        [`Job::split`]
//!     part-00000.jsonl ..    the lines
//!     run.json               what all results depend on          the first worker, [`Job::fix`]
//!     result-00000.jsonl ..  the results                         [`Job::publish`]
//!     result-00000.json ..   their hashes
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::durable;
use crate::error::{Error, Result};
use crate::input::{Input, Scan};
use crate::manifest::{FileHash, Manifest};
use crate::records::{Compression, InputFormat};
use crate::shard::Shard;

/// An input in parts, in a folder.
#[derive(Debug)]
pub struct Job {
    pub(crate) folder: PathBuf,
    pub(crate) description: Description,
}

/// What `job.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Description {
    /// Version of this file: [`Job::FORMAT`].
    pub format: u32,
    /// Version of the program that made the parts.
    pub rustorch: String,
    /// Rows of all parts.
    pub rows: u64,
    pub parts: Vec<Part>,
}

/// A part of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Name of its file.
    pub file: String,
    /// Its lines that are not blank.
    pub rows: u64,
    /// The number of its first line in the whole input: a line without an id is `line-N` by its number there.
    pub first_line: u64,
    /// What its file holds.
    #[serde(flatten)]
    pub hash: FileHash,
}

/// What is known of the results of a part, in a file beside them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Results {
    pub rows: u64,
    #[serde(flatten)]
    pub hash: FileHash,
}

/// More lines than a file has, and few enough that sums of them do not overflow.
const MAX_NUMBER: u64 = 1 << 40;

impl Part {
    /// Name of the file of the part with this index.
    pub(crate) fn file(index: usize) -> String {
        format!("part-{index:05}.jsonl")
    }
}

impl Description {
    pub(crate) const FILE: &str = "job.json";
}

impl Job {
    /// The current version of `job.json`.
    pub const FORMAT: u32 = 1;

    /// Reads what a folder holds.
    ///
    /// # Errors
    /// When it is not a job's, or of another version.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(Description::FILE);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::job(folder, "a job that `rustorch split` made", "no job.json"));
            }
            text => text.map_err(Error::io(&path))?,
        };
        let expected = format!("a job's description of format {}", Self::FORMAT);
        let description: Description = serde_json::from_slice(&text)
            .map_err(|error| Error::job(&path, expected.clone(), error.to_string()))?;
        if description.format != Self::FORMAT {
            return Err(Error::job(&path, expected, format!("format {}", description.format)));
        }
        for (index, part) in description.parts.iter().enumerate() {
            let (file, number) = (Part::file(index), part.rows.max(part.first_line));
            if part.file != file || number > MAX_NUMBER {
                let expected = format!("part {index} to be {file} with rows and lines up to {MAX_NUMBER}");
                return Err(Error::job(&path, expected, format!("{part:?}")));
            }
        }
        Ok(Self { folder: folder.to_owned(), description })
    }

    /// Its parts, in order.
    pub fn parts(&self) -> &[Part] {
        &self.description.parts
    }

    /// Rows of all parts.
    pub fn num_rows(&self) -> u64 {
        self.description.rows
    }

    /// The part with this index.
    ///
    /// # Errors
    /// When there is none.
    pub fn part(&self, index: usize) -> Result<&Part> {
        self.parts().get(index).ok_or_else(|| {
            let expected = match self.parts().len() {
                0 => "no part".to_owned(),
                count => format!("a part from 0 to {}", count - 1),
            };
            Error::job(&self.folder, expected, format!("part {index}"))
        })
    }

    /// Opens a part's lines.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn input(&self, index: usize) -> Result<Input> {
        let part = self.part(index)?;
        let path = self.folder.join(&part.file);
        let input = Input::open(&path, InputFormat::JsonLines, Compression::Refuse)?;
        Ok(input.part_from(part.first_line))
    }

    /// Reads a part as [`Input::scan`] does, and refuses one that is not as the job says.
    ///
    /// # Errors
    /// As [`Input::scan`]; a part that was changed.
    pub fn scan(&self, index: usize, input: &Input) -> Result<Option<Scan>> {
        let part = self.part(index)?;
        let path = self.folder.join(&part.file);
        let scan = input.scan(Shard::WHOLE)?;
        let shown = |rows: u64, hash: &FileHash| {
            format!("{rows} rows in {} bytes with SHA-256 {}", hash.bytes, hash.sha256)
        };
        match &scan {
            Some(scan) if scan.file == part.hash && scan.lines == part.rows => Ok(()),
            Some(Scan { lines, file, .. }) => {
                Err(Error::job(&path, shown(part.rows, &part.hash), shown(*lines, file)))
            }
            None => Err(Error::job(&path, "a regular file", "another")),
        }?;
        Ok(scan)
    }

    /// Where the results of a part are once they are complete.
    pub fn result(&self, index: usize) -> PathBuf {
        self.folder.join(format!("result-{index:05}.jsonl"))
    }

    /// Where a run writes them until then.
    pub fn unfinished(&self, index: usize) -> PathBuf {
        durable::with_suffix(&self.result(index), ".unfinished")
    }

    /// Where the hash of a part's results is.
    pub(crate) fn result_hash(&self, index: usize) -> PathBuf {
        self.folder.join(format!("result-{index:05}.json"))
    }

    /// Whether a part has its results.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn is_done(&self, index: usize) -> Result<bool> {
        let path = self.result(index);
        path.try_exists().map_err(Error::io(&path))
    }

    /// Writes what the results of all parts depend on if nobody did, and compares it with what is there.
    ///
    /// # Errors
    /// [`Error::OtherWorker`] names what differs.
    pub fn fix(&self, manifest: &Manifest) -> Result<()> {
        let (path, fixed) = self.fixed(manifest);
        fixed.create(&path)?;
        self.check(manifest)
    }

    /// Compares it with what the first worker wrote.
    ///
    /// # Errors
    /// [`Error::OtherWorker`] names what differs; a job that no worker has begun.
    pub fn check(&self, manifest: &Manifest) -> Result<()> {
        let (manifest, fixed) = self.fixed(manifest);
        match fixed.compare(&manifest)? {
            None => Err(Error::job(&manifest, "what the first worker wrote", "no such file")),
            Some(differences) if differences.is_empty() => Ok(()),
            Some(differences) => Err(Error::OtherWorker { manifest, differences }),
        }
    }

    /// Where it is written what all results depend on, and what that is.
    fn fixed(&self, manifest: &Manifest) -> (PathBuf, Manifest) {
        let fixed = Manifest { input: None, reproducible: true, ..manifest.clone() };
        (self.folder.join("run.json"), fixed)
    }
}
