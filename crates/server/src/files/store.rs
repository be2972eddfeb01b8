//! The folder of files and its index in memory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::trouble::Trouble;
use crate::{clock, random};

/// Files by id.
#[derive(Debug)]
pub(crate) struct FileStore {
    folder: PathBuf,
    index: Mutex<BTreeMap<String, StoredFile>>,
    /// Why files are not stored, if they are not, and when it was last looked.
    trouble: Mutex<Option<(Trouble, Instant)>>,
}

/// The description of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredFile {
    pub id: String,
    pub filename: String,
    pub bytes: u64,
    /// Seconds since 1970.
    pub created_at: u64,
    pub purpose: String,
}

/// A file that is being written. If it is dropped before [`FileStore::add`], its content is removed.
#[derive(Debug)]
pub(crate) struct NewFile {
    id: String,
    path: PathBuf,
    file: File,
    bytes: u64,
}

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub(crate) struct StoreError {
    path: PathBuf,
    source: io::Error,
}

const CONTENT: &str = "data";
const DESCRIPTION: &str = "json";
/// Bytes that are written to see whether any can be.
const PROBE: usize = 1 << 20;
/// How often that is tried at most.
const PROBE_PAUSE: Duration = Duration::from_millis(500);
/// Suffix of files that are being written.
const PARTIAL: &str = "part";

impl FileStore {
    /// Opens a folder and creates it if necessary.
    ///
    /// # Errors
    /// When it cannot be read or written, or a description in it is malformed.
    pub fn open(folder: PathBuf) -> Result<Self, StoreError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError { path, source }
        };
        fs::create_dir_all(&folder).map_err(at(&folder))?;
        let mut index = BTreeMap::new();
        for (path, name) in own_files(&folder).map_err(at(&folder))? {
            if name.extension == DESCRIPTION {
                let text = fs::read(&path).map_err(at(&path))?;
                let file: StoredFile =
                    serde_json::from_slice(&text).map_err(|error| at(&path)(error.into()))?;
                index.insert(file.id.clone(), file);
            }
        }
        Ok(Self { folder, index: Mutex::new(index), trouble: Mutex::default() })
    }

    /// Removes what a crash has left: contents without a description, and files that were being written. Files with names
    /// that no store gives are left alone.
    ///
    /// # Errors
    /// When the folder cannot be read or written.
    pub fn remove_leftovers(&self) -> Result<(), StoreError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError { path, source }
        };
        for (path, name) in own_files(&self.folder).map_err(at(&self.folder))? {
            let is_kept = match name.extension {
                DESCRIPTION => true,
                CONTENT => self.get(&name.id).is_some(),
                _ => false,
            };
            if !is_kept {
                fs::remove_file(&path).map_err(at(&path))?;
            }
        }
        Ok(())
    }

    /// Starts a file with a new id.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn begin(&self) -> io::Result<NewFile> {
        self.begin_as(format!("file-{}", random::id()))
    }

    /// Starts a file with this id, which replaces a file that has it.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn begin_as(&self, id: String) -> io::Result<NewFile> {
        let path = self.path(&id, PARTIAL);
        let file = File::create(&path)?;
        Ok(NewFile { id, path, file, bytes: 0 })
    }

    /// Adds a written file to the store.
    ///
    /// # Errors
    /// When the disk fails or is full; the file does not exist then.
    pub fn add(&self, file: NewFile, filename: String, purpose: &str) -> io::Result<StoredFile> {
        file.file.sync_all()?;
        let content = self.path(&file.id, CONTENT);
        fs::rename(&file.path, &content)?;
        let stored = StoredFile {
            id: file.id.clone(),
            filename,
            bytes: file.bytes,
            created_at: clock::unix_seconds(),
            purpose: purpose.to_owned(),
        };
        if let Err(error) = write_durably(&self.path(&stored.id, DESCRIPTION), &serde_json::to_vec(&stored)?)
        {
            let _ = fs::remove_file(content);
            return Err(error);
        }
        self.index().insert(stored.id.clone(), stored.clone());
        Ok(stored)
    }

    /// Why clients' files and batches are not stored, if they are not. Looks whether that has ended.
    pub fn trouble(&self) -> Option<Trouble> {
        let is_to_look = self.known_trouble().as_mut().is_some_and(|(_, looked)| {
            let is_old = looked.elapsed() >= PROBE_PAUSE;
            *looked = if is_old { Instant::now() } else { *looked };
            is_old
        });
        if is_to_look && self.probe().is_ok() {
            self.works();
        }
        self.known_trouble().as_ref().map(|(trouble, _)| trouble.clone())
    }

    /// Something that a client sent could not be stored. The log has a line when this begins and one when it ends.
    pub fn fails(&self, error: &io::Error) {
        let mut trouble = self.known_trouble();
        if trouble.is_none() {
            tracing::error!(%error, "files and batches of clients are not stored: the data folder cannot be used");
        }
        let before = trouble.as_ref().map(|(trouble, _)| trouble);
        *trouble = Some((Trouble::after(before, error), Instant::now()));
    }

    /// Something that a client sent was stored.
    pub fn works(&self) {
        if let Some((trouble, _)) = self.known_trouble().take() {
            tracing::info!(failures = trouble.failures, "files and batches of clients are stored again");
        }
    }

    /// Whether a file can be written.
    fn probe(&self) -> io::Result<()> {
        let mut file = self.begin()?;
        file.write_all(&vec![0; PROBE])?;
        file.file.sync_all()
    }

    fn known_trouble(&self) -> MutexGuard<'_, Option<(Trouble, Instant)>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file with this id.
    pub fn get(&self, id: &str) -> Option<StoredFile> {
        self.index().get(id).cloned()
    }

    /// All files, the oldest first.
    pub fn list(&self) -> Vec<StoredFile> {
        let mut files: Vec<_> = self.index().values().cloned().collect();
        files.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        files
    }

    /// Where a file's content lies. The id must be that of a file: it becomes a part of the path.
    pub fn content(&self, file: &StoredFile) -> PathBuf {
        self.path(&file.id, CONTENT)
    }

    /// Removes a file; false if there is none.
    ///
    /// # Errors
    /// When the folder cannot be written; the file is still there then.
    pub fn remove(&self, id: &str) -> io::Result<bool> {
        let mut index = self.index();
        if !index.contains_key(id) {
            return Ok(false);
        }
        fs::remove_file(self.path(id, DESCRIPTION))?;
        index.remove(id);
        // Content without a description is removed at the next start.
        let _ = fs::remove_file(self.path(id, CONTENT));
        Ok(true)
    }

    fn path(&self, id: &str, extension: &str) -> PathBuf {
        self.folder.join(format!("{id}.{extension}"))
    }

    fn index(&self) -> MutexGuard<'_, BTreeMap<String, StoredFile>> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name that a store gives.
