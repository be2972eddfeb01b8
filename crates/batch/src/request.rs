//! An input line becomes a request to the engine; its answer becomes an output line.

use std::hash::Hasher;

use openai::{
    Answer, ApiError, Context, Endpoint, Identity, ModelNames, Object, Prepared, ResponseBody, UnknownFields,
};
use rustorch_llama::{Grammars, Pooling, Tokenizer};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use siphasher::sip::SipHasher13;

use crate::index::{IdHash, LineHash};

/// The model that answers, as far as reading lines depends on it.
#[derive(Debug, Clone, Copy)]
pub struct Model<'a> {
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Compiles the grammars that lines ask for.
    pub grammars: &'a Grammars,
    /// The model's names: answers have the first, requests may have any. There is at least one.
    pub names: &'a [String],
    /// Length of its embeddings.
    pub hidden_size: usize,
    /// How embeddings are pooled that do not say it.
    pub pooling: Pooling,
    /// The `system_fingerprint` of answers, if they have one.
    pub fingerprint: Option<&'a str>,
    /// The run's seed. A request without a seed derives one from this and its `custom_id`, so it does not depend on the rest
    /// of the file.
    pub seed: u64,
    /// What is done with fields that nobody knows.
    pub unknown_fields: UnknownFields,
    /// What lines are given that do not say it.
    pub defaults: &'a Defaults,
}

/// What completions and chats are given that do not say it.
#[derive(Debug, Clone, Default)]
pub struct Defaults {
    /// Fields of their bodies.
    pub fields: Object,
    /// Whether a plain line's prompt is the message of a user.
    pub is_chat: bool,
    /// The system message of chats that begin with none.
    pub system: Option<String>,
}

/// A line that cannot be read as a request.
pub(crate) fn invalid_json(message: impl Into<String>) -> ApiError {
    refusal(400, "invalid_json", message)
}

/// A line with the id of an earlier one.
pub(crate) fn duplicate(custom_id: &str) -> ApiError {
    let message = format!("custom_id: expected one that no line before has, found {custom_id:?}");
    ApiError { param: Some("custom_id".to_owned()), ..refusal(400, "duplicate_custom_id", message) }
}

/// A line whose answer has no form in an output of texts.
pub(crate) fn no_text() -> ApiError {
    let message = "expected a completion or a chat with one choice, as the output is one of texts, found a request for something else \
                   (hint: an output named .jsonl has answers of all kinds)";
    refusal(400, "unsupported_output", message)
}

fn refusal(status: u16, code: &'static str, message: impl Into<String>) -> ApiError {
    ApiError { status, code: Some(code), ..ApiError::malformed(message) }
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
pub(crate) fn prepare(text: &[u8], custom_id: &str, model: &Model<'_>) -> Result<Prepared, ApiError> {
    let mut object = openai::parse_object(text).map_err(|error| invalid_json(error.message))?;
    if let Some(found) = object.get("custom_id").filter(|id| !(id.is_null() || id.is_string())) {
        return Err(mistyped(400, None, "custom_id", "a string", found));
    }
    // A plain line has it among the body's fields.
    object.remove("custom_id");
    let Line { mut endpoint, mut body, form } = request(object)?;
    model.defaults.add_to(&mut endpoint, &mut body, form)?;
    let context = Context {
        tokenizer: model.tokenizer,
        grammars: model.grammars,
        model: &model.names[0],
        names: ModelNames::OneOf(model.names),
        hidden_size: model.hidden_size,
        pooling: model.pooling,
        fingerprint: model.fingerprint,
        seed: row_seed(model.seed, custom_id),
        unknown_fields: match form {
            Form::Plain => UnknownFields::Refuse,
            Form::Envelope => model.unknown_fields,
        },
    };
    let prepared = openai::prepare(endpoint, &body, &context)?;
    if prepared.stream.is_some() {
        return Err(ApiError::invalid("stream", "stream: expected none (not supported), found true"));
    }
    Ok(prepared)
}

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// In OpenAI's envelope: written for other servers too, which may know more fields.
    Envelope,
    /// A body by itself, written for this program: a field that nobody knows is a mistake.
    Plain,
}

/// A line that was read.
struct Line {
    endpoint: Endpoint,
    body: Object,
    form: Form,
}

