//! `rustorch chat` on a pseudo-terminal: what it keeps for the next conversation.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use serde_json::{Value, json};

use crate::harness::{arg, folder, run_in};

const UP: &str = "\u{1b}[A";

/// Types lines, each at a prompt, and returns the exit status and what the terminal showed.
fn chat(state: &Path, options: &[&str], lines: &[&str]) -> (Option<i32>, String) {
    // Programs that other tests start meanwhile must not hold it open.
    let mut terminal = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let programs = File::options().read(true).write(true).open(ptsname_r(&terminal).unwrap()).unwrap();
    let end = || Stdio::from(programs.try_clone().unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_rustorch"));
    command.env("RUSTORCH_DEVICE", "cpu").env("RUSTORCH_CONFIG", "").env("TERM", "xterm");
    command.env("XDG_STATE_HOME", state).stdin(end()).stdout(end()).stderr(end());
    let mut child = command.args(["chat", "-n", "3", "--temperature", "0"]).args(options).spawn().unwrap();
    // Held by the program alone: its end is the terminal's.
    drop((command, programs));
    let mut shown = Vec::new();
    let mut lines = lines.iter();
    let mut num_typed = 0;
    loop {
        // A prompt without text behind it, with the cursor there.
        let text = String::from_utf8_lossy(&shown);
        let num_prompts = text.matches("> \r\u{1b}[2C").count() + text.matches(". \r\u{1b}[2C").count();
        if num_typed < num_prompts
            && let Some(line) = lines.next()
        {
            num_typed += 1;
            terminal.write_all(format!("{line}\r").as_bytes()).unwrap();
        }
        let mut bytes = [0; 4096];
        // Linux tells that the other end was closed by an error.
        let Ok(count @ 1..) = terminal.read(&mut bytes) else { break };
        shown.extend_from_slice(&bytes[..count]);
    }
    (child.wait().unwrap().code(), String::from_utf8_lossy(&shown).into_owned())
}

/// The messages of users in a conversation that was saved.
fn asked(path: &Path) -> Vec<Value> {
    let saved: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let messages = saved["messages"].as_array().unwrap().iter();
    messages.filter(|message| message["role"] == "user").map(|message| message["content"].clone()).collect()
}

#[test]
fn messages_are_there_in_the_next_conversation() {
    let folder = folder("terminal_history");
    let (state, saved) = (folder.join("state"), folder.join("saved.json"));
    let save = format!("/save {}", arg(&saved));
    let (code, shown) = chat(&state, &[], &["Hi", "Two\\", "lines", "/exit"]);
    assert_eq!(code, Some(0), "{shown}");
    let file = state.join("rustorch/chat_history");
    assert_eq!(fs::read_to_string(&file).unwrap(), "Hi\nTwo\\nlines\n/exit\n");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(&state.join("rustorch"))), (0o600, 0o700));

    let (code, shown) = chat(&state, &[], &[&UP.repeat(2), &save, "/exit"]);
    assert_eq!((code, asked(&saved)), (Some(0), vec![json!("Two\nlines")]), "{shown}");

    let own = folder.join("own");
    let (code, shown) = chat(&state, &["--history-file", arg(&own)], &[&format!("{UP}Hello"), "/exit"]);
    assert_eq!(code, Some(0), "{shown}");
    assert_eq!(fs::read_to_string(&own).unwrap(), "Hello\n/exit\n", "nothing was before it");
}

#[test]
fn messages_are_not_kept_if_nobody_wants_it_or_nothing_can() {
    let folder = folder("terminal_no_history");
    let state = folder.join("state");
    let (code, shown) = chat(&state, &["--no-history"], &["Hi", "/exit"]);
    assert_eq!((code, state.exists()), (Some(0), false), "{shown}");
    let (code, shown) = chat(Path::new("/dev/null"), &[], &["Hi", "/exit"]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("messages are not kept: /dev/null/rustorch/chat_history: "), "{shown}");
    let (code, shown) = chat(&state, &["--history-file", arg(&folder)], &[]);
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("terminal_no_history: expected a regular file, found none"), "{shown}");
    // A pipe has none.
    let environment = [("XDG_STATE_HOME", arg(&state))];
    assert_eq!(run_in(&environment, &["chat", "-n", "1"], b"Hi\n").code, Some(0));
    assert!(!state.exists());
}
