//! The output, which is its own journal: a request is done when the output holds its result as a whole line.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::mem;
use std::path::{Path, PathBuf};

use crate::durable;
use crate::error::{Difference, Error, Result};
use crate::input::{Input, Scan};
use crate::kept::{Errors, Found, Kept, LineOrder, each_line};
use crate::ledger::Ledger;
use crate::manifest::{FileHash, Manifest};
use crate::request::OutputLine;
use crate::shard::Shard;

/// Where results go. Nothing in the file changes before [`begin`](Self::begin).
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    target: Target,
}

#[derive(Debug)]
enum Target {
    /// A regular file, locked.
    File(File),
    /// A regular file that is not there yet.
    New,
    /// Standard output, a pipe or a device, which cannot be read again.
    Stream(Stream),
}

#[derive(Debug)]
enum Stream {
    Stdout(io::Stdout),
    File(File),
    Memory(Vec<u8>),
}

/// What to do with results that the output holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Keep them if they belong to the same run, and continue it.
    Resume,
    /// Delete them.
    Replace,
}

/// An output that results are appended to.
#[derive(Debug)]
pub struct Journal {
    /// The output's name, for error messages.
    name: String,
    sink: Sink,
    /// Lines to be written at the next flush.
    buffer: Vec<u8>,
    found: Found,
    /// What the input was when it was scanned.
    scanned: Option<FileHash>,
    ledger: Ledger,
    order: LineOrder,
    is_reproducible: bool,
    is_of_texts: bool,
}

#[derive(Debug)]
enum Sink {
    File {
        /// Without links, so that a rename replaces the file itself.
        path: PathBuf,
        file: File,
        /// Bytes on disk.
        len: u64,
        /// Earlier versions of the file, kept open and so locked: another process may have opened one of them.
        replaced: Vec<File>,
    },
    Stream(Stream),
}

