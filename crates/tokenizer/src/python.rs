//! What templates may do to values because Python can, and the template engine cannot: methods of strings, `%`, JSON as `json.dumps`
//! writes it, and whether something can be called.

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Kwargs, Tuple, Value, ValueKind, from_args};
use minijinja::{Error, State};
use serde_json::Value as Json;

use crate::counted::{BYTES_PER_FUEL, count, read};
use crate::deadline;
use crate::jinja::refused;

/// Name of the filter that is written for `%` after a string. Templates cannot replace filters.
pub(crate) const PERCENT: &str = "__percent";

/// Python's methods of strings, lists and dictionaries. They go through all of `value` without a look at the fuel.
pub(crate) fn method(
    state: &mut State<'_, '_>,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    deadline::check()?;
    match (value.as_str(), name) {
        // It compares each item with another value.
        (None, "count") => args.iter().chain([value]).try_for_each(|value| read(state, value))?,
        (None, _) => state.consume_fuel(value.len().unwrap_or_default() as u64)?,
        (Some(text), _) => state.consume_fuel((text.len() / BYTES_PER_FUEL) as u64)?,
    }
    if let Some(text) = value.as_str()
        && name == "format"
    {
        state.consume_fuel(widths(text))?;
    }
    if let Some(text) = value.as_str()
        && let Some(found) = string_method(state, text, name, args)
    {
        return found;
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)
}

/// A method of a string that the engine's own compatibility lacks.
fn string_method(
    state: &State<'_, '_>,
    text: &str,
    name: &str,
    args: &[Value],
) -> Option<Result<Value, Error>> {
    let affix = |strip: fn(&str, &str) -> Option<usize>| {
        let (affix,): (&str,) = from_args(args)?;
        Ok::<_, Error>(strip(text, affix))
    };
    Some(match name {
        "removeprefix" => affix(|text, affix| text.starts_with(affix).then_some(affix.len()))
            .map(|len| text[len.unwrap_or(0)..].into()),
        "removesuffix" => affix(|text, affix| text.ends_with(affix).then(|| text.len() - affix.len()))
            .map(|end| text[..end.unwrap_or(text.len())].into()),
        "partition" | "rpartition" => partition(text, args, name == "rpartition"),
        "rsplit" => rsplit(text, args),
        "zfill" => from_args(args).and_then(|(width,): (usize,)| {
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['+', '-'])));
            let zeros = padding(state, text, width)?;
            Ok(format!("{sign}{}{digits}", "0".repeat(zeros)).into())
        }),
        "ljust" | "rjust" | "center" => from_args(args).and_then(|(width, fill): (usize, Option<&str>)| {
            let pad = padding(state, text, width)?;
            let fill = fill.unwrap_or(" ");
            if fill.chars().count() != 1 {
                return Err(refused(format!("{name}: expected one character to fill with, found {fill:?}")));
            }
            // Python puts the odd one where the width is odd.
            let left = match name {
                "ljust" => 0,
                "rjust" => pad,
                _ => pad / 2 + (pad & width & 1),
            };
            Ok(format!("{}{text}{}", fill.repeat(left), fill.repeat(pad - left)).into())
        }),
        // As Python has it, every letter after something else.
        "title" => {
            let mut is_in_word = false;
            let title = text.chars().flat_map(|c| {
                let follows = std::mem::replace(&mut is_in_word, c.is_alphabetic());
                if follows { c.to_lowercase().collect::<Vec<_>>() } else { c.to_uppercase().collect() }
            });
            Ok(title.collect::<String>().into())
        }
        "swapcase" => {
            let swapped = text.chars().flat_map(|c| match c.is_uppercase() {
                true => c.to_lowercase().collect::<Vec<_>>(),
                false => c.to_uppercase().collect(),
            });
            Ok(swapped.collect::<String>().into())
        }
        "index" | "rindex" => from_args(args).and_then(|(part,): (&str,)| {
            let at = if name == "index" { text.find(part) } else { text.rfind(part) };
            let at =
                at.ok_or_else(|| refused(format!("{name}: expected a part of the string, found {part:?}")))?;
            Ok(text[..at].chars().count().into())
        }),
        _ => return None,
    })
}

/// Characters that are missing to a width. They cost fuel, before they cost memory.
fn padding(state: &State<'_, '_>, text: &str, width: usize) -> Result<usize, Error> {
    let missing = width.saturating_sub(text.chars().count());
    state.consume_fuel(missing as u64)?;
    Ok(missing)
}

/// The text before a separator, the separator and the text after it.
fn partition(text: &str, args: &[Value], is_last: bool) -> Result<Value, Error> {
    let (separator,): (&str,) = from_args(args)?;
    if separator.is_empty() {
        return Err(refused("partition: expected a separator, found an empty one".to_owned()));
    }
    let found = if is_last { text.rsplit_once(separator) } else { text.split_once(separator) };
    let parts = match found {
        Some((before, after)) => [before, separator, after],
        None if is_last => ["", "", text],
        None => [text, "", ""],
    };
    Ok(Value::from_object(Tuple::from(parts.map(Value::from).to_vec())))
}

