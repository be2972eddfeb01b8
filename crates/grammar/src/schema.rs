//! JSON schemas as the library enforces them.
//!
//! The library accepts some keywords without enforcing them, and takes options out of a schema. So a schema is written anew here,
//! from a list of what is known: what is enforced is copied or tightened, annotations are dropped, and what would not be
//! enforced is refused by name. References become such to definitions at the root, in the one form that the library resolves.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::error::{GrammarError, Result};
use crate::formats::{self, Format};
use crate::pattern;

/// Most schemas in a schema.
const MAX_SCHEMAS: usize = 10_000;
/// Most levels of schemas in schemas, and of values in a constant.
const MAX_DEPTH: usize = 64;
/// Numbers beyond it are not exact in a double.
const MAX_NUMBER: f64 = (1u64 << 53) as f64;

/// White space between tokens of JSON: a few blanks, or a line break and an indentation. Unbounded white space is where weak
/// models get lost.
const WHITESPACE: &str = "[ \\t]{1,4}|\\r?\\n[ \\t]{0,32}";
/// Escapes in strings. Without `u` every string that matters, such as a property's name, has one spelling.
const ESCAPES: &str = "nrbtf\\\"";

/// What would not be enforced.
const REFUSED: [&str; 12] = [
    "not",
    "contains",
    "propertyNames",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "unevaluatedProperties",
    "unevaluatedItems",
    "$dynamicRef",
    "$recursiveRef",
    "$recursiveAnchor",
    "extends",
];

/// The schema that the library is given.
pub(crate) fn normalise(root: &Value) -> Result<Value> {
    let mut normaliser = Normaliser { root, names: HashMap::new(), queue: Vec::new(), num_schemas: 0 };
    let mut schema = match normaliser.schema(root, "", 0)? {
        Value::Object(schema) => schema,
        Value::Bool(true) => Map::new(),
        _ => return Err(refused("", "expected a schema that accepts something, found false")),
    };
    let mut definitions = Map::new();
    while let Some((name, pointer, target)) = normaliser.queue.pop() {
        let definition = normaliser.schema(target, &pointer, 0)?;
        definitions.insert(name, definition);
    }
    check_cycles(&definitions)?;
    schema.insert("$defs".to_owned(), definitions.into());
    let options = [("whitespace_pattern", WHITESPACE), ("json_allowed_escapes", ESCAPES)];
    let options: Map<String, Value> =
        options.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    // The library's way to take options; a schema's own were dropped with all unknown keywords.
    schema.insert("x-guidance".to_owned(), options.into());
    Ok(schema.into())
}

struct Normaliser<'a> {
    root: &'a Value,
    /// Names of definitions, by the pointers that references have.
    names: HashMap<String, String>,
    /// Definitions yet to be written: name, pointer, schema.
    queue: Vec<(String, String, &'a Value)>,
    num_schemas: usize,
}

/// The JSON pointer to what has this name in the object at `path`.
fn child(path: &str, name: &str) -> String {
    format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"))
}

fn refused(path: &str, message: impl Into<String>) -> GrammarError {
    GrammarError::Schema { path: path.to_owned(), message: message.into() }
}

fn expected(path: &str, what: &str, found: &Value) -> GrammarError {
    refused(path, format!("expected {what}, found {}", shown(found)))
}

impl<'a> Normaliser<'a> {
    fn schema(&mut self, schema: &'a Value, path: &str, depth: usize) -> Result<Value> {
        self.num_schemas += 1;
        if depth > MAX_DEPTH || self.num_schemas > MAX_SCHEMAS {
            let limits = format!("expected at most {MAX_DEPTH} levels and {MAX_SCHEMAS} schemas, found more");
            return Err(refused(path, limits));
        }
        let keywords = match schema {
            Value::Bool(_) => return Ok(schema.clone()),
            Value::Object(keywords) => keywords,
            found => return Err(expected(path, "an object or a boolean", found)),
        };
        refuse_unenforced(keywords, path)?;
        let mut out = Map::new();
        for (keyword, value) in keywords {
            let at = child(path, keyword);
            self.keyword(keywords, keyword, value, &at, depth, &mut out)?;
        }
        Ok(out.into())
    }

