//! `rustorch serve` as a process: where it listens, its limits, how it ends, what it refuses. What it answers is tested in its
//! crate.

use std::io::{BufRead, BufReader, Read, Write};
use std::iter::repeat_with;
use std::net::TcpStream;
use std::process::{Child, ChildStderr, Command};

use serde_json::{Value, json};

use crate::harness::{arg, fail, folder, start};

/// A server on a free port, which is killed at the end of the test.
struct Served {
    child: Child,
    /// Kept open, so that the server can write to it.
    stderr: BufReader<ChildStderr>,
    /// The line that says what is served where.
    line: String,
}

impl Served {
    fn start(options: &[&str]) -> Self {
        let mut child = start(&[&["serve", "--port", "0"], options].concat());
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        Self { child, stderr, line }
    }

    fn connect(&self) -> TcpStream {
        let address = self.line.trim_end().rsplit_once("http://");
        TcpStream::connect(address.unwrap_or_else(|| panic!("{}", self.line)).1).unwrap()
    }

    /// The answer to a request with this head (without the ends of its lines) and body.
    fn ask(&self, head: &[&str], body: &str) -> String {
        read_answer(send(self.connect(), head, body))
    }

    /// Ends the server once it has answered, and returns the other lines that it wrote.
    fn lines(mut self) -> Vec<String> {
        let killed = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(killed.success());
        let mut text = String::new();
        self.stderr.read_to_string(&mut text).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn send(mut stream: TcpStream, head: &[&str], body: &str) -> TcpStream {
    let length = format!("content-length: {}", body.len());
    let head = [head, &["host: a", "connection: close", &length, "\r\n"]].concat().join("\r\n");
    stream.write_all((head + body).as_bytes()).unwrap();
    stream
}

fn read_answer(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

const MODELS: &str = "GET /v1/models HTTP/1.1";
const COMPLETIONS: [&str; 2] = ["POST /v1/completions HTTP/1.1", "content-type: application/json"];

#[track_caller]
fn has_status(answer: &str, status: u16) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "expected {status}: {answer}");
}

#[test]
fn it_says_where_it_listens_and_ends_at_a_signal() {
    for signal in ["-TERM", "-INT"] {
        let mut served = Served::start(&["--model-name", "storyteller"]);
        assert!(served.line.starts_with("serving storyteller on "), "{}", served.line);
        let answer = served.ask(&[MODELS], "");
        has_status(&answer, 200);
        assert!(answer.contains("\"storyteller\""), "{answer}");

        let killed = Command::new("kill").args([signal, &served.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        assert_eq!(served.child.wait().unwrap().code(), Some(0), "{signal}");
    }
}

#[test]
fn metrics_tell_replicas_apart() {
    let served = Served::start(&["--device", "cpu:0,cpu:1", "--threads", "2", "--batch-size", "3"]);
    for device in ["cpu:0: CPU (", "cpu:1: CPU ("] {
        assert!(served.line.contains(device), "{}", served.line);
    }
    let body = json!({"prompt": ["a", "b", "c", "d"], "max_tokens": 5, "ignore_eos": true}).to_string();
    has_status(&served.ask(&COMPLETIONS, &body), 200);
    // An engine tells its figures after a step, when the step's tokens have been sent already.
    let scrape = |_| served.ask(&["GET /metrics HTTP/1.1"], "");
    let is_told = |metrics: &String| metrics.contains("rustorch_tokens_total{kind=\"generated\"} 20\n");
    let metrics = (0..1000).map(scrape).find(is_told).expect("the figures of the last step");
    let value = |series: &str| -> f64 {
        let line = metrics.lines().find(|line| line.starts_with(series));
        let value = line.and_then(|line| line.rsplit_once(' ')).map(|(_, value)| value.parse());
        value.unwrap_or_else(|| panic!("{series} in {metrics}")).unwrap()
    };
    let replica = |name: &str, idx| {
        value(&format!("rustorch_replica_{name}{{replica=\"{idx}\",device=\"cpu:{idx}: CPU ("))
    };
    for idx in 0..2 {
        assert_eq!((replica("up", idx), replica("batch_size", idx)), (1.0, 3.0));
        assert_eq!(replica("generated_tokens_total", idx), 10.0, "the prompts are shared");
    }
    assert_eq!(value("rustorch_batch_size"), 6.0);
}

#[test]
fn limits_of_sizes_and_the_key_hold() {
    let data = folder("serve_limits");
    let limits =
        ["--body-limit", "200", "--file-limit", "400", "--api-key", "secret", "--data-dir", arg(&data)];
    let served = Served::start(&limits);
    has_status(&served.ask(&[MODELS], ""), 401);
    let key = "authorization: Bearer secret";
    has_status(&served.ask(&[MODELS, key], ""), 200);

    let complete = |length: usize| {
        let body = format!("{{\"prompt\": \"a\", \"max_tokens\": 1, \"user\": \"{}\"}}", "x".repeat(length));
        served.ask(&[COMPLETIONS[0], COMPLETIONS[1], key], &body)
    };
    has_status(&complete(100), 200);
    has_status(&complete(200), 413);
    let upload = |length: usize| {
        let field = |name: &str, value: &str| {
            format!(
                "--b\r\ncontent-disposition: form-data; name=\"{name}\"; filename=\"{name}\"\r\n\r\n{value}\r\n"
            )
        };
        let purpose = "--b\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n";
        let body = format!("{purpose}{}--b--\r\n", field("file", &"x".repeat(length)));
        served.ask(&["POST /v1/files HTTP/1.1", "content-type: multipart/form-data; boundary=b", key], &body)
    };
    has_status(&upload(400), 200);
    has_status(&upload(401), 413);
}

#[test]
fn limits_of_the_queue_and_of_time_hold() {
    let served = Served::start(&["--max-queue", "0", "--batch-size", "2"]);
    let complete = |n: usize, max_tokens: usize| {
        let body =
            format!("{{\"prompt\": \"a\", \"n\": {n}, \"max_tokens\": {max_tokens}, \"ignore_eos\": true}}");
        served.ask(&COMPLETIONS, &body)
    };
    // More than the batch and the queue will ever hold. Asked first: places are given back a moment after an answer.
    has_status(&complete(3, 1), 400);
    has_status(&complete(2, 1), 200);

    // More than the demo model can do in a second on any machine.
    let served = Served::start(&["--request-timeout", "1"]);
    let body = "{\"prompt\": \"a\", \"n\": 128, \"max_tokens\": 1000, \"ignore_eos\": true}";
    has_status(&served.ask(&COMPLETIONS, body), 504);
}

#[test]
fn the_batch_size_is_given_or_chosen() {
    let second_line = |options: &[&str]| {
        let mut served = Served::start(options);
        let mut line = String::new();
        served.stderr.read_line(&mut line).unwrap();
        line
    };
    assert_eq!(second_line(&[]), "batch size 64 with 160.0 MiB of KV pages: room for all of full length\n");
    // Pages for 512 positions of each.
    assert_eq!(
        second_line(&["--kv-memory", "40M"]),
        "batch size 32 with 40.0 MiB of KV pages: 40 MiB for KV pages\n"
    );
    let served = Served::start(&["--batch-size", "3"]);
    assert!(served.ask(&["GET /metrics HTTP/1.1"], "").contains("rustorch_batch_size 3.0\n"));
}

/// Steps that a prompt of 200 tokens takes.
fn prompt_steps(options: &[&str]) -> u32 {
    let served = Served::start(options);
    let body = json!({"prompt": vec![5; 200], "max_tokens": 1, "ignore_eos": true}).to_string();
    has_status(&served.ask(&COMPLETIONS, &body), 200);
    // The engine tells its figures after the answer.
    let ends = |metrics: &String| metrics.contains("rustorch_sequences_total{end=\"length\"} 1\n");
    let metrics = repeat_with(|| served.ask(&["GET /metrics HTTP/1.1"], "")).find(ends).unwrap();
    let steps = metrics.lines().find_map(|line| line.strip_prefix("rustorch_engine_steps_total "));
    steps.unwrap_or_else(|| panic!("{metrics}")).parse().unwrap()
}

#[test]
fn a_target_for_the_time_between_tokens_and_the_chunk_cut_prompts() {
    assert_eq!(prompt_steps(&["--itl-target", "0"]), 1);
    assert_eq!(prompt_steps(&["--itl-target", "0", "--chunk", "50"]), 4);
    // The first step with a target is a small one, whatever the machine.
    assert!(prompt_steps(&["--itl-target", "1"]) > 1);
}

#[test]
fn a_context_beyond_the_trained_one_is_told() {
    let served = Served::start(&["-c", "2048"]);
    let expect = "warning: --ctx: the model was trained on 1024 tokens, 2048 are beyond that";
    assert!(served.line.starts_with(expect), "{}", served.line);
}

/// The fingerprint of the answers of a server with these options.
fn fingerprint(options: &[&str]) -> String {
    let answer = Served::start(options).ask(&COMPLETIONS, r#"{"prompt": "a", "max_tokens": 1}"#);
    let (_, rest) = answer.split_once(r#""system_fingerprint":"fp_"#).unwrap_or_else(|| panic!("{answer}"));
    rest.split('"').next().unwrap().to_owned()
}

#[test]
fn answers_name_the_model_and_how_it_is_computed() {
    let found = fingerprint(&[]);
    assert_eq!(fingerprint(&["--threads", "1", "--batch-size", "2", "--model-name", "x"]), found);
    assert_ne!(fingerprint(&["--kv-type", "f32"]), found);
    assert_ne!(fingerprint(&["--activations", "16"]), found);
    assert_eq!(fingerprint(&["--activations", "8"]), found);
    assert_eq!(fingerprint(&["--isa", "portable"]), found);
    assert_ne!(fingerprint(&["--attention", "reference"]), found);
}

#[test]
fn unknown_fields_are_refused_if_that_is_wanted() {
    let body = "{\"prompt\": \"a\", \"max_tokens\": 1, \"temprature\": 0}";
    has_status(&Served::start(&[]).ask(&COMPLETIONS, body), 200);
    let answer = Served::start(&["--strict-fields"]).ask(&COMPLETIONS, body);
    has_status(&answer, 400);
    assert!(answer.contains("the nearest known field is temperature"), "{answer}");
}

#[test]
fn an_idle_connection_makes_room_for_another() {
    let served = Served::start(&["--max-connections", "1"]);
    let mut first = served.connect();
    has_status(&served.ask(&[MODELS], ""), 200);
    assert_eq!(first.read(&mut [0]).unwrap(), 0, "it was closed");
}

#[test]
fn an_address_may_be_given_few_connections() {
    let served = Served::start(&["--max-connections-per-address", "1"]);
    let mut first = served.connect();
    has_status(&served.ask(&[MODELS], ""), 200);
    assert_eq!(first.read(&mut [0]).unwrap(), 0, "it was closed");
}

#[test]
fn the_memory_for_bodies_is_bounded() {
    // A quarter of it is for bodies: one of this size.
    let served = Served::start(&["--body-limit", "250K", "--request-memory", "1M"]);
    let body = format!("{{\"prompt\": \"a\", \"max_tokens\": 1, \"user\": \"{}\"}}", "x".repeat(200 << 10));
    has_status(&served.ask(&COMPLETIONS, &body), 200);
    let mut stalled = served.connect();
    let head = "POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n";
    write!(stalled, "{head}content-length: {}\r\n\r\n{body}", body.len() + 1).unwrap();
    // A request that overtook it would take the memory, and it would be refused instead.
    let holds = "\nrustorch_body_memory_bytes 262144.0\n";
    while !served.ask(&["GET /metrics HTTP/1.1"], "").contains(holds) {}
    let answer = served.ask(&COMPLETIONS, &body);
    has_status(&answer, 503);
    assert!(answer.contains("memory_full"), "{answer}");
}

#[test]
fn a_key_may_come_from_a_file() {
    let file = folder("serve_key").join("key");
    std::fs::write(&file, "secret\n").unwrap();
    let served = Served::start(&["--api-key-file", arg(&file)]);
    has_status(&served.ask(&[MODELS], ""), 401);
    has_status(&served.ask(&[MODELS, "authorization: Bearer secret"], ""), 200);
}

#[test]
fn a_file_may_have_several_keys_with_weights() {
    let file = folder("serve_keys").join("keys");
    std::fs::write(&file, "# of the team\nsecret 4\n\n  other\t\r\n").unwrap();
    let served = Served::start(&["--api-key-file", arg(&file)]);
    for (key, status) in
        [("secret", 200), ("other", 200), ("4", 401), ("secret 4", 401), ("# of the team", 401)]
    {
        has_status(&served.ask(&[MODELS, &format!("authorization: Bearer {key}")], ""), status);
    }
    let check = |text: &str, error: &str| {
        std::fs::write(&file, text).unwrap();
        fail(&["serve", "--port", "0", "--api-key-file", arg(&file)], b"", 1, error);
    };
    check("\n# none\n", "expected a key");
    check("a\nb 0\n", "line 2: expected a weight of 1 to 1000 behind the key, found \"0\"");
    check("a b c\n", "line 1: expected a weight of 1 to 1000 behind the key, found \"b c\"");
    check("a\nb\na 3\n", "line 3: expected each key once");
    #[cfg(unix)]
    fail(&["serve", "--api-key-file", "/dev/zero"], b"", 1, "expected at most 1048576 bytes of keys");
    check("\u{fc}\n", "line 1: expected a key of visible ASCII characters");
}

#[test]
fn a_trusted_proxy_says_whose_request_it_is() {
    let long = json!({"prompt": "a", "max_tokens": 400, "ignore_eos": true, "stream": true}).to_string();
    let clients = |options: &[&str]| {
        let served = Served::start(options);
        let ask = |of: &str| {
            let mut stream = send(served.connect(), &[COMPLETIONS[0], COMPLETIONS[1], of], &long);
            // The head of the answer: the sequence is in flight.
            stream.read_exact(&mut [0; 12]).unwrap();
            stream
        };
        let _held = ["x-forwarded-for: 192.0.2.1", "x-forwarded-for: 192.0.2.2"].map(ask);
        served.ask(&["GET /metrics HTTP/1.1"], "").contains("\nrustorch_clients 2.0\n")
    };
    assert!(clients(&["--trusted-proxy", "192.0.2.0/24", "--trusted-proxy", "127.0.0.0/8"]));
    assert!(!clients(&["--trusted-proxy", "192.0.2.0/24"]), "another is not believed");
    fail(&["serve", "--trusted-proxy", "10.0.0.0/33"], b"", 2, "expected an address or a network");
}

#[test]
fn a_page_of_another_origin_may_ask_if_that_is_wanted() {
    let origin = "origin: https://example.org";
    let allows = "access-control-allow-origin: https://example.org";
    assert!(!Served::start(&[]).ask(&[MODELS, origin], "").to_ascii_lowercase().contains(allows));
    let served = Served::start(&["--cors-origin", "https://example.org"]);
    assert!(served.ask(&[MODELS, origin], "").to_ascii_lowercase().contains(allows));
}

/// The lines of the access log after a few requests.
fn access_log(options: &[&str]) -> Vec<String> {
    let own =
        ["--api-key", "secret", "--body-limit", "200", "--max-queue", "0", "--trusted-proxy", "127.0.0.1"];
    let served = Served::start(&[&own, options].concat());
    let key = "authorization: Bearer secret";
    let complete = |body: &str| served.ask(&[COMPLETIONS[0], COMPLETIONS[1], key], body);
    has_status(&served.ask(&["GET /health HTTP/1.1"], ""), 200);
    has_status(&served.ask(&["GET /v1/models?key=secret HTTP/1.1", "authorization: Bearer sesame"], ""), 401);
    has_status(&served.ask(&["GET /nowhere\u{202e}\" HTTP/1.1", "x-forwarded-for: 192.0.2.7", key], ""), 404);
    has_status(&served.ask(&["DELETE /v1/models HTTP/1.1", key], ""), 405);
    has_status(&complete(&format!("{{\"prompt\": \"{}\"}}", "x".repeat(200))), 413);
    has_status(&complete("{\"prompt\": \"prompt\", \"n\": 128}"), 400);
    let whole = json!({"prompt": "One day, Lily", "n": 2, "max_tokens": 5, "ignore_eos": true});
    has_status(&complete(&whole.to_string()), 200);
    let streamed = json!({"prompt": "One day", "max_tokens": 3, "ignore_eos": true, "stream": true});
    let answer = complete(&streamed.to_string());
    assert!(answer.contains("[DONE]"), "{answer}");
    let left = json!({"prompt": "One day", "max_tokens": 900, "ignore_eos": true, "stream": true});
    let mut leaving = send(served.connect(), &[COMPLETIONS[0], COMPLETIONS[1], key], &left.to_string());
    leaving.read_exact(&mut [0; 12]).unwrap();
    drop(leaving);
    has_status(&served.ask(&["no HTTP"], ""), 400);
    served.lines().into_iter().filter(|line| line.contains("request")).collect()
}

#[test]
fn a_line_is_logged_for_each_request_and_nothing_secret() {
    let lines = access_log(&["--log-format", "json"]);
    let text = lines.concat();
    for secret in ["secret", "sesame", "Lily", "One day", "xxx", "\u{202e}"] {
        assert!(!text.contains(secret), "{secret:?} is in {text}");
    }
    let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let find = |path: &str, status: u16| {
        let found = lines.iter().filter(|line| {
            line["fields"]["status"] == status && line["fields"]["path"].as_str().unwrap_or_default() == path
        });
        found.collect::<Vec<_>>()
    };
    let only = |path: &str, status: u16| {
        let [line] = find(path, status)[..] else { panic!("{path} {status} in {text}") };
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'), "{line}");
        assert_eq!((&line["level"], &line["fields"]["message"]), (&json!("INFO"), &json!("request")));
        &line["fields"]
    };
    assert!(find("/health", 200).is_empty(), "{text}");
    let refused = only("/v1/models", 401);
    assert_eq!((&refused["client"], &refused["method"]), (&json!("127.0.0.1"), &json!("GET")));
    assert!(refused["error"].is_string() && refused["model"].is_null(), "{refused}");
    assert_eq!(refused["id"].as_str().unwrap().len(), 32, "{refused}");
    let unknown = only("/nowhere%E2%80%AE%22", 404);
    assert_eq!((&unknown["client"], &unknown["error"]), (&json!("192.0.2.7"), &json!("unknown_route")));
    assert_eq!(only("/v1/models", 405)["error"], "method_not_allowed");
    assert!(only("/v1/completions", 413)["error"].is_string());
    assert!(only("/v1/completions", 400)["error"].is_string());
    let [whole, streamed, left] = find("/v1/completions", 200)[..] else { panic!("{text}") };
    for (line, prompt_tokens, completion_tokens) in [(whole, 5, 10), (streamed, 3, 3)] {
        let line = &line["fields"];
        assert_eq!((&line["model"], &line["error"]), (&json!("demo"), &Value::Null), "{line}");
        assert_eq!(
            (&line["prompt_tokens"], &line["completion_tokens"]),
            (&json!(prompt_tokens), &json!(completion_tokens))
        );
        let [first, total] = ["first_token_ms", "total_ms"].map(|name| line[name].as_f64().unwrap());
        assert!(0.0 < first && first <= total, "{line}");
        assert_eq!(line["client_left"], Value::Null, "{line}");
    }
    assert_eq!(left["fields"]["client_left"], true, "{left}");
    assert_eq!(only("", 400)["error"], "malformed_http");
    assert_eq!(lines.len(), 9, "{text}");
}

#[test]
fn the_access_log_is_for_people_too_and_can_be_turned_off() {
    let lines = access_log(&[]);
    let has = |parts: &[&str]| lines.iter().any(|line| parts.iter().all(|part| line.contains(part)));
    assert!(has(&[" INFO request client=127.0.0.1 method=GET path=/v1/models status=401 "]), "{lines:?}");
    assert!(
        has(&[" method=POST path=/v1/completions status=200 model=\"demo\" prompt_tokens=5 ", " id="]),
        "{lines:?}"
    );
    assert!(!has(&["/health"]), "{lines:?}");
    assert!(
        access_log(&["-v"]).iter().any(|line| line.contains("DEBUG request") && line.contains("/health"))
    );
    for options in [&["--access-log", "off"], &["--access-log", "false"]] {
        assert_eq!(access_log(options), [""; 0]);
    }
    assert_eq!(access_log(&["--access-log"]).len(), lines.len());
}

#[test]
fn what_cannot_be_served_is_refused() {
    fail(&["serve", "--port", "0", "--api-key", ""], b"", 1, "--api-key: expected a key, found an empty one");
    fail(&["serve", "--port", "0", "--api-key", "a b"], b"", 1, "expected a key of visible ASCII characters");
    fail(&["serve", "--port", "0", "--api-key-file", "/nowhere"], b"", 1, "/nowhere");
    fail(&["serve", "--port", "0", "--cors-origin", "example.org"], b"", 2, "such as https://example.org");
    // An address that is nobody's.
    fail(&["serve", "--host", "192.0.2.1"], b"", 1, "192.0.2.1:8080");
    fail(&["serve", "--host", "nowhere"], b"", 2, "--host");
    fail(&["serve", "--port", "0", "-m", "missing.gguf"], b"", 1, "missing.gguf");
    fail(&["serve", "--port", "0", "--data-dir", "/dev/null"], b"", 1, "/dev/null");
}