/// The parts of a text between separators, at most so many of them counted from the end.
fn rsplit(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (separator, most): (Option<&str>, Option<i64>) = from_args(args)?;
    let most = most.and_then(|most| usize::try_from(most).ok());
    let mut parts: Vec<&str> = match (separator, most) {
        (Some(""), _) => return Err(refused("rsplit: expected a separator, found an empty one".to_owned())),
        (Some(separator), Some(most)) => text.rsplitn(most.saturating_add(1), separator).collect(),
        (Some(separator), None) => text.rsplit(separator).collect(),
        (None, most) => {
            let (mut parts, mut rest) = (Vec::new(), text.trim_end());
            while parts.len() < most.unwrap_or(usize::MAX)
                && let Some(start) = rest.rfind(char::is_whitespace)
            {
                let start = start + rest[start..].chars().next().map_or(0, char::len_utf8);
                parts.push(&rest[start..]);
                rest = rest[..start].trim_end();
            }
            // The last part keeps what is before it.
            parts.extend((!rest.is_empty()).then_some(if most.is_some() { rest } else { rest.trim_start() }));
            parts
        }
    };
    parts.reverse();
    Ok(parts.into_iter().map(Value::from).collect::<Vec<_>>().into())
}

/// The filter [`PERCENT`]: a text whose `%s` and the like are replaced by one value, or by those of a tuple.
pub(crate) fn percent(state: &State<'_, '_>, text: &str, value: Value) -> Result<String, Error> {
    let is_tuple = value.as_object().is_some_and(|object| object.type_name().ends_with("::Tuple"));
    let values = if is_tuple { value.try_iter()?.collect() } else { vec![value] };
    state.consume_fuel(widths(text))?;
    format(FormatStyle::Printf, text, &values)
}

/// The fuel for a text that values are put into. A width or a precision is digits in the text, and what is made is as long as they say.
fn widths(text: &str) -> u64 {
    let digits = text.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    digits.fold(text.len() as u64, |sum, digits| sum.saturating_add(digits.parse().unwrap_or(u64::MAX)))
}

/// The test `callable`.
pub(crate) fn is_callable(value: &Value) -> bool {
    let is_function = |name: &str| name.ends_with("::Macro") || name.ends_with("::BoxedFunction");
    // Python's undefined can be called too, if only to fail.
    value.is_undefined() || value.as_object().is_some_and(|object| is_function(object.type_name()))
}

/// How JSON is written.
struct Dumps {
    indent: Option<usize>,
    /// Between items, and after a key.
    separators: (String, String),
    sort_keys: bool,
    ensure_ascii: bool,
}

/// Most blanks by which JSON is indented a level.
const MAX_INDENT: i64 = 16;
/// Most levels of JSON.
const MAX_LEVELS: usize = 128;

/// Jinja's `tojson` as `transformers` has it: `json.dumps`, without the escapes that HTML needs.
pub(crate) fn tojson(
    state: &State<'_, '_>,
    value: &Value,
    indent: Option<Value>,
    options: Kwargs,
) -> Result<String, Error> {
    let indent = indent.or(options.get("indent")?).and_then(|indent| match indent.kind() {
        ValueKind::Bool => indent.is_true().then_some(1),
        _ => indent.as_i64(),
    });
    if let Some(found) = indent.filter(|&indent| indent > MAX_INDENT) {
        let message = format!("tojson: expected an indent of at most {MAX_INDENT}, found {found}");
        return Err(refused(message));
    }
    let separators = match options.get::<Option<Vec<String>>>("separators")?.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        Some(found) => {
            return Err(refused(format!("tojson: expected two separators, found {}", found.len())));
        }
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
    };
    let dumps = Dumps {
        indent: indent.map(|indent| usize::try_from(indent).unwrap_or(0)),
        separators,
        sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        ensure_ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    count(state, value)?;
    let mut out = String::new();
    dumps.write(value, 0, &mut out)?;
    Ok(out)
}