    fn keyword(
        &mut self,
        keywords: &'a Map<String, Value>,
        keyword: &str,
        value: &'a Value,
        at: &str,
        depth: usize,
        out: &mut Map<String, Value>,
    ) -> Result<()> {
        let written = match keyword {
            "type" => types(value, at)?,
            "const" => constant(value, at, 0)?,
            "enum" => {
                let values = value.as_array().ok_or_else(|| expected(at, "a list", value))?;
                values.iter().map(|value| constant(value, at, 0)).collect::<Result<Vec<_>>>()?.into()
            }
            "minimum" | "maximum" => number(value, at)?,
            "exclusiveMinimum" | "exclusiveMaximum" => match (value, keyword) {
                // Draft 4's way.
                (Value::Bool(false), _) => return Ok(()),
                (Value::Bool(true), "exclusiveMinimum") => {
                    number(keywords.get("minimum").unwrap_or(value), at)?
                }
                (Value::Bool(true), _) => number(keywords.get("maximum").unwrap_or(value), at)?,
                _ => number(value, at)?,
            },
            "multipleOf" => match number(value, at)? {
                number if number.as_f64().is_some_and(|number| number > 0.0) => {
                    // Beyond these a reader's double is another number, and no multiple.
                    let bounds = [("minimum", -MAX_NUMBER), ("maximum", MAX_NUMBER)];
                    add_to_all(
                        out,
                        bounds.map(|(name, bound)| (name.to_owned(), bound.into())).into_iter().collect(),
                    );
                    number
                }
                _ => return Err(expected(at, "a number above 0", value)),
            },
            "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties" => {
                count(value, at)?.into()
            }
            "required" => {
                let names = value.as_array().filter(|names| names.iter().all(Value::is_string));
                names.ok_or_else(|| expected(at, "a list of strings", value))?.clone().into()
            }
            "pattern" => {
                let text = value.as_str().ok_or_else(|| expected(at, "a string", value))?;
                pattern::translate(text).map_err(|message| refused(at, message))?.into()
            }
            "format" => return format(value, at, out),
            "properties" => self.map(value, at, depth, |name| Ok(name.to_owned()))?,
            "patternProperties" => self.map(value, at, depth, pattern::translate)?,
            "additionalProperties" => self.schema(value, at, depth + 1)?,
            "prefixItems" => self.list(value, at, depth)?,
            "items" if value.is_array() => {
                // As drafts before 2020-12 write it.
                let prefix = self.list(value, at, depth)?;
                out.insert("prefixItems".to_owned(), prefix);
                match keywords.get("additionalItems") {
                    Some(rest) => self.schema(rest, at, depth + 1)?,
                    None => return Ok(()),
                }
            }
            "items" => self.schema(value, at, depth + 1)?,
            "anyOf" => self.list(value, at, depth)?,
            "oneOf" => {
                let options = self.list(value, at, depth)?;
                // Of constants that differ, no two can hold.
                let keyword = if are_distinct_constants(&options) { "anyOf" } else { "oneOf" };
                return self.applicator(keyword, options, out);
            }
            "allOf" => {
                let all = self.list(value, at, depth)?;
                return self.applicator("allOf", all, out);
            }
            "$ref" => return self.reference(value, at, out),
            // Annotations, and words that JSON Schema does not know, say nothing about an instance.
            _ => return Ok(()),
        };
        if keyword == "anyOf" {
            return self.applicator("anyOf", written, out);
        }
        out.insert(keyword.to_owned(), written);
        Ok(())
    }

    /// Inserts one of `allOf`, `anyOf` and `oneOf`; a second one of the kind goes with the others into an `allOf`.
    fn applicator(&mut self, keyword: &str, options: Value, out: &mut Map<String, Value>) -> Result<()> {
        match (keyword, out.get_mut(keyword), options) {
            ("allOf", Some(Value::Array(all)), Value::Array(more)) => all.extend(more),
            (_, None, options) => drop(out.insert(keyword.to_owned(), options)),
            (_, Some(_), options) => {
                let schema: Map<String, Value> = [(keyword.to_owned(), options)].into_iter().collect();
                add_to_all(out, schema);
            }
        }
        Ok(())
    }

    fn list(&mut self, value: &'a Value, at: &str, depth: usize) -> Result<Value> {
        let Value::Array(schemas) = value else { return Err(expected(at, "a list of schemas", value)) };
        if schemas.is_empty() {
            return Err(expected(at, "a list that is not empty", value));
        }
        let schema = |(index, schema)| self.schema(schema, &format!("{at}/{index}"), depth + 1);
        Ok(schemas.iter().enumerate().map(schema).collect::<Result<Vec<_>>>()?.into())
    }

