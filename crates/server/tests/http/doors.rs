//! Ways in beside the usual ones: other paths, other origins, compressed bodies.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::client::{JSON, Response, get, post, send};
use crate::served::Served;

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

/// An answer without what names it and when.
fn timeless(response: &Response) -> Value {
    let mut body = response.json();
    assert_eq!(response.status, 200, "{body}");
    for field in ["id", "created", "usage"] {
        body[field].take();
    }
    body
}

#[test]
fn routes_without_their_version_answer_alike() {
    let served = Served::start();
    let completion = json!({"prompt": "One day", "max_tokens": 4, "temperature": 0});
    let chat = json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, "temperature": 0});
    let embedding = json!({"input": "One day"});
    for (path, body) in
        [("/completions", completion), ("/chat/completions", chat), ("/embeddings", embedding)]
    {
        let [with, without] =
            ["/v1", ""].map(|prefix| timeless(&post(served.address, &format!("{prefix}{path}"), &body)));
        assert_eq!(with, without, "{path}");
    }
    assert_eq!(get(served.address, "/models").json(), get(served.address, "/v1/models").json());
    for path in ["/health", "/v1/health", "/ping"] {
        assert_eq!(get(served.address, path).json(), json!({"status": "ok"}), "{path}");
    }
    assert_eq!(get(served.address, "/version").json(), json!({"version": env!("CARGO_PKG_VERSION")}));
}

#[test]
fn clients_learn_how_to_build_prompts() {
    let served = Served::start();
    let info = get(served.address, "/tokenizer_info").json();
    let bos = post(served.address, "/tokenize", &json!({"prompt": ""})).json()["tokens"].clone();
    let text = post(served.address, "/detokenize", &json!({"tokens": bos})).json()["prompt"].clone();
    assert_eq!(info["bos_token"], text);
    assert!(info["eos_token"].is_string(), "{info}");
    assert!(info["chat_template"].as_str().unwrap().contains("messages"), "{info}");
    assert_eq!((&info["vocab_size"], &info["model_max_length"]), (&json!(2048), &json!(1024)));
}

#[test]
fn a_compressed_body_is_read_within_the_limit() {
    let served = Served::with(|config| config.body_limit = 10_000);
    let body = json!({"prompt": "One day", "max_tokens": 4, "temperature": 0});
    let plain = timeless(&post(served.address, "/v1/completions", &body));
    let ask = |encoding: &str, body: &[u8]| {
        send(served.address, "POST /v1/completions", &[JSON, ("content-encoding", encoding)], body)
    };
    let packed = gzip(body.to_string().as_bytes());
    assert_eq!(timeless(&ask("gzip", &packed)), plain);
    assert_eq!(timeless(&ask("GZIP", &packed)), plain);
    assert_eq!(timeless(&ask("identity", body.to_string().as_bytes())), plain);
    // Small as it is sent, large as it is read.
    let bomb = gzip(&vec![b' '; 1 << 20]);
    assert!(bomb.len() < 10_000);
    let refused = ask("gzip", &bomb);
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (413, &json!("request_too_large")));
    assert_eq!(ask("gzip", &packed[..packed.len() - 9]).status, 400);
}

#[test]
fn pages_of_other_origins_are_let_in_if_that_is_wanted() {
    let origin = ("origin", "https://example.org");
    let preflight = |served: &Served, origin: (&str, &str)| {
        let asks = ("access-control-request-method", "POST");
        let headers = ("access-control-request-headers", "authorization,content-type");
        send(served.address, "OPTIONS /v1/chat/completions", &[origin, asks, headers], b"")
    };
    let allowed = |response: &Response| response.header("access-control-allow-origin").map(str::to_owned);

    let closed = Served::start();
    let response = preflight(&closed, origin);
    assert_eq!((response.status, allowed(&response)), (405, None));

    let open = Served::with(|config| {
        config.api_keys = vec!["sk-1".into()];
        config.cors_origins = vec![origin.1.to_owned()];
    });
    // A browser sends no key before it knows whether it may.
    let response = preflight(&open, origin);
    assert_eq!((response.status, allowed(&response).as_deref()), (200, Some(origin.1)));
    assert_eq!(response.header("access-control-allow-headers"), Some("authorization,content-type"));
    assert_eq!(response.header("access-control-allow-methods"), Some("POST"));
    assert_eq!(allowed(&preflight(&open, ("origin", "https://example.com"))), None);
    let body = json!({"prompt": "a", "max_tokens": 1}).to_string();
    let bearer = ("authorization", "Bearer sk-1");
    let answer = send(open.address, "POST /v1/completions", &[JSON, origin, bearer], body.as_bytes());
    assert_eq!((answer.status, allowed(&answer).as_deref()), (200, Some(origin.1)));
    // The page can read why it was refused.
    let refused = send(open.address, "POST /v1/completions", &[JSON, origin], body.as_bytes());
    assert_eq!((refused.status, allowed(&refused).as_deref()), (401, Some(origin.1)));
    let exposed = answer.header("access-control-expose-headers").unwrap();
    assert!(exposed.contains("x-request-id"), "{exposed}");

    let any = Served::with(|config| config.cors_origins = vec!["*".to_owned()]);
    assert_eq!(allowed(&preflight(&any, ("origin", "null"))).as_deref(), Some("*"));
}

