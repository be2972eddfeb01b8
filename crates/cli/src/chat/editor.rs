//! Messages as they are typed or come through a pipe.

use std::io::{self, BufRead, IsTerminal};
use std::path::PathBuf;

use anyhow::{Context, Result};
use rustyline::error::ReadlineError;
use rustyline::{Config, DefaultEditor};

use super::history::{History, MAX_MESSAGES};
use crate::output;

/// Where lines come from.
pub enum Editor {
    /// Edited lines, and the file that keeps messages for the next conversation.
    Terminal {
        editor: Box<DefaultEditor>,
        history: Option<History>,
    },
    Pipe(io::StdinLock<'static>),
}

/// Where messages are kept for the next conversation.
pub enum Keeping {
    Nowhere,
    /// In this file, or not at all.
    In(PathBuf),
    /// In the user's own file, if that is possible.
    InUsers,
}

impl Keeping {
    fn open(&self) -> Result<(Option<History>, Vec<String>)> {
        let path = match self {
            Self::Nowhere => None,
            Self::In(path) => Some(path.clone()),
            Self::InUsers => History::of_user(),
        };
        let Some(path) = path else { return Ok((None, Vec::new())) };
        let opened = History::open(&path).with_context(|| path.display().to_string());
        match (opened, self) {
            (Ok((history, messages)), _) => Ok((Some(history), messages)),
            (Err(error), Self::InUsers) => {
                output::note(&format!("messages are not kept: {error:#}"));
                Ok((None, Vec::new()))
            }
            (Err(error), _) => Err(error),
        }
    }
}

pub enum Input {
    Message(String),
    /// Ctrl-C while a message was typed, which is dropped.
    Interrupted,
    End,
}

/// What begins and ends a message of several lines.
const FENCE: &str = "\"\"\"";

impl Editor {
    /// Opens the terminal, if there is one.
    pub fn open(keeping: &Keeping) -> Result<Self> {
        let stdin = io::stdin();
        if !(stdin.is_terminal() && io::stdout().is_terminal()) {
            return Ok(Self::Pipe(stdin.lock()));
        }
        let (history, messages) = keeping.open()?;
        let config = Config::builder().max_history_size(MAX_MESSAGES).context("the terminal")?.build();
        let mut editor = DefaultEditor::with_config(config).context("the terminal")?;
        for message in messages {
            // One that is the same as that before it is left out.
            let _ = editor.add_history_entry(message);
        }
        Ok(Self::Terminal { editor: Box::new(editor), history })
    }

    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal { .. })
    }

    /// The next message that is not blank.
    pub fn read(&mut self) -> io::Result<Input> {
        let mut message = Message::default();
        loop {
            let Some(line) = self.line(if message.is_begun() { ". " } else { "> " })? else {
                return Ok(Input::Interrupted);
            };
            let text = match line {
                Some(line) => message.add(&line),
                None if message.is_begun() => Some(message.rest()),
                None => return Ok(Input::End),
            };
            let Some(text) = text else { continue };
            message = Message::default();
            if !text.trim().is_empty() {
                self.remember(&text);
                return Ok(Input::Message(text));
            }
        }
    }

    /// A line without its ending, or the end; `None` after Ctrl-C.
    fn line(&mut self, prompt: &str) -> io::Result<Option<Option<String>>> {
        match self {
            Self::Terminal { editor, .. } => match editor.readline(prompt) {
                Ok(line) => Ok(Some(Some(line))),
                Err(ReadlineError::Interrupted) => Ok(None),
                Err(ReadlineError::Eof) => Ok(Some(None)),
                Err(ReadlineError::Io(error)) => Err(error),
                Err(error) => Err(io::Error::other(error)),
            },
            Self::Pipe(stdin) => {
                let mut line = String::new();
                let bytes = stdin.read_line(&mut line)?;
                let kept = line.trim_end_matches(['\r', '\n']).len();
                line.truncate(kept);
                Ok(Some((bytes > 0).then_some(line)))
            }
        }
    }

    fn remember(&mut self, text: &str) {
        let Self::Terminal { editor, history } = self else { return };
        // A history that is full or has the line already is no error for whoever types.
        let is_new = editor.add_history_entry(text).unwrap_or(false);
        if let Some(kept) = history.as_ref().filter(|_| is_new)
            && let Err(error) = kept.add(text)
        {
            output::note(&format!("messages are not kept any more: {error}"));
            *history = None;
        }
    }
}

/// A message of which some lines are there.
#[derive(Default)]
struct Message {
    lines: Vec<String>,
    is_fenced: bool,
}

impl Message {
    fn is_begun(&self) -> bool {
        self.is_fenced || !self.lines.is_empty()
    }

    /// Takes a line. The message, if it ends with it.
    fn add(&mut self, line: &str) -> Option<String> {
        if self.is_fenced {
            if let Some(last) = line.trim_end().strip_suffix(FENCE) {
                self.lines.push(last.to_owned());
                // A closing line of its own adds none.
                if last.is_empty() {
                    self.lines.pop();
                }
                return Some(self.rest());
            }
            self.lines.push(line.to_owned());
            return None;
        }
        if let Some(first) = line.strip_prefix(FENCE).filter(|_| self.lines.is_empty()) {
            if let Some(whole) = first.trim_end().strip_suffix(FENCE) {
                return Some(whole.to_owned());
            }
            self.is_fenced = true;
            if !first.is_empty() {
                self.lines.push(first.to_owned());
            }
            return None;
        }
        if let Some(begun) = line.strip_suffix('\\') {
            self.lines.push(begun.to_owned());
            return None;
        }
        self.lines.push(line.to_owned());
        Some(self.rest())
    }

    fn rest(&mut self) -> String {
        self.is_fenced = false;
        std::mem::take(&mut self.lines).join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_may_have_several_lines() {
        let check = |lines: &[&str], expect: &[&str]| {
            let mut message = Message::default();
            let found: Vec<_> = lines.iter().filter_map(|line| message.add(line)).collect();
            assert_eq!(found, expect, "{lines:?}");
            assert!(!message.is_begun());
        };
        check(&["a", "", "b"], &["a", "", "b"]);
        check(&["a\\", "b\\", "", "c"], &["a\nb\n", "c"]);
        check(&["\"\"\"", "a", "", "b\\", "\"\"\""], &["a\n\nb\\"]);
        check(&["\"\"\"a", "b\"\"\"", "\"\"\"c\"\"\""], &["a\nb", "c"]);
    }
}
