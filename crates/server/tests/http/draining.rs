//! The way down.

use serde_json::json;

use crate::client::{JSON, ask, events, get, post};
use crate::served::Served;

#[test]
fn what_has_begun_is_finished_and_what_is_new_is_refused() {
    let served = Served::start();
    let body = json!({"prompt": "a", "max_tokens": 900, "ignore_eos": true, "stream": true}).to_string();
    let mut answering = ask(served.address, "POST /v1/completions", &[JSON], body.as_bytes());
    let mut stream = answering.piece().unwrap();
    served.stop.stop();

    let refused = post(served.address, "/v1/completions", &json!({"prompt": "a"}));
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (503, &json!("shutting_down")));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(get(served.address, "/health").status, 503);
    assert_eq!(get(served.address, "/metrics").status, 200);

    stream.extend(answering.whole().body);
    let events = events(&stream);
    assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "length");
    served.join();
}

#[test]
fn an_idle_server_ends_at_once() {
    let served = Served::start();
    assert_eq!(get(served.address, "/health").status, 200);
    served.stop.stop();
    served.join();
}