/// The endpoint and body of a line: in OpenAI's envelope, or a plain body whose fields tell the endpoint.
fn request(mut object: Object) -> Result<Line, ApiError> {
    if !(object.contains_key("url") || object.contains_key("body")) {
        let endpoint = match () {
            () if object.contains_key("messages") => Endpoint::ChatCompletions,
            () if object.contains_key("input") => Endpoint::Embeddings,
            () => Endpoint::Completions,
        };
        return Ok(Line { endpoint, body: object, form: Form::Plain });
    }
    let value = |name| object.get(name).unwrap_or(&Value::Null);
    let method = value("method");
    if !(method.is_null() || method == "POST") {
        return Err(mistyped(405, Some("invalid_method"), "method", "\"POST\"", method));
    }
    let endpoint = value("url").as_str().and_then(Endpoint::from_path).ok_or_else(|| {
        let [others @ .., last] = Endpoint::ALL.map(Endpoint::path);
        let expected = format!("{} or {last}", others.join(", "));
        mistyped(404, Some("invalid_url"), "url", &expected, value("url"))
    })?;
    match object.remove("body").unwrap_or_default() {
        Value::Object(body) => Ok(Line { endpoint, body, form: Form::Envelope }),
        found => Err(mistyped(400, None, "body", "an object", &found)),
    }
}

impl Defaults {
    /// Adds what a line does not say.
    fn add_to(&self, endpoint: &mut Endpoint, body: &mut Object, form: Form) -> Result<(), ApiError> {
        if self.is_chat && form == Form::Plain && *endpoint == Endpoint::Completions {
            let prompt = body.remove("prompt").unwrap_or_default();
            if !prompt.is_string() {
                return Err(mistyped(400, None, "prompt", "a text, to be a user's message", &prompt));
            }
            body.insert("messages".to_owned(), json!([{"role": "user", "content": prompt}]));
            *endpoint = Endpoint::ChatCompletions;
        }
        if !matches!(endpoint, Endpoint::Completions | Endpoint::ChatCompletions) {
            return Ok(());
        }
        if let (Some(system), Some(Value::Array(messages))) = (&self.system, body.get_mut("messages")) {
            let begins = messages
                .first()
                .is_some_and(|first| ["system", "developer"].iter().any(|role| first["role"] == **role));
            if !begins {
                messages.insert(0, json!({"role": "system", "content": system}));
            }
        }
        for (name, value) in &self.fields {
            if !says(body, name) {
                body.insert(name.clone(), value.clone());
            }
        }
        // A plain line is written for this program, which has no reason to stop at the 16 tokens of OpenAI's completions.
        if form == Form::Plain && *endpoint == Endpoint::Completions && !says(body, MAX_TOKENS) {
            body.insert(MAX_TOKENS.to_owned(), json!(-1));
        }
        Ok(())
    }
}

const MAX_TOKENS: &str = "max_tokens";

/// Whether a body has this field, by any of its names.
fn says(body: &Object, name: &str) -> bool {
    let others: &[&str] = if name == MAX_TOKENS { &["max_completion_tokens", "n_predict"] } else { &[] };
    body.contains_key(name) || others.iter().any(|name| body.contains_key(*name))
}

fn mistyped(status: u16, code: Option<&'static str>, name: &str, expected: &str, found: &Value) -> ApiError {
    let found = if found.is_null() { "none".to_owned() } else { openai::shown(found) };
    let message = format!("{name}: expected {expected}, found {found}");
    ApiError { status, code, ..ApiError::invalid(name, message) }
}

/// The seed of a line with this id that has none, in a run with this seed: SipHash-1-3 of the id, keyed by the run's seed. It is the
/// same in every version and on every machine.
pub fn row_seed(seed: u64, custom_id: &str) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(seed, 0);
    hasher.write(custom_id.as_bytes());
    hasher.finish()
}

/// One line of output, in OpenAI's batch format.
#[derive(Debug, Serialize)]
pub(crate) struct OutputLine {
    id: String,
    custom_id: String,
    /// Of the input line. This field is not OpenAI's.
    request_hash: String,
    response: Response,
    /// OpenAI's batches use it for requests that were not run; here each has a response.
    error: Option<()>,
}

#[derive(Debug, Serialize)]
struct Response {
    status_code: u16,
    request_id: String,
    body: Body,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Body {
    Answer(ResponseBody),
    Error(ApiError),
}

/// The input line that an output line answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// Counted from 1.
    pub number: u64,
    pub custom_id: String,
    pub hash: LineHash,
}

/// What a line of output says beside the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// When it was made, and the number of its line.
    Served {
        /// Seconds since 1970.
        created: u64,
    },
    /// Nothing that does not follow from its line, the model and the options.
    Reproducible,
}

impl OutputLine {
    /// The line of a request that was served.
    pub fn success(source: Source, answer: Answer, tokenizer: &Tokenizer, content: Content) -> Self {
        let suffix = content.suffix(&source);
        let (answer, created) = match content {
            Content::Served { created } => (answer, created),
            Content::Reproducible => (answer.reproducible(), 0),
        };
        let body = answer.body(&Identity { suffix: &suffix, created }, tokenizer);
        Self::new(source, &suffix, 200, Body::Answer(body))
    }

