//! The crate's one error type.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::sniff::Other;

/// The result of preparing or running a batch.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a batch did not start or did not go on. Results on disk stay there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened, read, written or renamed.
    #[error("{what}: {source}")]
    Io {
        /// The file, and what was tried with it if that is not clear.
        what: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The input is not made of lines of JSON.
    #[error("{}: expected JSON lines, one object a line, found {found}\nhint: {hint}", input.display())]
    NotJsonLines {
        /// The input.
        input: PathBuf,
        /// What it is.
        found: &'static str,
        /// How it can be read.
        hint: &'static str,
    },
    /// The output, or a file that is written beside it, is one that the run reads.
    #[error("{}: expected an output file other than {}, found the same file", output.display(), other.display())]
    SameFile {
        /// The output.
        output: PathBuf,
        /// What the run reads.
        other: PathBuf,
    },
    /// The output was removed, replaced or changed by someone else while the run wrote it.
    #[error("{output}: expected to be its only writer, found {found}")]
    OutputChanged {
        /// The output.
        output: String,
        /// What has become of it.
        found: String,
    },
    /// Two lines of the input have the same id.
    #[error(
        "{}: custom_id {custom_id:?}: expected it once, found it in lines {first} and {second}", input.display()
    )]
    DuplicateId {
        /// The input.
        input: PathBuf,
        /// The id, which may be the `line-N` of a line without one.
        custom_id: String,
        /// A line.
        first: u64,
        /// A later line.
        second: u64,
    },
    /// Another process writes the same output.
    #[error("{}: expected to be its only writer, found it locked by another process", output.display())]
    Locked {
        /// The output.
        output: PathBuf,
    },
    /// The output holds results but has no manifest, so nothing says which run they belong to.
    #[error(
        "{}: expected {} to tell what run its results are of, found no such file\n\
         hint: choose another output, or replace this one with --overwrite", output.display(), manifest.display()
    )]
    NoManifest {
        /// The output.
        output: PathBuf,
        /// What should be beside it.
        manifest: PathBuf,
    },
    /// The output is made of a journal that has no results, so its contents are not of this run.
    #[error(
        "{}: expected {} to have the results that it was made of, found none\n\
         hint: choose another output, or replace this one with --overwrite", output.display(), journal.display()
    )]
    NoJournal {
        /// The output.
        output: PathBuf,
        /// What should be beside it.
        journal: PathBuf,
    },
    /// The file beside the output is not a manifest.
    #[error(
        "{}: expected a run's manifest, found {found}\nhint: choose another output, or replace it with --overwrite",
        manifest.display()
    )]
    BadManifest {
        /// The file.
        manifest: PathBuf,
        /// What is wrong with it.
        found: String,
    },
    /// The results belong to another run.
    #[error(
        "{}: its results are of another run: {}\n\
         hint: repeat that run's command to go on with it, choose another output, or replace this one with --overwrite",
        output.display(), list(differences)
    )]
    OtherRun {
        /// The output.
        output: PathBuf,
        /// In what the runs differ; there is at least one.
        differences: Vec<Difference>,
    },
    /// Something is not part of a job, or not as its description says.
    #[error("{}: expected {expected}, found {found}", path.display())]
    Job {
        /// The file or folder.
        path: PathBuf,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The first run of a job's parts fixed what all of them depend on, and this one differs.
    #[error(
        "{}: fixed by the first worker, this one differs: {}\n\
         hint: give all workers of a job the same model and options, on devices that compute the same; or split again",
        manifest.display(), list(differences)
    )]
    OtherWorker {
        /// What the first one wrote.
        manifest: PathBuf,
        /// In what they differ; there is at least one.
        differences: Vec<Difference>,
    },
    /// The model or its device failed, which is no result of a reproducible run.
    #[error("custom_id {custom_id:?}: {message}")]
    StepFailed {
        /// The line that was being answered.
        custom_id: String,
        /// How.
        message: String,
    },
    /// The engine ended.
    #[error("the engine has stopped")]
    EngineStopped,
}

/// Something in which two runs differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The manifest's field, such as `options.seed`.
    pub field: String,
    /// Its value in the run that made the results.
    pub expected: String,
    /// Its value in this run.
    pub found: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: expected {}, found {}", self.field, self.expected, self.found)
    }
}

impl Error {
    /// A failure with a file.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        Self::failed(path.display().to_string())
    }

    /// A failure in writing a file.
    pub(crate) fn writing(name: &str) -> impl FnOnce(io::Error) -> Self {
        Self::failed(format!("writing {name}"))
    }

    /// A file that is not what a job says.
    pub(crate) fn job(path: &Path, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Job { path: path.to_owned(), expected: expected.into(), found: found.into() }
    }

    /// A failure with something of this name.
    pub(crate) fn named(name: &str) -> impl FnOnce(io::Error) -> Self {
        Self::failed(name.to_owned())
    }

    /// An input of another kind.
    pub(crate) fn not_json_lines(input: &Path, other: Other) -> Self {
        Self::NotJsonLines { input: input.to_owned(), found: other.found, hint: other.hint }
    }

    fn failed(what: String) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}

fn list(differences: &[Difference]) -> String {
    let all: Vec<String> = differences.iter().map(ToString::to_string).collect();
    all.join("; ")
}
