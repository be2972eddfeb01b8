//! Answers, whole and streamed, alone and among others.

use std::net::SocketAddr;
use std::thread;

use serde_json::{Value, json};

use crate::client::{JSON, ask, events, get, post};
use crate::served::Served;

/// What a stream adds up to, in the shape of a whole answer's choices.
#[derive(Debug, Default, PartialEq)]
struct Choice {
    text: String,
    tokens: Vec<Value>,
    finish_reason: Option<String>,
}

fn streamed(address: SocketAddr, path: &str, body: &Value) -> (Vec<Choice>, Option<Value>) {
    let response = ask(address, &format!("POST {path}"), &[JSON], body.to_string().as_bytes()).whole();
    assert_eq!(response.header("content-type"), Some("text/event-stream"));
    let events = events(&response.body);
    let mut choices: Vec<Choice> = Vec::new();
    let mut usage = None;
    for event in &events {
        assert_eq!(event["id"], events[0]["id"]);
        for choice in event["choices"].as_array().unwrap() {
            let index = choice["index"].as_u64().unwrap() as usize;
            choices.resize_with(choices.len().max(index + 1), Choice::default);
            let gathered = &mut choices[index];
            assert_eq!(gathered.finish_reason, None, "nothing comes after the end");
            let text = choice["text"].as_str().or(choice["delta"]["content"].as_str());
            gathered.text.push_str(text.unwrap_or_default());
            gathered.tokens.extend(tokens(&choice["logprobs"]));
            gathered.finish_reason = choice["finish_reason"].as_str().map(str::to_owned);
        }
        if let Some(found) = event.get("usage").filter(|usage| !usage.is_null()) {
            usage = Some(found.clone());
        }
    }
    (choices, usage)
}

/// One value for each token that log-probabilities list.
fn tokens(logprobs: &Value) -> Vec<Value> {
    if let Some(content) = logprobs["content"].as_array() {
        return content.clone();
    }
    let list = |name: &str| logprobs[name].as_array().cloned().unwrap_or_default();
    let lists = ["tokens", "token_logprobs", "top_logprobs", "text_offset"].map(list);
    (0..lists[0].len()).map(|token| lists.iter().map(|list| list[token].clone()).collect()).collect()
}

fn whole(address: SocketAddr, path: &str, body: &Value) -> (Vec<Choice>, Value) {
    let response = post(address, path, body);
    assert_eq!(response.status, 200, "{}", response.text());
    let answer = response.json();
    let choice = |choice: &Value| Choice {
        text: choice["text"].as_str().or(choice["message"]["content"].as_str()).unwrap().to_owned(),
        tokens: tokens(&choice["logprobs"]),
        finish_reason: choice["finish_reason"].as_str().map(str::to_owned),
    };
    (answer["choices"].as_array().unwrap().iter().map(choice).collect(), answer["usage"].clone())
}

/// Without what the prefix cache changes.
fn counts(usage: &Value) -> [Option<u64>; 3] {
    ["prompt_tokens", "completion_tokens", "total_tokens"].map(|name| usage[name].as_u64())
}

#[test]
fn a_stream_adds_up_to_the_whole_answer() {
    let served = Served::start();
    let check = |path: &str, body: Value| {
        let (expect, expect_usage) = whole(served.address, path, &body);
        let mut body = body;
        body["stream"] = json!(true);
        assert_eq!(streamed(served.address, path, &body), (expect, None), "{body}");
        body["stream_options"] = json!({"include_usage": true});
        let (_, usage) = streamed(served.address, path, &body);
        assert_eq!(counts(&usage.unwrap()), counts(&expect_usage), "{body}");
    };
    let story = "Once upon a time";
    check("/v1/completions", json!({"prompt": story, "max_tokens": 12, "seed": 1}));
    check("/v1/completions", json!({"prompt": story, "max_tokens": 9, "seed": 1, "n": 3, "logprobs": 2}));
    check("/v1/completions", json!({"prompt": [story, "The end"], "seed": 7, "n": 2, "temperature": 2}));
    check("/v1/completions", json!({"prompt": story, "max_tokens": 60, "temperature": 0, "stop": ["."]}));
    let messages = json!([{"role": "user", "content": "hello"}]);
    check("/v1/chat/completions", json!({"messages": messages, "max_completion_tokens": 12, "seed": 3}));
    check(
        "/v1/chat/completions",
        json!({"messages": messages, "max_tokens": 8, "seed": 3, "n": 2, "logprobs": true, "top_logprobs": 3}),
    );
}

#[test]
fn an_answer_has_the_form_that_was_demanded() {
    let served = Served::start();
    let schema = json!({"type": "object", "properties": {"good": {"type": "boolean"}}, "required": ["good"],
                        "additionalProperties": false});
    let messages = json!([{"role": "user", "content": "Is the dog good?"}]);
    let format = json!({"type": "json_schema", "json_schema": {"name": "a", "schema": schema}});
    let mut body = json!({"messages": messages, "response_format": format, "max_tokens": 200, "seed": 1});
    let (choices, _) = whole(served.address, "/v1/chat/completions", &body);
    let good: Value = serde_json::from_str(&choices[0].text).unwrap();
    assert!(good["good"].is_boolean(), "{good}");
    body["stream"] = json!(true);
    assert_eq!(streamed(served.address, "/v1/chat/completions", &body).0, choices);
    body["response_format"]["json_schema"]["schema"]["type"] = json!("colour");
    let response = post(served.address, "/v1/chat/completions", &body);
    assert_eq!(response.status, 400);
    assert_eq!(response.json()["error"]["param"], "response_format.json_schema.schema");
}

