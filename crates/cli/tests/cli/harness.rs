//! Runs the binary and makes the files it is given.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

/// What a run left behind.
pub struct Ran {
    /// Exit status; `None` after a signal.
    pub code: Option<i32>,
    pub stdout: String,
    /// Without the line that says what runs.
    pub stderr: String,
    /// That line, if there was one.
    pub began: Option<String>,
}

/// Starts the binary with all its streams piped.
pub fn start(args: &[&str]) -> Child {
    start_in(&[], args)
}

fn start_in(environment: &[(&str, &str)], args: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rustorch"));
    // Whatever this machine has: what the answers are compared with was computed on the CPU.
    command.env("RUSTORCH_DEVICE", "cpu");
    // And whatever its user has configured.
    command.env("RUSTORCH_CONFIG", "").env_remove("RUST_LOG");
    command.envs(environment.iter().copied());
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Runs the binary to its end.
pub fn run(args: &[&str], stdin: &[u8]) -> Ran {
    run_in(&[], args, stdin)
}

/// The same with these variables in the environment.
pub fn run_in(environment: &[(&str, &str)], args: &[&str], stdin: &[u8]) -> Ran {
    let mut child = start_in(environment, args);
    let mut pipe = child.stdin.take().unwrap();
    let output = thread::scope(|scope| {
        // Fails if the program ends without reading it.
        scope.spawn(move || pipe.write_all(stdin).is_ok());
        child.wait_with_output().unwrap()
    });
    let text = |bytes| String::from_utf8(bytes).unwrap_or_else(|error| panic!("{args:?}: {error}"));
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    let (began, stderr) = match stderr.split_once('\n') {
        Some((line, rest)) if line.starts_with("running ") => (Some(line.to_owned()), rest.to_owned()),
        _ => (None, stderr),
    };
    Ran { code: output.status.code(), stdout, stderr, began }
}

/// Standard output of a run that succeeds.
#[track_caller]
pub fn succeed(args: &[&str], stdin: &[u8]) -> String {
    let Ran { code, stdout, stderr, .. } = run(args, stdin);
    assert_eq!(code, Some(0), "{args:?}: {stderr}");
    stdout
}

/// A run that ends with `code`, says `says` and prints nothing.
#[track_caller]
pub fn fail(args: &[&str], stdin: &[u8], code: i32, says: &str) {
    let ran = run(args, stdin);
    assert_eq!(ran.code, Some(code), "{args:?}: {}", ran.stderr);
    assert!(ran.stderr.starts_with("error: "), "{args:?}: {}", ran.stderr);
    assert!(ran.stderr.contains(says), "{args:?}: {}expected: {says}", ran.stderr);
    assert_eq!(ran.stdout, "", "{args:?}");
}

/// An empty folder for one test.
pub fn folder(test: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli").join(test);
    // Of an earlier run, if there was one.
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

/// A path as an argument.
pub fn arg(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// The demo model's file.
pub fn demo_bytes() -> Vec<u8> {
    fs::read(repository("models/demo/demo.gguf")).unwrap()
}

/// `bytes` with the first occurrence of `from` replaced by as many other bytes.
pub fn patched(mut bytes: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to);
    bytes
}

/// `bytes` with another value for a metadata key of four bytes.
pub fn with_key(mut bytes: Vec<u8>, key: &str, value: [u8; 4]) -> Vec<u8> {
    // A key begins with its length and is followed by its value's type.
    let name = [&(key.len() as u64).to_le_bytes()[..], key.as_bytes()].concat();
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap();
    bytes[at + name.len() + 4..][..4].copy_from_slice(&value);
    bytes
}

/// Numbers without a pattern (xorshift64).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