#[test]
fn embeddings_may_be_more_than_there_are_places() {
    let served = Served::with(|config| config.max_queue = 2);
    let texts: Vec<String> = (0..40).map(|index| format!("day {index}")).collect();
    let all = post(served.address, "/v1/embeddings", &json!({"input": texts}));
    assert_eq!(all.status, 200, "{}", all.text());
    let all = all.json();
    assert_eq!(all["data"].as_array().unwrap().len(), 40);
    let alone = post(served.address, "/v1/embeddings", &json!({"input": texts[37]})).json();
    assert_eq!(all["data"][37]["embedding"], alone["data"][0]["embedding"]);
    // All places become free again, soon after the answer.
    let completion = json!({"prompt": "a", "max_tokens": 1, "n": 6});
    let mut statuses = std::iter::repeat_with(|| post(served.address, "/v1/completions", &completion).status);
    assert_eq!(statuses.find(|&status| status != 429), Some(200));
}

#[test]
fn the_newer_apis_answer_what_a_chat_does() {
    let served = Served::start();
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let chat = json!({"messages": messages, "max_tokens": 6, "temperature": 0});
    let chat = post(served.address, "/v1/chat/completions", &chat).json();
    let text = &chat["choices"][0]["message"]["content"];
    let response = json!({"input": "Hi", "max_output_tokens": 6, "temperature": 0, "mood": 1});
    let found = post(served.address, "/v1/responses", &response);
    assert_eq!(&found.json()["output"][0]["content"][0]["text"], text);
    assert_eq!(found.header("x-ignored-fields"), Some("mood"));
    let message = json!({"messages": messages, "max_tokens": 6, "temperature": 0});
    let found = post(served.address, "/messages", &message);
    assert_eq!(&found.json()["content"][0]["text"], text);
    assert!(found.header("request-id").is_some());
    let count = post(served.address, "/v1/messages/count_tokens", &json!({"messages": messages})).json();
    assert_eq!(count, json!({"input_tokens": chat["usage"]["prompt_tokens"]}));
    let mut streamed = message;
    streamed["stream"] = json!(true);
    let found = post(served.address, "/v1/messages", &streamed).text();
    assert!(found.starts_with("event: message_start\ndata: {"), "{found}");
    assert!(found.ends_with("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"), "{found}");
}

#[test]
fn anthropic_s_api_has_its_own_errors() {
    let served = Served::with(|config| config.api_keys = vec!["sk-a".into()]);
    let check = |path: &str, headers: &[(&str, &str)], body: &str, status: u16, kind: &str| {
        let found = send(served.address, &format!("POST {path}"), headers, body.as_bytes());
        let error = found.json();
        assert_eq!(
            (found.status, &error["type"], &error["error"]["type"]),
            (status, &json!("error"), &json!(kind))
        );
        assert_eq!(error["request_id"].as_str(), found.header("request-id"));
        error["error"]["message"].as_str().unwrap().to_owned()
    };
    let key = ("x-api-key", "sk-a");
    check("/v1/messages", &[JSON], "{}", 401, "authentication_error");
    let message = check("/v1/messages", &[JSON, key], "{}", 400, "invalid_request_error");
    assert_eq!(message, "messages: expected a list of messages, found none");
    check("/v1/messages/count_tokens", &[JSON, key], "[]", 400, "invalid_request_error");
    check("/messages", &[key], "{}", 415, "invalid_request_error");
    let unknown = r#"{"model": "x", "messages": [{"role": "user", "content": "a"}], "max_tokens": 1}"#;
    check("/messages", &[JSON, key], unknown, 404, "not_found_error");
}

