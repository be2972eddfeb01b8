//! HTTP: one request and its redirects, with the token for the hub alone, and errors in the server's words.

use std::io::Read;
use std::time::Duration;

use ureq::http::{HeaderMap, Response};
use ureq::{Agent, Body};

use crate::url::{self, Url};
use crate::{HubError, Result};

/// See the module.
pub struct Client {
    agent: Agent,
    /// The hub, and what it knows its users by. Nobody else is told.
    token: Option<(Url, String)>,
}

/// How far a request follows redirects.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// To another path of the same server, as a repository that was renamed has, but not beyond what the hub says of a file.
    SameServer,
    /// To the server that has the bytes.
    Anywhere,
}

/// An answer that is no error.
pub struct Answer {
    pub headers: HeaderMap,
    pub status: u16,
    pub body: Body,
}

/// The hash of what a redirect leads to.
pub const LINKED_ETAG: &str = "x-linked-etag";
const MOST_REDIRECTS: usize = 10;
/// Bytes of an error's body that are read, and characters of it that are shown.
const ERROR_BYTES: u64 = 64 << 10;
const ERROR_CHARS: usize = 500;
/// Bytes of a list.
const LIST_BYTES: u64 = 32 << 20;
/// Without a byte from the server. A connection that is only slow is kept.
const PATIENCE: Duration = Duration::from_secs(60);

impl Client {
    pub fn new(token: Option<(Url, String)>) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("rustorch/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_per_read(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .build();
        Self { agent: config.into(), token }
    }

    /// Asks for a URL, from byte `from` on if that is given.
    ///
    /// # Errors
    /// A server that cannot be reached, and one that answers with an error.
    pub fn get(&self, url: &Url, range: Option<&str>, follow: Follow) -> Result<Answer> {
        let mut at = url.clone();
        for _ in 0..MOST_REDIRECTS {
            let response = self.ask(&at, range)?;
            let status = response.status();
            if status.is_redirection() {
                let location = header(response.headers(), "location").unwrap_or_default();
                let next = at.join(&location).ok_or_else(|| HubError::Answer {
                    url: at.to_string(),
                    expected: "a redirect to a URL".to_owned(),
                    found: format!("{location:?}"),
                })?;
                // What is asked for in secret is not answered in public.
                if url.is_secret() && !next.is_secret() {
                    return Err(HubError::Answer {
                        url: at.to_string(),
                        expected: "a redirect to an https:// URL".to_owned(),
                        found: next.to_string(),
                    });
                }
                let is_described = response.headers().contains_key(LINKED_ETAG);
                if follow == Follow::SameServer && (is_described || !next.has_server_of(&at)) {
                    return Ok(answer(response));
                }
                at = next;
                continue;
            }
            return if status.is_success() { Ok(answer(response)) } else { Err(refusal(&at, response)) };
        }
        Err(HubError::Answer {
            url: url.to_string(),
            expected: format!("at most {MOST_REDIRECTS} redirects"),
            found: "more".to_owned(),
        })
    }

    /// The text behind a URL of the hub's interface.
    pub fn text(&self, url: &Url) -> Result<String> {
        let mut body = self.get(url, None, Follow::SameServer)?.body;
        let mut text = Vec::new();
        let read = body.as_reader().take(LIST_BYTES + 1).read_to_end(&mut text);
        read.map_err(|error| HubError::Unreachable { url: url.to_string(), reason: error.to_string() })?;
        if text.len() as u64 > LIST_BYTES {
            let (expected, found) = (format!("at most {LIST_BYTES} bytes"), "more".to_owned());
            return Err(HubError::Answer { url: url.to_string(), expected, found });
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn ask(&self, url: &Url, range: Option<&str>) -> Result<Response<Body>> {
        // Compressed, the length would be another.
        let mut request = self.agent.get(url.as_str()).header("Accept-Encoding", "identity");
        if let Some(range) = range {
            request = request.header("Range", range);
        }
        if let Some((hub, token)) = &self.token
            && url.has_server_of(hub)
        {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        request
            .call()
            .map_err(|error| HubError::Unreachable { url: url.to_string(), reason: error.to_string() })
    }
}

fn answer(response: Response<Body>) -> Answer {
    let (parts, body) = response.into_parts();
    Answer { headers: parts.headers, status: parts.status.as_u16(), body }
}

/// A header as text.
pub fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(String::from_utf8_lossy(headers.get(name)?.as_bytes()).into_owned())
}

/// The server's words: of a header, of a body in JSON, or a plain one that is short.
fn refusal(url: &Url, response: Response<Body>) -> HubError {
    let Answer { headers, status, mut body } = answer(response);
    let mut text = Vec::new();
    // What can be read of it will do.
    let _ = body.as_reader().take(ERROR_BYTES).read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text);
    let of_json = || {
        let json: serde_json::Value = serde_json::from_str(&text).ok()?;
        Some(json.get("error")?.as_str()?.to_owned())
    };
    let is_plain = || Some(text.trim().to_owned()).filter(|text| !text.starts_with(['<', '{']));
    let message = header(&headers, "x-error-message").or_else(of_json).or_else(is_plain).unwrap_or_default();
    let message = message.chars().take(ERROR_CHARS).collect();
    HubError::Refused { url: url::shown(url.as_str()).to_owned(), status, message }
}
