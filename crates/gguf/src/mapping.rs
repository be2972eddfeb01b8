//! The bytes of a file: mapped from disk, embedded in the program, or in memory. The crate's only unsafe
//! code.

use std::fs::{self, File};
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;

use memmap2::Mmap;

use crate::error::{GgufError, Result};

/// The bytes of one file, which do not move as long as this lives.
pub(crate) enum Mapping {
    /// A read-only mapping of a file.
    Mapped(Mmap),
    /// Part of the program.
    Static(&'static [u8]),
    /// Memory of its own.
    Owned(Vec<u8>),
}

impl Mapping {
    pub(crate) fn open(path: &Path) -> Result<Mapping> {
        let io_error = |source| GgufError::Io { path: path.to_owned(), source };
        let refuse = |metadata: fs::Metadata| match metadata.is_file() {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
        };
        // Before the file is opened: a named pipe without a writer would be waited for.
        fs::metadata(path).and_then(refuse).map_err(io_error)?;
        let file = File::open(path).map_err(io_error)?;
        file.metadata().and_then(refuse).map_err(io_error)?;
        // SAFETY: nobody may shorten or overwrite the file while it is mapped. No program can rule that out;
        // it is the known price of mapping, that the user who replaces a model in place under a
        // running program pays.
        let map = unsafe { Mmap::map(&file) }.map_err(io_error)?;
        Ok(Mapping::Mapped(map))
    }

    /// Tells the OS that the pages wholly inside `range` may be dropped. They are read from disk again if
    /// touched.
    pub(crate) fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Mapping::Mapped(map) = self {
            let start = range.start.next_multiple_of(PAGE);
            let end = range.end / PAGE * PAGE;
            if start < end {
                // SAFETY: the mapping is shared, read-only and backed by the file: dropping its pages loses
                // nothing, since the next access maps the same bytes again. Slices of it stay
                // valid throughout.
                let advised = unsafe {
                    map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start)
                };
                // It may be refused (by a sandbox, say); the pages then merely stay.
                advised.ok();
            }
        }
        #[cfg(not(unix))]
        let _ = range;
    }
}

/// The smallest page there is. Where pages are larger, those at a range's ends go too: harmless, only read
/// again.
#[cfg(unix)]
const PAGE: usize = 4096;

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Mapping::Mapped(map) => map,
            Mapping::Static(bytes) => bytes,
            Mapping::Owned(bytes) => bytes,
        }
    }
}
