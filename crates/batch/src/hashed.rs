//! Readers that hash what they read.

use std::fs::File;
use std::io::{self, Read, Take};

use crate::manifest::{FileHash, Hasher};

/// Hashes what is read.
pub(crate) struct Hashed<R> {
    pub input: R,
    pub hasher: Hasher,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.input.read(buffer)?;
        self.hasher.update(&buffer[..bytes]);
        Ok(bytes)
    }
}

/// Reads the part of a file that was scanned; at its end the file must be what it was.
pub(crate) struct Verified {
    input: Take<File>,
    /// `None` once the end was reached.
    hasher: Option<Hasher>,
    scanned: FileHash,
}

impl Verified {
    /// `input` is the file from its beginning, `scanned` what it was.
    pub fn new(input: File, scanned: FileHash) -> Self {
        Self { input: input.take(scanned.bytes), hasher: Some(Hasher::default()), scanned }
    }
}

impl Read for Verified {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.input.read(buffer)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..bytes]);
        }
        if bytes == 0
            && !buffer.is_empty()
            && let Some(hasher) = self.hasher.take()
        {
            let (expected, found) = (self.scanned.bytes, self.input.get_ref().metadata()?.len());
            if expected != found {
                let message = format!("expected the {expected} bytes of the start, found {found} at the end");
                return Err(io::Error::other(message));
            }
            if hasher.finish() != self.scanned {
                return Err(io::Error::other(
                    "expected the contents of the start, found it changed meanwhile",
                ));
            }
        }
        Ok(bytes)
    }
}
