//! Files that are on disk when a call returns.

use std::ffi::OsString;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Replaces a file by one with these contents: a crash leaves the old or the new, whole.
pub(crate) fn write(path: &Path, contents: &[u8]) -> io::Result<()> {
    write_through(&temporary(path), path, contents)
}

/// As [`write`] where other processes may write the same file.
pub(crate) fn write_alone(path: &Path, contents: &[u8]) -> io::Result<()> {
    write_through(&unique(path), path, contents)
}

fn write_through(temporary: &Path, path: &Path, contents: &[u8]) -> io::Result<()> {
    let written = create(temporary).and_then(|mut file| {
        file.write_all(contents)?;
        file.sync_all()
    });
    if let Err(error) = written.and_then(|()| rename(temporary, path)) {
        // The temporary file is of no use any more.
        let _ = fs::remove_file(temporary);
        return Err(error);
    }
    Ok(())
}

/// Writes a file that is not there yet, whole; one that is there stays, and so does one that another process writes at the
/// same moment. The file system must have hard links.
pub(crate) fn create_once(path: &Path, contents: &[u8]) -> io::Result<()> {
    if path.try_exists()? {
        return Ok(());
    }
    let temporary = unique(path);
    let written = create(&temporary).and_then(|mut file| {
        file.write_all(contents)?;
        file.sync_all()
    });
    let linked = written.and_then(|()| match fs::hard_link(&temporary, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked.and_then(|()| sync_folder_of(path)),
    });
    // It has its name, or is of no use.
    let _ = fs::remove_file(&temporary);
    linked
}

/// A name beside a file's that no other process uses, whatever machine it runs on.
fn unique(path: &Path) -> PathBuf {
    let random = RandomState::new().build_hasher().finish();
    with_suffix(path, &format!(".{random:016x}.tmp"))
}

/// A new file. One of this name, which a crash has left, is removed: it may be a link to a file that is not ours.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    File::options().read(true).write(true).create_new(true).open(path)
}

/// Renames a file whose contents are on disk, and waits until its name is as well.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_folder_of(to)
}

/// Waits until the names in a file's folder are on disk.
pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    // Other systems cannot open a folder like a file; they write names with the files.
    if cfg!(unix) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

/// Where the new contents of a file are written before they replace the old.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    with_suffix(path, ".rustorch.tmp")
}

/// `path` with something after its name.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}
