//! A template's source, made ready for the template engine.
//!
//! A template comes from a file that anybody may have made. The engine limits what one computes, but not how deep its parser
//! goes, nor what a namespace holds: one that holds itself is never freed, and writing it out never ends. So tags are limited
//! here, and whatever is assigned to a namespace goes through the filter [`KEPT`].

use minijinja::value::{DynObject, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

use crate::counted::{COUNTED, with_counts};
use crate::deadline;
use crate::python::with_percent;
use crate::reads::with_reads;

/// Name of the filter that checks what a namespace is to hold. Templates cannot replace filters.
pub(crate) const KEPT: &str = "__kept";

/// Most bytes of a template; the largest that are published have some ten thousand.
const MAX_SOURCE: usize = 1 << 20;
/// Most words and signs of a tag. Each may nest what follows by a level.
const MAX_TAG_TOKENS: usize = 4096;
/// Most `elif` tags; each nests the rest by a level.
const MAX_ELIF: usize = 1000;
/// Most levels of lists and dictionaries in a namespace.
const MAX_LEVELS: usize = 32;

/// The source with tags that the engine does not know replaced, and with checks where namespaces are assigned to.
pub(crate) fn prepared(source: &str) -> Result<String, Error> {
    if source.len() > MAX_SOURCE {
        return Err(refused(format!("expected at most {MAX_SOURCE} bytes, found {}", source.len())));
    }
    let mut out = String::with_capacity(source.len());
    let (mut rest, mut elifs) = (source, 0);
    while let Some(start) = rest.find("{").filter(|&start| start + 1 < rest.len()) {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let len = match tag.as_bytes()[1] {
            b'#' => tag.find("#}").map_or(tag.len(), |end| end + 2),
            b'{' => {
                let len = Tag::read(tag, b"}}")?.len;
                let percent = with_percent(&tag[..len]);
                let text = percent.as_deref().unwrap_or(&tag[..len]);
                let reads = with_reads(text, 2);
                let text = reads.as_deref().unwrap_or(text);
                out.push_str(with_counts(text, 2).as_deref().unwrap_or(text));
                rest = &tag[len..];
                continue;
            }
            b'%' => {
                let read = Tag::read(tag, b"%}")?;
                elifs += usize::from(read.word == "elif");
                if elifs > MAX_ELIF {
                    return Err(refused(format!("expected at most {MAX_ELIF} elif tags, found more")));
                }
                let percent = with_percent(&tag[..read.len]);
                let text = percent.as_deref().unwrap_or(&tag[..read.len]);
                // What stands before an assignment keeps its place.
                let reads = with_reads(text, read.expressions(text));
                let text = reads.as_deref().unwrap_or(text);
                let counts = with_counts(text, read.expressions(text));
                let text = counts.as_deref().unwrap_or(text);
                let checking = deadline::checking(read.word, text);
                let written = read.written(text)?.or(counts).or(reads).or(percent);
                let written = written.or(checking.as_ref().map(|_| tag[..read.len].to_owned()));
                if let Some(written) = written {
                    out.push_str(&written);
                    out.push_str(checking.as_deref().unwrap_or_default());
                    rest = &tag[read.len..];
                    continue;
                }
                // What is between these is text.
                if read.word == "raw" { raw_len(tag, read.len) } else { read.len }
            }
            _ => 1,
        };
        out.push_str(&tag[..len]);
        rest = &tag[len..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Length of a raw block whose first tag has the length `opening`.
fn raw_len(block: &str, opening: usize) -> usize {
    let mut at = opening;
    while let Some(start) = block[at..].find("{%") {
        at += start + 2;
        if block[at..].trim_start_matches(['-', '+']).trim_start().starts_with("endraw") {
            return at;
        }
    }
    block.len()
}

/// What is known of a tag.
#[derive(Debug, Default)]
struct Tag<'s> {
    /// With its delimiters; all that is left if it has no end, which the engine reports.
    len: usize,
    /// Its first word.
    word: &'s str,
    /// Where the first `=` is that is in no brackets.
    assigns: Option<usize>,
    /// Whether there is a `.` before that, or a `.` at all.
    dotted: bool,
    /// Whether it has a filter.
    filtered: bool,
    /// Whether it has a `,` that is in no brackets, which makes a tuple of what is assigned, or a `*`, which may repeat a list.
    has_comma: bool,
}

impl<'s> Tag<'s> {
    fn read(text: &'s str, end: &[u8; 2]) -> Result<Self, Error> {
        let bytes = text.as_bytes();
        let mut tag = Tag { len: text.len(), ..Tag::default() };
        let (mut at, mut tokens, mut level) = (2, 0, 0_usize);
        while at < bytes.len() {
            let byte = bytes[at];
            if level == 0 && bytes[at..].starts_with(end) {
                tag.len = at + 2;
                break;
            }
            let len = match byte {
                b'"' | b'\'' => string_len(&bytes[at..]),
                _ if byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii() => {
                    let is_word =
                        |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || !byte.is_ascii();
                    bytes[at..].iter().take_while(|&byte| is_word(byte)).count()
                }
                _ => 1,
            };
            match byte {
                b'(' | b'[' | b'{' => level += 1,
                b')' | b']' | b'}' => level = level.saturating_sub(1),
                b'.' if tag.assigns.is_none() => tag.dotted = true,
                b'=' if level == 0 && tag.assigns.is_none() => tag.assigns = Some(at),
                b'|' if level == 0 => tag.filtered = true,
                b',' | b'*' if level == 0 => tag.has_comma |= tag.assigns.is_some(),
                _ if tag.word.is_empty() && byte.is_ascii_alphabetic() => tag.word = &text[at..at + len],
                _ => {}
            }
            tokens += usize::from(!byte.is_ascii_whitespace());
            at += len;
        }
        if tokens > MAX_TAG_TOKENS {
            let found = format!("expected at most {MAX_TAG_TOKENS} words and signs in a tag, found {tokens}");
            return Err(refused(found));
        }
        Ok(tag)
    }

    /// Where the expressions of the block tag `text` begin: behind the names that it gives values to.
    fn expressions(&self, text: &str) -> usize {
        match (self.word, self.assigns) {
            ("set", Some(at)) => at + 1,
            ("for", _) => {
                let is_apart =
                    |at: usize| text[..at].ends_with(is_apart) && text[at + 2..].starts_with(is_apart);
                text.match_indices("in").find(|&(at, _)| is_apart(at)).map_or(text.len(), |(at, _)| at + 2)
            }
            _ => 2,
        }
    }

    /// The block tag `text` in other words, if it needs any.
    fn written(&self, text: &str) -> Result<Option<String>, Error> {
        let dash = |has| if has { "-" } else { "" };
        let (left, right) = (dash(text.starts_with("{%-")), dash(text.ends_with("-%}")));
        Ok(match (self.word, self.assigns) {
            // `transformers` marks what the assistant said for training; for a prompt the tags mean nothing. A block that does
            // nothing: the white space round it is to be treated as round a block.
            ("generation", _) => Some(format!("{{%{left} if true {right}%}}")),
            ("endgeneration", _) => Some(format!("{{%{left} endif {right}%}}")),
            ("set", Some(at)) if (self.dotted || self.has_comma) && text.ends_with("%}") => {
                let (target, value) = text[..text.len() - 2].split_at(at + 1);
                let (value, end) = match value.strip_suffix(['-', '+']) {
                    Some(value) => (value, &text[text.len() - 3..]),
                    None => (value, "%}"),
                };
                let filter = if self.dotted { KEPT } else { COUNTED };
                Some(format!("{target} ({value}) | {filter} {end}"))
            }
            ("set", None) if self.dotted && self.filtered => {
                return Err(refused(
                    "expected no filter where a block is assigned to an attribute, found one".into(),
                ));
            }
            _ => None,
        })
    }
}

/// Whether a character ends a word.
fn is_apart(c: char) -> bool {
    !(c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii())
}

/// Length of the string that `bytes` begin with, quotes included.
pub(crate) fn string_len(bytes: &[u8]) -> usize {
    let mut escaped = false;
    let is_end = |&(at, &byte): &(usize, &u8)| {
        let ends = at > 0 && !escaped && byte == bytes[0];
        escaped = byte == b'\\' && !escaped;
        ends
    };
    bytes.iter().enumerate().find(is_end).map_or(bytes.len(), |(at, _)| at + 1)
}

/// The filter [`KEPT`]: `value` itself, if a namespace may hold it.
pub(crate) fn kept(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    check(state, &value, MAX_LEVELS)?;
    // The engine adds lists lazily. A sum of sums takes long to go through, and this is where sums become long.
    match value.kind() {
        ValueKind::Seq
            if value.as_object().is_some_and(|object| object.type_name().ends_with("::MergeSeq")) =>
        {
            Ok(value.try_iter()?.collect::<Vec<_>>().into())
        }
        _ => Ok(value),
    }
}

fn check(state: &State<'_, '_>, value: &Value, levels: usize) -> Result<(), Error> {
    let holds = |what: &str| Err(refused(format!("a namespace may not hold {what}")));
    match value.kind() {
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => {}
        ValueKind::Plain => return holds("a macro, a loop or a function"),
        _ => return Ok(()),
    }
    if value.as_object().is_some_and(is_namespace) {
        return holds("a namespace");
    }
    if levels == 0 {
        return holds(&format!("more than {MAX_LEVELS} levels of lists and dictionaries"));
    }
    for key in value.try_iter()? {
        state.consume_fuel(1)?;
        match value.kind() {
            ValueKind::Map => check(state, &value.get_item(&key)?, levels - 1)?,
            _ => check(state, &key, levels - 1)?,
        }
    }
    Ok(())
}

pub(crate) fn is_namespace(object: &DynObject) -> bool {
    object.type_name().ends_with("::Namespace")
}

/// An error of a template that asks for what it may not have.
pub(crate) fn refused(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_as_the_engine_reads_them() {
        for (source, expected) in [
            ("a {b} {% generation %}x{%- endgeneration -%}", "a {b} {% if true %}x{%- endif -%}"),
            ("{% set a = b.c %}{% set a.b == 1 %}", "{% set a = b.c %}{% set a.b = (= 1 ) | __kept %}"),
            ("{%- set n.a = '%}' ~ {'x': {}} -%}", "{%- set n.a = ( '%}' ~ {'x': {}} ) | __kept -%}"),
            ("{% set n.a = 1, 2 +%}", "{% set n.a = ( 1, 2 ) | __kept +%}"),
            ("{% set a, n.b = c %}", "{% set a, n.b = ( c ) | __kept %}"),
            (
                "{# {% set n.a = 1 %} #}{{ '{% set n.a = 1 %}' }}",
                "{# {% set n.a = 1 %} #}{{ '{% set n.a = 1 %}' }}",
            ),
            ("{% raw %}{% set n.a = 1 %}{% endraw %}", "{% raw %}{% set n.a = 1 %}{% endraw %}"),
            ("{% set n.a %}x{% endset %}{", "{% set n.a %}x{% endset %}{"),
            (
                "{{ {'a': {'b': 1}}}}{% set n.a = \"\\\"%}\" %}",
                "{{ {'a': {'b': 1}}}}{% set n.a = ( \"\\\"%}\" ) | __kept %}",
            ),
            ("{% if a", "{% if a"),
            ("{{ '%s' % n.a }}{{ 7 % 4 }}%", "{{ ('%s' | __percent(n.a)) }}{{ 7 % 4 }}%"),
            (
                "{% if '%d%%' % (a, 'b%') | f ~ c %}",
                "{% if ('%d%%' | __percent(((a, 'b%') | __counted) | f)) ~ c %}",
            ),
            ("{% set n.a = 'x' % m[1].b(2) %}", "{% set n.a = ( ('x' | __percent(m[1].b(2))) ) | __kept %}"),
            ("{% if x == 'a' %}b{% endif %}", "{% if x == 'a' %}b{% endif %}"),
            ("{%+ set n.a=b%}é{{ 'é' }}", "{%+ set n.a= (b) | __kept %}é{{ 'é' }}"),
        ] {
            assert_eq!(prepared(source).unwrap(), expected);
        }
        assert!(prepared("{% set n.a | default(n, true) %}{% endset %}").is_err());
    }
}
