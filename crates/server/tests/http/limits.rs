//! Bounds: of bodies, of the queue, of time.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use crate::client::{Answering, JSON, ask, get, post, request, send};
use crate::served::{BATCH_SIZE, Served};

/// A stream that takes its time.
const LONG: usize = 900;

#[test]
fn a_body_beyond_the_limit_is_answered_413() {
    let served = Served::with(|config| config.body_limit = 1000);
    let address = served.address;
    let completions = "POST /v1/completions";
    let fitting = format!("{{\"prompt\": \"a\", \"max_tokens\": 1, \"user\": \"{}\"}}", "x".repeat(900));
    assert_eq!(send(address, completions, &[JSON], fitting.as_bytes()).status, 200);
    // A client that looks for the answer only when it has sent all of it.
    let large = vec![b' '; 10 << 20];
    let response = send(address, completions, &[JSON], &large);
    assert_eq!((response.status, &response.json()["error"]["code"]), (413, &json!("request_too_large")));
    // One that does not say how much it will send.
    let chunked = format!("{:x}\r\n{}\r\n0\r\n\r\n", 2000, " ".repeat(2000));
    let headers = [JSON, ("transfer-encoding", "chunked")];
    assert_eq!(send(address, completions, &headers, chunked.as_bytes()).status, 413);
    // One that asks first need not send anything.
    let headers = [JSON, ("content-length", "100000000"), ("expect", "100-continue")];
    assert_eq!(send(address, completions, &headers, b"").status, 413);
    assert_eq!(get(address, "/health").status, 200);
}

#[test]
fn a_full_queue_is_answered_429() {
    let served = Served::with(|config| config.max_queue = 1);
    let capacity = BATCH_SIZE + 1;
    let long = json!({"prompt": "a", "max_tokens": LONG, "ignore_eos": true, "stream": true, "n": capacity});
    let held = ask(served.address, "POST /v1/completions", &[JSON], long.to_string().as_bytes());
    assert_eq!(held.status, 200);
    let short = json!({"prompt": "a", "max_tokens": 1});
    let response = post(served.address, "/v1/completions", &short);
    assert_eq!((response.status, &response.json()["error"]["code"]), (429, &json!("queue_full")));
    assert!(response.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()));
    // What does not generate is served.
    assert_eq!(get(served.address, "/v1/models").status, 200);
    drop(held);
    while post(served.address, "/v1/completions", &short).status == 429 {}
    let most = json!({"prompt": "a", "max_tokens": 1, "n": capacity + 1});
    let response = post(served.address, "/v1/completions", &most);
    assert_eq!((response.status, &response.json()["error"]["param"]), (400, &json!("n")));
}

#[test]
fn a_request_ends_when_its_time_is_over() {
    let served = Served::with(|config| config.request_timeout = Duration::from_millis(50));
    // More than the demo model can do in that time on any machine.
    let body = json!({"prompt": "a", "max_tokens": LONG, "ignore_eos": true, "n": 4 * BATCH_SIZE});
    let response = post(served.address, "/v1/completions", &body);
    assert_eq!((response.status, &response.json()["error"]["code"]), (504, &json!("request_timeout")));
    let mut body = body;
    body["stream"] = json!(true);
    let response = post(served.address, "/v1/completions", &body);
    assert_eq!(response.status, 200, "the head of a stream is sent at once");
    let text = response.text();
    let last = text.trim_end().rsplit("\n\n").next().unwrap();
    assert!(last.starts_with("data: {\"error\":") && last.contains("request_timeout"), "{last}");
}

#[test]
fn rubbish_costs_its_connection_alone() {
    let served = Served::start();
    for rubbish in [&b"\0\0\0\0"[..], b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", &[b'x'; 1 << 20]] {
        let mut stream = TcpStream::connect(served.address).unwrap();
        // It may close before all is written.
        let _ = stream.write_all(rubbish);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    // A body that ends too early, and one that never comes.
    let mut short = TcpStream::connect(served.address).unwrap();
    short.write_all(&request("POST /v1/completions", &[JSON, ("content-length", "99")], b"{")).unwrap();
    drop(short);
    assert_eq!(get(served.address, "/health").status, 200);
}

#[test]
fn a_connection_serves_one_request_after_another() {
    let served = Served::start();
    let mut stream = TcpStream::connect(served.address).unwrap();
    for _ in 0..3 {
        let text = "GET /health HTTP/1.1\r\nhost: test\r\n\r\n";
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = [0; 15];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        let mut rest = Vec::new();
        while !rest.ends_with(b"{\"status\":\"ok\"}") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            rest.push(byte[0]);
        }
    }
    stream.write_all(&request("GET /v1/models", &[], b"")).unwrap();
    assert_eq!(Answering::read(stream).whole().status, 200);
}
