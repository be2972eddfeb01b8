//! The lists of a body's fields: what is served, what is refused by name, and what is accepted without an effect.
//!
//! The types of the bodies make their own lists (`body!`), so no field can be read without being listed. Nothing is ignored
//! silently: a field in no list is reported, or refused if the caller wants that.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::Value;

use crate::error::ApiError;
use crate::fields::{Object, mistyped, refused, shown};

/// Declares a part of a body: its struct, the reader of its fields and their list. A line is a field's name, other names for
/// it, its type, the function that reads it and what it means.
macro_rules! body {
    (
        $(#[$meta:meta])*
        pub struct $Name:ident {
            $($field:ident $(or $alias:ident)*: $Type:ty = $read:expr, $doc:literal;)*
        }
    ) => {
        $(#[$meta])*
        pub struct $Name {
            $(#[doc = $doc] pub $field: $Type,)*
        }

        impl $Name {
            /// The fields that it reads.
            pub const FIELDS: &'static [$crate::field_list::Field] = &[$(
                $crate::field_list::Field {
                    name: stringify!($field),
                    aliases: &[$(stringify!($alias)),*],
                    doc: $doc,
                }
            ),*];

            /// Reads the fields, or says which is wrong.
            pub fn read(body: &$crate::fields::Object) -> Result<Self, $crate::error::ApiError> {
                Ok(Self {
                    $($field: {
                        let names = [stringify!($field) $(, stringify!($alias))*];
                        $read(body, $crate::field_list::given_name(body, &names)?)?
                    },)*
                })
            }
        }
    };
}
pub(crate) use body;

/// The name under which a body gives a field that has several.
pub(crate) fn given_name(body: &Object, names: &[&'static str]) -> Result<&'static str, ApiError> {
    let mut given = names.iter().filter_map(|&name| Some((name, body.get(name)?)));
    let Some((mut name, mut value)) = given.next() else { return Ok(names[0]) };
    for (other, found) in given {
        if value.is_null() {
            (name, value) = (other, found);
        } else if !(found.is_null() || is_equal(found, value)) {
            let expected = format!("the same as {name}, which is {}", shown(value));
            return Err(refused(other, format_args!("expected {expected}, found {}", shown(found))));
        }
    }
    Ok(name)
}

/// A field that is served, or accepted although it has no effect on the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Its name in the API.
    pub name: &'static str,
    /// Other names for it.
    pub aliases: &'static [&'static str],
    /// What it means, or why it has no effect.
    pub doc: &'static str,
}

/// A known field that is refused unless its value changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Its name in the API.
    pub name: &'static str,
    /// The values that change nothing, as a JSON list. Null is always one; if the list is empty, so are false and empty
    /// strings, lists and objects.
    pub defaults: &'static str,
    /// Why, or what to use instead.
    pub hint: &'static str,
}

/// All known fields of one kind of body.
#[derive(Debug)]
pub struct FieldList {
    /// Fields with an effect, in groups.
    pub served: &'static [&'static [Field]],
    /// Fields that are refused by name, in groups.
    pub refused: &'static [&'static [Refused]],
    /// Fields that have no effect on any answer, in groups.
    pub accepted: &'static [&'static [Field]],
    /// Lists of the objects in a field, which may hold one object or a list of them.
    pub nested: &'static [(&'static str, &'static FieldList)],
}

/// What is done with a field that is in no list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownFields {
    /// It is named in [`Prepared::ignored`](crate::Prepared::ignored).
    #[default]
    Report,
    /// The request is refused.
    Refuse,
}

impl Refused {
    /// An entry of a list.
    pub(crate) const fn new(name: &'static str, defaults: &'static str, hint: &'static str) -> Self {
        Self { name, defaults, hint }
    }

    /// The values that change nothing.
    fn defaults(&self) -> Vec<Value> {
        serde_json::from_str(self.defaults).expect("the list is JSON, which a test checks")
    }

    fn check(&self, found: &Value) -> Result<(), ApiError> {
        let defaults = self.defaults();
        let changes_nothing = match found {
            Value::Null => true,
            found if !defaults.is_empty() => defaults.iter().any(|default| is_equal(default, found)),
            Value::Bool(value) => !value,
            Value::Number(_) => false,
            Value::String(text) => text.is_empty(),
            Value::Array(values) => values.is_empty(),
            Value::Object(fields) => fields.is_empty(),
        };
        if changes_nothing {
            return Ok(());
        }
        let expected: Vec<_> = defaults.iter().map(shown).collect();
        let expected = if expected.is_empty() { "none".to_owned() } else { expected.join(" or ") };
        let mut error = mistyped(self.name, &format!("{expected} (not supported)"), found);
        if !self.hint.is_empty() {
            error.message = format!("{}\nhint: {}", error.message, self.hint);
        }
        Err(error)
    }
}

/// Whether two values are the same; numbers by value, so that 1 is 1.0.
fn is_equal(a: &Value, b: &Value) -> bool {
    a == b || matches!((a.as_f64(), b.as_f64()), (Some(a), Some(b)) if a == b)
}

