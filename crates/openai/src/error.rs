//! Errors in the API's form.

use std::borrow::Cow;

use rustorch_llama::EngineError;
use serde::Serialize;

/// A refusal or a failure. Serialises to OpenAI's own shape: `{"error": {"message", "type", "param", "code"}}`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The HTTP status.
    pub status: u16,
    /// OpenAI's `type`, such as `invalid_request_error`.
    pub kind: &'static str,
    /// A word that programs can test.
    pub code: Option<&'static str>,
    /// The field at fault.
    pub param: Option<String>,
    /// The field, what was expected and what was found.
    pub message: String,
}

impl ApiError {
    /// The `type` of errors that another request can avoid.
    pub const INVALID_REQUEST: &'static str = "invalid_request_error";
    /// The `type` of all other errors.
    pub const SERVER_ERROR: &'static str = "server_error";

    /// 400: the field `param` is wrong.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..Self::malformed(message) }
    }

    /// 400: the body as a whole is wrong.
    pub fn malformed(message: impl Into<String>) -> Self {
        Self { status: 400, kind: Self::INVALID_REQUEST, code: None, param: None, message: message.into() }
    }

    /// 422: the field `param` is valid, but the model does not support it, such as a chat without a chat template.
    pub fn unprocessable(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { status: 422, ..Self::invalid(param, message) }
    }

    /// 404: no model of this name is served.
    pub fn unknown_model(found: &str, served: &[String]) -> Self {
        let message = format!("model: expected {}, found {found:?}", served.join(" or "));
        Self { status: 404, code: Some("model_not_found"), ..Self::invalid("model", message) }
    }

    /// The same error of an object that lies in another: `prefix` comes before the field's name.
    #[must_use]
    pub(crate) fn within(self, prefix: &str) -> Self {
        let Some(param) = self.param else { return self };
        Self { param: Some(format!("{prefix}{param}")), message: format!("{prefix}{}", self.message), ..self }
    }

    /// Whether the request is at fault.
    pub fn is_invalid_request(&self) -> bool {
        self.status < 500
    }
}

impl ApiError {
    /// A refusal by the engine is the request's fault; the field gets its name in the API. `form_field` is the field that
    /// demands a form of the answer.
    pub(crate) fn of_engine(error: EngineError, form_field: Option<&str>) -> Self {
        let message = error.to_string();
        let failed = |status, code| Self {
            status,
            kind: Self::SERVER_ERROR,
            code,
            param: None,
            message: message.clone(),
        };
        let param: Cow<'static, str> = match error {
            EngineError::EmptyPrompt => "prompt".into(),
            EngineError::TokenOutOfRange { field, .. } => {
                let name = field.split('[').next().unwrap_or_default();
                if name == "prompt_token_ids" { "prompt".into() } else { name.to_owned().into() }
            }
            EngineError::ContextTooLong { prompt, max_tokens, max_seq_len: most }
            | EngineError::PoolTooSmall { prompt, max_tokens, pool: most } => {
                // Clients look for these words.
                let message = format!(
                    "This model's maximum context length is {most} tokens. However, you requested {} tokens ({prompt} in the \
                     prompt, {max_tokens} for the answer)",
                    prompt.saturating_add(max_tokens)
                );
                let code = Some("context_length_exceeded");
                return Self { code, ..Self::malformed(message) };
            }
            EngineError::InvalidParam { name, .. } => name.into(),
            EngineError::StopWithoutTokenizer { .. } => "stop".into(),
            EngineError::Constraint(_) => match form_field {
                Some(field) => return Self::invalid(field, format!("{field}: {message}")),
                None => return Self::malformed(message),
            },
            EngineError::Stopped => return failed(503, Some("stopped")),
            _ => return failed(500, None),
        };
        Self::invalid(param, message)
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        Self::of_engine(error, None)
    }
}

impl Serialize for ApiError {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Body<'a> {
            error: Fields<'a>,
        }
        #[derive(Serialize)]
        struct Fields<'a> {
            message: &'a str,
            r#type: &'a str,
            param: Option<&'a str>,
            code: Option<&'a str>,
        }
        let Self { kind, code, param, message, .. } = self;
        Body { error: Fields { message, r#type: kind, param: param.as_deref(), code: *code } }
            .serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_have_the_api_s_shape() {
        let expect = json!({
            "error": {"message": "n: expected 1", "type": "invalid_request_error", "param": "n", "code": null}
        });
        assert_eq!(json!(ApiError::invalid("n", "n: expected 1")), expect);
        let unknown = ApiError::unknown_model("gpt-4o", &["demo".to_owned()]);
        assert_eq!(
            (unknown.status, unknown.message.as_str()),
            (404, "model: expected demo, found \"gpt-4o\"")
        );
        assert_eq!(json!(unknown)["error"]["code"], "model_not_found");
    }

    #[test]
    fn engine_errors_name_the_api_s_field() {
        let check = |error: EngineError, status, param: Option<&str>, code: Option<&str>| {
            let found = ApiError::of_engine(error, Some("grammar"));
            assert_eq!((found.status, found.param.as_deref(), found.code), (status, param, code), "{found}");
        };
        let token =
            |field: &str| EngineError::TokenOutOfRange { field: field.into(), found: 9, vocab_size: 5 };
        check(EngineError::EmptyPrompt, 400, Some("prompt"), None);
        check(token("prompt_token_ids[1]"), 400, Some("prompt"), None);
        check(token("logit_bias[0]"), 400, Some("logit_bias"), None);
        let too_long = EngineError::ContextTooLong { prompt: 9, max_tokens: 1, max_seq_len: 8 };
        check(too_long.clone(), 400, None, Some("context_length_exceeded"));
        let expect = "This model's maximum context length is 8 tokens. However, you requested 10 tokens (9 in the prompt, 1 \
                      for the answer)";
        assert_eq!(ApiError::from(too_long).message, expect);
        check(EngineError::Constraint("stuck".to_owned()), 400, Some("grammar"), None);
        check(EngineError::Stopped, 503, None, Some("stopped"));
        check(EngineError::NoFiniteLogit { position: 1 }, 500, None, None);
    }
}
