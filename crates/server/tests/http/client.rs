//! A client that does what it is told, wrong things included.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

/// A whole response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// Lower-case names.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

/// A connection that has sent a request and reads the answer as it comes.
pub struct Answering {
    reader: BufReader<TcpStream>,
    pub status: u16,
    pub headers: Vec<(String, String)>,
    chunked: bool,
}

/// Sends a request and waits for the head of the answer.
pub fn ask(address: SocketAddr, head: &str, headers: &[(&str, &str)], body: &[u8]) -> Answering {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(&request(head, headers, body)).unwrap();
    Answering::read(stream)
}

/// Sends a request and reads the whole answer.
pub fn send(address: SocketAddr, head: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
    ask(address, head, headers, body).whole()
}

/// A request as bytes.
pub fn request(head: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{head} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    let declares = |name| headers.iter().any(|(found, _)| *found == name);
    if !(declares("content-length") || declares("transfer-encoding")) {
        text.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    let mut bytes = (text + "\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// Posts JSON.
pub fn post(address: SocketAddr, path: &str, body: &Value) -> Response {
    send(address, &format!("POST {path}"), &[JSON], body.to_string().as_bytes())
}

pub fn get(address: SocketAddr, path: &str) -> Response {
    send(address, &format!("GET {path}"), &[], b"")
}

pub const JSON: (&str, &str) = ("content-type", "application/json");

impl Answering {
    /// Reads the head of an answer.
    pub fn read(stream: TcpStream) -> Self {
        let mut reader = BufReader::new(stream);
        let mut line = || {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            line.trim_end().to_owned()
        };
        let first = line();
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("expected a status line, found {first:?}"));
        let mut headers = Vec::new();
        loop {
            let line = line();
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
        Self { reader, status, headers, chunked }
    }

    /// The next piece of a chunked body; `None` at its end.
    pub fn piece(&mut self) -> Option<Vec<u8>> {
        assert!(self.chunked, "expected a chunked body");
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        let length = usize::from_str_radix(line.trim_end(), 16)
            .unwrap_or_else(|_| panic!("expected the length of a chunk, found {line:?}"));
        let mut piece = vec![0; length + 2];
        self.reader.read_exact(&mut piece).unwrap();
        piece.truncate(length);
        (length > 0).then_some(piece)
    }

    /// The rest of the answer.
    pub fn whole(mut self) -> Response {
        let mut body = Vec::new();
        if self.chunked {
            while let Some(piece) = self.piece() {
                body.extend(piece);
            }
        } else {
            self.reader.read_to_end(&mut body).unwrap();
        }
        Response { status: self.status, headers: self.headers, body }
    }
}

/// The events of a stream; the last must be `[DONE]`, which is left out.
#[track_caller]
pub fn events(body: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(body).unwrap();
    let data = text.split("\n\n").filter(|part| !part.is_empty() && !part.starts_with(':'));
    let mut data: Vec<_> = data.map(|part| part.strip_prefix("data: ").unwrap()).collect();
    assert_eq!(data.pop(), Some("[DONE]"), "{text}");
    data.into_iter().map(|data| serde_json::from_str(data).unwrap()).collect()
}
