//! Clients that go before they have their answer.

use std::io::Write;
use std::net::TcpStream;

use serde_json::json;

use crate::client::{JSON, ask, post, request};
use crate::served::{BATCH_SIZE, Served};

/// Tokens that a request asks for which nobody will wait for.
const MANY: usize = 900;

/// Waits until nothing runs, and checks that this is not because all was generated.
fn wait_until_idle(served: &Served, asked: usize) {
    loop {
        let stats = served.engine.stats();
        if stats.cancelled as usize == asked {
            assert_eq!((stats.running, stats.used_pages), (0, 0), "{stats:?}");
            assert!((stats.generated_tokens as usize) < asked * MANY, "{stats:?}");
            return;
        }
        assert_eq!(stats.finished_length, 0, "a sequence ran to its end: {stats:?}");
        std::thread::yield_now();
    }
}

#[test]
fn a_stream_that_nobody_reads_any_more_is_cancelled() {
    let served = Served::start();
    let body =
        json!({"prompt": "a", "max_tokens": MANY, "ignore_eos": true, "stream": true, "n": 3}).to_string();
    let mut answering = ask(served.address, "POST /v1/completions", &[JSON], body.as_bytes());
    assert!(answering.piece().is_some());
    drop(answering);
    wait_until_idle(&served, 3);
    // The place is free again.
    assert_eq!(post(served.address, "/v1/completions", &json!({"prompt": "a", "max_tokens": 1})).status, 200);
}

#[test]
fn a_whole_answer_that_nobody_waits_for_is_cancelled() {
    let served = Served::start();
    let body = json!({"prompt": "a", "max_tokens": MANY, "ignore_eos": true}).to_string();
    let mut stream = TcpStream::connect(served.address).unwrap();
    stream.write_all(&request("POST /v1/completions", &[JSON], body.as_bytes())).unwrap();
    while served.engine.stats().generated_tokens == 0 {
        std::thread::yield_now();
    }
    drop(stream);
    wait_until_idle(&served, 1);
    assert_eq!(served.metric("rustorch_requests_total{endpoint=\"/v1/completions\",status=\"499\"}"), 1.0);
}

#[test]
fn those_who_wait_are_cancelled_too() {
    let served = Served::start();
    let body =
        json!({"prompt": "a", "max_tokens": MANY, "ignore_eos": true, "stream": true, "n": 2 * BATCH_SIZE});
    let mut answering = ask(served.address, "POST /v1/completions", &[JSON], body.to_string().as_bytes());
    assert!(answering.piece().is_some());
    drop(answering);
    wait_until_idle(&served, 2 * BATCH_SIZE);
}
