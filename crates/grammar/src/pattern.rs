//! JSON Schema's regular expressions (ECMA 262) in the syntax of Rust's.
//!
//! Where the two mean different things by the same text, the result matches what ECMA's means, or less. What cannot be
//! translated is an error; look-arounds and references are refused by the library.

/// White space by ECMA and by Rust both.
const SPACE: &str = " \\t\\n\\r\\x0B\\x0C";
/// White space by either.
const ANY_SPACE: &str = " \\t\\n\\r\\x0B\\x0C\\u{85}\\u{A0}\\u{1680}\\u{2000}-\\u{200A}\\u{2028}\\u{2029}\\u{202F}\\u{205F}\\u{3000}\\u{FEFF}";
/// What a dot does not match.
const NOT_LINE_END: &str = "[^\\n\\r\\u{2028}\\u{2029}]";

/// Translates an expression.
///
/// # Errors
/// What was expected and found.
pub(crate) fn translate(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '.' => out.push_str(NOT_LINE_END),
            '[' => class(&mut chars, &mut out)?,
            '\\' => match chars.next() {
                Some('s') => out.push_str(&format!("[{SPACE}]")),
                Some('S') => out.push_str(&format!("[^{ANY_SPACE}]")),
                Some(c) => out.push_str(&escape(c, &mut chars)?),
                None => return Err("expected a character after the last backslash, found none".to_owned()),
            },
            '{' if chars.peek() == Some(&',') => {
                return Err("expected a number after \"{\", found \",\"".to_owned());
            }
            '(' if chars.peek() == Some(&'?') => {
                out.push('(');
                group(&mut chars, &mut out)?;
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// After `(`: only groups that both syntaxes have. Flags are Rust's alone.
fn group(chars: &mut Chars<'_>, out: &mut String) -> Result<(), String> {
    out.extend(chars.next()); // the question mark
    match chars.peek().copied() {
        Some(':') => Ok(()),
        Some('<') if !matches!(chars.clone().nth(1), Some('=' | '!')) => Ok(()),
        found => {
            let found = found.map_or_else(|| "the end".to_owned(), |c| format!("\"(?{c}\""));
            Err(format!("expected no look-around and no flags, found {found}"))
        }
    }
}

/// After `[`.
fn class(chars: &mut Chars<'_>, out: &mut String) -> Result<(), String> {
    let negated = chars.next_if_eq(&'^').is_some();
    if chars.next_if_eq(&']').is_some() {
        if !negated {
            return Err("expected characters in a class, found none".to_owned());
        }
        out.push_str("(?s:.)");
        return Ok(());
    }
    out.push_str(if negated { "[^" } else { "[" });
    loop {
        match chars.next() {
            None => return Err("expected the end of a class, found none".to_owned()),
            Some(']') => break,
            Some('\\') => match chars.next() {
                Some('s') => out.push_str(if negated { ANY_SPACE } else { SPACE }),
                Some('S') if negated => {
                    return Err("expected no \"\\S\" in a negated class, found one".to_owned());
                }
                Some('S') => out.push_str(&format!("[^{ANY_SPACE}]")),
                Some('b') => out.push_str("\\x08"),
                Some(c) => out.push_str(&escape(c, chars)?),
                None => return Err("expected a character after the last backslash, found none".to_owned()),
            },
            // Operators on sets are Rust's alone.
            Some(c @ ('[' | '&' | '~')) => out.extend(['\\', c]),
            Some('-') if chars.peek() == Some(&'-') => out.push_str("\\-"),
            Some(c) => out.push(c),
        }
    }
    out.push(']');
    Ok(())
}

/// An escape that begins with a backslash and `c`.
fn escape(c: char, chars: &mut Chars<'_>) -> Result<String, String> {
    match c {
        'd' | 'D' | 'w' | 'W' | 'n' | 'r' | 't' | 'f' | 'v' | 'p' | 'P' | 'x' | 'u' => Ok(format!("\\{c}")),
        '0' => Ok("\\x00".to_owned()),
        'c' => match chars.next() {
            Some(letter) if letter.is_ascii_alphabetic() => Ok(format!("\\x{:02x}", letter as u32 % 32)),
            found => Err(format!("expected a letter after \"\\c\", found {found:?}")),
        },
        c if c.is_ascii_punctuation() && c != '<' && c != '>' => Ok(format!("\\{c}")),
        c if !c.is_ascii_alphanumeric() => Ok(c.to_string()),
        c => Err(format!("expected an escape that is supported, found \"\\{c}\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_the_same_stays() {
        for pattern in ["^a+(b|c)*$", "[^a-z0-9_]{2,3}", "(?:x)(?<name>y)", "\\d\\w\\/\\.\\u0041", "\\p{Lu}é"]
        {
            assert_eq!(translate(pattern).as_deref(), Ok(pattern));
        }
    }

    #[test]
    fn what_means_something_else_is_rewritten_or_refused() {
        let check = |pattern: &str, expect: &str| assert_eq!(translate(pattern).as_deref(), Ok(expect));
        check("a.b", "a[^\\n\\r\\u{2028}\\u{2029}]b");
        check("[a&&b]", "[a\\&\\&b]");
        check("[a[b]", "[a\\[b]");
        check("[^]", "(?s:.)");
        check("\\cA", "\\x01");
        check("[\\b]", "[\\x08]");
        for pattern in
            ["\\Z", "\\A", "\\b", "\\1", "a{,3}", "[]", "[^\\S]", "(?=a)", "(?!a)", "(?<=a)", "(?i)a", "\\"]
        {
            assert!(translate(pattern).is_err(), "{pattern}");
        }
    }
}