    fn map(
        &mut self,
        value: &'a Value,
        at: &str,
        depth: usize,
        key: impl Fn(&str) -> std::result::Result<String, String>,
    ) -> Result<Value> {
        let Value::Object(schemas) = value else { return Err(expected(at, "an object of schemas", value)) };
        let mut out = Map::new();
        for (name, schema) in schemas {
            let at = child(at, name);
            let key = key(name).map_err(|message| refused(&at, message))?;
            if out.insert(key, self.schema(schema, &at, depth + 1)?).is_some() {
                return Err(refused(&at, "expected patterns that differ, found two that are equal"));
            }
        }
        Ok(out.into())
    }

    fn reference(&mut self, value: &'a Value, at: &str, out: &mut Map<String, Value>) -> Result<()> {
        let target = value.as_str().and_then(|reference| {
            let fragment = percent_decoded(reference.strip_prefix('#')?)?;
            Some((self.root.pointer(&fragment)?, fragment))
        });
        let Some((target, fragment)) = target else {
            return Err(expected(
                at,
                "a reference inside the schema (\"#/..\") to something that exists",
                value,
            ));
        };
        let name = match self.names.get(&fragment) {
            Some(name) => name.clone(),
            None => {
                let name = format!("d{}", self.names.len());
                self.names.insert(fragment.clone(), name.clone());
                self.queue.push((name.clone(), fragment, target));
                name
            }
        };
        out.insert("$ref".to_owned(), format!("#/$defs/{name}").into());
        Ok(())
    }
}

fn add_to_all(out: &mut Map<String, Value>, schema: Map<String, Value>) {
    if let Value::Array(all) = out.entry("allOf").or_insert_with(|| Value::Array(Vec::new())) {
        all.push(schema.into());
    }
}

fn refuse_unenforced(keywords: &Map<String, Value>, path: &str) -> Result<()> {
    for (keyword, value) in keywords {
        if REFUSED.contains(&keyword.as_str()) {
            return Err(refused(
                path,
                format!("expected no \"{keyword}\" (it cannot be enforced), found {}", shown(value)),
            ));
        }
    }
    let is_set = |name: &str| keywords.contains_key(name);
    if is_set("if") && (is_set("then") || is_set("else")) {
        return Err(refused(path, "expected no \"if\" (it cannot be enforced), found one"));
    }
    if keywords.get("uniqueItems") == Some(&Value::Bool(true))
        && keywords.get("maxItems").and_then(Value::as_u64).is_none_or(|most| most > 1)
    {
        return Err(refused(path, "expected no \"uniqueItems\" (it cannot be enforced), found true"));
    }
    // The same property could be written twice to make up the number.
    let required: std::collections::HashSet<_> =
        keywords.get("required").and_then(Value::as_array).into_iter().flatten().collect();
    if let Some(least) = keywords.get("minProperties").and_then(Value::as_u64)
        && least > required.len() as u64 + 1
    {
        let message = "expected \"minProperties\" of at most one more than there are required (more cannot be enforced)";
        return Err(refused(path, format!("{message}, found {least}")));
    }
    if let Some(id) = keywords.get("$id").filter(|id| !path.is_empty() && id.is_string()) {
        return Err(expected(path, "no \"$id\" inside the schema, which changes what references mean", id));
    }
    Ok(())
}

fn shown(value: &Value) -> String {
    let mut text = value.to_string();
    if let Some((end, _)) = text.char_indices().nth(60) {
        text.truncate(end);
        text.push_str("..");
    }
    text
}

fn types(value: &Value, at: &str) -> Result<Value> {
    const TYPES: [&str; 7] = ["null", "boolean", "number", "integer", "string", "array", "object"];
    let is_type = |value: &Value| value.as_str().is_some_and(|name| TYPES.contains(&name));
    match value {
        Value::Array(names) if !names.is_empty() && names.iter().all(is_type) => Ok(value.clone()),
        _ if is_type(value) => Ok(value.clone()),
        _ => Err(expected(at, "a type or a list of types", value)),
    }
}

fn number(value: &Value, at: &str) -> Result<Value> {
    match value.as_f64() {
        Some(number) if number.abs() <= MAX_NUMBER => Ok(value.clone()),
        Some(_) => Err(expected(at, "a number from -2^53 to 2^53", value)),
        None => Err(expected(at, "a number", value)),
    }
}

