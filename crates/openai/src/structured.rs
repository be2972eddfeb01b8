//! What an answer must be: `response_format` and the fields of vLLM and llama.cpp, as a grammar.

use rustorch_llama::{GrammarSpec, Grammars, SharedGrammar};
use serde_json::Value;

use crate::error::ApiError;
use crate::field_list::{Field, FieldList, Refused, body};
use crate::fields::{Object, TEXT, field, flag, mistyped, refused};

body! {
    /// The fields that demand a form of the answer. At most one may be given.
    pub struct Structured {
        response_format: Option<Demand> = response_format, "`text`, `json_object` or `json_schema`; enforced whether or not `strict`";
        structured_outputs: Option<Demand> = structured_outputs, "one of `json`, `json_object`, `regex`, `choice` and `grammar`";
        guided_json: Option<Demand> = json, "JSON that this schema accepts";
        json_schema: Option<Demand> = json, "JSON that this schema accepts";
        guided_regex: Option<Demand> = regex, "a match of this regular expression";
        guided_choice: Option<Demand> = choice, "one of these strings";
        guided_grammar: Option<Demand> = grammar, "a sentence of this grammar in GBNF or Lark's syntax";
        grammar: Option<Demand> = grammar, "a sentence of this grammar in GBNF or Lark's syntax";
    }
}

body! {
    /// vLLM's object of constraints.
    pub struct StructuredOutputs {
        json: Option<Demand> = json, "JSON that this schema accepts";
        json_object: Option<Demand> = json_object, "true: a JSON object";
        regex: Option<Demand> = regex, "a match of this regular expression";
        choice: Option<Demand> = choice, "one of these strings";
        grammar: Option<Demand> = grammar, "a sentence of this grammar in GBNF or Lark's syntax";
    }
}

const BACKEND: &str = "there is one; the answer is the same";

/// The fields of [`StructuredOutputs`].
pub(crate) const STRUCTURED_OUTPUTS: FieldList = FieldList {
    served: &[StructuredOutputs::FIELDS],
    refused: &[&[
        Refused::new("structural_tag", "[]", ""),
        Refused::new("whitespace_pattern", "[]", "white space is bounded"),
        Refused::new("disable_any_whitespace", "[]", "white space is bounded"),
        Refused::new("disable_additional_properties", "[]", "say it in the schema"),
    ]],
    accepted: &[&[
        Field { name: "disable_fallback", aliases: &[], doc: BACKEND },
        Field { name: "_backend", aliases: &[], doc: BACKEND },
    ]],
    nested: &[],
};

/// Further fields that say how a form is enforced.
pub(crate) const DETAILS: &[Field] = &[Field { name: "guided_decoding_backend", aliases: &[], doc: BACKEND }];

/// Further fields that would change the form.
pub(crate) const REFUSED: &[Refused] =
    &[Refused::new("guided_whitespace_pattern", "[]", "white space is bounded")];

/// A form of the answer, and the field that demands it.
#[derive(Debug, Clone, PartialEq)]
pub struct Demand {
    /// With the path of nested fields.
    pub field: String,
    pub spec: GrammarSpec,
}

/// A demand whose grammar is compiled.
#[derive(Debug)]
pub(crate) struct Form {
    pub field: String,
    pub grammar: SharedGrammar,
}

impl Demand {
    /// Compiles the grammar, on the caller's thread.
    ///
    /// # Errors
    /// 400 that names the field, for a grammar that is wrong, would not be enforced or is beyond the limits.
    pub(crate) fn compile(self, grammars: &Grammars) -> Result<Form, ApiError> {
        let Self { field, spec } = self;
        match grammars.compile(&spec) {
            Ok(grammar) => Ok(Form { field, grammar }),
            Err(error) => Err(refused(&field, error)),
        }
    }
}

impl Structured {
    /// The form that is demanded.
    ///
    /// # Errors
    /// 400 for a second one.
    pub fn demand(self) -> Result<Option<Demand>, ApiError> {
        let json = [self.response_format, self.structured_outputs, self.guided_json, self.json_schema];
        let others = [self.guided_regex, self.guided_choice, self.guided_grammar, self.grammar];
        only(json.into_iter().chain(others))
    }
}

