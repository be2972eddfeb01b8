//! Printing: results on standard output, notes for people on standard error, and the format of figures.

use std::fmt::Write as _;
use std::io::Write;

use anyhow::{Context, Result};

/// Prints results.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("writing standard output")
}

/// Prints an error with its causes.
#[allow(clippy::print_stderr)] // This is where errors are printed.
pub fn error(error: &anyhow::Error) {
    eprintln!("error: {}", message(error));
}

/// Prints a line for people: a summary or a note.
#[allow(clippy::print_stderr)] // This is where notes are printed.
pub fn note(text: &str) {
    eprintln!("{text}");
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
    fn causes_are_said_once() {
        assert_eq!(message(&anyhow!("no such file").context("a.gguf")), "a.gguf: no such file");
        assert_eq!(message(&anyhow!("no such file").context("a.gguf: no such file")), "a.gguf: no such file");
    }
}
