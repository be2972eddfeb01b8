//! The folder of files and batches: whether it is the server's, and that only one server uses it.
//!
//! A server removes what a crash has left of its files. So it takes a folder only if the folder is empty, has the marker of an
//! earlier server, or, from versions without a marker, has nothing but what a server makes. All of it is checked before
//! anything is changed.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::batches::is_batch_id;
use crate::files::{is_own_name, write_durably};

/// Says that the folder is a server's.
const MARKER: &str = "rustorch-data.json";
const MARKER_TEXT: &[u8] = b"{\"format\": 1}\n";
const PARTIAL_MARKER: &str = "rustorch-data.part";
const LOCK: &str = "lock";
const FILES: &str = "files";
const BATCHES: &str = "batches";

/// A data folder that is locked for this server. The system releases the lock when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
    lock: File,
}

impl DataFolder {
    /// Locks a folder, and creates it if necessary.
    ///
    /// # Errors
    /// When it is not a server's, when another server uses it, or when it cannot be written.
    pub fn open(path: &Path) -> io::Result<Self> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        check(path).map_err(named)?;
        fs::create_dir_all(path).map_err(named)?;
        let mut options = File::options();
        let lock = options.write(true).create(true).truncate(false).open(path.join(LOCK)).map_err(named)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let message = "expected to be its only user, found it locked by another server";
                return Err(named(io::Error::other(message)));
            }
            Err(TryLockError::Error(error)) => return Err(named(error)),
        }
        if !path.join(MARKER).exists() {
            write_durably(&path.join(MARKER), MARKER_TEXT).map_err(named)?;
        }
        Ok(Self { path: path.to_owned(), lock })
    }

    /// Where files are.
    pub fn files(&self) -> PathBuf {
        self.path.join(FILES)
    }

    /// Where batches are.
    pub fn batches(&self) -> PathBuf {
        self.path.join(BATCHES)
    }

    /// Unlocks the folder for another server.
    pub fn release(&self) {
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(%error, "the data folder stays locked");
        }
    }
}

/// Refuses a folder that is not a server's. Changes nothing.
fn check(folder: &Path) -> io::Result<()> {
    if !folder.try_exists()? {
        return Ok(());
    }
    let is_ours = folder.join(MARKER).is_file();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        match name.to_str() {
            Some(FILES | BATCHES) if !kind.is_dir() => return Err(foreign(&entry.path(), "a folder")),
            Some(LOCK) if !kind.is_file() => return Err(foreign(&entry.path(), "a file")),
            _ if is_ours => {}
            Some(FILES) => all_names(&entry.path(), is_own_name)?,
            Some(BATCHES) => all_names(&entry.path(), is_batch_id)?,
            Some(LOCK) if entry.metadata()?.len() == 0 => {}
            // What a first start on a full disk has left of it.
            Some(PARTIAL_MARKER) if kind.is_file() && MARKER_TEXT.starts_with(&fs::read(entry.path())?) => {}
            _ => return Err(foreign(&entry.path(), "an empty folder, or only what a server has made in it")),
        }
    }
    Ok(())
}

fn all_names(folder: &Path, is_own: impl Fn(&str) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().to_str().is_some_and(&is_own) {
            return Err(foreign(&entry.path(), "only what a server has made"));
        }
    }
    Ok(())
}

fn foreign(path: &Path, expected: &str) -> io::Error {
    let message = format!("expected {expected}, found {}\nhint: choose another --data-dir", path.display());
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(test: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("rustorch-data-{}-{test}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// What is in a folder and in its folders.
    fn tree(folder: &Path) -> Vec<PathBuf> {
        let mut all = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                all.extend(tree(&path));
            }
            all.push(path);
        }
        all.sort();
        all
    }

    #[test]
    fn a_folder_of_others_is_refused_and_not_changed() {
        let check = |test: &str, path: &str, says: &str| {
            let folder = folder(test);
            let other = folder.join(path);
            fs::create_dir_all(other.parent().unwrap()).unwrap();
            fs::write(&other, "x").unwrap();
            let before = tree(&folder);
            let error = DataFolder::open(&folder).unwrap_err().to_string();
            let first = path.rsplit_once('/').map_or(path, |(folder, _)| folder);
            assert!(error.contains(says) && error.contains(first), "{error}");
            assert_eq!(tree(&folder), before);
            fs::remove_dir_all(folder).unwrap();
        };
        check("thesis", "thesis.txt", "expected an empty folder");
        check("lock", "lock", "expected an empty folder");
        check("own-files", "files/holiday.jpg", "expected only what a server has made");
        check("own-parts", "files/film.part", "expected only what a server has made");
        check("own-batches", "batches/of-cookies/recipe", "expected only what a server has made");
        check("plain-files", "files", "expected a folder");
        check("plain-batches", "batches", "expected a folder");
    }

    #[test]
    fn a_first_start_that_failed_can_be_repeated() {
        let folder = folder("failed");
        for begun in ["", "{\"form"] {
            fs::write(folder.join(PARTIAL_MARKER), begun).unwrap();
            drop(DataFolder::open(&folder).unwrap());
            fs::remove_file(folder.join(MARKER)).unwrap();
        }
        fs::write(folder.join(PARTIAL_MARKER), "my data").unwrap();
        assert!(DataFolder::open(&folder).is_err());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn folders_of_servers_are_taken() {
        let folder = folder("taken");
        // As versions without a marker made it.
        let id = "0123456789abcdef0123456789abcdef";
        fs::create_dir_all(folder.join(format!("batches/batch_{id}"))).unwrap();
        fs::create_dir_all(folder.join("files")).unwrap();
        for name in [format!("file-{id}.data"), format!("file-{id}-output.json"), format!("file-{id}.part")] {
            fs::write(folder.join("files").join(name), "").unwrap();
        }
        fs::write(folder.join("lock"), "").unwrap();
        let first = DataFolder::open(&folder).unwrap();
        let error = DataFolder::open(&folder).unwrap_err().to_string();
        assert!(error.contains("locked by another server"), "{error}");
        first.release();
        // With the marker, what others put there does not matter.
        fs::write(folder.join("notes.txt"), "x").unwrap();
        fs::write(folder.join("files/notes.txt"), "x").unwrap();
        DataFolder::open(&folder).unwrap();
        // Except in the place of a folder.
        fs::remove_dir_all(folder.join("batches")).unwrap();
        fs::write(folder.join("batches"), "x").unwrap();
        assert!(DataFolder::open(&folder).is_err());
        fs::remove_dir_all(folder).unwrap();
    }
}
