//! What is refused, with which status, and which field is named.

use batch::UnknownFields;
use serde_json::{Value, json};

use crate::client::{JSON, get, post, send};
use crate::files::folder;
use crate::served::{Served, data};

#[test]
fn a_wrong_field_is_named() {
    let served = Served::start();
    let completions = |body: Value, status: u16, param: &str| {
        let response = post(served.address, "/v1/completions", &body);
        let error = &response.json()["error"];
        assert_eq!((response.status, error["param"].as_str()), (status, Some(param)), "{body}: {error}");
        assert!(error["message"].as_str().unwrap().starts_with(param), "{error}");
        assert_eq!(error["type"], "invalid_request_error");
    };
    completions(json!({}), 400, "prompt");
    completions(json!({"prompt": 1.5}), 400, "prompt");
    completions(json!({"prompt": "a", "model": "gpt"}), 404, "model");
    completions(json!({"prompt": "a", "max_tokens": -2}), 400, "max_tokens");
    completions(json!({"prompt": "a", "temperature": "hot"}), 400, "temperature");
    completions(json!({"prompt": "a", "top_p": 2}), 400, "top_p");
    completions(json!({"prompt": "a", "n": 0}), 400, "n");
    completions(json!({"prompt": "a", "n": 129}), 400, "n");
    completions(json!({"prompt": "a", "logprobs": 21}), 400, "logprobs");
    completions(json!({"prompt": "a", "logit_bias": {"x": 1}}), 400, "logit_bias");
    completions(json!({"prompt": "a", "logit_bias": {"99999999": 1}}), 400, "logit_bias");
    completions(json!({"prompt": [99_999_999]}), 400, "prompt");
    completions(json!({"prompt": "a", "echo": 1}), 400, "echo");
    completions(json!({"prompt": "a", "prompt_logprobs": 1, "stream": true}), 400, "prompt_logprobs");
    completions(json!({"prompt": "a", "n": 2, "best_of": 1}), 400, "best_of");
    completions(json!({"prompt": "a", "suffix": "b"}), 400, "suffix");
    completions(json!({"prompt": "a", "stream": "yes"}), 400, "stream");
    let role = json!({"messages": [{"role": "no word", "content": "a"}]});
    for path in ["/v1/chat/completions", "/tokenize"] {
        let response = post(served.address, path, &role);
        assert_eq!(
            (response.status, &response.json()["error"]["param"]),
            (422, &json!("messages")),
            "{path}"
        );
    }
    let chat = |body: Value, param: &str| {
        let response = post(served.address, "/v1/chat/completions", &body);
        assert_eq!((response.status, &response.json()["error"]["param"]), (400, &json!(param)), "{body}");
    };
    chat(json!({}), "messages");
    chat(json!({"messages": []}), "messages");
    chat(json!({"messages": [{"role": "user", "content": "a"}], "tools": [{}]}), "tools[0].type");
    chat(json!({"messages": [{"role": "user", "content": "a"}], "top_logprobs": 2}), "top_logprobs");
}

#[test]
fn unknown_fields_are_named_counted_or_refused() {
    let body = json!({"prompt": "a", "max_tokens": 1, "temprature": 0, "a\nb": 1, "user": "c"});
    let chat = json!({"messages": [{"role": "user", "content": "a", "mood": 1}], "max_tokens": 1});
    let served = Served::start();
    let response = post(served.address, "/v1/completions", &body);
    assert_eq!((response.status, response.header("x-ignored-fields")), (200, Some("a?b, temprature")));
    let mut streamed = chat.clone();
    streamed["stream"] = json!(true);
    let response = post(served.address, "/v1/chat/completions", &streamed);
    assert_eq!((response.status, response.header("x-ignored-fields")), (200, Some("messages[].mood")));
    let response = post(served.address, "/v1/completions", &json!({"prompt": "a", "max_tokens": 1}));
    assert_eq!((response.status, response.header("x-ignored-fields")), (200, None));
    let count =
        |endpoint: &str| served.metric(&format!("rustorch_ignored_fields_total{{endpoint=\"{endpoint}\"}}"));
    assert_eq!((count("/v1/completions"), count("/v1/chat/completions")), (2.0, 1.0));

    let strict = Served::with(|config| config.unknown_fields = UnknownFields::Refuse);
    let refused = |path: &str, body: &Value, param: &str| {
        let response = post(strict.address, path, body);
        assert_eq!((response.status, &response.json()["error"]["param"]), (400, &json!(param)), "{body}");
    };
    refused("/v1/completions", &json!({"prompt": "a", "a\nb": 1}), "a\nb");
    refused("/v1/chat/completions", &chat, "messages[0].mood");
}

