//! Whatever a crash has left of an output, the next run completes it: the same results, each once.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use batch::{
    Compression, End, Error, Errors, Existing, FileHash, Found, Input, InputFormat, Manifest, Model, Options,
    Order, Output, Report, Shard, Totals,
};
use proptest::prelude::*;
use rustorch_llama::{EngineHandle, Grammars, LlamaConfig, Priority, Tokenizer, Weights, demo};
use serde_json::{Map, Value};

struct Demo {
    tokenizer: Arc<Tokenizer>,
    grammars: Grammars,
    engine: EngineHandle,
    hidden_size: usize,
}

fn demo() -> &'static Demo {
    static DEMO: OnceLock<Demo> = OnceLock::new();
    DEMO.get_or_init(|| {
        let gguf = demo::gguf();
        let tokenizer = Arc::new(Tokenizer::from_gguf(&gguf).unwrap());
        let config = LlamaConfig::from_gguf(&gguf).unwrap().with_max_seq_len(32).with_batch_size(4);
        let weights = Weights::load(&gguf, config, Default::default()).unwrap();
        let engine = weights.start_engine(Some(Arc::clone(&tokenizer)), Default::default()).unwrap();
        let grammars = Grammars::new(Arc::clone(&tokenizer));
        Demo { tokenizer, grammars, engine, hidden_size: weights.config().hidden_size() }
    })
}

fn manifest() -> Manifest {
    Manifest {
        format: Manifest::FORMAT,
        rustorch: "1".to_owned(),
        model: "demo".to_owned(),
        model_file: FileHash::of_bytes(b"model"),
        input: None,
        device: "cpu".to_owned(),
        options: Map::new(),
        reproducible: false,
    }
}

/// How one run is done.
#[derive(Debug, Clone, Copy)]
struct How {
    order: Order,
    errors: Errors,
    stop: bool,
    reproducible: bool,
}

const PLAIN: How = How { order: Order::AsFinished, errors: Errors::Keep, stop: false, reproducible: false };

fn run(input: &Path, output: &Path, how: How) -> Result<(Totals, End), Error> {
    run_beside(input, output, how, |_| {})
}

/// As [`run`], while something else is done: `beside` is called when the input was scanned, with totals of nothing, and each
/// time that there are new totals.
fn run_beside(
    input: &Path,
    output: &Path,
    how: How,
    mut beside: impl FnMut(&Totals),
) -> Result<(Totals, End), Error> {
    let Demo { tokenizer, grammars, engine, hidden_size } = demo();
    let names = ["demo".to_owned()];
    let model = Model {
        tokenizer,
        grammars,
        names: &names,
        hidden_size: *hidden_size,
        pooling: Default::default(),
        fingerprint: None,
        seed: 0,
        unknown_fields: Default::default(),
        defaults: &Default::default(),
    };
    let input = Input::open(input, InputFormat::JsonLines, Compression::Decompress)?;
    let scan = input.scan(Shard::WHOLE)?;
    let manifest = Manifest { reproducible: how.reproducible, ..manifest() };
    let mut journal = Output::open(output)?.begin(manifest, Existing::Resume, how.errors, scan)?;
    assert_eq!(journal.is_reproducible(), how.reproducible);
    beside(&Totals::default());
    let options = Options {
        window: NonZeroUsize::new(3).unwrap(),
        order: how.order,
        shard: Shard::WHOLE,
        priority: Priority::Low,
    };
    let stop = AtomicBool::new(how.stop);
    let mut report = |report: Report<'_>| {
        if let Report::Totals(totals) = report {
            beside(totals);
        }
    };
    batch::run(engine, &model, input, &mut journal, &options, &stop, &mut report)
}

