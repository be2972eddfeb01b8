//! `rustorch perplexity`

use std::fs;

use crate::harness::{arg, fail, folder, repository, run};

const STORY: &str = "crates/cli/tests/cli/story.txt";

/// Perplexity, its error, tokens scored and windows.
#[track_caller]
fn perplexity(args: &[&str]) -> (f64, f64, usize, usize) {
    let story = repository(STORY);
    let ran = run(&[&["perplexity", "-f", arg(&story)], args].concat(), b"");
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{args:?}");
    let words: Vec<&str> = ran.stdout.split_whitespace().collect();
    let ["perplexity", value, "+/-", error, "over", tokens, "tokens", "in", windows, "windows", "of", _] =
        words[..]
    else {
        panic!("{}", ran.stdout)
    };
    let number = |word: &str| word.parse().unwrap();
    (number(value), number(error), tokens.parse().unwrap(), windows.parse().unwrap())
}

/// Both sides quantise activations to 8 bits in their own way.
const TOLERANCE: f64 = 0.01;

/// `--ctx`, perplexity, error, tokens, windows: what `perplexity.py` prints, by llama-cpp-python 0.3.36.
const LLAMA_CPP: [(&str, f64, f64, usize, usize); 3] =
    [("64", 1.9448, 0.14368, 744, 24), ("128", 1.7308, 0.12242, 756, 12), ("512", 1.8208, 0.13783, 765, 3)];

#[test]
fn figures_compare_with_llama_cpp() {
    for (ctx, value, error, tokens, windows) in LLAMA_CPP {
        let found = perplexity(&["--ctx", ctx]);
        assert!((found.0 / value - 1.0).abs() < TOLERANCE, "--ctx {ctx}: {found:?}, expected {value}");
        assert!(
            (found.1 / error - 1.0).abs() < 3.0 * TOLERANCE,
            "--ctx {ctx}: {found:?}, expected +/- {error}"
        );
        assert_eq!((found.2, found.3), (tokens, windows), "--ctx {ctx}");
    }
}

#[test]
fn the_way_it_is_run_does_not_show() {
    let expect = perplexity(&["--ctx", "64"]);
    let options: [&[&str]; 4] =
        [&["--threads", "1"], &["--chunk", "7"], &["--page-size", "5"], &["--batch-size", "2"]];
    for options in options {
        assert_eq!(perplexity(&[&["--ctx", "64"], options].concat()), expect, "{options:?}");
    }
    let exact = perplexity(&["--ctx", "64", "--kv-type", "f32"]);
    assert!(exact != expect && (exact.0 / expect.0 - 1.0).abs() < TOLERANCE, "{exact:?}, {expect:?}");
}

#[test]
fn texts_that_cannot_be_scored_are_refused() {
    let folder = folder("perplexity");
    let check = |bytes: &[u8], args: &[&str], says: &str| {
        let path = folder.join("text.txt");
        fs::write(&path, bytes).unwrap();
        fail(&[&["perplexity", "-f", arg(&path)], args].concat(), b"", 1, says);
    };
    check(b"", &[], "text.txt: text: expected at least 1024 tokens, two windows of 512, found 1 tokens");
    check(
        b"Once upon a time",
        &["--ctx", "4"],
        "expected at least 8 tokens, two windows of 4, found 5 tokens",
    );
    check(b"Once upon a time", &["--ctx", "1"], "perplexity window: expected at least 4, found 1");
    check(b"Once \xff", &[], "text.txt: expected UTF-8, found byte 0xff at offset 5");
    check(b"", &["--kv-memory", "1K"], "KV cache: 1 sequences of 512 tokens, in pages of 32");
    fail(&["perplexity", "-f", "nowhere.txt"], b"", 1, "nowhere.txt: ");
}
