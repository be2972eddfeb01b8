//! The messages of earlier conversations, in a file: one a line, with `\n` for a line feed and `\\` for a backslash.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Messages that are kept.
pub const MAX_MESSAGES: usize = 1000;
/// A longer file is cut to the last messages.
const MAX_BYTES: u64 = 1 << 20;

/// See the module.
#[derive(Debug)]
pub struct History {
    path: PathBuf,
}

impl History {
    /// The user's own file: `rustorch/chat_history` in the folder for state. `None` if nothing says where that is.
    pub fn of_user() -> Option<PathBuf> {
        let folder =
            |variable: &str| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
        let folder = match cfg!(windows) {
            true => folder("LOCALAPPDATA"),
            false => {
                folder("XDG_STATE_HOME").or_else(|| folder("HOME").map(|home| home.join(".local/state")))
            }
        };
        folder.map(|folder| folder.join("rustorch").join("chat_history"))
    }

    /// Opens a file, or makes it with its folder, for its owner alone; also its messages.
    ///
    /// # Errors
    /// What is no regular file, and one that cannot be read and written.
    pub fn open(path: &Path) -> io::Result<(Self, Vec<String>)> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            create_folder(folder)?;
        }
        // A pipe would be waited for.
        if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            let message = "expected a regular file, found none\nhint: --no-history keeps no history";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let mut file = appendable(path)?;
        // Without links, so that a rename replaces the file itself.
        let history = Self { path: path.canonicalize()? };
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(MAX_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        // Of a file that is longer the first line is a part of one.
        let lines = text.lines().skip(usize::from(len > MAX_BYTES)).filter(|line| !line.is_empty());
        let mut kept = VecDeque::new();
        for line in lines {
            if kept.len() == MAX_MESSAGES {
                kept.pop_front();
            }
            kept.push_back(unescaped(line));
        }
        if len > MAX_BYTES {
            history.replace(&kept)?;
        }
        Ok((history, kept.into()))
    }

    /// Adds a message. Several programs may do so at the same time.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn add(&self, message: &str) -> io::Result<()> {
        appendable(&self.path)?.write_all(line(message).as_bytes())
    }

    fn replace(&self, messages: &VecDeque<String>) -> io::Result<()> {
        let mut temporary = self.path.clone().into_os_string();
        temporary.push(format!(".{}.tmp", std::process::id()));
        let text: String = messages.iter().map(|message| line(message)).collect();
        let written = appendable(Path::new(&temporary)).and_then(|mut file| file.write_all(text.as_bytes()));
        let replaced = written.and_then(|()| fs::rename(&temporary, &self.path));
        if replaced.is_err() {
            // It is of no use any more.
            let _ = fs::remove_file(&temporary);
        }
        replaced
    }
}

/// A folder that is the user's alone.
fn create_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn appendable(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn line(message: &str) -> String {
    message.replace('\\', "\\\\").replace('\n', "\\n") + "\n"
}

fn unescaped(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('\\') | None => out.push('\\'),
            // Somebody has edited the file.
            Some(other) => out.extend(['\\', other]),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_back() {
        for message in ["a", "a\nb\n", "\\n\\", "\\\\\n", "é 日本"] {
            let text = line(message);
            assert_eq!(unescaped(text.strip_suffix('\n').unwrap()), message);
            assert_eq!(text.matches('\n').count(), 1);
        }
        assert_eq!(unescaped("C:\\dir\\"), "C:\\dir\\");
    }

    #[test]
    fn a_long_file_is_cut_to_the_last_messages() {
        let folder = std::env::temp_dir().join(format!("rustorch-history-{}", std::process::id()));
        let path = folder.join("state/history");
        let (history, found) = History::open(&path).unwrap();
        assert_eq!(found, [""; 0]);
        let messages: Vec<String> =
            (0..3000).map(|number| format!("{number}\n{}", "x".repeat(400))).collect();
        messages.iter().for_each(|message| history.add(message).unwrap());
        let (_, found) = History::open(&path).unwrap();
        assert_eq!(found, messages[2000..]);
        let len = fs::metadata(&path).unwrap().len();
        assert!(len < MAX_BYTES, "{len}");
        assert_eq!(History::open(&path).unwrap().1, found);
        fs::write(&path, b"a\xff\n\n\x00b").unwrap();
        assert_eq!(History::open(&path).unwrap().1, ["a\u{fffd}", "\0b"]);
        assert!(History::open(&folder).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }
}
