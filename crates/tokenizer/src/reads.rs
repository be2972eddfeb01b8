//! What comparisons of a template read.
//!
//! The engine counts a comparison as a step, however long the texts are. A comparison reads no more than its right side, so that
//! goes through the filter [`READ`]. Literals are as long as the template says, and need none.

use minijinja::value::Value;
use minijinja::{Environment, State};

use crate::counted::{OPERATORS, read};
use crate::jinja::string_len;
use crate::python::operand_len;

/// Name of the filter that counts what is read. Templates cannot replace filters.
const READ: &str = "__read";

/// The text of a tag with [`READ`] where something is compared. `start` is where its expressions begin.
pub(crate) fn with_reads(tag: &str, start: usize) -> Option<String> {
    let bytes = tag.as_bytes();
    let mut out = tag[..start].to_owned();
    let (mut at, mut changed) = (start, false);
    while at < bytes.len() {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii();
        let len = match bytes[at] {
            b'"' | b'\'' => string_len(&bytes[at..]),
            byte if is_word(byte) => bytes[at..].iter().take_while(|&&byte| is_word(byte)).count(),
            b'=' | b'!' | b'<' | b'>' if bytes.get(at + 1) == Some(&b'=') => 2,
            _ => 1,
        };
        let text = &tag[at..at + len];
        let is_field = out.trim_end().ends_with('.');
        out.push_str(text);
        at += len;
        if !matches!(text, "==" | "!=" | "<" | ">" | "<=" | ">=") && (text != "in" || is_field) {
            continue;
        }
        let operand = &tag[at..at + operand_len(&tag[at..])];
        let value = operand.trim_start();
        if value.is_empty() || is_short(value) {
            continue;
        }
        let inner = with_reads(value, 0);
        out.push_str(&format!(" ({} | {READ})", inner.as_deref().unwrap_or(value)));
        at += operand.len();
        changed = true;
    }
    changed.then_some(out)
}

/// Whether an operand is a literal, or begins with a word that is an operator.
fn is_short(operand: &str) -> bool {
    let bytes = operand.as_bytes();
    match bytes[0] {
        b'"' | b'\'' => string_len(bytes) == bytes.len(),
        b'-' => true,
        byte if byte.is_ascii_digit() => true,
        _ => {
            OPERATORS.contains(&operand)
                || ["true", "false", "none", "True", "False", "None"].contains(&operand)
        }
    }
}

/// Gives templates the filter [`READ`]: the value itself, if there is fuel to read it once.
pub(crate) fn add_to(environment: &mut Environment<'static>) {
    environment.add_filter(READ, |state: &State<'_, '_>, value: Value| read(state, &value).map(|()| value));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compared_with_is_read() {
        for (tag, expected) in [
            ("{{ a == b }}", "{{ a == (b | __read) }}"),
            (
                "{{ a in b.c[1] and d <= f(e < g) }}",
                "{{ a in (b.c[1] | __read) and d <= (f(e < (g | __read)) | __read) }}",
            ),
            ("{% if a!=b|trim -%}", "{% if a!= (b|trim | __read) -%}"),
        ] {
            assert_eq!(with_reads(tag, 2).as_deref(), Some(expected));
        }
        for tag in [
            "{{ a == 'b' }}",
            "{{ a > 1 }}",
            "{{ f(a=b) }}",
            "{{ a.in }}",
            "{{ a == not b }}",
            "{{ 'a == b' }}",
            "{{ a == none }}",
        ] {
            assert_eq!(with_reads(tag, 2), None, "{tag}");
        }
    }
}
