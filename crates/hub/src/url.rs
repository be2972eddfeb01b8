//! As much of URLs as downloads need.

use std::fmt;

use crate::{HubError, Result};

/// An absolute URL with `http` or `https`, a server and a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url(String);

impl Url {
    /// # Errors
    /// What is no URL, and one with a user's name, which belongs into no command line.
    pub fn parse(text: &str) -> Result<Self> {
        let fault =
            || HubError::Name { expected: "an https:// URL without a user's name", found: text.to_owned() };
        let uri: ureq::http::Uri = text.parse().map_err(|_| fault())?;
        let has_server = uri.host().is_some_and(|host| !host.is_empty());
        let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
        let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        match is_web && has_server && !has_user {
            true => Ok(Self(text.split('#').next().unwrap_or_default().to_owned())),
            false => Err(fault()),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_secret(&self) -> bool {
        self.0.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"))
    }

    /// Whether it is this machine's.
    pub fn is_local(&self) -> bool {
        let uri: Option<ureq::http::Uri> = self.0.parse().ok();
        let host = uri.as_ref().and_then(|uri| uri.host()).unwrap_or_default().trim_matches(['[', ']']);
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Scheme, host and port.
    fn server(&self) -> &str {
        let begin = self.0.find("://").map_or(0, |at| at + 3);
        let end = self.0[begin..].find(['/', '?']).map_or(self.0.len(), |at| begin + at);
        &self.0[..end]
    }

    pub fn has_server_of(&self, other: &Self) -> bool {
        self.server().eq_ignore_ascii_case(other.server())
    }

    /// What a `Location` beside this URL means.
    pub fn join(&self, location: &str) -> Option<Self> {
        let scheme = self.0.split_once("//")?.0;
        let absolute = match location {
            "" => return None,
            _ if location.starts_with("//") => format!("{scheme}{location}"),
            _ if location.starts_with('/') => format!("{}{location}", self.server()),
            _ if location.contains("://") => location.to_owned(),
            _ => {
                let path = self.0.split('?').next()?;
                let folder =
                    path.rfind('/').filter(|&at| at > self.server().len()).map_or(path, |at| &path[..at]);
                format!("{folder}/{location}")
            }
        };
        Self::parse(&absolute).ok()
    }

    /// The last part of the path, decoded.
    pub fn file_name(&self) -> String {
        let path = self.0[self.server().len()..].split('?').next().unwrap_or_default();
        decoded(path.rsplit('/').next().unwrap_or_default())
    }
}

/// Without what may be a secret.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(shown(&self.0))
    }
}

/// A URL without its query, which may hold a signature.
pub fn shown(url: &str) -> &str {
    url.split('?').next().unwrap_or_default()
}

/// A file's path in a URL.
pub fn encoded(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                out.push(byte.into())
            }
            _ => out += &format!("%{byte:02X}"),
        }
    }
    out
}

fn decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let hex = tail.get(..2).filter(|_| byte == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        let value = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(value.unwrap_or(byte));
        rest = if value.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_urls() {
        let at = Url::parse("https://a.example/b/c?d=/e").unwrap();
        let join = |location| at.join(location).map(|url| url.0).unwrap_or_default();
        assert_eq!(join("/x?y"), "https://a.example/x?y");
        assert_eq!(join("//b.example/x"), "https://b.example/x");
        assert_eq!(join("http://b.example/x"), "http://b.example/x");
        assert_eq!(join("x"), "https://a.example/b/x");
        for none in ["", "file:///etc/passwd", "ftp://a/b", "https://user:word@a.example/"] {
            assert_eq!(join(none), "", "{none}");
        }
        assert!(!Url::parse("https://a.example.evil/").unwrap().has_server_of(&at));
        assert!(Url::parse("HTTPS://A.example/z").unwrap().has_server_of(&at));
    }

    #[test]
    fn names_are_encoded_and_decoded() {
        assert_eq!(encoded("a b/é#?.gguf"), "a%20b/%C3%A9%23%3F.gguf");
        let name = |url: &str| Url::parse(url).unwrap().file_name();
        assert_eq!(name("https://a.example/x/a%20b.gguf?c=/d"), "a b.gguf");
        assert_eq!(name("https://a.example/x/..%2f..%2fa"), "../../a");
        assert_eq!(name("https://a.example/%"), "%");
        assert_eq!(name("https://a.example"), "");
        for (url, is_local) in [
            ("http://127.0.0.1:1/a", true),
            ("http://localhost/a", true),
            ("http://[::1]:8/a", true),
            ("http://10.0.0.1/", false),
        ] {
            assert_eq!(Url::parse(url).unwrap().is_local(), is_local, "{url}");
        }
    }
}
