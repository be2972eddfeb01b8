//! One file's download: begun, gone on with after a break or in another run, and checked before it has its name.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::client::{Answer, Client, Follow, header};
use crate::url::Url;
use crate::{HubError, Result};

/// What happens, for whoever waits.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A file of this size is fetched, of which the beginning may be there.
    Begin {
        /// Its name.
        file: &'a str,
        /// In bytes.
        size: u64,
        /// Bytes of an earlier run.
        done: u64,
    },
    /// So many bytes are there, those of an earlier run included.
    Progress(u64),
    /// The file is there.
    End,
    /// Another process fetches it.
    Waiting {
        /// Its name.
        file: &'a str,
    },
    /// The connection broke, and the download goes on.
    Retry {
        /// How it broke.
        reason: &'a str,
    },
    /// The server cannot be asked. What the cache has is taken.
    Unreachable {
        /// What failed.
        reason: &'a str,
    },
}

/// A file, as the server describes it.
pub struct Remote {
    pub url: Url,
    /// For people.
    pub name: String,
    pub size: u64,
    pub sha256: Option<String>,
}

/// Attempts that bring nothing, after which a download fails, and how long it waits before the others. One that has brought bytes is
/// followed by another at once.
const PAUSES: [Duration; 3] = [Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(3)];
const BUFFER: usize = 256 << 10;

/// The bytes that are there, and their hash so far.
struct Partial<'a> {
    path: &'a Path,
    file: File,
    len: u64,
    hash: Sha256,
}

/// How an attempt ended that may be followed by another.
enum Fault {
    Broken(HubError),
    Fatal(HubError),
}