#[test]
fn every_answer_is_that_of_the_request_alone() {
    let served = Served::start();
    let body = |index: usize| {
        let prompt = ["Once upon a time", "A dog", "The little bear went to the forest and"][index % 3];
        json!({"prompt": prompt, "max_tokens": 5 + index % 17, "seed": index, "logprobs": 1, "stream": true})
    };
    let alone: Vec<_> =
        (0..24).map(|index| streamed(served.address, "/v1/completions", &body(index))).collect();
    let together: Vec<_> = thread::scope(|scope| {
        let ask = |index| scope.spawn(move || streamed(served.address, "/v1/completions", &body(index)));
        let asked: Vec<_> = (0..24).map(ask).collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    assert_eq!(together, alone);
}

#[test]
fn a_request_without_a_seed_gets_a_random_one() {
    let served = Served::start();
    let body = json!({"prompt": "Once upon a time", "max_tokens": 40, "temperature": 1.5});
    let answers: Vec<_> = (0..3).map(|_| whole(served.address, "/v1/completions", &body).0).collect();
    assert!(answers[0] != answers[1] || answers[1] != answers[2], "{answers:?}");
    let mut seeded = body;
    seeded["seed"] = json!(5);
    let [first, second] = [(); 2].map(|()| whole(served.address, "/v1/completions", &seeded).0);
    assert_eq!(first, second);
}

#[test]
fn embeddings_are_answered() {
    let served = Served::start();
    let body = json!({"input": ["Once upon a time", "The end"], "model": "demo"});
    let response = post(served.address, "/v1/embeddings", &body);
    assert_eq!(response.status, 200, "{}", response.text());
    let answer = response.json();
    for (index, entry) in answer["data"].as_array().unwrap().iter().enumerate() {
        assert_eq!(entry["index"], index);
        let values = entry["embedding"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap());
        let length: f64 = values.map(|value| value * value).sum::<f64>().sqrt();
        assert!((length - 1.0).abs() < 1e-5, "{length}");
    }
    assert_eq!(answer["data"].as_array().unwrap().len(), 2);
}

#[test]
fn the_model_is_listed_under_all_of_its_names() {
    let served = Served::start();
    let models = get(served.address, "/v1/models").json();
    let ids: Vec<_> = models["data"].as_array().unwrap().iter().map(|model| &model["id"]).collect();
    assert_eq!(ids, ["demo", "alias"]);
    assert_eq!(get(served.address, "/v1/models/alias").json(), models["data"][1]);
    let answer =
        post(served.address, "/v1/completions", &json!({"model": "alias", "prompt": "a", "max_tokens": 1}));
    assert_eq!(answer.json()["model"], "demo");
}

#[test]
fn text_is_tokenised_and_back() {
    let served = Served::start();
    let tokens = post(served.address, "/tokenize", &json!({"prompt": "Once upon a time"})).json();
    assert_eq!(tokens["count"], tokens["tokens"].as_array().unwrap().len());
    let bare = json!({"prompt": "Once upon a time", "add_special_tokens": false});
    let bare = post(served.address, "/tokenize", &bare).json();
    let text = post(served.address, "/detokenize", &json!({"tokens": bare["tokens"]})).json();
    assert_eq!(text["prompt"].as_str().unwrap().trim_start(), "Once upon a time");
    let chat =
        post(served.address, "/tokenize", &json!({"messages": [{"role": "user", "content": "a"}]})).json();
    assert!(chat["count"].as_u64().unwrap() > 1, "{chat}");
    for (path, body, param) in [
        ("/tokenize", json!({}), "prompt"),
        ("/tokenize", json!({"prompt": 1}), "prompt"),
        ("/tokenize", json!({"messages": [{}]}), "messages"),
        ("/detokenize", json!({"tokens": [99_999_999]}), "tokens"),
        ("/detokenize", json!({"tokens": "a"}), "tokens"),
    ] {
        let response = post(served.address, path, &body);
        assert_eq!(
            (response.status, &response.json()["error"]["param"]),
            (400, &json!(param)),
            "{path} {body}"
        );
    }
}

#[test]
fn metrics_count_what_was_done() {
    let served = Served::start();
    let body = json!({"prompt": "Once upon a time", "max_tokens": 7, "ignore_eos": true});
    for _ in 0..2 {
        assert_eq!(post(served.address, "/v1/completions", &body).status, 200);
    }
    assert_eq!(get(served.address, "/a/path/of/somebody").status, 404);
    // The engine tells its figures after a step, whose events may be here before.
    while served.metric("rustorch_sequences_total{end=\"length\"}") < 2.0 {}
    let check = |name: &str, expect: f64| assert_eq!(served.metric(name), expect, "{name}");
    check("rustorch_tokens_total{kind=\"generated\"}", 14.0);
    check("rustorch_sequences_total{end=\"length\"}", 2.0);
    check("rustorch_time_to_first_token_seconds_count", 2.0);
    check("rustorch_time_per_token_seconds_count", 12.0);
    check("rustorch_batch_size", 4.0);
    check("rustorch_running_sequences", 0.0);
    check("rustorch_requests_total{endpoint=\"/v1/completions\",status=\"200\"}", 2.0);
    check("rustorch_requests_total{endpoint=\"other\",status=\"404\"}", 1.0);
}
