//! `rustorch serve` as a process: where it listens, how it ends, what it refuses. What it answers is tested in its crate.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;

use crate::harness::{fail, start};

#[test]
fn it_says_where_it_listens_and_ends_at_a_signal() {
    for signal in ["-TERM", "-INT"] {
        let mut child = start(&["serve", "--port", "0", "--model-name", "storyteller"]);
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert!(line.starts_with("serving storyteller on "), "{line}");
        let address = line.trim_end().rsplit_once("http://").unwrap().1;

        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /v1/models HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"storyteller\""), "{answer}");

        let killed = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        assert_eq!(child.wait().unwrap().code(), Some(0), "{signal}");
    }
}

#[test]
fn what_cannot_be_served_is_refused() {
    fail(&["serve", "--port", "0", "--api-key", ""], b"", 1, "--api-key: expected a key, found an empty one");
    // An address that is nobody's.
    fail(&["serve", "--host", "192.0.2.1"], b"", 1, "192.0.2.1:8080");
    fail(&["serve", "--host", "nowhere"], b"", 2, "--host");
    fail(&["serve", "--port", "0", "-m", "missing.gguf"], b"", 1, "missing.gguf");
    fail(&["serve", "--port", "0", "--data-dir", "/dev/null"], b"", 1, "/dev/null");
}
