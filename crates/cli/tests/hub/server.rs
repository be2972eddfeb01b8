//! A hub on this machine: one repository, and the server that has its bytes, which is another one as at the real hub.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub const REPO: &str = "tales/demo-GGUF";
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the hub holds and how it misbehaves.
#[derive(Default)]
pub struct World {
    pub files: Vec<(String, Vec<u8>)>,
    /// Names that are listed and not there.
    pub listed: Vec<String>,
    /// Whether sizes and hashes are left out of the list.
    pub is_terse: bool,
    /// Answers of the list, or of files, with an error: status, headers and body.
    pub list_error: Option<(u16, String, String)>,
    pub file_error: Option<(u16, String, String)>,
    /// Bytes after which the next answers with bytes break.
    pub breaks: Vec<usize>,
    pub ignores_range: bool,
    /// What is sent in place of a file's bytes.
    pub sent: Option<Vec<u8>>,
    /// In place of `X-Linked-Size`.
    pub linked_size: Option<usize>,
    /// Whether the server of bytes announces what it sends.
    pub hides_length: bool,
    /// Where files are in place of the second server.
    pub location: Option<String>,
    /// Told when half of a file is sent, which then waits for a word.
    pub gate: Option<(Sender<()>, Receiver<()>)>,
    /// Each request's path, range and authorization.
    pub seen: Vec<Request>,
}

#[derive(Clone, Debug)]
pub struct Request {
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
}

pub struct Server {
    pub endpoint: String,
    pub world: Arc<Mutex<World>>,
}

impl Server {
    pub fn start(files: &[(&str, Vec<u8>)]) -> Self {
        let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone())).collect();
        let world = Arc::new(Mutex::new(World { files, ..World::default() }));
        let bytes = serve(&world, "", bytes_answer);
        let endpoint = serve(&world, &bytes, hub_answer);
        Self { endpoint, world }
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Requests for bytes: their ranges.
    pub fn ranges(&self) -> Vec<Option<String>> {
        let world = self.world();
        let of_bytes = world.seen.iter().filter(|request| request.path.starts_with("/bytes/"));
        of_bytes.map(|request| request.range.clone()).collect()
    }
}

type Answer = fn(&Arc<Mutex<World>>, &str, &Request, &mut TcpStream) -> std::io::Result<()>;

/// Answers on a port of its own until the test ends. Returns the URL.
fn serve(world: &Arc<Mutex<World>>, bytes: &str, answer: Answer) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (world, bytes) = (Arc::clone(world), bytes.to_owned());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, world, bytes) = (stream.unwrap(), Arc::clone(&world), bytes.clone());
            thread::spawn(move || {
                let Some(request) = read(&stream) else { return };
                world.lock().unwrap().seen.push(request.clone());
                // Fails if the client has seen enough.
                let _ = answer(&world, &bytes, &request, &mut stream);
            });
        }
    });
    url
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let path = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
    let mut request = Request { path, range: None, authorization: None };
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "range" => request.range = Some(value.to_owned()),
            "authorization" => request.authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    Some(request)
}

fn send(stream: &mut TcpStream, status: u16, headers: &str, body: &[u8]) -> std::io::Result<()> {
    let length = body.len();
    write!(stream, "HTTP/1.1 {status} x\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n")?;
    stream.write_all(body)
}

/// The hub: lists, and where files are.
fn hub_answer(
    world: &Arc<Mutex<World>>,
    bytes: &str,
    request: &Request,
    stream: &mut TcpStream,
) -> std::io::Result<()> {
    let world = world.lock().unwrap();
    let path = request.path.split('?').next().unwrap();
    if path == format!("/api/models/{REPO}/revision/main") {
        if let Some((status, headers, body)) = &world.list_error {
            return send(stream, *status, headers, body.as_bytes());
        }
        return send(stream, 200, "Content-Type: application/json\r\n", list(&world).to_string().as_bytes());
    }
    let prefixes = [format!("/{REPO}/resolve/{COMMIT}/"), "/files/".to_owned()];
    let name = prefixes.iter().find_map(|prefix| path.strip_prefix(prefix.as_str()));
    let found = name.and_then(|name| world.files.iter().find(|(file, _)| file == &name.replace("%20", " ")));
    let (Some((name, content)), None) = (found, &world.file_error) else {
        let none = (404, "X-Error-Code: EntryNotFound\r\n".to_owned(), "Entry not found".to_owned());
        let (status, headers, body) = world.file_error.as_ref().unwrap_or(&none);
        return send(stream, *status, headers, body.as_bytes());
    };
    let place = world
        .location
        .clone()
        .unwrap_or_else(|| format!("{bytes}/bytes/{}?sign=secret", name.replace(' ', "%20")));
    let mut headers = format!("Location: {place}\r\nX-Repo-Commit: {COMMIT}\r\n");
    let size = world.linked_size.unwrap_or(content.len());
    let _ = write!(headers, "X-Linked-Size: {size}\r\nX-Linked-ETag: \"{}\"\r\n", sha256(content));
    send(stream, 302, &headers, b"")
}

fn list(world: &World) -> Value {
    let files = world.files.iter().map(|(name, content)| match world.is_terse {
        true => json!({"rfilename": name}),
        false => json!({"rfilename": name, "size": content.len(), "lfs": {"sha256": sha256(content), "size": content.len()}}),
    });
    let others = world.listed.iter().map(|name| json!({"rfilename": name, "size": 1}));
    json!({"id": REPO, "sha": COMMIT, "siblings": others.chain(files).collect::<Vec<_>>()})
}

/// The server of bytes.
fn bytes_answer(
    world: &Arc<Mutex<World>>,
    _: &str,
    request: &Request,
    stream: &mut TcpStream,
) -> std::io::Result<()> {
    let mut world = world.lock().unwrap();
    let name = request.path.split('?').next().unwrap().trim_start_matches("/bytes/").replace("%20", " ");
    let content = world.files.iter().find(|(file, _)| *file == name).unwrap().1.clone();
    let content = world.sent.clone().unwrap_or(content);
    let from = request.range.as_ref().filter(|_| !world.ignores_range);
    let from =
        from.map(|range| range.trim_start_matches("bytes=").trim_end_matches('-').parse::<usize>().unwrap());
    let (status, range) = match from {
        Some(from) => {
            (206, format!("Content-Range: bytes {from}-{}/{}\r\n", content.len() - 1, content.len()))
        }
        None => (200, String::new()),
    };
    let body = &content[from.unwrap_or(0).min(content.len())..];
    let length =
        if world.hides_length { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    write!(stream, "HTTP/1.1 {status} x\r\n{range}{length}Connection: close\r\n\r\n")?;
    let end = if world.breaks.is_empty() { body.len() } else { world.breaks.remove(0).min(body.len()) };
    let gate = world.gate.take();
    drop(world);
    let (first, second) = body[..end].split_at(end / 2);
    stream.write_all(first)?;
    if let Some((reached, go)) = gate {
        reached.send(()).unwrap();
        go.recv().unwrap();
    }
    stream.write_all(second)
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
