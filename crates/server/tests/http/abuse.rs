//! Clients that take more than their share: connections, memory.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use crate::client::{Answering, JSON, ask, get, post, request};
use crate::served::Served;

/// A completion that is under way until its connection is dropped.
fn under_way(served: &Served) -> Answering {
    let long = json!({"prompt": "a", "max_tokens": 900, "ignore_eos": true, "stream": true});
    let answering = ask(served.address, "POST /v1/completions", &[JSON], long.to_string().as_bytes());
    assert_eq!(answering.status, 200);
    answering
}

#[test]
fn idle_connections_make_room() {
    let served = Served::with(|config| config.max_connections = 8);
    let mut idle: Vec<_> = (0..20).map(|_| TcpStream::connect(served.address).unwrap()).collect();
    assert_eq!(get(served.address, "/health").status, 200);
    assert_eq!(post(served.address, "/v1/completions", &json!({"prompt": "a", "max_tokens": 1})).status, 200);
    assert!(served.metric("rustorch_connections_closed_total") >= 12.0);
    assert_eq!(idle[0].read(&mut [0]).unwrap(), 0, "the idlest was closed");
}

#[test]
fn the_state_is_told_when_all_connections_are_in_use() {
    let served = Served::with(|config| config.max_connections = 2);
    let held = [under_way(&served), under_way(&served)];
    assert_eq!(get(served.address, "/health").status, 200);
    assert_eq!(served.metric("rustorch_connections"), 3.0);
    let refused = get(served.address, "/v1/models");
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (503, &json!("too_many_connections")));
    drop(held);
    while get(served.address, "/v1/models").status == 503 {}
}

#[test]
fn an_address_has_its_share_of_connections() {
    let served = Served::with(|config| config.max_connections_per_address = 2);
    let held = [under_way(&served), under_way(&served)];
    let mut third = TcpStream::connect(served.address).unwrap();
    // The server closes it, perhaps before the request is written.
    let _ = third.write_all(&request("GET /health", &[], b""));
    let mut answer = Vec::new();
    let _ = third.read_to_end(&mut answer);
    assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    drop(held);
}

/// A connection that has sent `sent` bytes of a body of `len`.
fn stalled(served: &Served, len: usize, sent: usize) -> TcpStream {
    let mut stream = TcpStream::connect(served.address).unwrap();
    let len = len.to_string();
    let head = request("POST /v1/completions", &[JSON, ("content-length", &len)], &vec![b' '; sent]);
    stream.write_all(&head).unwrap();
    stream
}

#[test]
fn a_body_that_does_not_come_is_answered_408() {
    let served = Served::with(|config| config.body_grace = Duration::from_millis(50));
    let response = Answering::read(stalled(&served, 100, 1)).whole();
    assert_eq!((response.status, &response.json()["error"]["code"]), (408, &json!("body_timeout")));
}

#[test]
fn bodies_that_arrive_share_a_memory() {
    // A quarter is for bodies.
    let served = Served::with(|config| config.request_memory = 4 << 20);
    let held = stalled(&served, 1000 << 10, 999 << 10);
    while served.metric("rustorch_body_memory_bytes") < 999.0 * 1024.0 - 65536.0 {}
    let prompt = " ".repeat(500 << 10);
    let large = json!({"prompt": "a", "max_tokens": 1, "user": prompt});
    let response = post(served.address, "/v1/completions", &large);
    assert_eq!((response.status, &response.json()["error"]["code"]), (503, &json!("memory_full")));
    assert!(response.header("retry-after").is_some());
    let small = json!({"prompt": "a", "max_tokens": 1});
    assert_eq!(post(served.address, "/v1/completions", &small).status, 200, "small ones pass");
    drop(held);
    while post(served.address, "/v1/completions", &large).status == 503 {}
    assert_eq!(post(served.address, "/v1/completions", &large).status, 200, "parsed alone");
}
