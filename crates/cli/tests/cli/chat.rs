//! `rustorch chat`, through pipes and on a terminal.

use std::fs;
use std::io::{Read, Write};
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{arg, fail, folder, run, start, succeed};

/// What is said, and what is noted on standard error.
#[track_caller]
fn chat(options: &[&str], input: &str) -> (String, String) {
    let ran = run(&[&["chat", "--temperature", "0"], options].concat(), input.as_bytes());
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    (ran.stdout, ran.stderr)
}

/// What the model answers to these messages.
fn answer(messages: &Value, max_tokens: usize) -> String {
    let line = json!({"messages": messages, "max_tokens": max_tokens, "temperature": 0, "top_p": 0.95, "min_p": 0.05});
    let answer = succeed(&["batch", "-i", "-", "-o", "-"], format!("{line}\n").as_bytes());
    let answer: Value = serde_json::from_str(&answer).unwrap();
    answer["response"]["body"]["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

#[test]
fn a_conversation_remembers_its_turns() {
    let folder = folder("chat_turns");
    let saved = folder.join("saved.json");
    let input = format!("Hi\nTell me a story\n/save {0}\n", arg(&saved));
    let (said, noted) = chat(&["-n", "9", "--system", "Be kind."], &input);
    let system = json!({"role": "system", "content": "Be kind."});
    let hi = json!({"role": "user", "content": "Hi"});
    let first = answer(&json!([system, hi]), 9);
    let turns = json!([system, hi, {"role": "assistant", "content": first}, {"role": "user", "content": "Tell me a story"}]);
    let second = answer(&turns, 9);
    assert_eq!(said, format!("{first}\n{second}\n"));
    assert!(noted.contains("the answer reached its most tokens"), "{noted}");

    let mut all = turns;
    all.as_array_mut().unwrap().push(json!({"role": "assistant", "content": second}));
    let read: Value = serde_json::from_slice(&fs::read(&saved).unwrap()).unwrap();
    assert_eq!(read, json!({"messages": all}));
    // Taken back and asked again, in another process.
    let again = format!("/load {}\n/undo\nTell me a story\n", arg(&saved));
    assert_eq!(chat(&["-n", "9"], &again).0, format!("{second}\n"));
}

#[test]
fn commands_do_what_they_say() {
    let alone = |system: Option<&str>| {
        let system = system.map(|text| json!({"role": "system", "content": text}));
        answer(
            &json!(system.into_iter().chain([json!({"role": "user", "content": "Hi"})]).collect::<Vec<_>>()),
            5,
        )
    };
    let (said, noted) =
        chat(&["-n", "5"], "/stats\nHi\n/clear\nHi\n/stats\n/nothing\n/load\n/undo\n/undo\n/help\n");
    assert_eq!(said, format!("{0}\n{0}\n", alone(None)));
    for expect in [
        "no answer yet; the context holds 1,024 tokens",
        "the conversation is forgotten",
        " prompt tokens (",
        " of 1,024 tokens of the context are used",
        "error: /nothing is no command; /help lists them",
        "error: /load: expected a file",
        "the last message is taken back",
        "there is no message",
        "/system TEXT",
    ] {
        assert!(noted.contains(expect), "{expect}: {noted}");
    }
    let (said, _) = chat(&["-n", "5"], "/system Be kind.\nHi\n/clear\n/system\nHi\n/exit\nHi\n");
    assert_eq!(said, format!("{}\n{}\n", alone(Some("Be kind.")), alone(None)), "nothing follows /exit");
}

#[test]
fn what_does_not_fit_is_taken_back() {
    let long = "word ".repeat(80);
    let (said, noted) = chat(&["-n", "3", "--ctx", "64"], &format!("{long}\nHi\n"));
    assert!(
        noted.contains("error: the conversation has ") && noted.contains("the context holds 64"),
        "{noted}"
    );
    assert_eq!(said, format!("{}\n", answer(&json!([{"role": "user", "content": "Hi"}]), 3)));
    fail(&["chat", "-n", "0"], b"", 2, "--max-tokens");
}

#[cfg(unix)]
#[test]
fn an_answer_is_stopped_and_the_program_goes_on() {
    let mut child = start(&["chat", "--temperature", "0", "--ignore-eos", "--ctx", "8192"]);
    child.stdin.take().unwrap().write_all(b"Tell me a story\n/stats\n").unwrap();
    let mut said = child.stdout.take().unwrap();
    said.read_exact(&mut [0; 4]).unwrap();
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    said.read_to_string(&mut String::new()).unwrap();
    let ran = child.wait_with_output().unwrap();
    assert_eq!(ran.status.code(), Some(0));
    let noted = String::from_utf8(ran.stderr).unwrap();
    assert!(noted.ends_with("\nstopped\nno answer yet; the context holds 8,192 tokens\n"), "{noted}");
}