/// A number of things; JSON may write it as `2.0`.
fn count(value: &Value, at: &str) -> Result<u64> {
    let whole = |number: f64| {
        (number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number)).then_some(number as u64)
    };
    let count = value
        .as_u64()
        .filter(|&count| count < u64::from(u32::MAX))
        .or_else(|| value.as_f64().and_then(whole));
    count.ok_or_else(|| expected(at, "a whole number, 0 or more", value))
}

/// A constant that has one spelling.
fn constant(value: &Value, at: &str, depth: usize) -> Result<Value> {
    if depth > MAX_DEPTH {
        return Err(refused(at, format!("expected at most {MAX_DEPTH} levels, found more")));
    }
    let text = |text: &str| {
        let is_writable = |c: char| !c.is_ascii_control() || "\n\r\t\u{8}\u{c}".contains(c);
        match text.chars().all(is_writable) {
            true => Ok(()),
            false => Err(refused(at, format!("expected no control characters, found {text:?}"))),
        }
    };
    match value {
        Value::Number(_) => drop(number(value, at)?),
        Value::String(string) => text(string)?,
        Value::Array(values) => {
            values.iter().try_for_each(|value| constant(value, at, depth + 1).map(drop))?
        }
        Value::Object(values) => values.iter().try_for_each(|(name, value)| {
            text(name)?;
            constant(value, at, depth + 1).map(drop)
        })?,
        Value::Null | Value::Bool(_) => {}
    }
    Ok(value.clone())
}

fn format(value: &Value, at: &str, out: &mut Map<String, Value>) -> Result<()> {
    let found = value.as_str().and_then(formats::lookup);
    match found {
        None => {
            let names = formats::NAMES.join(", ");
            Err(expected(at, &format!("a format that can be enforced ({names})"), value))
        }
        Some(Format::Library) => {
            out.insert("format".to_owned(), value.clone());
            Ok(())
        }
        Some(Format::Pattern(regex, most)) => {
            let mut schema = Map::new();
            schema.insert("pattern".to_owned(), format!("^(?:{regex})$").into());
            schema.extend(most.map(|most| ("maxLength".to_owned(), most.into())));
            add_to_all(out, schema);
            Ok(())
        }
    }
}

/// Whether these are schemas of constants, no two of them equal.
fn are_distinct_constants(options: &Value) -> bool {
    let mut seen: Vec<&Value> = Vec::new();
    let options = options.as_array().map_or(&[][..], Vec::as_slice);
    options.iter().all(|option| {
        let constants: &[Value] = match (option.get("const"), option.get("enum")) {
            (Some(value), None) => std::slice::from_ref(value),
            (None, Some(Value::Array(values))) => values,
            _ => return false,
        };
        let same = |a: &Value, b: &Value| a == b || a.as_f64().is_some_and(|a| Some(a) == b.as_f64());
        let is_new = constants.iter().all(|value| !seen.iter().any(|known| same(known, value)));
        // Lists and objects could be equal by a number inside.
        let is_plain = constants.iter().all(|value| !value.is_array() && !value.is_object());
        seen.extend(constants);
        is_new && is_plain
    })
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// Refuses definitions that lead to themselves without a step into the instance: they say nothing.
fn check_cycles(definitions: &Map<String, Value>) -> Result<()> {
    let edges: HashMap<&str, Vec<&str>> = definitions
        .iter()
        .map(|(name, schema)| {
            let mut targets = Vec::new();
            in_place_references(schema, &mut targets);
            (name.as_str(), targets)
        })
        .collect();
    // What has been left for good, and what is on the way.
    let (mut done, mut path): (Vec<&str>, Vec<(&str, usize)>) = (Vec::new(), Vec::new());
    for &start in edges.keys() {
        path.push((start, 0));
        while let Some((name, next)) = path.last_mut() {
            let Some(&target) = edges.get(*name).and_then(|targets| targets.get(*next)) else {
                done.push(name);
                path.pop();
                continue;
            };
            *next += 1;
            if path.iter().any(|(name, _)| *name == target) {
                return Err(refused("", "expected references that end, found some that lead to themselves"));
            }
            if !done.contains(&target) {
                path.push((target, 0));
            }
        }
    }
    Ok(())
}

fn in_place_references<'a>(schema: &'a Value, out: &mut Vec<&'a str>) {
    out.extend(schema.get("$ref").and_then(Value::as_str).and_then(|target| target.strip_prefix("#/$defs/")));
    for keyword in ["allOf", "anyOf", "oneOf"] {
        let schemas = schema.get(keyword).and_then(Value::as_array).into_iter().flatten();
        schemas.for_each(|schema| in_place_references(schema, out));
    }
}