/// An empty folder with an input for one test.
fn folder(test: &str) -> (PathBuf, PathBuf) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("resume").join(test);
    // Of an earlier run, if there was one.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let lines = [
        r#"{"custom_id": "a", "prompt": "One day", "max_tokens": 3}"#,
        r#"{"prompt": "The bird", "max_tokens": 1}"#,
        "no request",
        "",
        r#"{"custom_id": "é \" ☃", "prompt": 5}"#,
        r#"{"custom_id": "b", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}"#,
        r#"{"custom_id": "c", "input": "Hi", "encoding_format": "base64"}"#,
    ];
    fs::write(folder.join("in.jsonl"), lines.join("\n")).unwrap();
    (folder.join("in.jsonl"), folder.join("out.jsonl"))
}

/// Results by id without their times, and the numbers of their lines in order. No id may be there twice.
fn results(output: &Path) -> (BTreeMap<String, Value>, Vec<u64>) {
    let (mut results, mut numbers) = (BTreeMap::new(), Vec::new());
    for line in fs::read_to_string(output).unwrap().lines() {
        let mut result: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        if let Some(created) = result.pointer_mut("/response/body/created") {
            created.take();
        }
        numbers.push(result["id"].as_str().unwrap().trim_start_matches("batch_req_").parse().unwrap());
        assert_eq!(results.insert(result["custom_id"].to_string(), result), None, "{line}");
    }
    (results, numbers)
}

/// The output of a run that nothing interrupts.
fn whole(input: &Path, output: &Path) -> (Vec<u8>, BTreeMap<String, Value>) {
    let (totals, end) = run(input, output, How { order: Order::OfInput, ..PLAIN }).unwrap();
    assert_eq!((totals.results, totals.errors, end), (6, 2, End::Complete));
    let (expect, numbers) = results(output);
    assert_eq!(numbers, [1, 2, 3, 5, 6, 7]);
    (fs::read(output).unwrap(), expect)
}

#[test]
fn an_output_cut_anywhere_is_made_whole() {
    let (input, output) = folder("cut");
    let (text, expect) = whole(&input, &output);
    for cut in (0..text.len()).step_by(13).chain([1, text.len() - 1, text.len()]) {
        fs::write(&output, &text[..cut]).unwrap();
        let done = text[..cut].iter().filter(|&&byte| byte == b'\n').count() as u64;
        let (totals, _) = run(&input, &output, PLAIN).unwrap();
        assert_eq!((totals.found.results, totals.results), (done, 6 - done), "cut at {cut}");
        assert_eq!(results(&output).0, expect, "cut at {cut}");
    }
}

/// Of a reproducible run the bytes are the same too, whatever order it is asked for.
#[test]
fn a_reproducible_output_cut_or_damaged_anywhere_becomes_what_it_was() {
    let (input, output) = folder("reproducible");
    let how = How { reproducible: true, ..PLAIN };
    run(&input, &output, how).unwrap();
    let whole = fs::read(&output).unwrap();
    for cut in (0..whole.len()).step_by(61) {
        let mut left = whole[..cut].to_vec();
        // Garbage, or the end of the line and all results once more.
        for tail in [b"".to_vec(), b"{}\n".to_vec(), [b"\n", &whole[..]].concat()] {
            left.truncate(cut);
            left.extend_from_slice(&tail);
            fs::write(&output, &left).unwrap();
            run(&input, &output, how).unwrap();
            assert!(fs::read(&output).unwrap() == whole, "cut at {cut}, then {} bytes", tail.len());
        }
    }
    assert!(matches!(run(&input, &output, PLAIN), Err(Error::OtherRun { .. })));
    // Results of lines that are gone are not thrown away without a word.
    fs::write(&input, "{\"custom_id\": \"other\", \"prompt\": \"A\"}\n").unwrap();
    assert!(matches!(run(&input, &output, how), Err(Error::OtherRun { .. })));
    assert_eq!(fs::read(&output).unwrap(), whole);
}