#[test]
fn texts_are_compared_and_prompts_shown() {
    let served = Served::start();
    let body = json!({"query": "A dog ran.", "documents": ["The sun is hot", "A dog ran."]});
    for path in ["/v1/rerank", "/rerank"] {
        let results = post(served.address, path, &body).json()["results"].clone();
        assert_eq!((&results[0]["index"], &results[1]["index"]), (&json!(1), &json!(0)));
    }
    let scores = post(served.address, "/v1/score", &json!({"text_1": "a", "text_2": ["b", "a"]})).json();
    assert_eq!((&scores["object"], &scores["data"][1]["index"]), (&json!("list"), &json!(1)));
    let chat = json!({"messages": [{"role": "user", "content": "Hi"}]});
    let prompt = post(served.address, "/apply-template", &chat).json()["prompt"].clone();
    let tokens = post(served.address, "/tokenize", &chat).json()["tokens"].clone();
    assert_eq!(post(served.address, "/detokenize", &json!({"tokens": tokens})).json()["prompt"], prompt);
}

#[test]
fn ollama_s_clients_are_answered_in_its_form() {
    let served = Served::start();
    let chat = json!({"model": "demo:latest", "messages": [{"role": "user", "content": "Hi"}], "options": {"num_predict": 3}});
    let lines = post(served.address, "/api/chat", &chat);
    assert_eq!((lines.status, lines.header("content-type")), (200, Some("application/x-ndjson")));
    let lines: Vec<Value> = lines.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.last().unwrap()["eval_count"], json!(3));
    let embedded = post(served.address, "/api/embed", &json!({"input": "a"})).json();
    assert_eq!(embedded["embeddings"].as_array().unwrap().len(), 1);

    let tags = get(served.address, "/api/tags").json();
    assert_eq!((&tags["models"][0]["name"], &tags["models"][1]["name"]), (&json!("demo"), &json!("alias")));
    assert_eq!(tags["models"][0]["details"]["family"], json!("llama"));
    assert_eq!(get(served.address, "/api/ps").json()["models"][0]["context_length"], json!(1024));
    assert!(get(served.address, "/api/version").json()["version"].is_string());
    let shown = post(served.address, "/api/show", &json!({"model": "demo:latest"})).json();
    assert_eq!(shown["model_info"]["llama.context_length"], json!(1024));
    assert!(shown["capabilities"].as_array().unwrap().contains(&json!("tools")), "{shown}");
    assert!(!shown["capabilities"].as_array().unwrap().contains(&json!("insert")), "{shown}");

    let error = |path: &str, body: Value, status: u16| {
        let found = post(served.address, path, &body);
        assert_eq!(found.status, status, "{}", found.text());
        found.json()["error"].as_str().unwrap().to_owned()
    };
    assert!(error("/api/show", json!({"model": "other"}), 404).starts_with("model: expected demo or alias"));
    assert!(error("/api/generate", json!({"model": "other", "prompt": "a"}), 404).starts_with("model: "));
    assert!(error("/api/chat", json!({}), 400).starts_with("messages: "));
    assert_eq!(post(served.address, "/v1/api/chat", &chat).status, 404);
}

#[test]
fn llama_s_clients_learn_of_the_server() {
    let served = Served::start();
    let props = get(served.address, "/props").json();
    assert_eq!(
        (&props["default_generation_settings"]["n_ctx"], &props["model_alias"]),
        (&json!(1024), &json!("demo"))
    );
    assert!(props["chat_template"].as_str().unwrap().contains("messages"), "{props}");
    let slots = get(served.address, "/slots").json();
    assert_eq!(props["total_slots"], json!(slots.as_array().unwrap().len()));
    assert_eq!((&slots[0]["id"], &slots[0]["is_processing"]), (&json!(0), &json!(false)));
    let mut body = json!({"prompt": "One day", "n_predict": 3, "temperature": 0});
    let whole = post(served.address, "/completion", &body);
    body["stream"] = json!(true);
    let streamed = post(served.address, "/completion", &body);
    assert_eq!(streamed.header("content-type"), Some("text/event-stream"));
    let chunks = streamed.text();
    let chunks = chunks.split_terminator("\n\n").map(|chunk| chunk.strip_prefix("data: ").unwrap());
    let chunks: Vec<Value> = chunks.map(|chunk| serde_json::from_str(chunk).unwrap()).collect();
    let text: String = chunks.iter().map(|chunk| chunk["content"].as_str().unwrap()).collect();
    assert_eq!(whole.json()["content"], json!(text));
}

#[test]
fn answers_say_what_has_made_them() {
    let served = Served::start();
    let body = json!({"prompt": "One day", "max_tokens": 1});
    assert_eq!(post(served.address, "/v1/completions", &body).json()["system_fingerprint"], json!("fp_test"));
}
