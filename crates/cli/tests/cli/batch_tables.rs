//! `rustorch batch`: outputs of texts and of comma-separated values, by their names.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::batch_durable::has_grown;
use crate::harness::{Ran, arg, fail, folder, run, start, succeed};

const COLUMNS: [&str; 6] =
    ["custom_id", "text", "finish_reason", "prompt_tokens", "completion_tokens", "error"];

/// Requests with one text each. Every third has a prompt before its answer that needs escapes.
fn requests(count: usize) -> String {
    let request = |index: usize| {
        let tokens = 3 + index % 17;
        match index % 3 {
            0 => {
                json!({"custom_id": format!("a,\"{index}\""), "prompt": "One\nday\r\\n,\"é\"", "echo": true, "max_tokens": tokens})
            }
            1 => json!({"prompt": "The bird", "max_tokens": tokens}),
            _ => {
                json!({"custom_id": format!("chat {index}"), "messages": [{"role": "user", "content": "Hi"}], "max_tokens": tokens})
            }
        }
    };
    (0..count).map(|index| format!("{}\n", request(index))).collect()
}

/// The file that a table is made of.
fn journal(output: &Path) -> PathBuf {
    PathBuf::from(format!("{}.jsonl", output.display()))
}

fn batch(input: &Path, output: &Path, options: &[&str]) -> Ran {
    run(&[&["batch", "-i", arg(input), "-o", arg(output)], options].concat(), b"")
}

#[track_caller]
fn succeeds(input: &Path, output: &Path, options: &[&str]) {
    let ran = batch(input, output, options);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
}

/// What the rows of a table should be, by the results as JSON lines.
fn rows(results: &str) -> Vec<[String; 6]> {
    let row = |line: &str| {
        let result: Value = serde_json::from_str(line).unwrap();
        let body = &result["response"]["body"];
        let choice = &body["choices"][0];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let count = |name: &str| body["usage"][name].as_u64().map(|n| n.to_string()).unwrap_or_default();
        let answer = if choice["text"].is_null() { &choice["message"]["content"] } else { &choice["text"] };
        [
            text(&result["custom_id"]),
            text(answer),
            text(&choice["finish_reason"]),
            count("prompt_tokens"),
            count("completion_tokens"),
            text(&body["error"]["message"]),
        ]
    };
    results.lines().map(row).collect()
}

fn read_csv(path: &Path) -> Vec<[String; 6]> {
    let mut reader = csv::Reader::from_path(path).unwrap();
    assert_eq!(reader.headers().unwrap(), &COLUMNS[..]);
    let row =
        |row: csv::StringRecord| -> [String; 6] { std::array::from_fn(|column| row[column].to_owned()) };
    reader.records().map(|record| row(record.unwrap())).collect()
}

#[test]
fn a_table_has_what_the_results_have() {
    let folder = folder("tables");
    let input = folder.join("in.jsonl");
    let [lines, csv, txt] = ["out.jsonl", "out.CSV", "out.txt"].map(|name| folder.join(name));
    fs::write(&input, requests(30) + "no request\n").unwrap();
    let options = ["--ordered", "--fail-on", "never"];
    succeeds(&input, &lines, &options);
    succeeds(&input, &csv, &options);
    // Texts do not say which line they answer, so they are in order always.
    succeeds(&input, &txt, &options[1..]);
    let expect = rows(&fs::read_to_string(&lines).unwrap());
    assert_eq!(expect.len(), 31);
    assert!(expect[0][1].contains("One\nday\r\\n,\"é\""), "{:?}", expect[0]);
    assert!(expect[30][5].starts_with("line 31: not JSON"), "{:?}", expect[30]);
    assert_eq!(read_csv(&csv), expect);

    let text = fs::read_to_string(&txt).unwrap();
    let mut texts = text.split('\n');
    for row in &expect {
        let text = row[1].replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r");
        assert_eq!(texts.next(), Some(text.as_str()));
    }
    assert_eq!((texts.next(), texts.next()), (Some(""), None));
    assert!(!text.contains('\r'));
}