/// Bytes that may follow the last whole write: anything but a whole line that looks like a result.
fn garbage() -> impl Strategy<Value = Vec<u8>> {
    let zeros = (1..6000usize).prop_map(|len| vec![0; len]);
    let bytes = prop::collection::vec(any::<u8>(), 0..300);
    let lines = "(\n|\\{|\\}|\"id\": |[a-z ]){0,40}".prop_map(String::into_bytes);
    prop_oneof![zeros, bytes, lines]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: testkit::soak(48), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_output_with_damage_is_made_whole(
        cut in 0.0..1.0f64,
        tail in garbage(),
        hole in prop::option::of((0.0..1.0f64, 1..700usize)),
        ordered in any::<bool>(),
    ) {
        static WHOLE: OnceLock<(Vec<u8>, BTreeMap<String, Value>)> = OnceLock::new();
        let (input, output) = folder("damage");
        let (text, expect) = WHOLE.get_or_init(|| whole(&input, &output));
        let mut damaged = text[..(cut * text.len() as f64) as usize].to_vec();
        damaged.extend_from_slice(&tail);
        // Pages that did not reach the disk are zeros.
        if let Some((at, len)) = hole {
            let at = (at * damaged.len() as f64) as usize;
            damaged.iter_mut().skip(at).take(len).for_each(|byte| *byte = 0);
        }
        // The manifest is that of a run before.
        fs::write(&output, b"").unwrap();
        run(&input, &output, How { stop: true, ..PLAIN }).unwrap();
        fs::write(&output, &damaged).unwrap();
        let order = if ordered { Order::OfInput } else { Order::AsFinished };
        run(&input, &output, How { order, ..PLAIN }).unwrap();
        let (found, numbers) = results(&output);
        prop_assert_eq!(&found, expect);
        prop_assert!(!ordered || numbers.is_sorted(), "{:?}", numbers);
        let names: Vec<_> = fs::read_dir(output.parent().unwrap()).unwrap().collect();
        prop_assert_eq!(names.len(), 3, "no temporary file is left");
    }
}

#[test]
fn results_in_a_wrong_place_are_put_in_order_or_left() {
    let (input, output) = folder("order");
    let (text, expect) = whole(&input, &output);
    let mut lines: Vec<&[u8]> = text.split_inclusive(|&byte| byte == b'\n').collect();
    lines.reverse();
    // One is there twice, which no run does.
    let twice = [&lines.concat()[..], lines[2]].concat();
    fs::write(&output, &twice).unwrap();
    assert_eq!(
        run(&input, &output, PLAIN).unwrap().0.found,
        Found { results: 6, errors: 2, stale: 0, ..Found::default() }
    );
    assert_eq!(fs::read(&output).unwrap(), lines.concat());
    run(&input, &output, How { order: Order::OfInput, ..PLAIN }).unwrap();
    assert_eq!(fs::read(&output).unwrap(), text);
    assert_eq!(results(&output).0, expect);
}

#[test]
fn errors_are_replaced_by_what_comes_of_another_try() {
    let (input, output) = folder("errors");
    let (text, expect) = whole(&input, &output);
    let (totals, _) = run(&input, &output, How { errors: Errors::Retry, ..PLAIN }).unwrap();
    assert_eq!(
        (totals.found, totals.results, totals.errors),
        (Found { results: 4, errors: 0, stale: 0, ..Found::default() }, 2, 2)
    );
    assert_eq!(results(&output).0, expect);
    assert_ne!(fs::read(&output).unwrap(), text, "they were appended");
    run(&input, &output, How { order: Order::OfInput, errors: Errors::Retry, ..PLAIN }).unwrap();
    assert_eq!(fs::read(&output).unwrap(), text);
}

#[test]
fn a_run_that_is_told_to_stop_does_no_more() {
    let (input, output) = folder("stop");
    let (_, end) = run(&input, &output, How { stop: true, ..PLAIN }).unwrap();
    assert_eq!(end, End::Stopped);
    let (totals, end) = run(&input, &output, PLAIN).unwrap();
    assert_eq!((totals.found.results + totals.results, end), (6, End::Complete));
    assert_eq!(results(&output).0.len(), 6);
}