struct OwnName {
    id: String,
    extension: &'static str,
}

impl OwnName {
    fn of(name: &str) -> Option<Self> {
        let (id, extension) = name.split_once('.')?;
        let extension = [CONTENT, DESCRIPTION, PARTIAL].into_iter().find(|own| *own == extension)?;
        let rest = id.strip_prefix("file-")?;
        let rest = rest.strip_suffix("-output").or(rest.strip_suffix("-errors")).unwrap_or(rest);
        random::is_id(rest).then(|| Self { id: id.to_owned(), extension })
    }
}

/// Whether a file of this name may be a store's.
pub(crate) fn is_own_name(name: &str) -> bool {
    OwnName::of(name).is_some()
}

/// The files of a folder that have a name which a store gives.
fn own_files(folder: &Path) -> io::Result<Vec<(PathBuf, OwnName)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_str().and_then(OwnName::of);
        match name {
            Some(name) if entry.file_type()?.is_file() => files.push((entry.path(), name)),
            _ => {
                tracing::warn!(path = %entry.path().display(), "not a file of this server; it is left alone")
            }
        }
    }
    Ok(files)
}

impl NewFile {
    /// Bytes so far.
    pub fn len(&self) -> u64 {
        self.bytes
    }
}

impl Write for NewFile {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let written = self.file.write(data)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // It has been renamed if the file was added.
        let _ = fs::remove_file(&self.path);
    }
}

/// Writes a whole file so that, whatever happens, the path holds the old content or the new.
///
/// # Errors
/// When the disk fails or is full; the old content is still there then.
pub(crate) fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let partial = path.with_extension(PARTIAL);
    let written = File::create(&partial).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    if let Err(error) = written.and_then(|()| fs::rename(&partial, path)) {
        // It is of no use any more.
        let _ = fs::remove_file(partial);
        return Err(error);
    }
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(test: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("rustorch-files-{}-{test}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    fn add(store: &FileStore, content: &[u8]) -> StoredFile {
        let mut file = store.begin().unwrap();
        file.write_all(content).unwrap();
        store.add(file, "a.jsonl".into(), "batch").unwrap()
    }

    #[test]
    fn files_outlive_the_store_and_what_a_crash_left_does_not() {
        let folder = folder("outlive");
        let store = FileStore::open(folder.clone()).unwrap();
        let kept = add(&store, b"one");
        let removed = add(&store, b"two");
        assert!(store.remove(&removed.id).unwrap());
        assert!(!store.remove(&removed.id).unwrap());
        // A crash during an upload, and one between content and description.
        fs::write(folder.join(format!("file-{}.part", random::id())), "x").unwrap();
        fs::write(folder.join(format!("file-{}.data", random::id())), "x").unwrap();
        fs::write(folder.join(format!("file-{}-output.part", random::id())), "x").unwrap();
        // Files of others, some of which look alike.
        let others = ["holiday.jpg", "film.part", "file-1.part", "thesis.json", "disk.data", ".data"];
        others.iter().for_each(|name| fs::write(folder.join(name), "x").unwrap());

        let store = FileStore::open(folder.clone()).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2 + 3 + others.len(), "opening removes nothing");
        store.remove_leftovers().unwrap();
        assert_eq!(store.list(), std::slice::from_ref(&kept));
        assert_eq!(fs::read(store.content(&kept)).unwrap(), b"one");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2 + others.len());
        assert!(others.iter().all(|name| folder.join(name).exists()));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing() {
        let folder = folder("unwritable");
        // A folder cannot be replaced by a file.
        let path = folder.join("batch.json");
        fs::create_dir_all(path.join("taken")).unwrap();
        assert!(write_durably(&path, b"{}").is_err());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn an_upload_that_is_given_up_leaves_nothing() {
        let folder = folder("given-up");
        let store = FileStore::open(folder.clone()).unwrap();
        let mut file = store.begin().unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        fs::remove_dir_all(folder).unwrap();
    }
}
