//! Model files from the Hugging Face hub and from URLs: which file of a repository is meant, where it lies in the cache, and,
//! with feature `network`, its download.
//!
//! The cache is that of the hub's own library (`huggingface_hub`), with the same names, links and locks, so that a file is on a machine once
//! whichever program fetched it. What a server says is not trusted: names are checked before they become paths ([`RepoId`],
//! [`FileName`]), a body has the length that was announced and, of files in the hub's large storage, the SHA-256.
//!
//! This crate knows neither models nor the environment.
#![forbid(unsafe_code)]

mod cache;
mod names;

#[cfg(feature = "network")]
mod client;
#[cfg(feature = "network")]
mod download;
#[cfg(feature = "network")]
mod hub;
#[cfg(feature = "network")]
mod url;

use std::io;
use std::path::PathBuf;

pub use crate::cache::{Cache, CachedFile, list_urls};
pub use crate::names::{Choice, FileName, ModelId, RepoId};

#[cfg(feature = "network")]
pub use crate::download::Event;
#[cfg(feature = "network")]
pub use crate::hub::{Hub, HubOptions, find_url};

/// Why there is no file.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum HubError {
    /// A name that is none.
    #[error("expected {expected}, found {found:?}")]
    Name {
        /// What a name must be.
        expected: &'static str,
        /// The name.
        found: String,
    },
    /// No file of the repository is what was asked for.
    #[error("{repo}: expected {expected}, found {found}")]
    NoSuchFile {
        /// The repository.
        repo: String,
        /// Which file was asked for.
        expected: String,
        /// The models that there are.
        found: String,
    },
    /// Nothing of it in the cache.
    #[error("{name} is not in the cache {}", cache.display())]
    NotCached {
        /// The repository or the URL.
        name: String,
        /// The folder.
        cache: PathBuf,
    },
    /// The server answers with an error.
    #[error("{url}: {status}{}{message}", if message.is_empty() { "" } else { ": " })]
    Refused {
        /// What was asked for.
        url: String,
        /// HTTP's status.
        status: u16,
        /// The server's words.
        message: String,
    },
    /// No answer, or one that ended early, as often as it was tried.
    #[error("{url}: {reason}")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// What failed.
        reason: String,
    },
    /// An answer that cannot be right.
    #[error("{url}: expected {expected}, found {found}")]
    Answer {
        /// What was asked for.
        url: String,
        /// What an answer must be.
        expected: String,
        /// What it was.
        found: String,
    },
    /// The disk.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

impl HubError {
    /// Whether the server could not be asked, so that what is in the cache may do.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. }) || matches!(self, Self::Refused { status: 500.., .. })
    }

    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        |error| Self::Io { path, error }
    }
}

/// The result of a call.
pub type Result<T, E = HubError> = std::result::Result<T, E>;
