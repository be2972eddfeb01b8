//! Pieces of the Lark syntax that the library reads.

use crate::error::{GrammarError, Result};

/// A regular expression as a terminal.
pub(crate) fn regex(regex: &str) -> String {
    format!("/(?:{})/", llguidance::regex_to_lark(regex, ""))
}

/// What follows a group that comes at least and at most so many times.
pub(crate) fn repeat(least: usize, most: Option<usize>) -> String {
    match (least, most) {
        (0, None) => "*".to_owned(),
        (1, None) => "+".to_owned(),
        (0, Some(1)) => "?".to_owned(),
        (least, None) => format!("{{{least},}}"),
        (least, Some(most)) => format!("{{{least},{most}}}"),
    }
}

/// A string as a regular expression.
pub(crate) fn escape(text: &str) -> String {
    let mut regex = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => regex.push_str("\\n"),
            '\r' => regex.push_str("\\r"),
            '\t' => regex.push_str("\\t"),
            c if c.is_ascii_control() => regex.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii() => regex.push(c),
            // A blank before a comment's sign is one too.
            ' ' => regex.push_str("\\x20"),
            // A slash is escaped with the whole expression, and escaped angles are the edges of words.
            '/' | '<' | '>' => regex.push(c),
            c => regex.extend(['\\', c]),
        }
    }
    regex
}

/// A regular expression without `^` and `$` round it: the whole text must match anyway.
pub(crate) fn without_anchors(regex: &str) -> &str {
    let regex = regex.strip_prefix('^').unwrap_or(regex);
    match regex.strip_suffix('$') {
        Some(rest) if rest.bytes().rev().take_while(|&byte| byte == b'\\').count() % 2 == 0 => rest,
        _ => regex,
    }
}

/// What a grammar of a request may not have: each would get round the checks of this crate.
const DIRECTIVES: [(&str, &str); 3] = [
    ("%llguidance", "options of the library are not a request's to set"),
    ("%json", "use a JSON schema by itself"),
    ("%lark", "write the rules at the top level"),
];

/// Refuses directives that are outside strings, expressions and comments.
pub(crate) fn check(text: &str) -> Result<()> {
    for line in text.lines() {
        let mut rest = line;
        while let Some(c) = rest.chars().next() {
            if c == '#' || rest.starts_with("//") {
                break;
            }
            if let Some((directive, hint)) =
                DIRECTIVES.iter().find(|(directive, _)| rest.starts_with(directive))
            {
                let message = format!("expected no {directive}\nhint: {hint}");
                return Err(GrammarError::Lark(message));
            }
            rest = &rest[c.len_utf8()..];
            if c == '"' || c == '/' {
                rest = after_quoted(rest, c);
            }
        }
    }
    Ok(())
}

/// What follows the string or expression that `text` begins inside.
fn after_quoted(text: &str, quote: char) -> &str {
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            c if c == quote => break,
            _ => {}
        }
    }
    chars.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_refused_outside_strings() {
        for text in
            ["%llguidance {}\nstart: \"a\"", "start: \"a\" %json {}", "start: /a/ %lark { start: \"\" }"]
        {
            assert!(matches!(check(text), Err(GrammarError::Lark(_))), "{text}");
        }
        for text in
            ["start: \"100%json\"", "start: /\\/%json/ // %json", "# %llguidance\nstart: \"a\\\"%json\""]
        {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn anchors_round_an_expression_go() {
        let check = |regex, expect| assert_eq!(without_anchors(regex), expect);
        check("^a$", "a");
        check("a\\$", "a\\$");
        check("a\\\\$", "a\\\\");
        check("a^b", "a^b");
    }
}
