//! What sets answers of Anthropic's API apart from those of OpenAI's: the form of errors, and a header.

use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use openai::ApiError;

/// Where its clients look for a request's id.
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// Whether a route is one of that API.
pub(crate) fn is_route(route: &str) -> bool {
    let route = route.strip_prefix("/v1").unwrap_or(route);
    matches!(route, "/messages" | "/messages/count_tokens")
}

/// A response, its error written as that API writes errors.
pub(crate) fn in_its_form(mut response: Response, request_id: &str) -> Response {
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        *response.body_mut() = openai::anthropic_error(&error, request_id).to_string().into();
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    if let Ok(value) = HeaderValue::from_str(request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}