#[test]
fn a_context_that_is_too_short_is_told() {
    let served = Served::start();
    let response = post(served.address, "/v1/completions", &json!({"prompt": "a", "max_tokens": 100_000}));
    assert_eq!(
        (response.status, &response.json()["error"]["code"]),
        (400, &json!("context_length_exceeded"))
    );
}

#[test]
fn what_is_no_request_is_refused() {
    let served = Served::start();
    let check = |head: &str, headers: &[(&str, &str)], body: &[u8], status: u16, code: Value| {
        let response = send(served.address, head, headers, body);
        assert_eq!((response.status, &response.json()["error"]["code"]), (status, &code), "{head}");
        response
    };
    let completions = "POST /v1/completions";
    check(completions, &[JSON], b"", 400, Value::Null);
    check(completions, &[JSON], b"{", 400, Value::Null);
    check(completions, &[JSON], b"[]", 400, Value::Null);
    check(completions, &[JSON], b"{\"prompt\": \"\xff\"}", 400, Value::Null);
    check(completions, &[JSON], &[b'['; 100_000], 400, Value::Null);
    let media = json!("unsupported_media_type");
    check(completions, &[], b"{}", 415, media.clone());
    check(completions, &[("content-type", "text/plain")], b"{}", 415, media.clone());
    let encoded = |encoding: &'static str| [JSON, ("content-encoding", encoding)];
    check(completions, &encoded("br"), b"{}", 415, json!("unsupported_encoding"));
    check(completions, &encoded("gzip"), b"{}", 400, Value::Null);
    check("POST /v1/files", &[JSON], b"{}", 404, json!("no_data_dir"));
    check("GET /v1/models/%ff", &[], b"", 400, Value::Null);
    check("GET /nowhere", &[], b"", 404, json!("unknown_route"));
    check("GET /v1/models/gpt", &[], b"", 404, json!("model_not_found"));
    let response = check("GET /v1/completions", &[], b"", 405, json!("method_not_allowed"));
    assert_eq!(response.header("allow"), Some("POST"));
    check("DELETE /health", &[], b"", 405, json!("method_not_allowed"));
}

#[test]
fn a_key_is_asked_for_where_there_is_one() {
    let served = Served::with(|config| config.api_keys = vec!["sk-1".into()]);
    let status = |path: &str, headers: &[(&str, &str)]| {
        send(served.address, &format!("GET {path}"), headers, b"").status
    };
    for path in ["/v1/models", "/metrics", "/v1/nowhere"] {
        assert_eq!(status(path, &[]), 401, "{path}");
        assert_eq!(status(path, &[("authorization", "Bearer sk-2")]), 401, "{path}");
    }
    assert_eq!(status("/v1/models", &[("authorization", "Bearer sk-1")]), 200);
    for path in ["/", "/health", "/v1/health", "/ping"] {
        assert_eq!(status(path, &[]), 200, "{path}");
    }
    assert_eq!(status("/v1/models", &[("x-api-key", "sk-1")]), 200);
    assert_eq!(status("/v1/models", &[("x-api-key", "sk-2")]), 401);
    let response = get(served.address, "/v1/models");
    assert_eq!(response.header("www-authenticate"), Some("Bearer"));
    assert_eq!(response.json()["error"]["code"], "invalid_api_key");
    // Nobody learns without the key whether a body would have been accepted.
    assert_eq!(send(served.address, "POST /v1/completions", &[], b"rubbish").status, 401);
}

#[test]
fn what_is_wrong_in_an_address_is_named() {
    let served = Served::with(|config| config.data = Some(data(folder("address"))));
    for path in ["/v1/files", "/v1/batches"] {
        for limit in ["abc", "0", "-1", "99999", ""] {
            let response = get(served.address, &format!("{path}?limit={limit}"));
            let error = &response.json()["error"];
            assert_eq!((response.status, &error["param"]), (400, &json!("limit")), "{path} {limit}: {error}");
        }
        let response = get(served.address, &format!("{path}?limit=1&limit=2"));
        assert_eq!(
            (response.status, &response.json()["error"]["type"]),
            (400, &json!("invalid_request_error"))
        );
    }
}
