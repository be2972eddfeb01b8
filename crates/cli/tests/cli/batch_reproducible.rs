//! `rustorch batch --reproducible`: the same bytes for the same line, whatever else happens.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{arg, fail, folder, run, succeed};

/// A text that several prompts begin with, longer than a page.
const BEGINNING: &str = "Once upon a time there was a little girl who had a red ball and a blue ball and a big dog. \
                         She liked to play with the dog in the park. One day";

/// Lines of every kind, as texts. Some are refused, some have no id, many find a beginning in the prefix cache.
pub fn lines(count: usize) -> Vec<String> {
    let line = |index: usize| {
        let (id, tokens) = (format!("row {index}"), 3 + index % 7);
        let prompt = format!("{BEGINNING}{}", ", and".repeat(index % 3));
        let line = match index % 12 {
            0 => json!({"custom_id": id, "prompt": prompt, "max_tokens": tokens}),
            1 => json!({"prompt": prompt, "max_tokens": tokens}),
            2 => {
                json!({"custom_id": id, "prompt": [prompt, "The"], "n": 2, "max_tokens": tokens, "logprobs": 1})
            }
            3 => json!({"custom_id": id, "url": "/v1/chat/completions", "body":
                {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": tokens}}),
            4 if index % 24 == 4 => {
                json!({"custom_id": id, "input": ["One day", "The bird"], "encoding_format": "base64"})
            }
            4 => json!({"custom_id": id, "url": "/api/embed", "body": {"input": "One day"}}),
            5 => json!({"custom_id": id, "prompt": "One day", "max_tokens": -2}),
            6 => json!({"custom_id": id, "prompt": prompt, "max_tokens": tokens, "seed": -1}),
            7 => json!({"custom_id": id, "prompt": prompt, "max_tokens": tokens, "timings_per_token": true}),
            8 => {
                json!({"custom_id": id, "url": "/api/generate", "body": {"prompt": prompt, "raw": true, "stream": false, "options": {"num_predict": tokens}}})
            }
            9 => {
                json!({"custom_id": id, "url": "/completion", "body": {"prompt": prompt, "n_predict": tokens}})
            }
            10 => {
                json!({"custom_id": id, "url": "/v1/responses", "body": {"input": "Hi", "max_output_tokens": 16}})
            }
            _ => return "no request".to_owned(),
        };
        line.to_string()
    };
    (0..count).map(line).collect()
}

/// Options that results do not depend on.
pub const VARIANTS: [&[&str]; 4] = [
    &[],
    &["--batch-size", "1", "--window", "1", "--no-prefix-cache"],
    &["--batch-size", "3", "--chunk", "5", "--page-size", "16", "--threads", "1"],
    &["--batch-size", "7", "--chunk", "64", "--page-size", "8", "--threads", "2", "--kv-memory", "8M"],
];

/// What a run gives, whose lines may fail.
#[track_caller]
fn reproducible(input: &str, options: &[&str]) -> String {
    let args = ["batch", "--reproducible", "--fail-on", "never", "-i", "-", "-o", "-"];
    succeed(&[&args[..], options].concat(), input.as_bytes())
}

#[test]
fn the_bytes_depend_on_the_lines_alone() {
    let all = lines(36);
    let text = all.join("\n");
    let expect = reproducible(&text, &[]);
    let ranks: &[&str] =
        &["--device", "cpu", "--tensor-parallel", "2", "--threads", "2", "--batch-size", "5"];
    for options in VARIANTS.into_iter().chain([ranks]) {
        assert_eq!(reproducible(&text, options), expect, "{options:?}");
    }
    let results: Vec<Value> = expect.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(results.len(), all.len());
    assert_eq!(results[1]["custom_id"], "line-2", "they are in the order of the input");
    let mut num_answered = 0;
    for (index, result) in results.iter().enumerate() {
        let body = &result["response"]["body"];
        let suffix = result["id"].as_str().unwrap().strip_prefix("batch_req_").unwrap();
        assert_eq!(suffix.len(), 24, "{result}");
        assert_eq!(result["response"]["request_id"], format!("req-{suffix}"));
        let text = result.to_string();
        for told in ["cached_tokens\":", "\"created\":", "\"created_at\":", "_ms\":", "_duration\":"] {
            for (_, rest) in text.match_indices(told).map(|(at, _)| text[at..].split_at(told.len())) {
                let is_nothing =
                    ["0", "null", "\"1970-01-01"].iter().any(|nothing| rest.starts_with(nothing));
                assert!(is_nothing, "{told}{rest}");
            }
        }
        num_answered += usize::from(result["response"]["status_code"] == 200);
        let is_error = matches!(index % 12, 5 | 11);
        assert_eq!(body["error"]["message"].is_string(), is_error, "{result}");
        assert!(!body["error"]["message"].to_string().contains("line "), "{result}");
        assert!(index % 12 != 7 || body.get("timings").is_none(), "{result}");
    }
    assert_eq!(num_answered, 30);
    // Some prompts are found in the cache, which does not show.
    let ran = run(&["batch", "--reproducible", "-i", "-", "-o", "-"], text.as_bytes());
    assert!(!ran.stderr.contains("(0 cached)"), "{}", ran.stderr);

    // Other lines do not matter, nor does a line's place.
    let expect: Vec<&str> = expect.lines().collect();
    for index in [0, 6, 8] {
        let alone = reproducible(
            &format!("{}\n{{\"prompt\": \"A\", \"max_tokens\": 1}}\n{}", all[12], all[index]),
            &[],
        );
        assert_eq!(alone.lines().last(), Some(expect[index]));
    }
    let seeded = reproducible(&all[0], &["--seed", "1"]);
    assert_ne!(seeded.lines().next(), Some(expect[0]), "the seed is an option");
}

#[test]
fn a_run_that_goes_on_gives_the_bytes_of_one_that_was_not_cut_off() {
    let folder = folder("reproducible_resumed");
    let (input, output) = (folder.join("in.jsonl"), folder.join("out.jsonl"));
    let mut all = lines(24);
    fs::write(&input, all.join("\n")).unwrap();
    let args = ["batch", "--reproducible", "--fail-on", "never", "-i", arg(&input), "-o", arg(&output)];
    succeed(&args, b"");
    let whole = fs::read(&output).unwrap();
    let text = String::from_utf8(whole.clone()).unwrap();
    let mut results: Vec<&str> = text.lines().collect();
    results.swap(4, 9);
    let swapped = results.join("\n") + "\n";
    results.swap(4, 9);
    results[10] = "damage";
    let damaged = results.join("\n") + "\n";
    let mut hole = whole.clone();
    hole[whole.len() / 2..][..100].fill(0);
    let cut = whole[..whole.len() / 3].to_vec();
    for (left, before) in [
        (cut.clone(), cut.iter().filter(|&&byte| byte == b'\n').count()),
        (swapped.into_bytes(), 4),
        (damaged.into_bytes(), 10),
        (
            hole.clone(),
            hole.split(|&byte| byte == 0).next().unwrap().iter().filter(|&&byte| byte == b'\n').count(),
        ),
    ] {
        fs::write(&output, left).unwrap();
        let ran = run(&[&args[..], &["--batch-size", "2"]].concat(), b"");
        assert!(ran.stderr.contains(&format!("; {before} were done before")), "{before}: {}", ran.stderr);
        assert_eq!(fs::read(&output).unwrap(), whole);
    }
    // A line that is changed is answered again, with those after it.
    all[20] = json!({"custom_id": "row 20", "prompt": "The dog", "max_tokens": 2}).to_string();
    fs::write(&input, all.join("\n")).unwrap();
    let ran = run(&args, b"");
    assert!(ran.stderr.contains("; 20 were done before"), "{}", ran.stderr);
    let fresh = folder.join("fresh.jsonl");
    let options = ["batch", "--reproducible", "--fail-on", "never", "-i", arg(&input), "-o", arg(&fresh)];
    succeed(&options, b"");
    assert_eq!(fs::read(&output).unwrap(), fs::read(&fresh).unwrap());
    // The choice is the run's.
    let plain = ["batch", "-i", arg(&input), "-o", arg(&output)];
    fail(&plain, b"", 1, "reproducible: expected true, found none");
    succeed(&[&plain[..], &["--overwrite", "--fail-on", "never"]].concat(), b"");
    fail(&args, b"", 1, "reproducible: expected none, found true");
}

#[test]
fn what_results_would_depend_on_is_refused() {
    let folder = folder("reproducible_refusals");
    let args =
        |options: &[&'static str]| [&["batch", "--reproducible", "-i", "-", "-o", "-"], options].concat();
    fail(&args(&["--seed", "-1"]), b"", 1, "expected a seed that is the same each time, found --seed -1");
    fail(
        &args(&["--kv-memory", "100K", "--batch-size", "2"]),
        b"",
        1,
        "--reproducible: expected KV pages for the 1024 tokens of a context, found them for 32\nhint: ",
    );

    let template = folder.join("template.jinja");
    fs::write(&template, "{{ strftime_now('%d %B %Y') }} {{ messages[0].content }}").unwrap();
    let line = json!({"messages": [{"role": "user", "content": "a"}], "max_tokens": 4, "temperature": 0, "return_token_ids": true});
    let line = line.to_string();
    let with = |options: &[&'static str]| {
        let args = ["batch", "--fail-on", "never", "-i", "-", "-o", "-", "--chat-template", arg(&template)];
        run(&[&args[..], options].concat(), line.as_bytes())
    };
    let refused = with(&["--reproducible"]);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("hint: say which day it is with --date YYYY-MM-DD"),
        "{}",
        refused.stderr
    );
    let told = |date: &'static str, mode: &[&'static str]| {
        let ran = with(&[&["--date", date], mode].concat());
        let answer: Value =
            serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}", ran.stderr));
        (answer["response"]["body"]["prompt_token_ids"].clone(), ran.stdout)
    };
    let (first, text) = told("2026-11-30", &["--reproducible"]);
    assert!(first.is_array());
    assert_eq!(told("2026-11-30", &["--reproducible", "--threads", "1"]).1, text);
    assert_eq!(told("2026-11-30", &[]).0, first);
    assert_ne!(told("2025-11-30", &["--reproducible"]).0, first);
}