impl Output {
    /// Opens a file, or makes it, and locks it; `-` is standard output.
    ///
    /// # Errors
    /// [`Error::Locked`] while another process writes it, or when it cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let output = |target| Self { path: path.to_owned(), target };
        if path == Path::new("-") {
            return Ok(output(Target::Stream(Stream::Stdout(io::stdout()))));
        }
        loop {
            // Of a device that can only be written, reading is not asked for. A folder fails to open for writing.
            let is_stream =
                fs::metadata(path).is_ok_and(|metadata| !(metadata.is_file() || metadata.is_dir()));
            let mut options = File::options();
            options.read(!is_stream).write(true).create(true).truncate(false);
            let file = options.open(path).map_err(Error::io(path))?;
            if is_stream {
                return Ok(output(Target::Stream(Stream::File(file))));
            }
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(Error::Locked { output: path.to_owned() }),
                Err(TryLockError::Error(error)) => return Err(Error::io(path)(error)),
            }
            // Between the opening and the lock another process may have replaced it, and ended.
            if is_still(&file, path).map_err(Error::io(path))? {
                return Ok(output(Target::File(file)));
            }
        }
    }

    /// As [`open`](Self::open), but a file that is not there is only made when the run [begins](Self::begin): what is
    /// refused before that leaves nothing.
    ///
    /// # Errors
    /// As [`open`](Self::open); also when the file could not be made.
    pub fn prepare(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            return Self::open(path);
        }
        // As long as it is there it is locked, so that no other process begins to write it.
        let made = File::options().write(true).create_new(true).open(path).and_then(|file| {
            let _ = file.try_lock();
            fs::remove_file(path)
        });
        match made {
            Ok(()) => Ok(Self { path: path.to_owned(), target: Target::New }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self::open(path),
            Err(error) => Err(Error::io(path)(error)),
        }
    }

    /// What is written stays in memory.
    pub(crate) fn memory() -> Self {
        Self { path: PathBuf::from("memory"), target: Target::Stream(Stream::Memory(Vec::new())) }
    }

    /// Whether results survive a crash, which those sent to a stream do not.
    pub fn is_durable(&self) -> bool {
        matches!(self.target, Target::File(_) | Target::New)
    }

    /// Whether it is a file without results.
    pub(crate) fn is_empty(&self) -> Result<bool> {
        match &self.target {
            Target::File(file) => Ok(file.metadata().map_err(Error::io(&self.path))?.len() == 0),
            Target::New => Ok(true),
            Target::Stream(_) => Ok(false),
        }
    }

    /// Refuses an output that is a file which the run reads, whatever its name: it, or what is written beside it.
    ///
    /// # Errors
    /// [`Error::SameFile`].
    pub fn must_not_be(&self, other: &Path) -> Result<()> {
        let is_same = match &self.target {
            Target::File(file) => is_still(file, other).map_err(Error::io(other))?,
            Target::New => false,
            Target::Stream(_) => return Ok(()),
        };
        let manifest = Manifest::path(&self.path);
        let beside = [durable::temporary(&self.path), durable::temporary(&manifest), manifest];
        let mut files = beside.iter().filter_map(|path| File::open(path).ok());
        if is_same || files.any(|file| is_still(&file, other).unwrap_or(false)) {
            return Err(Error::SameFile { output: self.path.clone(), other: other.to_owned() });
        }
        Ok(())
    }

    /// Makes it ready for results of the run that `manifest` describes, over the input that was scanned: repairs what a
    /// crash has left, and removes results of lines that were changed; or replaces the file. A stream is taken as it is,
    /// without a manifest.
    ///
    /// # Errors
    /// [`Error::OtherRun`], [`Error::NoManifest`] or [`Error::BadManifest`] if there are results and they are not to be
    /// replaced; a file that cannot be read or written.
    pub fn begin(
        self,
        mut manifest: Manifest,
        existing: Existing,
        errors: Errors,
        scan: Option<Scan>,
    ) -> Result<Journal> {
        let Self { path, target } = match self.target {
            Target::New => Self::open(&self.path)?,
            _ => self,
        };
        let name = path.display().to_string();
        let (scanned, ids, again) = match scan {
            Some(scan) => (Some(scan.file), Some(scan.ids), Some(scan.again)),
            None => (None, None, None),
        };
        let is_reproducible = manifest.reproducible;
        let is_of_texts = manifest.options.contains_key(Manifest::TEXTS);
        manifest.input.clone_from(&scanned);
        let empty = |name, sink| Journal {
            name,
            sink,
            buffer: Vec::new(),
            found: Found::default(),
            scanned,
            ledger: Ledger::new(ids),
            order: LineOrder::EMPTY,
            is_reproducible,
            is_of_texts,
        };
        let file = match target {
            Target::File(file) => file,
            Target::New => unreachable!("an output that was opened is there"),
            Target::Stream(stream @ Stream::Stdout(_)) => {
                return Ok(empty("standard output".to_owned(), Sink::Stream(stream)));
            }
            Target::Stream(stream) => return Ok(empty(name, Sink::Stream(stream))),
        };
        let len = file.metadata().map_err(Error::io(&path))?.len();
        let real = path.canonicalize().map_err(Error::io(&path))?;
        let mut journal = empty(name, Sink::File { path: real.clone(), file, len: 0, replaced: Vec::new() });
        if len == 0 {
            if existing == Existing::Resume {
                Manifest::must_not_hide(&path)?;
            }
            manifest.write(&path)?;
            durable::sync_folder_of(&real).map_err(Error::io(&path))?;
        } else if existing == Existing::Replace {
            // The file may have other names, which keep their contents. In this order: old results beside the new manifest
            // would be taken for this run's.
            journal.rewrite(|_, _| Ok(()))?;
            manifest.write(&path)?;
        } else {
            let earlier = manifest.check(&path)?;
            journal.recover(errors, &path, &earlier.differences, again)?;
            journal.found.has_other_bits = earlier.isa.is_some() && journal.found.results > 0;
            if !earlier.differences.is_empty() {
                manifest.write_again(&path, earlier)?;
            }
        }
        Ok(journal)
    }
}

