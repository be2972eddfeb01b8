//! An input line becomes a request to the engine; its answer becomes an output line.

use std::hash::Hasher;

use openai::{
    Answer, ApiError, Context, Endpoint, Identity, ModelNames, Object, Prepared, ResponseBody, UnknownFields,
};
use rustorch_llama::{Grammars, Tokenizer};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use siphasher::sip::SipHasher13;

/// The model that answers, as far as reading lines depends on it.
#[derive(Debug, Clone, Copy)]
pub struct Model<'a> {
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Compiles the grammars that lines ask for.
    pub grammars: &'a Grammars,
    /// The model's name in answers.
    pub name: &'a str,
    /// Length of its embeddings.
    pub hidden_size: usize,
    /// The run's seed. A request without a seed derives one from this and its `custom_id`, so it does not depend on the rest
    /// of the file.
    pub seed: u64,
    /// What is done with fields that nobody knows.
    pub unknown_fields: UnknownFields,
}

/// Why a line was not served. Becomes an output line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LineError {
    pub code: &'static str,
    pub message: String,
}

impl LineError {
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub fn duplicate(custom_id: &str) -> Self {
        let message = format!("custom_id: expected one that no line before has, found {custom_id:?}");
        Self::new("duplicate_custom_id", message)
    }
}

impl From<ApiError> for LineError {
    fn from(error: ApiError) -> Self {
        let code = if error.is_invalid_request() { "invalid_request" } else { "server_error" };
        Self::new(code, error.message)
    }
}

/// The `custom_id` of a line, if the line is a JSON object with a string of that name. The other fields may hold anything:
/// scan, run and recovery must find the same id in a line, whether or not it is a valid request.
pub(crate) fn custom_id(text: &[u8]) -> Option<String> {
    struct Id(Option<Value>);

    impl<'de> Deserialize<'de> for Id {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_map(IdVisitor)
        }
    }

    struct IdVisitor;

    impl<'de> Visitor<'de> for IdVisitor {
        type Value = Id;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Id, A::Error> {
            let mut id = None;
            while let Some(key) = map.next_key::<String>()? {
                if key == "custom_id" {
                    id = Some(map.next_value()?);
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            Ok(Id(id))
        }
    }

    // As a `str`: the parser does not check the UTF-8 of values that it skips.
    let text = std::str::from_utf8(text).ok()?;
    match serde_json::from_str(text).ok()? {
        Id(Some(Value::String(id))) => Some(id),
        Id(_) => None,
    }
}

/// The id of a line without a usable `custom_id`.
pub(crate) fn line_name(number: u64) -> String {
    format!("line-{number}")
}

/// Parses a line, tokenises its prompts and resolves its parameters.
pub(crate) fn prepare(text: &[u8], custom_id: &str, model: &Model<'_>) -> Result<Prepared, LineError> {
    let mut object =
        openai::parse_object(text).map_err(|error| LineError::new("invalid_json", error.message))?;
    if let Some(found) = object.get("custom_id").filter(|id| !(id.is_null() || id.is_string())) {
        return Err(mistyped("invalid_request", "custom_id", "a string", found));
    }
    // A plain line has it among the body's fields.
    object.remove("custom_id");
    let (endpoint, body) = request(&object)?;
    let context = Context {
        tokenizer: model.tokenizer,
        grammars: model.grammars,
        model: model.name,
        names: ModelNames::Any,
        hidden_size: model.hidden_size,
        seed: derive_seed(model.seed, custom_id),
        unknown_fields: model.unknown_fields,
    };
    let prepared = openai::prepare(endpoint, body, &context)?;
    if prepared.stream.is_some() {
        let message = "stream: expected none (not supported), found true";
        return Err(LineError::new("invalid_request", message));
    }
    Ok(prepared)
}

/// The endpoint and body of a line: in OpenAI's envelope, or a plain body whose fields tell the endpoint.
fn request(object: &Object) -> Result<(Endpoint, &Object), LineError> {
    if !(object.contains_key("url") || object.contains_key("body")) {
        let endpoint = match () {
            () if object.contains_key("messages") => Endpoint::ChatCompletions,
            () if object.contains_key("input") => Endpoint::Embeddings,
            () => Endpoint::Completions,
        };
        return Ok((endpoint, object));
    }
    let value = |name| object.get(name).unwrap_or(&Value::Null);
    let method = value("method");
    if !(method.is_null() || method == "POST") {
        return Err(mistyped("invalid_method", "method", "\"POST\"", method));
    }
    let endpoint = value("url").as_str().and_then(Endpoint::from_path).ok_or_else(|| {
        let [others @ .., last] = Endpoint::ALL.map(Endpoint::path);
        let expected = format!("{} or {last}", others.join(", "));
        mistyped("invalid_url", "url", &expected, value("url"))
    })?;
    match value("body") {
        Value::Object(body) => Ok((endpoint, body)),
        found => Err(mistyped("invalid_request", "body", "an object", found)),
    }
}

fn mistyped(code: &'static str, name: &str, expected: &str, found: &Value) -> LineError {
    let found = if found.is_null() { "none".to_owned() } else { openai::shown(found) };
    LineError::new(code, format!("{name}: expected {expected}, found {found}"))
}

/// SipHash-1-3 of the id, keyed by the run's seed: the same in every version and on every machine.
fn derive_seed(seed: u64, custom_id: &str) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(seed, 0);
    hasher.write(custom_id.as_bytes());
    hasher.finish()
}