fn only(demands: impl Iterator<Item = Option<Demand>>) -> Result<Option<Demand>, ApiError> {
    let mut demands = demands.flatten();
    let first = demands.next();
    match (&first, demands.next()) {
        (Some(first), Some(second)) => {
            let rest = format_args!("expected none beside {}, found both", first.field);
            Err(refused(&second.field, rest))
        }
        _ => Ok(first),
    }
}

/// The value of a field, unless it is null.
fn given<'b>(body: &'b Object, name: &str) -> Option<&'b Value> {
    body.get(name).filter(|value| !value.is_null())
}

fn demand(name: &str, spec: GrammarSpec) -> Option<Demand> {
    Some(Demand { field: name.to_owned(), spec })
}

fn response_format(body: &Object, name: &str) -> Result<Option<Demand>, ApiError> {
    let Some(format) = given(body, name) else { return Ok(None) };
    match format["type"].as_str() {
        Some("text") => Ok(None),
        // llama.cpp takes a schema beside this type.
        Some("json_object") => match &format["schema"] {
            Value::Null => Ok(demand(name, GrammarSpec::JsonObject)),
            schema => schema_demand(&format!("{name}.schema"), schema),
        },
        Some("json_schema") => match &format["json_schema"] {
            // llama.cpp takes the schema here too.
            Value::Null if !format["schema"].is_null() => {
                schema_demand(&format!("{name}.schema"), &format["schema"])
            }
            outer => schema_demand(&format!("{name}.json_schema.schema"), &outer["schema"]),
        },
        _ => Err(mistyped(name, "the type text, json_object or json_schema", format)),
    }
}

fn structured_outputs(body: &Object, name: &str) -> Result<Option<Demand>, ApiError> {
    let Some(found) = given(body, name) else { return Ok(None) };
    let Value::Object(fields) = found else { return Err(mistyped(name, "an object", found)) };
    let read = || {
        let StructuredOutputs { json, json_object, regex, choice, grammar } =
            StructuredOutputs::read(fields)?;
        only([json, json_object, regex, choice, grammar].into_iter())
    };
    let prefix = format!("{name}.");
    let inner = read().map_err(|error| error.within(&prefix))?;
    Ok(inner.map(|demand| Demand { field: format!("{prefix}{}", demand.field), ..demand }))
}

fn json(body: &Object, name: &str) -> Result<Option<Demand>, ApiError> {
    match given(body, name) {
        None => Ok(None),
        // vLLM takes a schema as text too.
        Some(Value::String(text)) => match serde_json::from_str(text) {
            Ok(schema) => schema_demand(name, &schema),
            Err(_) => Err(mistyped(name, "a JSON schema", &body[name])),
        },
        Some(schema) => schema_demand(name, schema),
    }
}

fn schema_demand(name: &str, schema: &Value) -> Result<Option<Demand>, ApiError> {
    match schema {
        Value::Object(_) | Value::Bool(_) => Ok(demand(name, GrammarSpec::JsonSchema(schema.clone()))),
        found => Err(mistyped(name, "a JSON schema", found)),
    }
}

fn json_object(body: &Object, name: &str) -> Result<Option<Demand>, ApiError> {
    Ok(if flag(body, name)? { demand(name, GrammarSpec::JsonObject) } else { None })
}

fn regex(body: &Object, name: &str) -> Result<Option<Demand>, ApiError> {
    Ok(text(body, name)?.and_then(|regex| demand(name, GrammarSpec::Regex(regex))))
}

fn grammar(body: &Object, name: &str) -> Result<Option<Demand>, ApiError> {
    Ok(text(body, name)?.and_then(|text| demand(name, GrammarSpec::grammar(&text))))
}

/// A string; llama.cpp's clients send an empty one for none.
fn text(body: &Object, name: &str) -> Result<Option<String>, ApiError> {
    let text: Option<String> = field(body, name, TEXT)?;
    Ok(text.filter(|text| !text.is_empty()))
}

fn choice(body: &Object, name: &str) -> Result<Option<Demand>, ApiError> {
    let choices = field(body, name, "a list of strings")?;
    Ok(choices.and_then(|choices| demand(name, GrammarSpec::Choice(choices))))
}