/// Whether a path still leads to this open file.
fn is_still(file: &File, path: &Path) -> io::Result<bool> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let opened = file.metadata()?;
        let found = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            found => found?,
        };
        Ok((opened.dev(), opened.ino()) == (found.dev(), found.ino()))
    }
    // Other systems do not replace a file that is open.
    #[cfg(not(unix))]
    {
        let _ = (file, path);
        Ok(true)
    }
}

impl Journal {
    /// What was there before.
    pub fn found(&self) -> Found {
        self.found
    }

    /// Whether its results depend on their lines alone: see [`Manifest::reproducible`].
    pub fn is_reproducible(&self) -> bool {
        self.is_reproducible
    }

    /// Whether each of its results is one text: see [`Manifest::TEXTS`].
    pub(crate) fn is_of_texts(&self) -> bool {
        self.is_of_texts
    }

    /// The file, if it is one.
    pub(crate) fn file(&self) -> Option<&File> {
        match &self.sink {
            Sink::File { file, .. } => Some(file),
            Sink::Stream(_) => None,
        }
    }

    /// What was written to memory.
    pub(crate) fn into_memory(self) -> Vec<u8> {
        match self.sink {
            Sink::Stream(Stream::Memory(text)) => text,
            _ => Vec::new(),
        }
    }

    /// Whether results survive a crash.
    pub fn is_durable(&self) -> bool {
        matches!(self.sink, Sink::File { .. })
    }

    /// Takes what it knows of the input, and what the input was when it was scanned.
    pub(crate) fn take_ledger(&mut self) -> (Ledger, Option<FileHash>) {
        (mem::replace(&mut self.ledger, Ledger::new(None)), self.scanned.take())
    }

    /// Adds the result of the input's line `number`, to be written at the next [`flush`](Self::flush).
    pub(crate) fn push(&mut self, number: u64, line: &OutputLine) {
        self.order.push(number);
        serde_json::to_writer(&mut self.buffer, line).expect("strings and numbers are JSON");
        self.buffer.push(b'\n');
    }

    /// Bytes that the next flush will write.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Writes the added lines and waits until they are on disk.
    pub(crate) fn flush(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let written = match &mut self.sink {
            Sink::File { file, len, .. } => {
                let found = file.metadata().map_err(Error::named(&self.name))?.len();
                if found != *len {
                    let found = format!("{found} bytes where {len} were written");
                    return Err(Error::OutputChanged { output: self.name.clone(), found });
                }
                let written = file.write_all(&self.buffer).and_then(|()| file.sync_data());
                match &written {
                    Ok(()) => *len += self.buffer.len() as u64,
                    // A partial write does not count. If truncating fails as well, the next run repairs the file.
                    Err(_) => drop(file.set_len(*len)),
                }
                written
            }
            Sink::Stream(Stream::File(file)) => file.write_all(&self.buffer),
            Sink::Stream(Stream::Memory(text)) => text.write_all(&self.buffer),
            Sink::Stream(Stream::Stdout(stdout)) => {
                stdout.write_all(&self.buffer).and_then(|()| stdout.flush())
            }
        };
        self.buffer.clear();
        written.map_err(Error::writing(&self.name))
    }

    /// Checks, at the end, that the results are where they were written.
    pub(crate) fn verify(&self) -> Result<()> {
        let Sink::File { path, file, len, .. } = &self.sink else { return Ok(()) };
        let failed = Error::named(&self.name);
        let check = || {
            let found = file.metadata()?.len();
            Ok(match is_still(file, path)? {
                false => Some("it removed or replaced".to_owned()),
                true => (found != *len).then(|| format!("{found} bytes where {len} were written")),
            })
        };
        match check().map_err(failed)? {
            Some(found) => Err(Error::OutputChanged { output: self.name.clone(), found }),
            None => Ok(()),
        }
    }

