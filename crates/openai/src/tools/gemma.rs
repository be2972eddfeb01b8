//! Gemma 4's syntax of values: JSON with bare keys, and strings between `<|"|>`.

use rustorch_llama::GrammarRule as Rule;
use serde_json::{Map, Value};

use super::xml::is_text;

/// What a string is between.
pub(super) const QUOTE: &str = "<|\"|>";

/// The grammar of an object's members in braces. Of a schema the properties, their types and enumerations are enforced, and what
/// is required; properties come in the order of the alphabet, as the template writes them.
pub(super) fn object(schema: &Value, quote: &Rule) -> Rule {
    object_at(schema, quote, 0)
}

/// Levels of a schema that are read. A level may be written twice, so the grammar grows by a power of two.
const MAX_LEVELS: usize = 4;

fn object_at(schema: &Value, quote: &Rule, level: usize) -> Rule {
    let properties = schema["properties"].as_object().filter(|_| level < MAX_LEVELS);
    let Some(properties) = properties else {
        return Rule::Seq(vec![Rule::text("{"), any_members(quote), Rule::text("}")]);
    };
    let required = |name: &str| {
        schema["required"].as_array().is_some_and(|required| required.iter().any(|found| found == name))
    };
    let mut names: Vec<&String> = properties.keys().collect();
    names.sort_unstable();
    let member = |name: &str| {
        Rule::Seq(vec![Rule::text(format!("{name}:")), value(&properties[name], quote, level + 1)])
    };
    // What may follow a member, and what may begin the object, from the last name to the first.
    let (mut following, mut beginning) = (Rule::text(""), Rule::text(""));
    for name in names.into_iter().rev() {
        let next = Rule::Seq(vec![Rule::text(","), member(name)]);
        let first = Rule::Seq(vec![member(name), following.clone()]);
        let next = if required(name) { next } else { next.optional() };
        following = Rule::Seq(vec![next, following]);
        beginning = if required(name) { first } else { Rule::Any(vec![first, beginning]) };
    }
    Rule::Seq(vec![Rule::text("{"), beginning, Rule::text("}")])
}

fn value(schema: &Value, quote: &Rule, level: usize) -> Rule {
    let quoted = |text: Rule| Rule::Seq(vec![quote.clone(), text, quote.clone()]);
    if is_text(schema) {
        return match schema["enum"].as_array() {
            Some(values) => {
                let texts = values.iter().filter_map(Value::as_str).map(|text| quoted(Rule::text(text)));
                Rule::Any(texts.collect())
            }
            None => quoted(text()),
        };
    }
    match schema["type"].as_str() {
        Some("integer" | "number" | "boolean" | "null") => Rule::Json(schema.clone()),
        Some("object") => object_at(schema, quote, level),
        Some("array") if level < MAX_LEVELS => {
            let item = || value(&schema["items"], quote, level + 1);
            let more = Rule::Repeat(Box::new(Rule::Seq(vec![Rule::text(","), item()])), 0, None);
            let items = Rule::Seq(vec![item(), more]).optional();
            Rule::Seq(vec![Rule::text("["), items, Rule::text("]")])
        }
        _ => any(quote),
    }
}

/// A string, a number or a word: what a schema that is not read is given.
fn any(quote: &Rule) -> Rule {
    let word = Rule::Regex("-?[0-9]+(\\.[0-9]+)?|true|false|null".to_owned());
    Rule::Any(vec![Rule::Seq(vec![quote.clone(), text(), quote.clone()]), word])
}

fn any_members(quote: &Rule) -> Rule {
    let member = || Rule::Seq(vec![Rule::Regex("[A-Za-z0-9_]{1,64}:".to_owned()), any(quote)]);
    let more = Rule::Repeat(Box::new(Rule::Seq(vec![Rule::text(","), member()])), 0, None);
    Rule::Seq(vec![member(), more]).optional()
}