impl FieldList {
    /// Checks every field of a body; the names of those that are in no list.
    ///
    /// # Errors
    /// 400 for a field that is refused.
    pub fn check(&self, body: &Object, unknown: UnknownFields) -> Result<BTreeSet<String>, ApiError> {
        let mut ignored = BTreeSet::new();
        for (name, value) in body {
            if let Some(refused) = self.refused.iter().copied().flatten().find(|entry| entry.name == name) {
                refused.check(value)?;
            } else if !self.knows(name) {
                if unknown == UnknownFields::Refuse {
                    return Err(self.unknown(name));
                }
                ignored.insert(name.clone());
            }
            let Some((_, list)) = self.nested.iter().find(|(outer, _)| outer == name) else { continue };
            match value {
                Value::Object(inner) => {
                    let prefix = format!("{name}.");
                    let found = list.check(inner, unknown).map_err(|error| error.within(&prefix))?;
                    ignored.extend(found.into_iter().map(|inner| format!("{prefix}{inner}")));
                }
                Value::Array(elements) => {
                    for (index, inner) in elements.iter().enumerate() {
                        let Value::Object(inner) = inner else { continue };
                        let found = list.check(inner, unknown);
                        let found = found.map_err(|error| error.within(&format!("{name}[{index}].")))?;
                        ignored.extend(found.into_iter().map(|inner| format!("{name}[].{inner}")));
                    }
                }
                _ => {}
            }
        }
        Ok(ignored)
    }

    fn knows(&self, name: &str) -> bool {
        let mut known = self.served.iter().chain(self.accepted).copied().flatten();
        known.any(|field| field.name == name || field.aliases.contains(&name))
    }

    fn unknown(&self, name: &str) -> ApiError {
        let fields = self.served.iter().copied().flatten();
        let names = fields.flat_map(|field| [field.name].into_iter().chain(field.aliases.iter().copied()));
        let nearest = names.map(|known| (edits(known, name), known)).min();
        let hint = match nearest {
            Some((edits, known)) if edits <= 2 => format!("\nhint: the nearest known field is {known}"),
            _ => String::new(),
        };
        let message =
            format!("{name}: expected only fields that the server knows, found an unknown one{hint}");
        ApiError::invalid(name, message.replace(|c: char| c.is_control() && c != '\n', "?"))
    }
}

/// Levenshtein's distance in characters.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, a) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in b.chars().enumerate() {
            let substituted = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

/// Tables for the documentation of several endpoints, each given by the heading of its column and its list.
pub fn markdown(endpoints: &[(&str, &FieldList)]) -> String {
    let mut text = String::new();
    let headings: Vec<_> = endpoints.iter().map(|(heading, _)| *heading).collect();
    let _ = writeln!(text, "| served | {} | |", headings.join(" | "));
    let _ = writeln!(text, "| --- |{} --- |", " --- |".repeat(endpoints.len()));
    let served = |(_, list): &(&str, &FieldList)| all(list, "", &|list| list.served);
    let rows = merged(endpoints.iter().map(served));
    for ((name, doc), columns) in rows {
        let marks: Vec<_> = columns.iter().map(|&has| if has { "yes" } else { "" }).collect();
        let _ = writeln!(text, "| {name} | {} | {doc} |", marks.join(" | "));
    }

    let _ = writeln!(text, "\n| refused | but accepted as | of | |\n| --- | --- | --- | --- |");
    let rows = merged(endpoints.iter().map(|(_, list)| refusals(list, "")));
    for ((name, defaults, hint), columns) in rows {
        let of = of_which(&headings, &columns);
        let _ = writeln!(text, "| {name} | {defaults} | {of} | {hint} |");
    }

    let _ = writeln!(text, "\n| accepted, without effect | of | |\n| --- | --- | --- |");
    let accepted = |(_, list): &(&str, &FieldList)| all(list, "", &|list| list.accepted);
    for ((name, doc), columns) in merged(endpoints.iter().map(accepted)) {
        let _ = writeln!(text, "| {name} | {} | {doc} |", of_which(&headings, &columns));
    }
    text
}

/// Names and meanings, those of nested objects after a prefix.
fn all(
    list: &FieldList,
    prefix: &str,
    group: &dyn Fn(&FieldList) -> &'static [&'static [Field]],
) -> Vec<(String, &'static str)> {
    let name = |field: &Field| {
        let names = [field.name].into_iter().chain(field.aliases.iter().copied());
        names.map(|name| format!("`{prefix}{name}`")).collect::<Vec<_>>().join(", ")
    };
    let mut rows: Vec<_> =
        group(list).iter().copied().flatten().map(|field| (name(field), field.doc)).collect();
    for (outer, nested) in list.nested {
        rows.extend(all(nested, &nested_prefix(prefix, outer), group));
    }
    rows
}

