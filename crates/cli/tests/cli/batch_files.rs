//! `rustorch batch`: the files and streams it reads and writes.

use std::fs;

use crate::batch_answers::{batch_text, line_number};
use crate::harness::{arg, fail, folder, run, succeed};

const LINE: &str = r#"{"custom_id": "a", "prompt": "One day", "max_tokens": 2}"#;
const OTHER: &str = r#"{"custom_id": "b", "prompt": "One day", "max_tokens": 2}"#;

#[test]
fn lines_may_end_in_any_way_and_be_blank() {
    let check = |input: &str, numbers: &[usize]| {
        let answers = batch_text(input.as_bytes(), &[]);
        assert_eq!(answers.iter().map(line_number).collect::<Vec<_>>(), numbers, "{input:?}");
        assert!(answers.iter().all(|answer| answer["error"].is_null()), "{answers:?}");
    };
    check("", &[]);
    check("\n \t\n\r\n", &[]);
    check(LINE, &[1]);
    check(&format!("{LINE}\n"), &[1]);
    check(&format!("{LINE}\n{OTHER}"), &[1, 2]);
    check(&format!("{LINE}\r\n{OTHER}\r\n"), &[1, 2]);
    check(&format!("\n\n  {LINE}  \n\n{OTHER}\n\n"), &[3, 5]);
    check(&format!("\u{feff}{LINE}\n"), &[1]);
}

#[test]
fn files_and_standard_streams_are_the_same() {
    let folder = folder("files_and_streams");
    let (input, output) = (folder.join("in.jsonl"), folder.join("out.jsonl"));
    fs::write(&input, format!("{LINE}\nnot a request\n")).unwrap();
    let without_time = |text: String| {
        let created = text.split("\"created\":").nth(1).unwrap().split(',').next().unwrap();
        text.replace(created, "0")
    };
    // What was there before is replaced if that is what is wanted.
    fs::write(&output, "x".repeat(10_000)).unwrap();
    let ran = run(
        &["batch", "--fail-on", "all", "-i", arg(&input), "-o", arg(&output), "--overwrite", "--ordered"],
        b"",
    );
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), ""));
    let summary = "2 requests, 1 errors, 3 prompt tokens (0 cached), 2 generated in ";
    assert!(ran.stderr.starts_with(summary), "{}", ran.stderr);
    let (_, errors) = ran.stderr.split_once(" tokens/s\n").unwrap();
    assert_eq!(errors, "error of line-2: line 2: not JSON: expected ident at column 2\n");
    let expect = without_time(fs::read_to_string(&output).unwrap());
    assert_eq!(expect.lines().count(), 2);

    let stdin = fs::read(&input).unwrap();
    assert_eq!(
        without_time(succeed(&["batch", "--fail-on", "all", "-i", "-", "-o", "-", "--ordered"], &stdin)),
        expect
    );
    assert_eq!(
        without_time(succeed(&["batch", "--fail-on", "all", "-i", arg(&input), "-o", "-", "--ordered"], b"")),
        expect
    );
    succeed(
        &["batch", "--fail-on", "all", "-i", "-", "-o", arg(&output), "--overwrite", "--ordered"],
        &stdin,
    );
    assert_eq!(without_time(fs::read_to_string(&output).unwrap()), expect);
}

#[test]
fn files_that_cannot_be_used_end_the_run() {
    let folder = folder("unusable_files");
    let (input, output) = (folder.join("in.jsonl"), folder.join("out.jsonl"));
    fs::write(&input, LINE).unwrap();
    fs::write(&output, "kept").unwrap();
    let check = |args: &[&str], says: &str| {
        fail(&[&["batch"], args].concat(), b"", 1, says);
        assert_eq!(fs::read_to_string(&input).unwrap(), LINE);
    };
    check(&["-i", arg(&folder.join("nowhere.jsonl")), "-o", arg(&output)], "nowhere.jsonl: ");
    check(&["-i", arg(&folder), "-o", arg(&output)], &format!("error: {}: is a directory", folder.display()));
    check(&["-i", arg(&input), "-o", arg(&folder)], arg(&folder));
    check(&["-i", arg(&input), "-o", arg(&folder.join("no/out.jsonl"))], "out.jsonl: ");
    let same = "in.jsonl: expected an output file other than ";
    check(&["-i", arg(&input), "-o", arg(&input)], same);
    let detour = folder.join("..").join(folder.file_name().unwrap()).join("in.jsonl");
    check(&["-i", arg(&input), "-o", arg(&detour)], same);

    // A model that does not load leaves an older output alone.
    fs::write(&output, "kept").unwrap();
    check(&["-i", arg(&input), "-o", arg(&output), "-m", "nowhere.gguf"], "nowhere.gguf: ");
    assert_eq!(fs::read_to_string(&output).unwrap(), "kept");
}

#[test]
fn what_is_refused_makes_no_file() {
    let folder = folder("refused_run");
    let input = folder.join("in.jsonl");
    fs::write(&input, LINE).unwrap();
    fs::write(folder.join("two.jsonl"), "{\"custom_id\": \"a\", \"prompt\": \"b\"}\n".repeat(2)).unwrap();
    let refused: &[(&[&str], &str)] = &[
        (&["-m", "nowhere.gguf"], "nowhere.gguf: "),
        (&["--reproducible", "--seed", "-1"], "--reproducible: expected a seed"),
    ];
    for output in ["out.jsonl", "out.csv", "out.txt"] {
        let output = folder.join(output);
        for (options, says) in refused {
            fail(&[&["batch", "-i", arg(&input), "-o", arg(&output)], *options].concat(), b"", 1, says);
        }
        let twice = folder.join("two.jsonl");
        fail(&["batch", "-i", arg(&twice), "-o", arg(&output)], b"", 1, "custom_id");
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2, "only the inputs are there");
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_ends_the_run() {
    let stdin = LINE.as_bytes();
    fail(
        &["batch", "--fail-on", "all", "-i", "-", "-o", "/dev/full"],
        stdin,
        1,
        "writing /dev/full: No space left on device",
    );
}
