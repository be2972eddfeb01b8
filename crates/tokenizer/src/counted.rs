//! What a template's lists and dictionaries cost, however they share their parts.
//!
//! `[a, a]` is two steps, but whoever goes through it goes through `a` twice: sixty such lists inside one another are never
//! gone through. The engine counts steps, and items of one level. So where lists become larger, here they are counted to
//! their leaves: each list, dictionary and tuple that has a name in it, and what is left of `+`, goes through the filter
//! [`COUNTED`], and so does what filters return that nest lists. What a template has made is then never larger than its fuel.

use minijinja::value::{Kwargs, Rest, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, State, filters, functions};

use crate::deadline;
use crate::jinja::{is_namespace, refused, string_len};

/// Name of the filter that counts a value. Templates cannot replace filters.
pub(crate) const COUNTED: &str = "__counted";

/// Bytes of text that are read for a step.
pub(crate) const BYTES_PER_FUEL: usize = 64;

/// Most levels of lists and dictionaries. JSON of requests has at most 128.
const MAX_LEVELS: usize = 200;

/// Words after which a value begins.
pub(crate) const OPERATORS: [&str; 14] = [
    "and", "do", "elif", "else", "extends", "from", "if", "import", "in", "include", "is", "not", "or",
    "with",
];

/// A bracket that is open.
struct Open {
    /// Where it is in the text that was written.
    at: usize,
    /// A list or a dictionary, or a parenthesis that may be a tuple's.
    may_count: bool,
    /// Whether what is in it is to be counted: it has a name and is a list, a dictionary or a tuple.
    has_name: bool,
    has_comma: bool,
    /// Where the item or argument begins that is being read, and whether it repeats something.
    item: usize,
    repeats: bool,
}

impl Open {
    /// Counts the argument of a call that ends here, if it repeats something.
    fn end_item(&mut self, out: &mut String) -> bool {
        let counts = self.repeats && !self.may_count;
        if counts {
            out.insert_str(self.item, "((");
            out.push_str(&format!(") | {COUNTED})"));
        }
        self.repeats = false;
        counts
    }
}

/// The text of a tag with [`COUNTED`] where lists become larger. `start` is where its expressions begin.
pub(crate) fn with_counts(tag: &str, start: usize) -> Option<String> {
    let bytes = tag.as_bytes();
    let mut out = tag[..start].to_owned();
    let (mut at, mut open, mut changed) = (start, Vec::<Open>::new(), false);
    // Whether a value has just ended, and whether that is one which may be a list.
    let (mut is_after_value, mut is_after_name) = (false, false);
    while at < bytes.len() {
        let byte = bytes[at];
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii();
        let len = match byte {
            b'"' | b'\'' => string_len(&bytes[at..]),
            _ if is_word(byte) => bytes[at..].iter().take_while(|&&byte| is_word(byte)).count(),
            _ => 1,
        };
        let text = &tag[at..at + len];
        at += len;
        match byte {
            b'(' | b'[' | b'{' => {
                let may_count = !is_after_value;
                let (at, has_comma) = (out.len(), byte != b'(');
                open.push(Open { at, may_count, has_name: false, has_comma, item: at + 1, repeats: false });
                out.push_str(text);
                (is_after_value, is_after_name) = (false, false);
            }
            b')' | b']' | b'}' => {
                if let Some(call) = open.last_mut().filter(|_| byte == b')') {
                    changed |= call.end_item(&mut out);
                }
                out.push_str(text);
                if let Some(Open { at, may_count, has_name, has_comma, .. }) = open.pop() {
                    if may_count && has_name && has_comma {
                        out.insert(at, '(');
                        out.push_str(&format!(" | {COUNTED})"));
                        changed = true;
                    }
                    if let Some(outer) = open.last_mut() {
                        outer.has_name |= has_name;
                    }
                }
                (is_after_value, is_after_name) = (true, true);
            }
            b'+' => {
                let ends = bytes[at..].starts_with(b"%}") || bytes[at..].starts_with(b"}}");
                if is_after_name && !ends {
                    out.push_str(&format!("| {COUNTED} "));
                    changed = true;
                }
                out.push_str(text);
                (is_after_value, is_after_name) = (false, false);
            }
            _ if byte.is_ascii_whitespace() => out.push_str(text),
            _ => {
                if let Some(open) = open.last_mut().filter(|_| byte == b',') {
                    changed |= open.end_item(&mut out);
                    open.has_comma = true;
                }
                out.push_str(text);
                let is_equal = |byte: Option<&u8>| matches!(byte, Some(b'=' | b'!' | b'<' | b'>'));
                let names_argument = byte == b'=' && !is_equal(bytes.get(at)) && !is_equal(bytes.get(at - 2));
                if let Some(open) = open.last_mut().filter(|_| byte == b',' || names_argument) {
                    open.item = out.len();
                }
                // What is repeated is as large as if it were written out, and may be in a parenthesis of its own.
                if byte == b'*'
                    && let Some(open) = open.last_mut()
                {
                    (open.has_name, open.has_comma, open.repeats) = (true, true, true);
                }
                let is_number = byte.is_ascii_digit();
                // A field may have any name.
                let is_operator = OPERATORS.contains(&text) && !out[..out.len() - len].ends_with('.');
                let is_name = is_word(byte) && !is_number && !is_operator;
                if is_name && let Some(open) = open.last_mut() {
                    open.has_name = true;
                }
                is_after_value = is_name || is_number || matches!(byte, b'"' | b'\'');
                is_after_name = is_name;
            }
        }
    }
    changed.then_some(out)
}