impl Dumps {
    fn write(&self, value: &Value, level: usize, out: &mut String) -> Result<(), Error> {
        if level > MAX_LEVELS {
            return Err(refused(format!("tojson: expected at most {MAX_LEVELS} levels, found more")));
        }
        match value.kind() {
            ValueKind::Seq | ValueKind::Iterable => {
                out.push('[');
                let mut is_empty = true;
                for item in value.try_iter()? {
                    self.begin_item(is_empty, level + 1, out);
                    self.write(&item, level + 1, out)?;
                    is_empty = false;
                }
                self.end(is_empty, level, ']', out);
            }
            ValueKind::Map => {
                out.push('{');
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort();
                }
                for (index, key) in keys.iter().enumerate() {
                    self.begin_item(index == 0, level + 1, out);
                    match key.as_str() {
                        Some(name) => self.write_text(name, out),
                        None => self.write_text(&key.to_string(), out),
                    }
                    out.push_str(&self.separators.1);
                    self.write(&value.get_item(key)?, level + 1, out)?;
                }
                self.end(keys.is_empty(), level, '}', out);
            }
            ValueKind::String => self.write_text(value.as_str().unwrap_or_default(), out),
            ValueKind::Undefined | ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => out.push_str(&value.to_string()),
            ValueKind::Number => {
                let number = f64::try_from(value.clone())?;
                out.push_str(&Json::from(number).to_string());
            }
            _ => return Err(refused(format!("tojson: expected a value that JSON has, found {value}"))),
        }
        Ok(())
    }

    fn begin_item(&self, is_first: bool, level: usize, out: &mut String) {
        if !is_first {
            out.push_str(&self.separators.0);
        }
        self.break_line(level, out);
    }

    fn end(&self, is_empty: bool, level: usize, bracket: char, out: &mut String) {
        if !is_empty {
            self.break_line(level, out);
        }
        out.push(bracket);
    }

    fn break_line(&self, level: usize, out: &mut String) {
        if let Some(indent) = self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * level));
        }
    }

    fn write_text(&self, text: &str, out: &mut String) {
        let quoted = Json::from(text).to_string();
        // JSON has no escape for it in Rust, but Python writes one.
        let quoted = quoted.replace('\u{7f}', if self.ensure_ascii { "\\u007f" } else { "\u{7f}" });
        // Private-use characters stand for others: see `guard.rs`.
        let stays = |c: char| {
            !self.ensure_ascii || c.is_ascii() || matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..)
        };
        for c in quoted.chars() {
            if stays(c) {
                out.push(c);
            } else {
                let mut units = [0; 2];
                c.encode_utf16(&mut units).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
            }
        }
    }
}

/// The text of a tag with `%` after a string replaced by the filter [`PERCENT`].
pub(crate) fn with_percent(tag: &str) -> Option<String> {
    let mut out = String::new();
    let (mut rest, mut changed) = (tag, false);
    while let Some(start) = rest.find(['"', '\'']) {
        let len = string_len(&rest[start..]);
        let (literal, after) = rest[start..].split_at(len);
        out.push_str(&rest[..start]);
        let operand = after.trim_start().strip_prefix('%').filter(|text| !text.starts_with('}'));
        rest = match operand.map(|text| (text, operand_len(text))) {
            Some((text, len)) if len > 0 => {
                let operand = with_percent(&text[..len]);
                let operand = operand.as_deref().unwrap_or(&text[..len]).trim();
                out.push_str(&format!("({literal} | {PERCENT}({operand}))"));
                changed = true;
                &text[len..]
            }
            _ => {
                out.push_str(literal);
                after
            }
        };
    }
    out.push_str(rest);
    changed.then_some(out)
}

/// Length of the operand that a text begins with: a name, number, string or bracket, and what is attached to it.
pub(crate) fn operand_len(text: &str) -> usize {
    let mut len = text.len() - text.trim_start().len();
    let mut is_first = true;
    loop {
        let rest = &text[len..];
        let step = match rest.chars().next() {
            Some('(' | '[') => bracket_len(rest),
            Some('{') if is_first => bracket_len(rest),
            Some('"' | '\'') if is_first => string_len(rest),
            Some('-') if is_first => {
                len += 1;
                continue;
            }
            Some('.' | '|') if !is_first => {
                let name = rest[1..].trim_start();
                let word = word_len(name);
                if word == 0 { 0 } else { rest.len() - name.len() + word }
            }
            Some(' ') if !is_first && rest.trim_start().starts_with('|') => {
                len += rest.len() - rest.trim_start().len();
                continue;
            }
            Some(c) if is_first && (c.is_alphanumeric() || c == '_') => word_len(rest),
            _ => 0,
        };
        if step == 0 {
            return if is_first { 0 } else { len };
        }
        (len, is_first) = (len + step, false);
    }
}

fn word_len(text: &str) -> usize {
    text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len())
}

/// Length of the string that a text begins with, quotes included.
fn string_len(text: &str) -> usize {
    crate::jinja::string_len(text.as_bytes())
}

/// Length of the bracket that a text begins with, to its other end.
fn bracket_len(text: &str) -> usize {
    let (mut level, mut at) = (0_usize, 0);
    while let Some(c) = text[at..].chars().next() {
        match c {
            '(' | '[' | '{' => level += 1,
            ')' | ']' | '}' => level -= 1,
            '"' | '\'' => {
                at += string_len(&text[at..]);
                continue;
            }
            _ => {}
        }
        at += c.len_utf8();
        if level == 0 {
            return at;
        }
    }
    text.len()
}
