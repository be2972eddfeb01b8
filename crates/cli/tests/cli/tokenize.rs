//! `rustorch tokenize`

use std::fs;
use std::path::PathBuf;

use crate::harness::{arg, demo_bytes, fail, folder, patched, repository, run, succeed};

fn vocabulary(name: &str) -> PathBuf {
    repository(&format!("crates/tokenizer/tests/vocab/ggml-vocab-{name}.gguf"))
}

/// Ids of a text, given both ways.
#[track_caller]
fn check(args: &[&str], text: &str, expect: &str) {
    let expect = format!("{expect}\n");
    let command = [&["tokenize"], args].concat();
    assert_eq!(succeed(&command, text.as_bytes()), expect, "{args:?} of {text:?} on standard input");
    assert_eq!(succeed(&[&command[..], &["--text", text]].concat(), b""), expect, "{args:?} --text {text:?}");
}

#[test]
fn ids_stand_on_one_line() {
    check(&[], "Once upon a time", "0 581 624 262 488");
    check(&["--no-bos"], "Once upon a time", "581 624 262 488");
    check(&["-m", "demo"], "Once upon a time", "0 581 624 262 488");
    check(&[], "", "0");
    check(&["--no-bos"], "", "");
    check(&["--no-bos"], "-5", "16 24");
}

#[test]
fn no_byte_of_the_text_is_stripped() {
    check(&[], "Once\n", "0 581 202");
    check(&[], "Once\r\n", "0 581 205 202");
    check(&[], "Once\n\n", "0 581 202 202");
    check(&[], "\n", "0 202");
    check(&[], "Once ", "0 581 224");
    // A NUL cannot be an argument.
    assert_eq!(succeed(&["tokenize"], b"a\0"), "0 68 192\n");
}

#[test]
fn published_ids_of_white_space_and_a_few_words() {
    for vocab in ["gpt-2", "phi-3"] {
        let file = vocabulary(vocab);
        let read = |extension| fs::read_to_string(file.with_extension(extension)).unwrap();
        let (texts, outputs) = (read("gguf.inp"), read("gguf.out"));
        let cases = texts.split("\n__ggml_vocab_test__\n").zip(outputs.lines());
        let (mut blank, mut other) = (0, 0);
        for (text, ids) in cases {
            let counter = if text.trim().is_empty() { &mut blank } else { &mut other };
            *counter += 1;
            if *counter <= 5 {
                let args = ["tokenize", "--no-bos", "-m", arg(&file)];
                assert_eq!(succeed(&args, text.as_bytes()).trim_end(), ids.trim(), "{vocab}: {text:?}");
            }
        }
        assert!(blank >= 5 && other >= 5, "{vocab}: {blank} blank texts, {other} others");
    }
}

#[test]
fn control_tokens_are_text_unless_asked_for() {
    check(&["--no-bos"], "<|im_end|>", "31 95 421 66 72 267 95 33");
    check(&["--no-bos", "--special"], "<|im_end|>", "3");
    // The vocabulary of another architecture, without a model.
    let phi_3 = vocabulary("phi-3");
    check(&["-m", arg(&phi_3)], "Hello</s>", "1 15043 829 29879 29958");
    check(&["-m", arg(&phi_3), "--special"], "Hello</s>", "1 15043 2");
    check(&["-m", arg(&phi_3), "--special", "--no-bos"], "Hello</s>", "15043 2");
}

#[test]
fn invalid_utf_8_is_refused_with_its_offset() {
    let check = |stdin: &[u8], says: &str| fail(&["tokenize"], stdin, 1, says);
    check(b"ab\xffcd", "standard input: expected UTF-8, found byte 0xff at offset 2");
    check(b"\xc3", "standard input: expected UTF-8, found byte 0xc3 at offset 0");
    check("ab€".as_bytes().split_last().unwrap().1, "found byte 0xe2 at offset 2");
}

#[test]
fn files_that_cannot_be_read_are_named_once() {
    fail(&["tokenize", "-m", "nowhere.gguf"], b"a", 1, "error: nowhere.gguf: ");
    let stderr = run(&["tokenize", "-m", "nowhere.gguf"], b"a").stderr;
    assert_eq!(stderr.matches("os error").count(), 1, "{stderr}");
    fail(&["tokenize", "-m", env!("CARGO_MANIFEST_DIR")], b"a", 1, "not a regular file");
}

#[test]
fn what_is_ignored_of_a_file_is_said() {
    let path = folder("tokenize_notes").join("model.gguf");
    fs::write(&path, patched(demo_bytes(), b"gpt-2", b"other")).unwrap();
    let ran = run(&["tokenize", "-m", arg(&path)], b"a");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(
        ran.stderr.starts_with("warning: texts are cut as by the pre-tokenizer \"default\""),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.ends_with(", found \"other\"\n"), "{}", ran.stderr);
}
