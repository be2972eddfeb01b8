//! Clients that take more than their share: connections, memory.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustorch_llama::Weight;
use serde_json::json;
use server::ApiKey;

use crate::client::{Answering, JSON, ask, get, post, request, send};
use crate::served::{BATCH_SIZE, Served};

/// A completion that is under way until its connection is dropped: many choices, so that it takes much longer than a test.
fn under_way(served: &Served) -> Answering {
    let long = json!({"prompt": "a", "max_tokens": 900, "ignore_eos": true, "stream": true, "n": 16});
    let answering = ask(served.address, "POST /v1/completions", &[JSON], long.to_string().as_bytes());
    assert_eq!(answering.status, 200);
    answering
}

/// A completion of some client's that is under way.
fn of_client(served: &Served, client: (&str, &str)) -> Answering {
    let long = json!({"prompt": "a", "max_tokens": 900, "ignore_eos": true, "stream": true});
    ask(served.address, "POST /v1/completions", &[JSON, client], long.to_string().as_bytes())
}

#[test]
fn a_trusted_proxy_says_who_the_client_is() {
    let check = |proxies: &[&str], num_clients: f64| {
        let served = Served::with(|config| {
            config.trusted_proxies = proxies.iter().map(|proxy| proxy.parse().unwrap()).collect();
        });
        let headers = [
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-for", "192.0.2.1, 192.0.2.2"),
            ("forwarded", "for=192.0.2.3"),
            ("forwarded", "for=192.0.2.4, for=192.0.2.3"),
        ];
        let held = headers.map(|header| of_client(&served, header));
        assert_eq!(served.metric("rustorch_clients"), num_clients, "{proxies:?}");
        drop(held);
    };
    check(&["127.0.0.1"], 3.0);
    check(&["10.0.0.0/8"], 1.0);
    check(&[], 1.0);
}

/// The engine runs four at a time; all else waits.
#[test]
fn keys_share_the_queue_by_their_weights() {
    let key = |key: &str, weight| ApiKey { key: key.to_owned(), weight: Weight::new(weight).unwrap() };
    let served = Served::with(|config| config.api_keys = vec![key("sk-a", 1), key("sk-b", 3)]);
    let ask = |key: &str, body: serde_json::Value| {
        let bearer = format!("Bearer {key}");
        let headers = [JSON, ("authorization", bearer.as_str())];
        ask(served.address, "POST /v1/completions", &headers, body.to_string().as_bytes())
    };
    let body = |n| json!({"prompt": "a", "max_tokens": 200, "ignore_eos": true, "n": n, "stream": true});
    let _running = ask("sk-a", body(BATCH_SIZE));
    let (first, second) = (ask("sk-a", body(24)), ask("sk-b", body(24)));
    let finished = |name: &str| {
        let metrics = send(served.address, "GET /metrics", &[("authorization", "Bearer sk-b")], b"").text();
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{metrics}")).parse::<f64>().unwrap()
    };
    assert_eq!(finished("rustorch_clients"), 2.0);
    assert_eq!(second.whole().status, 200);
    // What ran, the second key's, a third as many of the first key's, and those that ended until the figure was read.
    let most = BATCH_SIZE + 24 + 8 + 2 * BATCH_SIZE;
    assert!(finished("rustorch_sequences_total{end=\"length\"}") <= most as f64);
    drop(first);
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
    // The one before may not be closed yet.
    assert!((0..1000).any(|_| served.metric("rustorch_connections") == 3.0));
    let refused = get(served.address, "/v1/models");
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (503, &json!("too_many_connections")));
    drop(held);
    while get(served.address, "/v1/models").status == 503 {}
}

#[test]
fn a_listener_for_the_state_answers_when_the_other_is_full() {
    let served = Served::with(|config| config.max_connections = 2);
    let state = served.state_address;
    // Those beyond the limit that tell the state are taken, too.
    let held: Vec<_> = (0..2).map(|_| under_way(&served)).collect();
    let _reserved: Vec<_> = (0..16).map(|_| TcpStream::connect(served.address).unwrap()).collect();
    assert_eq!(get(state, "/health").json(), json!({"status": "ok"}));
    assert_eq!(get(state, "/ping").status, 200);
    assert!(get(state, "/metrics").text().contains("rustorch_connections "));
    let refused = post(state, "/v1/completions", &json!({"prompt": "a"}));
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (404, &json!("unknown_route")));
    drop(held);
    assert!(served.metric("rustorch_connections") >= 1.0, "the first serves metrics too");
}

#[test]
fn metrics_need_the_key_everywhere() {
    let served = Served::with(|config| config.api_keys = vec!["sk-a".into()]);
    for address in [served.address, served.state_address] {
        assert_eq!(get(address, "/metrics").status, 401);
        let key = ("authorization", "Bearer sk-a");
        assert_eq!(send(address, "GET /metrics", &[key], b"").status, 200);
        assert_eq!(get(address, "/health").status, 200);
    }
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
