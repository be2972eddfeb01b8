//! `rustorch batch` as a stream: results come while requests are still being read, whole, and in bounded memory.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin};
use std::thread;

use serde_json::Value;

use crate::harness::{run, start};

fn line(custom_id: usize, filler: usize) -> String {
    let filler = "x".repeat(filler);
    format!(
        r#"{{"custom_id": "{custom_id}", "prompt": [1], "max_tokens": 1, "temperature": 0, "user": "{filler}"}}"#
    ) + "\n"
}

#[test]
fn results_come_while_the_input_is_open() {
    let mut child = start(&["batch", "-i", "-", "-o", "-"]);
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    for custom_id in 0..5 {
        input.write_all(line(custom_id, 0).as_bytes()).unwrap();
        let mut answer = String::new();
        output.read_line(&mut answer).unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["custom_id"], custom_id.to_string());
    }
    drop(input);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_reader_that_leaves_makes_the_run_fail() {
    let mut child = start(&["batch", "-i", "-", "-o", "-"]);
    let mut input = child.stdin.take().unwrap();
    drop(child.stdout.take());
    // Fails once the program has ended.
    while input.write_all(line(0, 0).as_bytes()).is_ok() {}
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(stderr.contains("Broken pipe"), "{stderr}");
}

#[test]
fn a_run_that_is_killed_leaves_whole_lines() {
    let mut child = start(&["batch", "-i", "-", "-o", "-"]);
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let feeder = thread::spawn(move || {
        let mut custom_id = 0;
        while input.write_all(line(custom_id, 0).as_bytes()).is_ok() {
            custom_id += 1;
        }
    });
    let mut text = String::new();
    for _ in 0..100 {
        output.read_line(&mut text).unwrap();
    }
    child.kill().unwrap();
    output.read_to_string(&mut text).unwrap();
    child.wait().unwrap();
    feeder.join().unwrap();
    assert!(text.ends_with('\n'));
    assert!(text.lines().count() >= 100);
    for line in text.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
    }
}

/// Peak resident memory after so many lines, in KiB.
fn peak_memory(lines: usize) -> u64 {
    let args = ["batch", "-i", "-", "-o", "-", "--batch-size", "64", "--ctx", "8", "--page-size", "8"];
    let mut child: Child = start(&args);
    let mut input: ChildStdin = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let feeder = thread::spawn(move || {
        for custom_id in 0..lines {
            input.write_all(line(custom_id, 1000).as_bytes()).unwrap();
        }
        // Open until the memory is read: the program ends with its input.
        input
    });
    let mut answer = String::new();
    for _ in 0..lines {
        answer.clear();
        output.read_line(&mut answer).unwrap();
        assert!(answer.ends_with("\"error\":null}\n"), "{answer}");
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    drop(feeder.join().unwrap());
    assert!(child.wait().unwrap().success());
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn memory_does_not_grow_with_the_input() {
    // The input alone is 20 MB more.
    let (few, many) = (peak_memory(500), peak_memory(20_000));
    assert!(many < few + 4 * 1024, "{few} KiB for 500 lines, {many} KiB for 20,000");
}

#[test]
fn a_run_without_a_terminal_says_how_far_it_is() {
    let input: String = (0..3).map(|custom_id| line(custom_id, 0)).collect();
    let progress = |options: &[&str]| {
        let ran = run(&[&["batch", "-i", "-", "-o", "-"], options].concat(), input.as_bytes());
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        ran.stderr
            .lines()
            .filter(|line| line.starts_with("progress: "))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let lines = progress(&["--progress-interval", "0.000001"]);
    let last = lines.last().unwrap();
    assert!(last.starts_with("progress: 3 requests, ") && last.ends_with(" tokens/s"), "{lines:?}");
    assert_eq!(progress(&["--progress-interval", "0"]), [""; 0]);
    assert_eq!(progress(&[]), [""; 0], "half a minute has not passed");
    assert_eq!(progress(&["--progress-interval", "0.000001", "-q"]), [""; 0]);
}