impl Remote {
    /// Fetches it to `target`, through a file beside it which keeps what is there if the program ends.
    ///
    /// # Errors
    /// A server that cannot be reached or refuses, and one whose bytes are not those that it announced; the disk.
    pub fn fetch(
        &self,
        client: &Client,
        partial: &Path,
        target: &Path,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<()> {
        let mut partial = Partial::open(partial, self.size)?;
        let mut is_resumed = partial.len > 0;
        watch(Event::Begin { file: &self.name, size: self.size, done: partial.len });
        let (mut num_vain, mut most) = (0, partial.len);
        loop {
            match self.pull(client, &mut partial, watch) {
                Ok(()) if self.is_right(&partial) => break,
                // The beginning may be of another run and another file.
                Ok(()) if is_resumed => {
                    is_resumed = false;
                    partial.clear()?;
                    watch(Event::Retry { reason: "what was kept of an earlier download is damaged" });
                }
                Ok(()) => return Err(self.wrong_hash(partial)),
                Err(Fault::Fatal(error)) => return Err(error),
                Err(Fault::Broken(error)) => {
                    num_vain = if partial.len > most { 0 } else { num_vain + 1 };
                    most = most.max(partial.len);
                    let Some(pause) = PAUSES.get(num_vain.max(1) - 1) else { return Err(error) };
                    watch(Event::Retry { reason: &error.to_string() });
                    if num_vain > 0 {
                        std::thread::sleep(*pause);
                    }
                }
            }
        }
        partial.file.sync_all().map_err(HubError::io(partial.path))?;
        fs::rename(partial.path, target).map_err(HubError::io(target))?;
        watch(Event::End);
        Ok(())
    }

    fn is_right(&self, partial: &Partial<'_>) -> bool {
        self.sha256.as_ref().is_none_or(|sha256| *sha256 == partial.sha256())
    }

    fn wrong_hash(&self, partial: Partial<'_>) -> HubError {
        let found = format!("{}; the download is removed", partial.sha256());
        // It would be wrong another time too.
        let _ = fs::remove_file(partial.path);
        let expected = format!("bytes with SHA-256 {}", self.sha256.as_deref().unwrap_or_default());
        HubError::Answer { url: self.url.to_string(), expected, found }
    }

    /// One request for what is missing.
    fn pull(
        &self,
        client: &Client,
        partial: &mut Partial<'_>,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Fault> {
        if partial.len == self.size {
            return Ok(());
        }
        let range = (partial.len > 0).then(|| format!("bytes={}-", partial.len));
        let answer =
            client.get(&self.url, range.as_deref(), Follow::Anywhere).map_err(|error| match error {
                HubError::Unreachable { .. } | HubError::Refused { status: 408 | 429 | 500.., .. } => {
                    Fault::Broken(error)
                }
                error => Fault::Fatal(error),
            })?;
        self.check_length(&answer, partial).map_err(Fault::Fatal)?;
        let mut body = answer.body;
        let mut reader = body.as_reader();
        let mut buffer = vec![0; BUFFER];
        loop {
            let broken =
                |reason: String| Fault::Broken(HubError::Unreachable { url: self.url.to_string(), reason });
            let count = match reader.read(&mut buffer) {
                Ok(0) if partial.len == self.size => return Ok(()),
                Ok(0) => {
                    return Err(broken(format!(
                        "the connection ended after {} of {} bytes",
                        partial.len, self.size
                    )));
                }
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(broken(error.to_string())),
            };
            if partial.len + count as u64 > self.size {
                return Err(Fault::Fatal(self.wrong_size("more".to_owned())));
            }
            partial.add(&buffer[..count]).map_err(Fault::Fatal)?;
            watch(Event::Progress(partial.len));
        }
    }

    /// Whether the answer is what is missing; if it is the whole file instead, what is there is dropped.
    fn check_length(&self, answer: &Answer, partial: &mut Partial<'_>) -> Result<()> {
        let wrong =
            |expected: String, found: String| HubError::Answer { url: self.url.to_string(), expected, found };
        match (answer.status, header(&answer.headers, "content-range")) {
            (206, Some(range)) => {
                let expected = format!("bytes {}-{}/{}", partial.len, self.size - 1, self.size);
                if partial.len == 0 || range != expected {
                    return Err(wrong(format!("the range {expected:?}"), format!("{range:?}")));
                }
            }
            (200, _) => partial.clear()?,
            (status, _) => {
                return Err(wrong("status 200, or 206 with a range".to_owned(), status.to_string()));
            }
        }
        match header(&answer.headers, "content-length") {
            Some(length) if length != (self.size - partial.len).to_string() => Err(self.wrong_size(length)),
            _ => Ok(()),
        }
    }

    fn wrong_size(&self, found: String) -> HubError {
        HubError::Answer {
            url: self.url.to_string(),
            expected: format!("a file of {} bytes", self.size),
            found,
        }
    }
}

impl<'a> Partial<'a> {
    fn open(path: &'a Path, size: u64) -> Result<Self> {
        let io = || HubError::io(path);
        // A link would lead the bytes elsewhere.
        if path.symlink_metadata().is_ok_and(|metadata| !metadata.is_file()) {
            fs::remove_file(path).map_err(io())?;
        }
        let file =
            OpenOptions::new().create(true).read(true).write(true).truncate(false).open(path).map_err(io())?;
        let mut partial = Self { path, file, len: 0, hash: Sha256::new() };
        if partial.file.metadata().map_err(io())?.len() > size {
            partial.clear()?;
        }
        let mut buffer = vec![0; BUFFER];
        loop {
            match partial.file.read(&mut buffer).map_err(io())? {
                0 => return Ok(partial),
                count => {
                    partial.hash.update(&buffer[..count]);
                    partial.len += count as u64;
                }
            }
        }
    }

    fn add(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(HubError::io(self.path))?;
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn clear(&mut self) -> Result<()> {
        let cleared = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        cleared.map_err(HubError::io(self.path))?;
        (self.len, self.hash) = (0, Sha256::new());
        Ok(())
    }

    fn sha256(&self) -> String {
        hex(&self.hash.clone().finalize())
    }
}

/// Bytes as text.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Holds a file's lock, so that one process fetches it and others wait.
pub fn lock(path: &Path, name: &str, watch: &mut dyn FnMut(Event<'_>)) -> Result<File> {
    create_parent(path)?;
    let file = File::create(path).map_err(HubError::io(path))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => watch(Event::Waiting { file: name }),
        // A file system without locks. Should two fetch the same file there, the hash tells.
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => return Ok(file),
        Err(TryLockError::Error(error)) => return Err(HubError::Io { path: path.to_owned(), error }),
    }
    file.lock().map_err(HubError::io(path))?;
    Ok(file)
}

/// Makes the folder of a file.
pub fn create_parent(path: &Path) -> Result<()> {
    let parent: PathBuf = path.parent().unwrap_or(path).to_owned();
    fs::create_dir_all(&parent).map_err(HubError::io(parent))
}