fn refusals(list: &FieldList, prefix: &str) -> Vec<(String, String, &'static str)> {
    let row = |entry: &Refused| {
        let defaults: Vec<_> = entry.defaults().iter().map(|value| format!("`{value}`")).collect();
        (format!("`{prefix}{}`", entry.name), defaults.join(", "), entry.hint)
    };
    let mut rows: Vec<_> = list.refused.iter().copied().flatten().map(row).collect();
    for (outer, nested) in list.nested {
        rows.extend(refusals(nested, &nested_prefix(prefix, outer)));
    }
    rows
}

fn nested_prefix(prefix: &str, outer: &str) -> String {
    let list = if outer == "messages" { "[]" } else { "" };
    format!("{prefix}{outer}{list}.")
}

/// The rows of several lists, equal ones once, and which lists have each.
fn merged<R: PartialEq>(lists: impl ExactSizeIterator<Item = Vec<R>>) -> Vec<(R, Vec<bool>)> {
    let num_lists = lists.len();
    let mut rows: Vec<(R, Vec<bool>)> = Vec::new();
    for (column, list) in lists.enumerate() {
        for row in list {
            let index = rows.iter().position(|(found, _)| *found == row).unwrap_or_else(|| {
                rows.push((row, vec![false; num_lists]));
                rows.len() - 1
            });
            rows[index].1[column] = true;
        }
    }
    rows
}

fn of_which(headings: &[&str], columns: &[bool]) -> String {
    if columns.iter().all(|&has| has) {
        return "all".to_owned();
    }
    let of = headings.iter().zip(columns).filter(|(_, has)| **has);
    of.map(|(heading, _)| *heading).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Endpoint;

    fn names(list: &FieldList) -> Vec<&'static str> {
        let fields = list.served.iter().chain(list.accepted).copied().flatten();
        let names = fields.flat_map(|field| [field.name].into_iter().chain(field.aliases.iter().copied()));
        names.chain(list.refused.iter().copied().flatten().map(|entry| entry.name)).collect()
    }

    #[test]
    fn every_field_is_in_one_list_of_its_endpoint() {
        fn check(list: &FieldList) {
            let mut names = names(list);
            names.sort_unstable();
            let doubled = names.windows(2).find(|two| two[0] == two[1]);
            assert_eq!(doubled, None);
            for entry in list.refused.iter().copied().flatten() {
                entry.defaults().iter().for_each(|default| assert!(entry.check(default).is_ok()));
            }
            for (outer, nested) in list.nested {
                assert!(names.contains(outer), "{outer}");
                check(nested);
            }
        }
        Endpoint::ALL.iter().for_each(|endpoint| check(endpoint.fields()));
    }

    #[test]
    fn a_default_changes_nothing() {
        let check = |defaults, found: Value, expect: bool| {
            let entry = Refused::new("a", defaults, "b");
            assert_eq!(entry.check(&found).is_ok(), expect, "{defaults} {found}");
        };
        for (found, expect) in [
            (json!(null), true),
            (json!(false), true),
            (json!([]), true),
            (json!(0), false),
            (json!(true), false),
        ] {
            check("[]", found, expect);
        }
        for (found, expect) in
            [(json!(null), true), (json!(1.0), true), (json!(false), false), (json!(2), false)]
        {
            check("[1]", found, expect);
        }
        check(r#"["none", "auto"]"#, json!("auto"), true);
        check(r#"["none", "auto"]"#, json!("required"), false);
        let error = Refused::new("a", "[0, 1]", "use b").check(&json!(2)).unwrap_err();
        assert_eq!(error.message, "a: expected 0 or 1 (not supported), found 2\nhint: use b");
    }

    #[test]
    fn unknown_fields_are_named_where_they_are() {
        let list = Endpoint::ChatCompletions.fields();
        let body = json!({
            "messages": [{"role": "user", "content": "a", "mood": 1}, {"role": "user", "mood": 2}],
            "stream_options": {"colour": 1},
            "temprature": 1,
        });
        let Value::Object(body) = body else { unreachable!() };
        let ignored = list.check(&body, UnknownFields::Report).unwrap();
        assert_eq!(
            ignored.iter().collect::<Vec<_>>(),
            ["messages[].mood", "stream_options.colour", "temprature"]
        );
        let refused = list.check(&body, UnknownFields::Refuse).unwrap_err();
        assert_eq!(refused.param.as_deref(), Some("messages[0].mood"));
        let Value::Object(body) = json!({"temprature": 1}) else { unreachable!() };
        let refused = list.check(&body, UnknownFields::Refuse).unwrap_err();
        assert!(refused.message.ends_with("\nhint: the nearest known field is temperature"), "{refused}");
    }

    #[test]
    fn edits_are_counted() {
        for (a, b, expect) in
            [("", "", 0), ("a", "", 1), ("abc", "abd", 1), ("abc", "acb", 2), ("kitten", "sitting", 3)]
        {
            assert_eq!((edits(a, b), edits(b, a)), (expect, expect), "{a} {b}");
        }
    }
}
