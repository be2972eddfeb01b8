//! The access log: a line for each request, once its answer has been sent or its client has gone.
//!
//! A line has nothing that is secret: no header, no query, nothing of a body. Handlers note here what only they know; the
//! connection writes the line, so that the engine's thread never waits for the log.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody};
use axum::http::Method;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use crate::connections::InUse;
use tracing::field::display;

/// Whether a line is logged for each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLog {
    /// None.
    Off,
    /// A line under the target `access`: of level `INFO`, or `DEBUG` for probes of the server's state that succeed.
    On,
}

/// What others ask every few seconds. Lines of these would hide the rest.
const PROBES: [&str; 4] = ["/health", "/v1/health", "/ping", "/metrics"];
/// Most bytes of a path in the log.
const MAX_PATH: usize = 256;
/// Status of a request whose client closed the connection before the answer.
pub(crate) const CLIENT_LEFT: u16 = 499;

/// What is known of a request beside its head.
#[derive(Debug, Default)]
pub(crate) struct Access {
    id: OnceLock<Arc<str>>,
    model: OnceLock<String>,
    /// The code of the error that ended it, a constant of the program.
    error: OnceLock<&'static str>,
    prompt_tokens: AtomicUsize,
    completion_tokens: AtomicUsize,
    /// Microseconds from the arrival to the first token; 0 for none.
    first_token: AtomicU64,
}

impl Access {
    pub fn set_id(&self, id: &Arc<str>) {
        let _ = self.id.set(Arc::clone(id));
    }

    /// Of several errors the first counts.
    pub fn set_error(&self, code: &'static str) {
        let _ = self.error.set(code);
    }

    /// The request runs on a model.
    pub fn runs(&self, model: &str, prompt_tokens: usize) {
        let _ = self.model.set(model.to_owned());
        self.prompt_tokens.store(prompt_tokens, Ordering::Relaxed);
    }

    /// A sequence has a token more, so long after the request's arrival.
    pub fn token(&self, since_arrival: Duration) {
        if self.completion_tokens.fetch_add(1, Ordering::Relaxed) == 0 {
            let micros = u64::try_from(since_arrival.as_micros()).unwrap_or(u64::MAX);
            self.first_token.store(micros.max(1), Ordering::Relaxed);
        }
    }

    /// A sequence had so many tokens that were not sent.
    pub fn unsent_tokens(&self, count: usize) {
        self.completion_tokens.fetch_add(count, Ordering::Relaxed);
    }
}

/// A request's line, which is written when this is dropped.
#[derive(Debug)]
pub(crate) struct Line {
    log: AccessLog,
    access: Arc<Access>,
    client: IpAddr,
    method: Method,
    path: String,
    arrived: Instant,
    status: u16,
    /// Whether the client got all of the answer.
    is_whole: bool,
}

impl Line {
    /// Of a request that has just come.
    pub fn new(log: AccessLog, access: Arc<Access>, client: IpAddr, method: Method, path: &str) -> Self {
        let (arrived, path) = (Instant::now(), escaped(path));
        Self { log, access, client, method, path, arrived, status: CLIENT_LEFT, is_whole: false }
    }

    /// The answer, which takes the line along until it has been sent, and keeps the connection in use.
    pub fn until_sent(mut self, response: Response, in_use: InUse) -> Response {
        self.status = response.status().as_u16();
        response.map(|body| Body::new(Sending { body, line: self, _in_use: in_use }))
    }

    fn write(&self) {
        let access = &self.access;
        let (client, method, path) = (&self.client, &self.method, &self.path);
        let status = self.status;
        let model = access.model.get().map(String::as_str);
        let count = |count: &AtomicUsize| model.map(|_| count.load(Ordering::Relaxed) as u64);
        let prompt_tokens = count(&access.prompt_tokens);
        let completion_tokens = count(&access.completion_tokens);
        let first_token = Some(access.first_token.load(Ordering::Relaxed)).filter(|&micros| micros > 0);
        let first_token_ms = first_token.map(|micros| micros as f64 / 1000.0);
        let total_ms = self.arrived.elapsed().as_micros() as f64 / 1000.0;
        let error = access.error.get().copied();
        let client_left = (!self.is_whole).then_some(true);
        let id = access.id.get().map(display);
        // The level of an event is a constant.
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: "access", %client, %method, %path, status, model, prompt_tokens, completion_tokens,
                    first_token_ms, total_ms, error, client_left, id, "request"
                )
            };
        }
        match PROBES.contains(&path.as_str()) && status < 400 {
            true => line!(debug),
            false => line!(info),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.log == AccessLog::On {
            self.write();
        }
    }
}

/// Logs a request that is not HTTP, which no handler sees.
pub(crate) fn malformed(log: AccessLog, client: IpAddr, status: u16) {
    if log == AccessLog::On {
        tracing::info!(target: "access", %client, status, error = "malformed_http", "request");
    }
}

/// A path in visible ASCII characters: others are percent-encoded, as are quotes and backslashes.
fn escaped(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if out.len() >= MAX_PATH {
            out.push_str("...");
            break;
        }
        match byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\') {
            true => out.push(byte.into()),
            false => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// An answer's body with what is told when it has been sent.
struct Sending {
    body: Body,
    line: Line,
    _in_use: InUse,
}

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.line.is_whole |= matches!(frame, Poll::Ready(None));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        // A body of known length is not asked for more than that.
        self.line.is_whole |= self.body.is_end_stream();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_escaped_and_cut() {
        for (path, expect) in [
            ("/v1/models", "/v1/models"),
            ("/a b\n\u{1b}[31m\u{7f}", "/a%20b%0A%1B[31m%7F"),
            ("/é\"\\", "/%C3%A9%22%5C"),
        ] {
            assert_eq!(escaped(path), expect);
        }
        let long = escaped(&"/\n".repeat(40_000));
        assert!(long.len() < MAX_PATH + 6 && long.ends_with("..."), "{long}");
    }
}
