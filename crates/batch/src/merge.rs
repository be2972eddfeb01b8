//! The results of a job become one file.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use crate::durable;
use crate::error::{Error, Result};
use crate::job::{Job, Results};
use crate::manifest::{FileHash, Hasher};

/// What was put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// Its lines.
    pub rows: u64,
    /// All of it.
    pub hash: FileHash,
}

/// Parts without results that are named.
const NAMED: usize = 3;
/// Bytes read or written at once.
const BUFFER: usize = 1 << 16;

impl Job {
    /// Writes the results of all parts into one file, in order: after a crash there is all of it or nothing.
    ///
    /// # Errors
    /// A part without results, or whose results are not those that were written; a file that is there already.
    pub fn merge(&self, output: &Path) -> Result<Merged> {
        self.must_be_complete()?;
        if output.try_exists().map_err(Error::io(output))? {
            return Err(Error::job(output, "no such file", "one"));
        }
        let unfinished = durable::temporary(output);
        let merged = self.concatenate(&unfinished).and_then(|merged| {
            durable::rename(&unfinished, output).map_err(Error::io(output))?;
            Ok(merged)
        });
        if merged.is_err() {
            // It is of no use any more.
            let _ = fs::remove_file(&unfinished);
        }
        merged
    }

    fn must_be_complete(&self) -> Result<()> {
        let mut missing = Vec::new();
        for index in 0..self.parts().len() {
            if !self.is_done(index)? {
                missing.push(index);
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let named: Vec<String> = missing.iter().take(NAMED).map(usize::to_string).collect();
        let others = match missing.len() - named.len() {
            0 => String::new(),
            others => format!(" and {others} others"),
        };
        let expected = format!("the results of all {} parts", self.parts().len());
        Err(Error::job(&self.folder, expected, format!("none of part {}{others}", named.join(", "))))
    }

    fn concatenate(&self, path: &Path) -> Result<Merged> {
        let name = path.display().to_string();
        let failed = || Error::writing(&name);
        let mut out = BufWriter::with_capacity(BUFFER, durable::create(path).map_err(failed())?);
        let (mut whole, mut rows, mut buffer) = (Hasher::default(), 0, vec![0; BUFFER]);
        for (index, part) in self.parts().iter().enumerate() {
            let (result, recorded) = (self.result(index), self.recorded(index)?);
            let mut input = File::open(&result).map_err(Error::io(&result))?;
            let (mut hasher, mut lines) = (Hasher::default(), 0);
            loop {
                let bytes = input.read(&mut buffer).map_err(Error::io(&result))?;
                if bytes == 0 {
                    break;
                }
                let read = &buffer[..bytes];
                lines += read.iter().filter(|&&byte| byte == b'\n').count() as u64;
                hasher.update(read);
                whole.update(read);
                out.write_all(read).map_err(failed())?;
            }
            let found = Results { rows: lines, hash: hasher.finish() };
            if found != recorded || lines != part.rows {
                let shown =
                    |results: &Results| format!("{} rows with SHA-256 {}", results.rows, results.hash.sha256);
                return Err(Error::job(&result, shown(&recorded), shown(&found)));
            }
            rows += lines;
        }
        let file = out.into_inner().map_err(io::IntoInnerError::into_error).map_err(failed())?;
        file.sync_all().map_err(failed())?;
        Ok(Merged { rows, hash: whole.finish() })
    }
}
