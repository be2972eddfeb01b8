//! Request bodies, read within a limit.

use std::io::Read;
use std::ops::Deref;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use axum::http::{HeaderMap, StatusCode};
use flate2::read::MultiGzDecoder;
use http_body_util::BodyExt;
use rustorch_llama::release_freed_memory;
use tokio::time::{Instant, timeout_at};

use crate::app::{App, AppState, blocking};
use crate::memory::{self, Held};
use crate::refusal::Refusal;

/// A body with a JSON content type, not parsed yet.
pub(crate) struct JsonBytes(pub Gathered);

/// A body and its share of the memory for requests: it is to be dropped when it has been parsed.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    bytes: Vec<u8>,
    held: Held,
    parsed: Held,
}

impl Deref for Gathered {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Gathered {
    fn push(&mut self, app: &App, data: &[u8]) -> Result<(), Refusal> {
        app.memory.cover(&mut self.held, self.bytes.len() + data.len())?;
        memory::append(&mut self.bytes, data)
    }
}

/// Bytes of a body after which freed memory is given back to the system. It may have become so much as to be worth the
/// milliseconds that this takes.
const RELEASE_AFTER: usize = 1 << 20;

impl Drop for Gathered {
    fn drop(&mut self) {
        // What it was parsed into has been dropped; the place among the parsed bodies is given up afterwards. A body that was refused
        // leaves as much.
        if self.bytes.len() >= RELEASE_AFTER {
            drop(std::mem::take(&mut self.bytes));
            release_freed_memory();
        }
    }
}

/// Bytes a second that a body must bring on average, beyond the first seconds (`ServerConfig::body_grace`). A modem brings seven
/// thousand.
const LEAST_PACE: u32 = 4 << 10;

/// Most bytes of a refused body that are read and discarded. Many clients read the answer only after they have sent the
/// whole body; they would see a reset connection instead of the 413.
pub(crate) const MAX_DISCARDED: usize = 256 << 20;

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
        let body = read(app, &head.headers, body).await?;
        let mut body = match encoding {
            Encoding::Plain => body,
            Encoding::Gzip => {
                let app = AppState::clone(app);
                blocking(move || gunzip(&app, &body)).await?
            }
        };
        body.parsed = app.memory.parse(body.len()).await?;
        Ok(Self(body))
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

/// Decompresses a body within the limit.
fn gunzip(app: &App, body: &[u8]) -> Result<Gathered, Refusal> {
    let limit = app.config.body_limit;
    let (mut plain, mut piece) = (Gathered::default(), vec![0; 64 << 10]);
    let mut decoder = MultiGzDecoder::new(body);
    loop {
        let read = decoder.read(&mut piece);
        let malformed = |error| Refusal(openai::ApiError::malformed(format!("body: not gzip data: {error}")));
        let len = read.map_err(malformed)?;
        if len == 0 {
            return Ok(plain);
        }
        if plain.len() + len > limit {
            return Err(too_large_body(limit as u64));
        }
        plain.push(app, &piece[..len])?;
    }
}

/// Reads a whole body within the limit.
async fn read(app: &App, headers: &HeaderMap, mut body: Body) -> Result<Gathered, Refusal> {
    let (limit, started) = (app.config.body_limit, Instant::now());
    let told = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let mut gathered = Gathered::default();
    let mut refused = told.filter(|&told| told > limit as u64).map(|_| too_large_body(limit as u64));
    let mut num_read = 0;
    // A client that sent `expect: 100-continue` sends no body after a refusal.
    let discards = !headers.contains_key(EXPECT);
    while refused.is_none() || (discards && num_read < MAX_DISCARDED) {
        let grace = app.config.body_grace;
        let earned = Duration::from_secs(num_read as u64) / LEAST_PACE;
        let frame = timeout_at(started + grace + earned, body.frame()).await;
        let Some(frame) = frame.map_err(|_elapsed| too_slow(num_read, grace))? else { break };
        let frame = frame.map_err(|error| Refusal(openai::ApiError::malformed(format!("body: {error}"))))?;
        let Ok(data) = frame.into_data() else { continue };
        num_read += data.len();
        if refused.is_none() {
            refused = match num_read > limit {
                true => Some(too_large_body(limit as u64)),
                false => gathered.push(app, &data).err(),
            };
        }
        if refused.is_some() {
            gathered = Gathered::default();
        }
    }
    refused.map_or(Ok(gathered), Err)
}

/// 408 for a body that does not come.
fn too_slow(num_read: usize, grace: Duration) -> Refusal {
    let message = format!(
        "body: expected {LEAST_PACE} bytes a second after the first {:.0} s, found {num_read} bytes in all",
        grace.as_secs_f64()
    );
    Refusal::invalid(StatusCode::REQUEST_TIMEOUT, "body_timeout", message)
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
