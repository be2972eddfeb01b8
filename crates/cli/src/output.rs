//! Printing: results on standard output, notes for people on standard error, and the format of figures.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{IsTerminal, StdoutLock, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

/// Prints results. On a terminal, only what can be seen.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let text = if out.is_terminal() { visible(text) } else { text.into() };
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context(STDOUT)
}

/// What failed when standard output cannot be written.
pub const STDOUT: &str = "writing standard output";

/// Standard output as a text streams. It shows all of the text if it is a terminal, and obeys none of it.
pub struct Out {
    stdout: StdoutLock<'static>,
    is_terminal: bool,
}

impl Out {
    pub fn new() -> Self {
        let stdout = std::io::stdout().lock();
        Self { is_terminal: stdout.is_terminal(), stdout }
    }

    pub fn write(&mut self, text: &str) -> std::io::Result<()> {
        let text = if self.is_terminal { visible(text) } else { text.into() };
        self.stdout.write_all(text.as_bytes())
    }

    pub fn flush(&mut self) -> std::io::Result<()> {
        self.stdout.flush()
    }
}

/// `text` without what a terminal obeys instead of showing it: such characters become escapes of Rust's, like `\u{1b}`. Names in files and
/// what models say may be written for the terminal of whoever reads them. Line breaks and tabs stay.
pub fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_obeyed(c) && c != '\n' && c != '\t')
}

/// As [`visible`], in one line.
pub fn visible_line(text: &str) -> Cow<'_, str> {
    escaped(text, is_obeyed)
}

/// Control characters, and those that end a line or change the direction of what follows.
fn is_obeyed(c: char) -> bool {
    let directs = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || directs || matches!(c, '\u{2028}' | '\u{2029}')
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_escaped) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_escaped(c) {
            true => out.extend(c.escape_debug()),
            false => out.push(c),
        }
    }
    out.into()
}

/// Prints an error with its causes.
#[allow(clippy::print_stderr)] // This is where errors are printed.
pub fn error(error: &anyhow::Error) {
    eprintln!("error: {}", visible(&message(error)));
}

static IS_QUIET: AtomicBool = AtomicBool::new(false);

/// Decides whether notes are left out.
pub fn set_quiet(is_quiet: bool) {
    IS_QUIET.store(is_quiet, Ordering::Relaxed);
}

/// Whether notes are left out.
pub fn is_quiet() -> bool {
    IS_QUIET.load(Ordering::Relaxed)
}

/// Prints a line for people, a summary or a note, unless they want none.
#[allow(clippy::print_stderr)] // This is where notes are printed.
pub fn note(text: &str) {
    if !is_quiet() {
        eprintln!("{}", visible(text));
    }
}

/// An error and its causes. Some messages end with that of their cause, which is not repeated then.
fn message(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            let _ = write!(text, ": {cause}");
        }
    }
    text
}

/// `1536` as `1.5 KiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// `1234567` as `1,234,567`.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn figures_read_well() {
        for (count, expect) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB")] {
            assert_eq!(bytes(count), expect);
        }
        for (count, expect) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(count), expect);
        }
    }

    #[test]
    fn terminals_are_told_nothing() {
        let text = "a\u{1b}]0;title\u{7}\r\u{9b}31m\u{202e}b\n\tcé 日本 👩\u{200d}🚀";
        assert_eq!(visible(text), "a\\u{1b}]0;title\\u{7}\\r\\u{9b}31m\\u{202e}b\n\tcé 日本 👩\u{200d}🚀");
        assert_eq!(visible_line("a\n\tb"), "a\\n\\tb");
        assert!(matches!(visible("plain\n"), Cow::Borrowed(_)));
    }

    #[test]
    fn causes_are_said_once() {
        assert_eq!(message(&anyhow!("no such file").context("a.gguf")), "a.gguf: no such file");
        assert_eq!(message(&anyhow!("no such file").context("a.gguf: no such file")), "a.gguf: no such file");
    }
}