#[test]
fn an_answer_that_is_no_text_is_refused_by_line() {
    let folder = folder("tables_refused");
    let (input, output) = (folder.join("in.jsonl"), folder.join("out.csv"));
    let lines = [
        json!({"custom_id": "one", "prompt": "One day", "max_tokens": 2, "n": 1, "best_of": 1}),
        json!({"custom_id": "two", "prompt": "One day", "max_tokens": 2, "n": 2}),
        json!({"custom_id": "prompts", "prompt": ["One day", "The"], "max_tokens": 2}),
        json!({"custom_id": "embedding", "input": "One day"}),
        json!({"custom_id": "responses", "url": "/v1/responses", "body": {"input": "Hi", "max_output_tokens": 2}}),
    ];
    fs::write(&input, lines.map(|line| format!("{line}\n")).concat()).unwrap();
    let ran = batch(&input, &output, &["--ordered"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let says = "line 2: expected a completion or a chat with one choice, as the output is one of texts";
    assert!(ran.stderr.contains(&format!("error of two: {says}")), "{}", ran.stderr);
    let rows = read_csv(&output);
    let errors: Vec<_> =
        rows.iter().map(|row| (row[0].as_str(), row[5].contains("with one choice"))).collect();
    let expect = [("one", false), ("two", true), ("prompts", true), ("embedding", true), ("responses", true)];
    assert_eq!(errors, expect);
    // The results are those of an output of texts, and no others.
    let ran = batch(&input, &journal(&output), &[]);
    assert!(ran.stderr.contains("its results are of another run: options.texts"), "{}", ran.stderr);
}

#[test]
fn a_run_that_is_killed_leaves_no_table_and_goes_on() {
    let folder = folder("tables_killed");
    let input = folder.join("in.jsonl");
    fs::write(&input, requests(120)).unwrap();
    for name in ["out.csv", "out.txt"] {
        let (whole, output) = (folder.join(format!("whole-{name}")), folder.join(name));
        succeeds(&input, &whole, &["--reproducible"]);
        let mut num_kills = 0;
        while num_kills < 3 {
            let mut child = start(&["batch", "--reproducible", "-i", arg(&input), "-o", arg(&output)]);
            // Of about 60 KiB.
            if !has_grown(&mut child, &journal(&output), 10_000 * (num_kills + 1)) {
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            num_kills += 1;
            assert!(!output.exists());
        }
        assert!(num_kills > 0, "the run was too fast");
        succeeds(&input, &output, &["--reproducible"]);
        assert!(fs::read(&output).unwrap() == fs::read(&whole).unwrap(), "{name}");
        assert!(fs::read(journal(&output)).unwrap() == fs::read(journal(&whole)).unwrap(), "{name}");
        // One that a crash has left unwritten is made of what is there.
        fs::write(&output, "half a").unwrap();
        succeeds(&input, &output, &["--reproducible"]);
        assert!(fs::read(&output).unwrap() == fs::read(&whole).unwrap(), "{name}");
        // A line that is mended has another row.
        let (mended, text) = (folder.join("mended.jsonl"), fs::read_to_string(&input).unwrap());
        let (before, after) = text.rsplit_once("The bird").unwrap();
        fs::write(&mended, [before, "Tom\\nand his dog", after].concat()).unwrap();
        succeeds(&mended, &output, &["--reproducible"]);
        let again = folder.join(format!("again-{name}"));
        succeeds(&mended, &again, &["--reproducible"]);
        assert!(fs::read(&output).unwrap() == fs::read(&again).unwrap(), "{name}");
        assert!(fs::read(&output).unwrap() != fs::read(&whole).unwrap(), "{name}");
    }
}

#[test]
fn a_table_replaces_no_file_that_is_not_of_its_run() {
    let folder = folder("tables_others");
    let input = folder.join("in.csv");
    fs::write(&input, "prompt\nOne day\n").unwrap();
    let output = folder.join("out.csv");
    fs::write(&output, "kept").unwrap();
    let args = |output: &Path| {
        ["batch", "-n", "2", "-i", arg(&input), "-o"]
            .map(str::to_owned)
            .into_iter()
            .chain([arg(output).to_owned()])
            .collect::<Vec<_>>()
    };
    let check = |output: &Path, says: &str| {
        let args = args(output);
        fail(&args.iter().map(String::as_str).collect::<Vec<_>>(), b"", 1, says);
    };
    check(
        &output,
        "out.csv.jsonl to have the results that it was made of, found none\nhint: choose another output",
    );
    assert_eq!(fs::read_to_string(&output).unwrap(), "kept");
    succeeds(&input, &output, &["-n", "2", "--overwrite"]);
    assert_eq!(read_csv(&output).len(), 1);
    // An empty one is taken, as mktemp makes it.
    let empty = folder.join("empty.txt");
    fs::write(&empty, "").unwrap();
    succeeds(&input, &empty, &["-n", "2"]);
    assert_eq!(fs::read_to_string(&empty).unwrap().lines().count(), 1);

    check(&input, "in.csv: expected an output file other than ");
    assert_eq!(fs::read_to_string(&input).unwrap(), "prompt\nOne day\n");
    let inside = folder.join("folder.csv");
    fs::create_dir(&inside).unwrap();
    check(&inside, "expected a regular file, or another name than .txt and .csv, found a folder");
    check(&folder.join("no/out.txt"), "out.txt.jsonl: ");
}

#[test]
fn no_requests_are_an_empty_table() {
    let folder = folder("tables_empty");
    let input = folder.join("in.txt");
    fs::write(&input, "\n").unwrap();
    let [csv, txt] = ["out.csv", "out.txt"].map(|name| folder.join(name));
    succeed(&["batch", "-i", arg(&input), "-o", arg(&csv)], b"");
    succeed(&["batch", "-i", arg(&input), "-o", arg(&txt)], b"");
    assert_eq!(fs::read_to_string(&csv).unwrap(), COLUMNS.join(",") + "\n");
    assert_eq!(fs::read_to_string(&txt).unwrap(), "");
}
