//! Request bodies, read within a limit.

use std::io::Read;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use axum::http::{HeaderMap, StatusCode};
use bytes::{Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use http_body_util::BodyExt;

use crate::app::{AppState, blocking};
use crate::refusal::Refusal;

/// A body with a JSON content type, not parsed yet.
pub(crate) struct JsonBytes(pub Bytes);

/// Most bytes of a refused body that are read and discarded. Many clients read the answer only after they have sent the
/// whole body; they would see a reset connection instead of the 413.
const MAX_DISCARDED: usize = 256 << 20;

impl FromRequest<AppState> for JsonBytes {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &AppState) -> Result<Self, Refusal> {
        let (head, body) = request.into_parts();
        // This also keeps other sites' pages out: a browser sends JSON across origins only after a preflight request, which
        // is refused.
        if !is_json(&head.headers) {
            let found = head.headers.get(CONTENT_TYPE).map_or("none".into(), |v| format!("{v:?}"));
            return Err(Refusal::invalid(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                format!("content-type: expected application/json, found {found}"),
            ));
        }
        let encoding = Encoding::of(&head.headers)?;
        let limit = app.config.body_limit;
        let body = read(&head.headers, body, limit).await?;
        match encoding {
            Encoding::Plain => Ok(Self(body)),
            Encoding::Gzip => blocking(move || gunzip(&body, limit)).await.map(Self),
        }
    }
}

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Plain,
    Gzip,
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        match headers.get(CONTENT_ENCODING).map(|value| value.as_bytes().to_ascii_lowercase()).as_deref() {
            None | Some(b"identity" | b"") => Ok(Self::Plain),
            Some(b"gzip" | b"x-gzip") => Ok(Self::Gzip),
            Some(found) => Err(Refusal::invalid(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_encoding",
                format!(
                    "content-encoding: expected gzip or none, found {:?}",
                    String::from_utf8_lossy(found)
                ),
            )),
        }
    }
}

/// Decompresses a body to at most `limit` bytes.
fn gunzip(body: &[u8], limit: usize) -> Result<Bytes, Refusal> {
    let mut plain = Vec::new();
    let read = MultiGzDecoder::new(body).take(limit as u64 + 1).read_to_end(&mut plain);
    read.map_err(|error| Refusal(openai::ApiError::malformed(format!("body: not gzip data: {error}"))))?;
    if plain.len() > limit { Err(too_large_body(limit as u64)) } else { Ok(plain.into()) }
}

/// Reads a whole body of at most `limit` bytes.
async fn read(headers: &HeaderMap, mut body: Body, limit: usize) -> Result<Bytes, Refusal> {
    let told = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let mut gathered = BytesMut::new();
    let mut too_large = told.is_some_and(|told| told > limit as u64);
    let mut num_read = 0;
    // A client that sent `expect: 100-continue` sends no body after a refusal.
    let discards = !headers.contains_key(EXPECT);
    while !too_large || (discards && num_read < MAX_DISCARDED) {
        let Some(frame) = body.frame().await else { break };
        let frame = frame.map_err(|error| Refusal(openai::ApiError::malformed(format!("body: {error}"))))?;
        let Ok(data) = frame.into_data() else { continue };
        num_read += data.len();
        too_large |= num_read > limit;
        if too_large {
            gathered = BytesMut::new();
        } else {
            gathered.extend_from_slice(&data);
        }
    }
    if too_large { Err(too_large_body(limit as u64)) } else { Ok(gathered.freeze()) }
}

/// 413 for a body beyond `limit`.
pub(crate) fn too_large_body(limit: u64) -> Refusal {
    let message = format!("body: expected at most {limit} bytes, found more");
    Refusal::invalid(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(Ok(value)) = headers.get(CONTENT_TYPE).map(|value| value.to_str()) else { return false };
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
        || (essence.len() > 5
            && essence.is_char_boundary(essence.len() - 5)
            && essence[essence.len() - 5..].eq_ignore_ascii_case("+json"))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn json_is_what_says_so() {
        let check = |value: &'static str| {
            is_json(&[(CONTENT_TYPE, HeaderValue::from_static(value))].into_iter().collect())
        };
        for value in ["application/json", "Application/JSON; charset=utf-8", "application/problem+json"] {
            assert!(check(value), "{value}");
        }
        for value in
            ["", "text/plain", "application/x-www-form-urlencoded", "+json", "text/plain; a=application/json"]
        {
            assert!(!check(value), "{value}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
