//! Errors as responses.

use std::io;

use axum::Json;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use openai::ApiError;
use rustorch_llama::EngineError;

use crate::access::CLIENT_LEFT;

/// An [`ApiError`] that a handler can return.
#[derive(Debug)]
pub(crate) struct Refusal(pub ApiError);

/// Seconds after which to try again: a place becomes free whenever a sequence ends.
const RETRY_AFTER_SECS: u16 = 1;

impl Refusal {
    /// A refusal without a field.
    pub fn new(
        status: StatusCode,
        kind: &'static str,
        code: &'static str,
        message: impl Into<String>,
    ) -> Self {
        let status = status.as_u16();
        Self(ApiError { status, kind, code: Some(code), param: None, message: message.into() })
    }

    /// A refusal that another request can avoid.
    pub fn invalid(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self::new(status, ApiError::INVALID_REQUEST, code, message)
    }

    /// 400 for the field `param`.
    pub fn field(param: &str, rest: impl std::fmt::Display) -> Self {
        Self(ApiError::invalid(param, format!("{param}: {rest}")))
    }

    /// 404: there is nothing with this id.
    pub fn no_such(what: &str, id: &str) -> Self {
        let shown: String = id.chars().take(80).collect();
        Self::invalid(StatusCode::NOT_FOUND, "not_found", format!("no such {what}: {shown:?}"))
    }

    /// 503: the server is shutting down.
    pub fn draining() -> Self {
        let message = "the server is shutting down and takes no new requests";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, ApiError::SERVER_ERROR, "shutting_down", message)
    }

    /// 503: all connections are in use, and this one is for the server's state.
    pub fn too_many_connections() -> Self {
        let message = "all connections are in use: try again in a moment";
        let code = "too_many_connections";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, ApiError::SERVER_ERROR, code, message)
    }

    /// Nobody reads it.
    pub fn client_left() -> Self {
        let status = StatusCode::from_u16(CLIENT_LEFT).unwrap_or(StatusCode::REQUEST_TIMEOUT);
        Self::invalid(status, "client_left", "the client has closed the connection")
    }

    /// 504: the request took longer than it may.
    pub fn timed_out(seconds: u64) -> Self {
        let message = format!("the request took longer than the {seconds} s that the server gives one");
        Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout_error", "request_timeout", message)
    }

    /// 507: the disk is full. What else a disk refuses is [`internal`](Self::internal).
    pub fn disk(what: &'static str, error: &io::Error) -> Self {
        if !matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return Self::internal(what, error);
        }
        tracing::debug!(%error, "{what} failed");
        let message = format!("{what} failed: the server's disk is full");
        Self::new(StatusCode::INSUFFICIENT_STORAGE, ApiError::SERVER_ERROR, "storage_full", message)
    }

    /// 500, with the cause in the log and not in the answer: it may name paths of the machine.
    pub fn internal(what: &'static str, error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "{what} failed");
        let message = format!("{what} failed; the server's log says why");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, ApiError::SERVER_ERROR, "internal_error", message)
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(&self.0)).into_response();
        let headers = response.headers_mut();
        match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECS));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response.extensions_mut().insert(self.0);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_apart() {
        let status = |error: io::ErrorKind| Refusal::disk("storing a file", &error.into()).0.status;
        assert_eq!(status(io::ErrorKind::StorageFull), 507);
        assert_eq!(status(io::ErrorKind::QuotaExceeded), 507);
        assert_eq!(status(io::ErrorKind::ReadOnlyFilesystem), 500);
    }
}