    /// Sorts the results by input line unless they are sorted. A run in input order leaves them sorted, except after a
    /// retry of errors or a repair.
    pub(crate) fn sort(&mut self) -> Result<()> {
        let Sink::File { file, .. } = &self.sink else { return Ok(()) };
        if self.order.is_kept {
            return Ok(());
        }
        let mut places = Vec::new(); // number, offset, length
        let mut offset = 0;
        let read = each_line(file, |line, text, bytes| {
            let number = line.and_then(|line| line.number).unwrap_or(u64::MAX);
            places.push((number, offset, text.len() + 1));
            offset += bytes;
            Ok(())
        });
        read.map_err(Error::named(&self.name))?;
        places.sort_unstable();
        self.rewrite(|file, out| {
            let (mut reader, mut position) = (BufReader::with_capacity(BUFFER, file), 0);
            reader.rewind()?;
            for (_, offset, len) in places {
                reader.seek_relative(offset as i64 - position)?;
                position = offset as i64 + len as i64;
                io::copy(&mut (&mut reader).take(len as u64), out)?;
            }
            Ok(())
        })?;
        self.order.is_kept = true;
        Ok(())
    }

    /// Reads which ids are done, and removes from the file all that is not a result of a line of the input: the end by
    /// truncating, the rest by rewriting the file. `differences` are those of the input since the results were written; `again`
    /// has its lines.
    fn recover(
        &mut self,
        errors: Errors,
        output: &Path,
        differences: &[Difference],
        again: Option<(Input, Shard)>,
    ) -> Result<()> {
        let Sink::File { file, len, .. } = &mut self.sink else { return Ok(()) };
        let kept = match self.is_reproducible {
            true => {
                let lines = again.map(|(input, shard)| input.lines(shard)).transpose()?;
                Kept::find_first(file, &mut self.ledger, lines)
            }
            false => Kept::find(file, errors, &mut self.ledger, |_| Ok(())),
        };
        let kept = kept.map_err(Error::named(&self.name))?;
        if !differences.is_empty() && kept.is_of_another_input() {
            let (output, differences) = (output.to_owned(), differences.to_vec());
            return Err(Error::OtherRun { output, differences });
        }
        let stale = kept.found.stale;
        let kept = if kept.has_gaps {
            // After a crash, pages of a write may have reached the disk in any order; errors to retry may be anywhere.
            let mut ledger = mem::replace(&mut self.ledger, Ledger::new(None));
            ledger.reset();
            let mut again = None;
            self.rewrite(|file, out| {
                let copied = Kept::find(file, errors, &mut ledger, |text| {
                    out.write_all(text)?;
                    out.write_all(b"\n")
                });
                again = Some(copied?);
                Ok(())
            })?;
            self.ledger = ledger;
            again.expect("a file that was rewritten was read")
        } else {
            let cut = |file: &mut File| {
                if kept.end < file.metadata()?.len() {
                    file.set_len(kept.end)?;
                    file.sync_all()?;
                }
                file.seek(SeekFrom::Start(kept.end))
            };
            *len = cut(file).map_err(Error::writing(&self.name))?;
            kept
        };
        self.order = kept.order;
        self.found = Found { stale, ..kept.found };
        Ok(())
    }

    /// Replaces the file by what `fill` writes, through a temporary file and a rename: after a crash there is the whole old
    /// file or the whole new one.
    fn rewrite(&mut self, fill: impl FnOnce(&File, &mut BufWriter<&File>) -> io::Result<()>) -> Result<()> {
        let Sink::File { path, file, len, replaced } = &mut self.sink else { return Ok(()) };
        let temporary = durable::temporary(path);
        let write = || {
            let mut new = durable::create(&temporary)?;
            new.lock()?;
            new.set_permissions(file.metadata()?.permissions())?;
            let mut out = BufWriter::with_capacity(BUFFER, &new);
            fill(file, &mut out)?;
            out.flush()?;
            drop(out);
            new.sync_all()?;
            durable::rename(&temporary, path)?;
            let len = new.stream_position()?;
            Ok((new, len))
        };
        match write() {
            Ok((new, new_len)) => {
                replaced.push(mem::replace(file, new));
                *len = new_len;
                Ok(())
            }
            Err(error) => {
                // The temporary file is of no use any more.
                let _ = fs::remove_file(&temporary);
                Err(Error::writing(&self.name)(error))
            }
        }
    }
}

/// Bytes read or written at once.
const BUFFER: usize = 1 << 16;