#[test]
fn a_link_to_an_output_stays_one() {
    #[cfg(unix)]
    {
        let (input, output) = folder("link");
        let target = output.with_file_name("target.jsonl");
        fs::write(&target, b"").unwrap();
        std::os::unix::fs::symlink(&target, &output).unwrap();
        run(&input, &output, PLAIN).unwrap();
        run(&input, &output, How { errors: Errors::Retry, ..PLAIN }).unwrap();
        assert!(fs::symlink_metadata(&output).unwrap().is_symlink());
        assert_eq!(results(&target).0.len(), 6);
    }
}

/// The lines of the input, some of them changed.
fn edit(input: &Path, edit: impl FnOnce(&mut Vec<String>)) {
    let mut lines = fs::read_to_string(input).unwrap().lines().map(str::to_owned).collect();
    edit(&mut lines);
    fs::write(input, lines.join("\n")).unwrap();
}

#[test]
fn lines_that_were_mended_added_or_removed_are_all_that_is_done_again() {
    let (input, output) = folder("mended");
    let (_, before) = whole(&input, &output);
    edit(&input, |lines| {
        lines[2] = r#"{"custom_id": "mended", "prompt": "One day", "max_tokens": 1}"#.to_owned();
        lines[4] = r#"{"custom_id": "\u00e9 \" ☃", "prompt": "Five", "max_tokens": 2}"#.to_owned();
        lines[0] = r#"{"custom_id": "a", "prompt": "One day", "max_tokens": 4}"#.to_owned();
        lines.push(r#"{"custom_id": "added", "prompt": "The", "max_tokens": 1}"#.to_owned());
    });
    let (totals, end) = run(&input, &output, PLAIN).unwrap();
    // Two that were mended and two that were errors under other ids or texts.
    assert_eq!(
        (totals.found, end),
        (Found { results: 3, errors: 0, stale: 3, ..Found::default() }, End::Complete)
    );
    assert_eq!((totals.results, totals.errors), (4, 0));
    let (found, _) = results(&output);
    let (fresh_input, fresh_output) = folder("mended_fresh");
    fs::copy(&input, &fresh_input).unwrap();
    run(&fresh_input, &fresh_output, PLAIN).unwrap();
    assert_eq!(found, results(&fresh_output).0, "as if the input had been so from the start");
    for kept in ["\"b\"", "\"c\"", "\"line-2\""] {
        assert_eq!(found[kept], before[kept]);
    }
    // Once more, there is nothing to do.
    assert_eq!(run(&input, &output, PLAIN).unwrap().0.results, 0);
}

#[test]
fn another_input_costs_no_results() {
    let (input, output) = folder("other_input");
    let (text, _) = whole(&input, &output);
    edit(&input, |lines| {
        lines.iter_mut().for_each(|line| *line = line.replace("max_tokens\": ", "max_tokens\": 1"))
    });
    let error = run(&input, &output, PLAIN).unwrap_err();
    assert!(matches!(error, Error::OtherRun { .. }), "{error}");
    assert_eq!(fs::read(&output).unwrap(), text);
}

/// Results of earlier versions do not say which line they answer, and have no response if they are errors.
#[test]
fn outputs_of_earlier_versions_go_on() {
    let (input, output) = folder("earlier");
    let (text, expect) = whole(&input, &output);
    let earlier: String = String::from_utf8(text)
        .unwrap()
        .lines()
        .map(|line| {
            let mut result: Value = serde_json::from_str(line).unwrap();
            result.as_object_mut().unwrap().remove("request_hash").unwrap();
            if result["response"]["status_code"] != 200 {
                result["error"] = serde_json::json!({"code": "invalid_request", "message": "line 1"});
                result["response"] = Value::Null;
            }
            format!("{result}\n")
        })
        .collect();
    let lines: Vec<&str> = earlier.lines().collect();
    fs::write(&output, lines[..4].join("\n") + "\n").unwrap();
    let (totals, _) = run(&input, &output, PLAIN).unwrap();
    assert_eq!(
        (totals.found, totals.results),
        (Found { results: 4, errors: 2, stale: 0, ..Found::default() }, 2)
    );
    assert!(fs::read_to_string(&output).unwrap().starts_with(&lines[..4].join("\n")));
    run(&input, &output, How { errors: Errors::Retry, ..PLAIN }).unwrap();
    let (found, _) = results(&output);
    assert_eq!(found.keys().collect::<Vec<_>>(), expect.keys().collect::<Vec<_>>());
    // Nothing says whether they answer the lines of a changed input.
    edit(&input, |lines| lines.push("{}".to_owned()));
    let error = run(&input, &output, PLAIN).unwrap_err();
    assert!(matches!(error, Error::OtherRun { .. }), "{error}");
}

#[test]
fn an_input_that_changes_under_the_run_is_no_success() {
    let check = |test: &str, says: &str, change: &dyn Fn(&Path)| {
        let (input, output) = folder(test);
        let mut is_scanned = false;
        let error = run_beside(&input, &output, PLAIN, |_| {
            if !std::mem::replace(&mut is_scanned, true) {
                change(&input);
            }
        });
        let error = error.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        // The same command answers what is there now.
        let (_, end) = run(&input, &output, PLAIN).unwrap();
        assert_eq!(end, End::Complete);
        let lines = fs::read_to_string(&input).unwrap();
        assert_eq!(results(&output).0.len(), lines.lines().filter(|line| !line.is_empty()).count());
    };
    check("grown", "in.jsonl: expected the ", &|input| edit(input, |lines| lines.push("{}".to_owned())));
    check("truncated", "in.jsonl: expected the ", &|input| edit(input, |lines| lines.truncate(5)));
    check("changed", "in.jsonl: expected the contents of the start", &|input| {
        edit(input, |lines| lines[1] = lines[1].replace("bird", "bear"));
    });
}

#[test]
fn an_output_that_changes_under_the_run_is_no_success() {
    let check = |test: &str, says: &str, change: &dyn Fn(&Path)| {
        let (input, output) = folder(test);
        let mut is_changed = false;
        let error = run_beside(&input, &output, PLAIN, |totals| {
            if totals.results > 0 && !std::mem::replace(&mut is_changed, true) {
                change(&output);
            }
        });
        let error = error.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        let (_, end) = run(&input, &output, PLAIN).unwrap();
        assert_eq!((end, results(&output).0.len()), (End::Complete, 6));
    };
    check("output_truncated", "out.jsonl: expected to be its only writer, found 5 bytes where ", &|output| {
        fs::OpenOptions::new().write(true).open(output).unwrap().set_len(5).unwrap();
    });
    #[cfg(unix)]
    check("output_removed", "out.jsonl: expected to be its only writer, found it removed", &|output| {
        fs::remove_file(output).unwrap();
    });
}

#[test]
#[cfg(unix)]
fn an_output_that_is_replaced_keeps_its_other_names() {
    let (input, output) = folder("replaced");
    let other = output.with_file_name("other.jsonl");
    fs::write(&output, "kept").unwrap();
    fs::hard_link(&output, &other).unwrap();
    let begin = |path: &Path| {
        let scan = Input::open(&input, InputFormat::JsonLines, Compression::Decompress)
            .unwrap()
            .scan(Shard::WHOLE)
            .unwrap();
        Output::open(path).unwrap().begin(manifest(), Existing::Replace, Errors::Keep, scan)
    };
    drop(begin(&output).unwrap());
    assert_eq!((fs::read(&output).unwrap(), fs::read(&other).unwrap()), (Vec::new(), b"kept".to_vec()));
    // The input under any name, and what is written beside an output.
    let link = output.with_file_name("link.jsonl");
    fs::hard_link(&input, &link).unwrap();
    let refused = |path: &Path| Output::open(path).unwrap().must_not_be(&input).unwrap_err().to_string();
    assert!(refused(&link).contains("expected an output file other than"), "{}", refused(&link));
    let name = output.with_file_name("new.jsonl");
    fs::hard_link(&input, Manifest::path(&name)).unwrap();
    assert!(refused(&name).contains("expected an output file other than"));
    assert!(Output::open(&output).unwrap().must_not_be(&input).is_ok());
}