/// The filter [`COUNTED`]: the value itself, if there is fuel to go through it once.
pub(crate) fn counted(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    // Sums and repetitions of lists are lazy: to go through a sum of sums takes longer than it has items.
    let is_lazy = |value: &Value| value.as_object().is_some_and(|object| is_lazy(object.type_name()));
    let value = match value.kind() {
        ValueKind::Seq | ValueKind::Iterable if is_lazy(&value) => {
            let items = value.try_iter()?.map(|item| state.consume_fuel(1).map(|()| item));
            items.collect::<Result<Vec<_>, _>>()?.into()
        }
        _ => value,
    };
    count(state, &value)?;
    Ok(value)
}

fn is_lazy(type_name: &str) -> bool {
    !(type_name.contains("Vec<") || type_name.ends_with("::Tuple"))
}

/// Takes the fuel that it costs to go through a value.
pub(crate) fn count(state: &State<'_, '_>, value: &Value) -> Result<(), Error> {
    count_levels(state, value, Counts::Items, MAX_LEVELS)
}

/// Takes the fuel that it costs to go through a value and to read its texts.
pub(crate) fn read(state: &State<'_, '_>, value: &Value) -> Result<(), Error> {
    count_levels(state, value, Counts::ItemsAndBytes, MAX_LEVELS)
}

/// What going through a value costs.
#[derive(Clone, Copy, PartialEq)]
enum Counts {
    Items,
    ItemsAndBytes,
}

fn count_levels(state: &State<'_, '_>, value: &Value, what: Counts, levels: usize) -> Result<(), Error> {
    if let Some(text) = value.as_str().filter(|_| what == Counts::ItemsAndBytes) {
        state.consume_fuel((text.len() / BYTES_PER_FUEL) as u64)?;
    }
    if !matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::Iterable) {
        return Ok(());
    }
    if value.as_object().is_some_and(is_namespace) {
        return match levels {
            MAX_LEVELS => Ok(()),
            _ => Err(refused("a list or dictionary may not hold a namespace".to_owned())),
        };
    }
    if levels == 0 {
        return Err(refused(format!(
            "expected at most {MAX_LEVELS} levels of lists and dictionaries, found more"
        )));
    }
    for key in value.try_iter()? {
        state.consume_fuel(1)?;
        deadline::check()?;
        match value.kind() {
            ValueKind::Map => count_levels(state, &value.get_item(&key)?, what, levels - 1)?,
            _ => count_levels(state, &key, what, levels - 1)?,
        }
    }
    Ok(())
}

/// Gives templates the filters and functions that can nest lists, with what they return counted.
pub(crate) fn add_to(environment: &mut Environment<'static>) {
    environment.add_filter(COUNTED, counted);
    environment.add_filter("batch", |state: &State<'_, '_>, value, count, fill: Option<Value>| {
        counted(state, filters::batch(state, value, count, fill)?)
    });
    environment.add_filter("slice", |state: &State<'_, '_>, value, count, fill: Option<Value>| {
        counted(state, filters::slice(state, value, count, fill)?)
    });
    environment.add_filter("chain", |state: &State<'_, '_>, value: Value, others: Rest<Value>| {
        counted(state, filters::chain(state, value, others)?)
    });
    environment.add_filter("zip", |state: &State<'_, '_>, value: Value, others: Rest<Value>| {
        counted(state, filters::zip(state, value, others)?)
    });
    environment.add_filter("map", |state: &mut State<'_, '_>, value: Value, args: Rest<ValueOrKwargs>| {
        let mapped = filters::map(state, value, args)?;
        counted(state, mapped.into())
    });
    environment.add_function("dict", |state: &State<'_, '_>, value: Option<Value>, more: Kwargs| {
        counted(state, functions::dict(value, more)?)
    });
    environment.add_function("namespace", |state: &State<'_, '_>, values: Option<ValueOrKwargs>| {
        if let Some(values) = &values {
            count(state, values)?;
        }
        functions::namespace(values)
    });
    add_comparisons(environment);
    // It writes out all that a template has made.
    environment.remove_global("debug");
}

