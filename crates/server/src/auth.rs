//! The API keys.

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use openai::ApiError;
use rustorch_llama::{Client, ClientId};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::config::ApiKey;
use crate::refusal::Refusal;

/// The keys of which requests must have one, if there are any.
#[derive(Debug)]
pub(crate) struct Keys(Vec<Key>);

/// The hash of a key. Comparing hashes takes the same time for keys of any length.
#[derive(Debug)]
struct Key {
    hash: [u8; 32],
    client: Client,
}

/// Where Anthropic's clients put the key.
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

impl Keys {
    pub fn new(keys: &[ApiKey]) -> Self {
        let key = |(number, ApiKey { key, weight }): (u64, &ApiKey)| Key {
            hash: Sha256::digest(key).into(),
            client: Client { id: ClientId(number), weight: *weight },
        };
        Self((0..).zip(keys).map(key).collect())
    }

    /// Checks a request's `Authorization: Bearer KEY` or `x-api-key: KEY`. Says who the client is, if keys tell clients apart: if there
    /// are several.
    ///
    /// # Errors
    /// 401 if there is no key or a wrong one.
    pub fn check(&self, headers: &HeaderMap) -> Result<Option<Client>, Refusal> {
        if self.0.is_empty() {
            return Ok(None);
        }
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
        let hash = Sha256::digest(found.trim_ascii());
        let is_it = |key: &Key| bool::from(hash.as_slice().ct_eq(&key.hash));
        // All are compared, so that the time tells nothing of which it was.
        match self.0.iter().fold(None, |found, key| if is_it(key) { Some(key) } else { found }) {
            Some(key) => Ok((self.0.len() > 1).then_some(key.client)),
            None => refuse("authorization: incorrect API key"),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustorch_llama::Weight;

    use super::*;

    fn keys(keys: &[(&str, u16)]) -> Keys {
        let key = |&(key, weight): &(&str, u16)| ApiKey {
            key: key.to_owned(),
            weight: Weight::new(weight).unwrap(),
        };
        Keys::new(&keys.iter().map(key).collect::<Vec<_>>())
    }

    #[test]
    fn several_keys_are_several_clients() {
        let keys = keys(&[("sk-a", 1), ("sk-b", 4)]);
        let check = |key: &'static str| {
            let headers = [(X_API_KEY, HeaderValue::from_static(key))].into_iter().collect();
            keys.check(&headers).map_err(|refusal| refusal.0.status)
        };
        let client = |id, weight| Client { id: ClientId(id), weight: Weight::new(weight).unwrap() };
        assert_eq!(check("sk-a"), Ok(Some(client(0, 1))));
        assert_eq!(check("sk-b"), Ok(Some(client(1, 4))));
        assert_eq!(check("sk-c"), Err(401));
        assert_eq!(Keys::new(&[]).check(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn only_the_key_itself_is_let_in() {
        let key = keys(&[("sk-a", 1)]);
        let check = |value: Option<&'static str>| {
            let headers = value.map(|value| (AUTHORIZATION, HeaderValue::from_static(value)));
            key.check(&headers.into_iter().collect()).map_err(|refusal| refusal.0.status)
        };
        for value in ["Bearer sk-a", "bearer sk-a", "Bearer  sk-a"] {
            assert_eq!(check(Some(value)), Ok(None), "{value}");
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
