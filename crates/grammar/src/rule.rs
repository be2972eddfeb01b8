//! Grammars put together by programs: text with JSON in it, such as a tool call.

use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use serde_json::Value;

use crate::error::Result;
use crate::{lark, schema};

/// A grammar as a tree.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Rule {
    /// This text.
    Text(String),
    /// A match of a regular expression.
    Regex(String),
    /// JSON that a schema accepts.
    Json(Value),
    /// A token that is not text, such as a control token.
    Token(u32),
    /// All of these, in this order.
    Seq(Vec<Rule>),
    /// One of these.
    Any(Vec<Rule>),
    /// This any number of times within the bounds; without an upper bound if it is `None`.
    Repeat(Box<Rule>, usize, Option<usize>),
}

impl Rule {
    /// Text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// This or nothing.
    #[must_use]
    pub fn optional(self) -> Self {
        Self::Repeat(Box::new(self), 0, Some(1))
    }

    pub(crate) fn grammar(&self) -> Result<TopLevelGrammar> {
        let mut schemas = Vec::new();
        let start = self.expression(&mut schemas)?;
        let mut grammars = vec![GrammarWithLexer {
            name: Some("start".to_owned()),
            ..GrammarWithLexer::from_lark(format!("start: {start}\n"))
        }];
        for (index, schema) in schemas.into_iter().enumerate() {
            let name = Some(schema_name(index));
            grammars.push(GrammarWithLexer { name, ..GrammarWithLexer::from_json_schema(schema) });
        }
        Ok(TopLevelGrammar { grammars, max_tokens: None })
    }

    fn expression(&self, schemas: &mut Vec<Value>) -> Result<String> {
        let mut all = |rules: &[Self], separator: &str| -> Result<String> {
            let parts = rules.iter().map(|rule| rule.expression(schemas)).collect::<Result<Vec<_>>>()?;
            Ok(format!("({})", parts.join(separator)))
        };
        Ok(match self {
            Self::Text(text) if text.is_empty() => "\"\"".to_owned(),
            Self::Text(text) => lark::regex(&lark::escape(text)),
            Self::Regex(regex) => lark::regex(regex),
            Self::Json(value) => {
                schemas.push(schema::normalise(value)?);
                format!("@{}", schema_name(schemas.len() - 1))
            }
            Self::Token(id) => format!("<[{id}]>"),
            Self::Seq(rules) => all(rules, " ")?,
            Self::Any(rules) => all(rules, " | ")?,
            Self::Repeat(rule, least, most) => {
                format!("({}){}", rule.expression(schemas)?, lark::repeat(*least, *most))
            }
        })
    }
}

fn schema_name(index: usize) -> String {
    format!("json{index}")
}