/// Gives templates the tests and filters that compare, with what they read counted. The engine counts items alone, as if each text
/// were short.
fn add_comparisons(environment: &mut Environment<'static>) {
    type Compare = fn(&Value, &Value) -> bool;
    let tests: [(&[&'static str], Compare); 6] = [
        (&["eq", "equalto", "=="], |a, b| a == b),
        (&["ne", "!="], |a, b| a != b),
        (&["lt", "lessthan", "<"], |a, b| a < b),
        (&["le", "<="], |a, b| a <= b),
        (&["gt", "greaterthan", ">"], |a, b| a > b),
        (&["ge", ">="], |a, b| a >= b),
    ];
    for (names, compare) in tests {
        for &name in names {
            let test = move |state: &State<'_, '_>, value: &Value, other: &Value| {
                read(state, other)?;
                Ok::<_, Error>(compare(value, other))
            };
            environment.add_test(name, test);
        }
    }
    environment.add_test("in", |state: &State<'_, '_>, value: &Value, other: &Value| {
        read(state, other)?;
        minijinja::tests::is_in(state, value, other)
    });
    type Filter = fn(&State<'_, '_>, Value, Kwargs) -> Result<Value, Error>;
    type Cost = fn(&State<'_, '_>, &Value) -> Result<(), Error>;
    let added: [(&'static str, Cost, Filter); 4] = [
        ("sort", read_sorted, filters::sort),
        ("unique", read_sorted, filters::unique),
        ("min", read, filters::min),
        ("max", read, filters::max),
    ];
    for (name, cost, filter) in added {
        environment.add_filter(name, move |state: &State<'_, '_>, value: Value, options: Kwargs| {
            cost(state, &value)?;
            filter(state, value, options)
        });
    }
}

/// Takes the fuel for sorting a list, in which each item is read as often as the list can be halved.
fn read_sorted(state: &State<'_, '_>, value: &Value) -> Result<(), Error> {
    let len = value.len().unwrap_or_default();
    (0..usize::BITS - len.leading_zeros()).try_for_each(|_| read(state, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_grow_is_counted_and_nothing_else() {
        for (tag, expected) in [
            ("{{ [a, a] }}", "{{ ([a, a] | __counted) }}"),
            ("{{ [[a], 1][0] }}", "{{ ([([a] | __counted), 1] | __counted)[0] }}"),
            ("{{ {'x': a}.x }}", "{{ ({'x': a} | __counted).x }}"),
            ("{{ (a, b) | f((c)) }}", "{{ ((a, b) | __counted) | f((c)) }}"),
            ("{{ a + b[1] + 'x' }}", "{{ a | __counted + b[1] | __counted + 'x' }}"),
            ("{% if x in (a,) +%}", "{% if x in ((a,) | __counted) +%}"),
            ("{{ ([1] * 9) | f }}", "{{ (([1] * 9) | __counted) | f }}"),
            ("{{ [[1] * 9] * 9 }}", "{{ ([[1] * 9] | __counted) * 9 }}"),
            ("{{ f(1, x=[1] * 9, y=2) }}", "{{ f(1, x=(([1] * 9) | __counted), y=2) }}"),
            ("{{ f(a, b=[c]) }}", "{{ f(a, b=([c] | __counted)) }}"),
        ] {
            assert_eq!(with_counts(tag, 2).as_deref(), Some(expected));
        }
        for tag in [
            "{{ ['a', 1] }}",
            "{{ a[b] }}",
            "{{ f(a, b) }}",
            "{{ 'a' + b }}",
            "{{ 1 + 2 +}}",
            "{%+ if a %}",
            "{{ (a) }}",
            "{{ a.from[b] }}",
        ] {
            assert_eq!(with_counts(tag, 2), None, "{tag}");
        }
    }
}