/// One line of output, in OpenAI's batch format.
#[derive(Debug, Serialize)]
pub(crate) struct OutputLine {
    id: String,
    custom_id: String,
    response: Option<Response>,
    error: Option<ErrorBody>,
}

#[derive(Debug, Serialize)]
struct Response {
    status_code: u16,
    request_id: String,
    body: ResponseBody,
}

#[derive(Debug, Serialize)]
struct ErrorBody {
    code: &'static str,
    message: String,
}

impl OutputLine {
    /// The line of a request that was served.
    pub fn success(
        number: u64,
        custom_id: String,
        answer: Answer,
        tokenizer: &Tokenizer,
        created: u64,
    ) -> Self {
        let body = answer.body(&Identity { suffix: &number.to_string(), created }, tokenizer);
        let response = Response { status_code: 200, request_id: format!("req-{number}"), body };
        Self { id: result_id(number), custom_id, response: Some(response), error: None }
    }

    /// The line of a request that was not served.
    pub fn error(number: u64, custom_id: String, error: LineError) -> Self {
        let LineError { code, message } = error;
        let error = ErrorBody { code, message: format!("line {number}: {message}") };
        Self { id: result_id(number), custom_id, response: None, error: Some(error) }
    }
}

/// Prefix of every result's id; the number of its input line follows.
const RESULT_ID: &str = "batch_req_";

fn result_id(number: u64) -> String {
    format!("{RESULT_ID}{number}")
}

/// What a journal needs to know of a line of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResultLine {
    pub number: u64,
    pub custom_id: String,
    pub is_error: bool,
}

impl ResultLine {
    /// `None` if the text is not a whole result.
    pub fn read(text: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Fields {
            id: String,
            custom_id: String,
            response: Option<IgnoredAny>,
            error: Option<IgnoredAny>,
        }
        let text = std::str::from_utf8(text).ok()?;
        let Fields { id, custom_id, response, error } = serde_json::from_str(text).ok()?;
        let number = id.strip_prefix(RESULT_ID)?.parse().ok()?;
        let is_error = error.is_some();
        (is_error != response.is_some()).then_some(Self { number, custom_id, is_error })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values are CPython's, whose hash of bytes is SipHash-1-3: `PYTHONHASHSEED=0 python3.11 -c
    /// 'print(hash(b"a") % 2**64)'`.
    #[test]
    fn seeds_are_the_same_in_every_version() {
        assert_eq!(derive_seed(0, "a"), 4_644_417_185_603_328_019);
        assert_eq!(derive_seed(0, "request 5"), 12_830_733_451_262_006_835);
        assert_ne!(derive_seed(1, "a"), derive_seed(0, "a"));
    }

    #[test]
    fn an_id_is_usable_if_it_is_a_string_of_an_object() {
        let check = |text: &str, expect: Option<&str>| {
            assert_eq!(custom_id(text.as_bytes()).as_deref(), expect, "{text}");
        };
        check(r#"{"custom_id": "a"}"#, Some("a"));
        check(r#"{"body": {"custom_id": "b"}, "custom_id": "a", "n": [1e999]}"#, Some("a"));
        check(r#"{"custom_id": "b", "custom_id": "a"}"#, Some("a"));
        check(r#"{"custom_id": "\u00e9"}"#, Some("é"));
        check(r#"{"custom_id": ""}"#, Some(""));
        for text in [
            "",
            "{}",
            "[]",
            r#""custom_id""#,
            r#"{"custom_id": 5}"#,
            r#"{"custom_id": null}"#,
            r#"{"custom_id": "a""#,
            r#"{"custom_id": "a"} {}"#,
            r#"{"custom_id": "a\ud800"}"#,
        ] {
            check(text, None);
        }
        assert_eq!(custom_id(b"{\"custom_id\": \"a\", \"b\": \"\xff\"}"), None);
    }

    #[test]
    fn a_result_is_read_back() {
        let line = OutputLine::error(7, "a".to_owned(), LineError::new("invalid_json", "b"));
        let text = serde_json::to_vec(&line).unwrap();
        let expect = ResultLine { number: 7, custom_id: "a".to_owned(), is_error: true };
        assert_eq!(ResultLine::read(&text), Some(expect));
        for end in 0..text.len() {
            assert_eq!(ResultLine::read(&text[..end]), None);
        }
        let check = |text: &str| ResultLine::read(text.as_bytes()).map(|line| line.is_error);
        assert_eq!(
            check(r#"{"id": "batch_req_1", "custom_id": "a", "response": {}, "error": null}"#),
            Some(false)
        );
        assert_eq!(
            check(r#"{"id": "batch_req_1", "custom_id": "a", "response": null, "error": null}"#),
            None
        );
        assert_eq!(check(r#"{"id": "other_1", "custom_id": "a", "response": {}, "error": null}"#), None);
    }
}