    /// The line of a request that was not served: the body that the server would answer, with the line's number in its
    /// message unless it is to be reproducible.
    pub fn error(source: Source, error: ApiError, content: Content) -> Self {
        let suffix = content.suffix(&source);
        let message = match content {
            Content::Served { .. } => format!("line {}: {}", source.number, error.message),
            Content::Reproducible => error.message,
        };
        Self::new(source, &suffix, error.status, Body::Error(ApiError { message, ..error }))
    }

    /// What a request was told that was not served.
    pub fn error_message(&self) -> Option<&str> {
        match &self.response.body {
            Body::Answer(_) => None,
            Body::Error(error) => Some(&error.message),
        }
    }

    fn new(source: Source, suffix: &str, status_code: u16, body: Body) -> Self {
        let Source { custom_id, hash, .. } = source;
        let response = Response { status_code, request_id: format!("req-{suffix}"), body };
        Self {
            id: format!("{RESULT_ID}{suffix}"),
            custom_id,
            request_hash: hash.to_string(),
            response,
            error: None,
        }
    }
}

impl Content {
    /// The end of the ids of a result.
    fn suffix(self, source: &Source) -> String {
        match self {
            Self::Served { .. } => source.number.to_string(),
            Self::Reproducible => IdHash::of(&source.custom_id).to_string(),
        }
    }
}

/// Prefix of every result's id; the number of its input line follows, or the hash of its `custom_id`.
const RESULT_ID: &str = "batch_req_";

/// What a journal needs to know of a line of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResultLine {
    /// `None` if it is reproducible: then its place says which line it answers.
    pub number: Option<u64>,
    pub custom_id: String,
    /// `None` in outputs of versions that did not write it.
    pub hash: Option<LineHash>,
    pub is_error: bool,
}

impl ResultLine {
    /// `None` if the text is not a whole result. Earlier versions wrote `error` and no `response` for a request that was not
    /// served.
    pub fn read(text: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Fields {
            id: String,
            custom_id: String,
            request_hash: Option<String>,
            response: Option<Status>,
            error: Option<IgnoredAny>,
        }
        #[derive(Deserialize)]
        struct Status {
            status_code: u16,
        }
        let text = std::str::from_utf8(text).ok()?;
        let Fields { id, custom_id, request_hash, response, error } = serde_json::from_str(text).ok()?;
        let suffix = id.strip_prefix(RESULT_ID)?;
        let number = match suffix.len() {
            IdHash::DIGITS if suffix == IdHash::of(&custom_id).to_string() => None,
            _ => Some(suffix.parse().ok()?),
        };
        let hash = match request_hash {
            Some(hash) => Some(LineHash::parse(&hash)?),
            None => None,
        };
        let is_error = match (response, error) {
            (Some(response), None) => response.status_code >= 400,
            (None, Some(_)) => true,
            _ => return None,
        };
        Some(Self { number, custom_id, hash, is_error })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values are CPython's, whose hash of bytes is SipHash-1-3: `PYTHONHASHSEED=0 python3.11 -c
    /// 'print(hash(b"a") % 2**64)'`.
    #[test]
    fn seeds_are_the_same_in_every_version() {
        assert_eq!(row_seed(0, "a"), 4_644_417_185_603_328_019);
        assert_eq!(row_seed(0, "request 5"), 12_830_733_451_262_006_835);
        assert_ne!(row_seed(1, "a"), row_seed(0, "a"));
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
        let hash = LineHash::of(b"{}");
        let source = Source { number: 7, custom_id: "a".to_owned(), hash };
        let line = OutputLine::error(source, invalid_json("b"), Content::Served { created: 5 });
        let text = serde_json::to_vec(&line).unwrap();
        let expect =
            ResultLine { number: Some(7), custom_id: "a".to_owned(), hash: Some(hash), is_error: true };
        assert_eq!(ResultLine::read(&text), Some(expect));
        for end in 0..text.len() {
            assert_eq!(ResultLine::read(&text[..end]), None);
        }
        let check = |rest: &str, expect: Option<bool>| {
            let text = format!(r#"{{"id": "batch_req_1", "custom_id": "a", {rest}}}"#);
            let found = ResultLine::read(text.as_bytes());
            assert_eq!(found.map(|line| (line.is_error, line.hash)), expect.map(|is_error| (is_error, None)));
        };
        check(r#""response": {"status_code": 200}, "error": null"#, Some(false));
        check(r#""response": {"status_code": 400}, "error": null"#, Some(true));
        check(r#""response": null, "error": {"code": "invalid_json"}"#, Some(true));
        check(r#""response": null, "error": null"#, None);
        check(r#""response": {"status_code": 200}, "error": {}"#, None);
        check(r#""request_hash": "5", "response": {"status_code": 200}"#, None);
        let other =
            br#"{"id": "other_1", "custom_id": "a", "response": {"status_code": 200}, "error": null}"#;
        assert_eq!(ResultLine::read(other), None);
    }
}
