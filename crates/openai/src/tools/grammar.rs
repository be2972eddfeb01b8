//! The grammar of calls: what a format's row says, with the names of the functions and the schemas of their arguments.

use rustorch_llama::{GrammarRule as Rule, Tokenizer};
use serde_json::Value;

use super::formats::{Call, Format};
use super::gemma;
use super::xml::is_text;

/// The calls that an answer may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Calls<'a> {
    pub format: &'a Format,
    /// Name and schema of the arguments of each function.
    pub functions: &'a [(String, Value)],
    /// Whether there may be more than one call.
    pub is_parallel: bool,
    /// Whether the answer begins behind an opening.
    pub begins_opened: bool,
    pub tokenizer: &'a Tokenizer,
}

impl Calls<'_> {
    /// An answer that consists of calls, at least one.
    pub fn whole_answer(&self) -> Rule {
        if self.begins_opened {
            return self.after_the_opening();
        }
        let opening = self.marker(self.format.opening);
        let opening = if self.format.starts_bare { opening.optional() } else { opening };
        Rule::Seq(vec![opening, self.after_the_opening()])
    }

    /// What follows the first opening.
    pub fn after_the_opening(&self) -> Rule {
        let call =
            || Rule::Any(self.functions.iter().map(|(name, schema)| self.call(name, schema)).collect());
        let is_parallel = self.is_parallel && self.format.is_parallel;
        let more = |rule: Rule| Rule::Repeat(Box::new(rule), 0, None);
        if self.format.is_list {
            let next = Rule::Seq(vec![Rule::text(", "), call()]);
            let list = [Some(blank()), Some(Rule::text("[")), Some(call()), is_parallel.then(|| more(next))];
            return Rule::Seq(list.into_iter().flatten().chain([Rule::text("]")]).collect());
        }
        let one = || {
            let closing = self.format.closing;
            let end = (!closing.is_empty()).then(|| [blank(), self.marker(closing)]);
            Rule::Seq([blank(), call()].into_iter().chain(end.into_iter().flatten()).collect())
        };
        let next =
            is_parallel.then(|| more(Rule::Seq(vec![blank(), self.marker(self.format.opening), one()])));
        Rule::Seq([one()].into_iter().chain(next).collect())
    }

    /// Any text that does not begin as a call without an opening does.
    pub fn free_text() -> Rule {
        Rule::Regex("[ \\n]*[^{\\s](.|\\n)*".to_owned()).optional()
    }

    /// An answer behind an opening: text for the user and perhaps calls after it, or calls alone.
    pub fn addressed(&self, user: &str) -> Rule {
        // Each text is one expression with what ends it: an opening, or the end of the answer.
        let before_calls = Rule::Regex("([^>]|>[^>]|>>[^>])*>>>".to_owned());
        let alone = Rule::Regex("([^>]|>[^>]|>>[^>])*>{0,2}".to_owned());
        let text = Rule::Any(vec![alone, Rule::Seq(vec![before_calls, self.after_the_opening()])]);
        Rule::Any(vec![self.whole_answer(), Rule::Seq(vec![Rule::text(format!("{user}\n")), text])])
    }

    fn call(&self, name: &str, schema: &Value) -> Rule {
        match self.format.call {
            Call::Object(key) => {
                let begin = format!("{{\"name\": {}, \"{key}\": ", Value::from(name));
                Rule::Seq(vec![Rule::text(begin), Rule::Json(schema.clone()), Rule::text("}")])
            }
            Call::Named(between) => {
                Rule::Seq(vec![Rule::text(name), self.marker(between), Rule::Json(schema.clone())])
            }
            Call::Xml => xml(name, schema),
            Call::Gemma => {
                let arguments = gemma::object(schema, &self.marker(gemma::QUOTE));
                Rule::Seq(vec![Rule::text(format!("call:{name}")), arguments])
            }
        }
    }

    fn marker(&self, text: &str) -> Rule {
        marker(self.tokenizer, text)
    }
}

/// A marker, which may be a control token.
pub(super) fn marker(tokenizer: &Tokenizer, text: &str) -> Rule {
    tokenizer.control_token(text).map_or_else(|| Rule::text(text), Rule::Token)
}

/// White space as models put it round calls.
fn blank() -> Rule {
    Rule::Regex("[ \\n]{1,2}".to_owned()).optional()
}

/// A text without the beginning of a closing tag, and the tag of a parameter. One expression: its parts would be ambiguous.
const XML_TEXT: &str = "([^<]|<[^/]|</[^p])*\\n</parameter>\\n";

/// A call in tags. Of a schema the properties, their types and enumerations are enforced, and what is required.
fn xml(name: &str, schema: &Value) -> Rule {
    let mut parts = vec![Rule::text(format!("<function={name}>\n"))];
    let end = || Rule::text("\n</parameter>\n");
    let required = |name: &str| {
        schema["required"].as_array().is_some_and(|required| required.iter().any(|found| found == name))
    };
    match schema["properties"].as_object() {
        Some(properties) => {
            for (name, property) in properties {
                let begin = Rule::text(format!("<parameter={name}>\n"));
                let value = if !is_text(property) {
                    vec![Rule::Json(property.clone()), end()]
                } else if let Some(values) = property["enum"].as_array() {
                    let values = values.iter().filter_map(Value::as_str).map(Rule::text);
                    vec![Rule::Any(values.collect()), end()]
                } else {
                    vec![Rule::Regex(XML_TEXT.to_owned())]
                };
                let parameter = Rule::Seq([begin].into_iter().chain(value).collect());
                parts.push(if required(name) { parameter } else { parameter.optional() });
            }
        }
        None => {
            let begin = Rule::Regex("<parameter=[A-Za-z0-9_.-]{1,64}>\\n".to_owned());
            let any = Rule::Seq(vec![begin, Rule::Regex(XML_TEXT.to_owned())]);
            parts.push(Rule::Repeat(Box::new(any), 0, None));
        }
    }
    parts.push(Rule::text("</function>"));
    Rule::Seq(parts)
}
