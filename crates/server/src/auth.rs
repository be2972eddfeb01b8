//! The API key.

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use openai::ApiError;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::refusal::Refusal;

/// The hash of the key that requests must have. Comparing hashes takes the same time for keys of any length.
#[derive(Debug)]
pub(crate) struct ApiKey([u8; 32]);

/// Where Anthropic's clients put the key.
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

impl ApiKey {
    pub fn new(key: &str) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// Checks a request's `Authorization: Bearer KEY` or `x-api-key: KEY`.
    ///
    /// # Errors
    /// 401 if there is no key or a wrong one.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let refuse = |message: &str| {
            Err(Refusal::new(StatusCode::UNAUTHORIZED, ApiError::INVALID_REQUEST, "invalid_api_key", message))
        };
        let found = match (headers.get(AUTHORIZATION).map(HeaderValue::as_bytes), headers.get(X_API_KEY)) {
            (Some(value), _) if value.len() > 7 && value[..7].eq_ignore_ascii_case(b"bearer ") => &value[7..],
            (Some(_), _) => {
                return refuse("authorization: expected \"Bearer\" and the API key, found another scheme");
            }
            (None, Some(value)) => value.as_bytes(),
            (None, None) => {
                return refuse("authorization: expected \"Bearer\" and the API key, found no such header");
            }
        };
        if bool::from(Sha256::digest(found.trim_ascii()).as_slice().ct_eq(&self.0)) {
            Ok(())
        } else {
            refuse("authorization: incorrect API key")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_key_itself_is_let_in() {
        let key = ApiKey::new("sk-a");
        let check = |value: Option<&'static str>| {
            let headers = value.map(|value| (AUTHORIZATION, HeaderValue::from_static(value)));
            key.check(&headers.into_iter().collect()).map_err(|refusal| refusal.0.status)
        };
        for value in ["Bearer sk-a", "bearer sk-a", "Bearer  sk-a"] {
            assert_eq!(check(Some(value)), Ok(()), "{value}");
        }
        for value in
            ["", "Bearer", "Bearer ", "Bearer sk-", "Bearer sk-ab", "Basic sk-a", "sk-a", "Bearer SK-A"]
        {
            assert_eq!(check(Some(value)), Err(401), "{value}");
        }
        assert_eq!(check(None), Err(401));
        let other = |value: &'static str| {
            key.check(&[(X_API_KEY, HeaderValue::from_static(value))].into_iter().collect()).is_ok()
        };
        assert_eq!(["sk-a", "sk-b", ""].map(other), [true, false, false]);
    }
}