/// Text without the beginning of a quote.
fn text() -> Rule {
    Rule::Regex("([^<]|<[^|])+".to_owned()).optional()
}

/// The arguments as JSON, once their text is complete with its closing: what is not in the syntax stays as it is.
pub(super) fn closed(text: &str, closing: &str) -> Option<String> {
    let inner = text.strip_suffix(closing)?.trim_end().strip_suffix('}')?;
    let is_quoted = inner.matches(QUOTE).count() % 2 == 1;
    (!is_quoted).then(|| members(inner).map_or_else(|| format!("{{{inner}}}"), |object| object.to_string()))
}

/// Reads an object's members, without the braces; `None` if it is none.
pub(super) fn members(text: &str) -> Option<Value> {
    let mut parser = Parser { rest: text };
    let object = parser.object(None)?;
    parser.rest.trim().is_empty().then_some(object)
}

struct Parser<'t> {
    rest: &'t str,
}

/// Most values in values.
const MAX_DEPTH: usize = 64;

impl Parser<'_> {
    fn object(&mut self, end: Option<char>) -> Option<Value> {
        self.object_within(end, 0)
    }

    fn object_within(&mut self, end: Option<char>, depth: usize) -> Option<Value> {
        let mut object = Map::new();
        loop {
            self.rest = self.rest.trim_start();
            if self.ends(end) {
                return Some(object.into());
            }
            let key = match self.string() {
                Some(key) => key,
                None => {
                    let (key, _) = self.rest.split_once(':')?;
                    self.rest = &self.rest[key.len()..];
                    key.trim().trim_matches('"').to_owned()
                }
            };
            self.rest = self.rest.trim_start().strip_prefix(':')?;
            object.insert(key, self.value(depth + 1)?);
            self.rest = self.rest.trim_start();
            self.rest = self.rest.strip_prefix(',').unwrap_or(self.rest);
        }
    }

    fn ends(&mut self, end: Option<char>) -> bool {
        match end {
            None => self.rest.is_empty(),
            Some(end) => match self.rest.strip_prefix(end) {
                Some(rest) => {
                    self.rest = rest;
                    true
                }
                None => false,
            },
        }
    }

    fn string(&mut self) -> Option<String> {
        let (text, rest) = self.rest.strip_prefix(QUOTE)?.split_once(QUOTE)?;
        let text = text.to_owned();
        self.rest = rest;
        Some(text)
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.rest = self.rest.trim_start();
        if self.rest.starts_with(QUOTE) {
            return self.string().map(Value::from);
        }
        if let Some(rest) = self.rest.strip_prefix('{') {
            self.rest = rest;
            return self.object_within(Some('}'), depth);
        }
        if let Some(rest) = self.rest.strip_prefix('[') {
            self.rest = rest;
            let mut values = Vec::new();
            loop {
                self.rest = self.rest.trim_start();
                if self.ends(Some(']')) {
                    return Some(values.into());
                }
                values.push(self.value(depth + 1)?);
                self.rest = self.rest.trim_start();
                self.rest = self.rest.strip_prefix(',').unwrap_or(self.rest);
            }
        }
        let len = self.rest.find([',', '}', ']']).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(len);
        if word.trim().is_empty() {
            return None;
        }
        self.rest = rest;
        Some(serde_json::from_str(word.trim()).unwrap_or_else(|_| word.trim().into()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_become_json() {
        let text =
            "city:<|\"|>Paris, {fr}<|\"|>,days:3,flags:{a:true,b:[1,<|\"|>x<|\"|>]},none:null,word:warm";
        let expect = json!({"city": "Paris, {fr}", "days": 3, "flags": {"a": true, "b": [1, "x"]}, "none": null, "word": "warm"});
        assert_eq!(members(text), Some(expect));
        assert_eq!(members(""), Some(json!({})));
        for text in ["a", "a:", "a:{b:1", "a:[1", "a:<|\"|>x"] {
            assert_eq!(members(text), None, "{text}");
        }
    }
}
