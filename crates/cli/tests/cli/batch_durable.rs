//! `rustorch batch`: runs that are killed or stopped, full disks, locked outputs, outputs of another run, and the results that
//! are left.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustorch_llama::Isa;
use serde_json::{Value, json};

use crate::harness::{Random, arg, fail, folder, run, start, succeed};

/// Requests of every kind, some of which are refused. Prompts are shorter than a page, so that none finds another's in the
/// prefix cache: which ones do depends on when they run.
fn requests(count: usize) -> Vec<Value> {
    let request = |index: usize| {
        let id = format!("request {index}");
        let tokens = 8 + index % 24;
        match index % 8 {
            0 => json!({"custom_id": id, "prompt": "Once upon a time", "max_tokens": tokens}),
            1 => json!({"custom_id": id, "prompt": ["One day", "The"], "n": 2, "max_tokens": tokens}),
            2 => json!({"custom_id": id, "method": "POST", "url": "/v1/chat/completions", "body":
                {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": tokens}}),
            3 => json!({"custom_id": id, "input": ["One day", "The bird"], "encoding_format": "base64"}),
            4 => json!({"custom_id": id, "prompt": "One day", "max_tokens": -2}),
            5 => json!({"prompt": "The bird", "max_tokens": tokens, "logprobs": 1}),
            6 => json!({"custom_id": id, "prompt": "The cat", "max_tokens": tokens, "seed": index}),
            _ => json!("no request"),
        }
    };
    (0..count).map(request).collect()
}

fn write_lines(path: &Path, lines: &[Value]) {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(path, text).unwrap();
}

/// The command of a run, which succeeds although some of its lines fail on purpose.
fn batch<'a>(input: &'a Path, output: &'a Path, options: &[&'a str]) -> Vec<&'a str> {
    [&["batch", "--fail-on", "all", "-i", arg(input), "-o", arg(output)], options].concat()
}

/// Keeps the first lines of an output: what a kill leaves after a few results.
fn keep_lines(output: &Path, count: usize) {
    let text = fs::read_to_string(output).unwrap();
    let kept: String = text.lines().take(count).flat_map(|line| [line, "\n"]).collect();
    fs::write(output, kept).unwrap();
}

/// Results by id, without the fields that differ between runs. No id may be there twice.
#[track_caller]
fn results(path: &Path) -> BTreeMap<String, Value> {
    let mut results = BTreeMap::new();
    for line in fs::read_to_string(path).unwrap().lines() {
        let mut result: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let id = result["custom_id"].as_str().unwrap().to_owned();
        result["id"].take();
        if let Some(response) = result["response"].as_object_mut() {
            response.remove("request_id");
            let body = response["body"].as_object_mut().unwrap();
            body.remove("id");
            body.remove("created");
        }
        assert_eq!(results.insert(id, result), None, "{line}");
    }
    results
}

/// Waits until a file has so many bytes; false if the program ends before.
pub fn has_grown(child: &mut Child, path: &Path, bytes: u64) -> bool {
    while fs::metadata(path).map_or(0, |metadata| metadata.len()) < bytes {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        thread::park_timeout(Duration::from_micros(300));
    }
    true
}

#[test]
fn a_run_with_a_random_seed_goes_on() {
    let folder = folder("random_seed");
    let (input, first, second) = (folder.join("in.jsonl"), folder.join("a.jsonl"), folder.join("b.jsonl"));
    let lines: Vec<Value> = (0..3)
        .map(|index| json!({"custom_id": index.to_string(), "prompt": "Once", "max_tokens": 30}))
        .collect();
    let batch = |output: &Path| succeed(&batch(&input, output, &["--seed", "-1"]), b"");
    write_lines(&input, &lines[..2]);
    batch(&first);
    batch(&second);
    assert_ne!(results(&first), results(&second));
    write_lines(&input, &lines);
    let before = results(&first);
    batch(&first);
    let after = results(&first);
    assert_eq!(after.len(), 3);
    assert!(before.iter().all(|(id, result)| after[id] == *result), "what was there stays");
}

#[test]
fn a_run_that_is_killed_at_any_moment_loses_nothing() {
    let min_kills = testkit::soak(50);
    let folder = folder("killed");
    let (input, whole) = (folder.join("in.jsonl"), folder.join("whole.jsonl"));
    let lines = requests(160);
    write_lines(&input, &lines);
    succeed(&batch(&input, &whole, &[]), b"");
    let expect = results(&whole);
    assert_eq!(expect.len(), lines.len());

    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut kills = 0;
    for round in 0.. {
        let output = folder.join(format!("out-{round}.jsonl"));
        let options: &[&str] = if round % 2 == 0 { &[] } else { &["--ordered"] };
        let args = batch(&input, &output, options);
        let mut before = Vec::new();
        loop {
            let mut child = start(&args);
            drop(child.stdin.take());
            // The kill comes after a random time, which starts at once or with the first write; the last run is not killed.
            let written = fs::metadata(&output).map_or(0, |metadata| metadata.len());
            let is_over = kills >= min_kills && child.wait().is_ok();
            let goes_on = !is_over && (random.below(2) == 0 || has_grown(&mut child, &output, written + 1));
            let end = Instant::now() + Duration::from_micros(random.below(60_000));
            while goes_on && Instant::now() < end && child.try_wait().unwrap().is_none() {
                thread::park_timeout(Duration::from_micros(300));
            }
            child.kill().unwrap();
            let ran = child.wait_with_output().unwrap();
            let has_ended = ran.status.code().is_some();
            let after = fs::read(&output).unwrap_or_default();
            let stderr = String::from_utf8_lossy(&ran.stderr);
            assert!(after.starts_with(&before), "whole results stay where they are: {stderr}");
            if has_ended {
                assert_eq!(ran.status.code(), Some(0), "{stderr}");
                break;
            }
            kills += 1;
            let whole_lines = after.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
            before = after[..whole_lines].to_vec();
        }
        assert_eq!(results(&output), expect, "after {kills} kills");
        let numbers = order(&output);
        assert!(options.is_empty() || numbers.is_sorted(), "{numbers:?}");
        if kills >= min_kills {
            break;
        }
    }
}

/// The numbers of the input lines of the results, in the order of the output.
fn order(output: &Path) -> Vec<usize> {
    let number = |line: &str| crate::batch_answers::line_number(&serde_json::from_str(line).unwrap());
    fs::read_to_string(output).unwrap().lines().map(number).collect()
}

#[test]
fn a_finished_run_has_nothing_to_do() {
    let folder = folder("finished");
    let (input, output) = (folder.join("in.jsonl"), folder.join("out.jsonl"));
    write_lines(&input, &requests(10));
    let args = batch(&input, &output, &[]);
    succeed(&args, b"");
    let before = fs::read(&output).unwrap();
    let ran = run(&args, b"");
    assert_eq!((ran.code, fs::read(&output).unwrap()), (Some(0), before));
    assert!(ran.stderr.starts_with("0 requests, 0 errors, "), "{}", ran.stderr);
    assert!(ran.stderr.ends_with("; 10 were done before\n"), "{}", ran.stderr);
}

/// Every instruction set gives the same bits, so that another machine may go on.
#[test]
fn a_run_goes_on_with_another_instruction_set() {
    let folder = folder("instruction_sets");
    let (input, output) = (folder.join("in.jsonl"), folder.join("out.jsonl"));
    write_lines(&input, &requests(24));
    let on = |isa: Isa| batch(&input, &output, &["--isa", isa.name()]);
    let isas: Vec<Isa> = Isa::ALL.into_iter().filter(|isa| isa.is_available()).collect();
    succeed(&on(Isa::Portable), b"");
    let whole = results(&output);
    assert_eq!(whole.len(), 24);
    for (round, &isa) in isas.iter().enumerate() {
        keep_lines(&output, 5 + round);
        let ran = run(&on(isa), b"");
        assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
        assert!(ran.stderr.contains(&format!("; {} were done before\n", 5 + round)), "{}", ran.stderr);
        assert_eq!(results(&output), whole, "{isa}");
    }
}

/// Manifests of earlier versions name the instruction set that computed.
#[test]
fn a_manifest_that_names_an_instruction_set_is_continued() {
    let folder = folder("named_instruction_set");
    let (input, output) = (folder.join("in.jsonl"), folder.join("out.jsonl"));
    write_lines(&input, &requests(9));
    let args = batch(&input, &output, &[]);
    succeed(&args, b"");
    let whole = results(&output);
    let path = folder.join("out.jsonl.run.json");
    let read = || serde_json::from_slice::<Value>(&fs::read(&path).unwrap()).unwrap();
    let warning = "out.jsonl: results that it has may be of an older version, whose numbers can differ from this one's in the \
                   last bits; --overwrite computes them again\n";
    let warns = |args: &[&str], done: &str| {
        let ran = run(args, b"");
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert!(ran.stderr.starts_with("warning: ") && ran.stderr.contains(warning), "{}", ran.stderr);
        assert!(ran.stderr.contains(done), "{}", ran.stderr);
    };
    let mut manifest = read();
    for isa in ["portable", "avx2", "avx512", "neon"] {
        manifest["isa"] = json!(isa);
        fs::write(&path, manifest.to_string()).unwrap();
        keep_lines(&output, 4);
        warns(&args, "; 4 were done before\n");
        assert_eq!(results(&output), whole, "{isa}");
    }
    // All else is still compared.
    let other = [&args[..], &["--seed", "1"]].concat();
    fail(&other, b"", 1, "options.seed: expected 0, found 1");
    // As long as there are such results, however the input grows.
    write_lines(&input, &requests(10));
    warns(&args, "; 9 were done before\n");
    warns(&args, "; 10 were done before\n");
    keep_lines(&output, 0);
    let ran = run(&args, b"");
    assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
    assert_eq!(read().get("isa"), None);
}

#[test]
fn another_run_s_results_are_left_alone() {
    let folder = folder("another_run");
    let (input, output) = (folder.join("in.jsonl"), folder.join("out.jsonl"));
    write_lines(&input, &requests(9));
    let args = batch(&input, &output, &[]);
    succeed(&args, b"");
    let before = fs::read(&output).unwrap();
    let manifest: Value =
        serde_json::from_slice(&fs::read(folder.join("out.jsonl.run.json")).unwrap()).unwrap();
    assert_eq!((&manifest["format"], &manifest["device"]), (&json!(1), &json!("cpu")));
    assert_eq!(manifest["model_file"]["sha256"].as_str().unwrap().len(), 64);

    let check = |args: &[&str], says: &[&str]| {
        for says in says {
            fail(args, b"", 1, says);
        }
        assert_eq!(fs::read(&output).unwrap(), before, "{args:?}");
    };
    let with = |options: &[&'static str]| [&args[..], options].concat();
    check(
        &with(&["--seed", "5"]),
        &["out.jsonl: its results are of another run: options.seed: expected 0, found 5"],
    );
    check(
        &with(&["--ctx", "99"]),
        &["options.ctx: expected 1024, found 99", "options.longest: expected 1024"],
    );
    check(&with(&["--kv-type", "f32"]), &["options.kv_type: expected f16, found f32"]);
    check(&with(&["--attention", "reference"]), &["options.attention: expected fused, found reference"]);
    check(&with(&["--activations", "16"]), &["options.activations: expected none, found 16"]);
    // 8 bits are not named: runs of versions without a choice go on.
    assert_eq!(manifest["options"].get("activations"), None);
    succeed(&with(&["--activations", "8"]), b"");
    check(&with(&["--shard", "1/2"]), &["options.shard: expected 1/1, found 1/2"]);
    check(&with(&["--shard", "1/2"]), &["hint: repeat that run's command"]);
    assert_eq!(manifest.get("isa"), None);
    let other = folder.join("other.jsonl");
    let asks = |index: usize| json!({"custom_id": format!("request {index}"), "prompt": "Another"});
    write_lines(&other, &(0..9).map(asks).collect::<Vec<_>>());
    let other_input = batch(&other, &output, &[]);
    check(&other_input, &["input.bytes: expected ", "input.sha256: expected "]);
    check(&batch(Path::new("-"), &output, &[]), &["input.sha256: expected ", "found none"]);
    let model = folder.join("demo.gguf");
    let mut bytes = crate::harness::demo_bytes();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&model, bytes).unwrap();
    let other_model = with(&[]).into_iter().chain(["-m", arg(&model)]).collect::<Vec<_>>();
    check(&other_model, &["model_file.sha256: expected "]);
    // Options that results do not depend on may differ, and so may the order.
    succeed(
        &with(&["--threads", "1", "--batch-size", "3", "--chunk", "5", "--window", "1", "--ordered"]),
        b"",
    );

    let write_manifest = |text: &str| fs::write(folder.join("out.jsonl.run.json"), text).unwrap();
    let in_order = fs::read(&output).unwrap();
    write_manifest("{\"format\": 0}");
    fail(&args, b"", 1, "format: expected 0, found 1");
    write_manifest("[1");
    fail(&args, b"", 1, "out.jsonl.run.json: expected a run's manifest, found EOF");
    fs::remove_file(folder.join("out.jsonl.run.json")).unwrap();
    fail(&args, b"", 1, "to tell what run its results are of, found no such file");
    assert_eq!(fs::read(&output).unwrap(), in_order);
    succeed(&with(&["--overwrite", "--seed", "5"]), b"");
    assert_ne!(fs::read(&output).unwrap(), in_order);
    assert_eq!(results(&output).len(), 9);
}

#[test]
fn a_run_follows_changes_of_its_input() {
    let folder = folder("changed_input");
    let (input, output, fresh) =
        (folder.join("in.jsonl"), folder.join("out.jsonl"), folder.join("fresh.jsonl"));
    let mut lines = requests(9);
    lines.truncate(6);
    write_lines(&input, &lines);
    let args = batch(&input, &output, &[]);
    succeed(&args, b"");
    let first = results(&output);

    let check = |lines: &[Value], asked: u64, done: &str| {
        write_lines(&input, lines);
        let ran = run(&args, b"");
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert!(ran.stderr.starts_with(&format!("{asked} requests, ")), "{}", ran.stderr);
        assert!(ran.stderr.contains(done), "{}", ran.stderr);
        succeed(&batch(&input, &fresh, &["--overwrite"]), b"");
        assert_eq!(results(&output), results(&fresh));
    };
    // One line is mended, one is taken away, two are new.
    lines[0]["max_tokens"] = json!(3);
    lines.pop();
    lines.extend([json!({"custom_id": "new", "prompt": "The dog", "max_tokens": 4}), json!(7)]);
    check(&lines, 3, "4 were done before");
    assert_ne!(results(&output)["request 0"], first["request 0"]);
    lines.push(json!({"custom_id": "last", "prompt": "A", "max_tokens": 1}));
    check(&lines, 1, "7 were done before");
}

#[test]
fn an_output_that_is_the_input_or_the_model_is_refused() {
    let folder = folder("same_file");
    let (input, link) = (folder.join("in.jsonl"), folder.join("link.jsonl"));
    write_lines(&input, &requests(2));
    fs::hard_link(&input, &link).unwrap();
    let model = folder.join("model.gguf");
    fs::write(&model, crate::harness::demo_bytes()).unwrap();
    let before = (fs::read(&input).unwrap(), fs::read(&model).unwrap());
    for output in [&input, &link, &model] {
        let args = ["batch", "-i", arg(&input), "-o", arg(output), "-m", arg(&model), "--overwrite"];
        let ran = run(&args, b"");
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        assert!(ran.stderr.contains("expected an output file other than"), "{}", ran.stderr);
    }
    assert_eq!((fs::read(&input).unwrap(), fs::read(&model).unwrap()), before);
}

#[test]
fn ids_that_are_there_twice_are_refused_before_any_work() {
    let folder = folder("duplicates");
    let (input, output) = (folder.join("in.jsonl"), folder.join("out.jsonl"));
    let mut lines = requests(8);
    lines.push(lines[2].clone());
    write_lines(&input, &lines);
    let args = batch(&input, &output, &["-m", "nowhere.gguf"]);
    let says = "in.jsonl: custom_id \"request 2\": expected it once, found it in lines 3 and 9";
    fail(&args, b"", 1, says);
    lines.truncate(8);
    lines.push(json!({"custom_id": "line-8", "prompt": "a"}));
    write_lines(&input, &lines);
    fail(&args, b"", 1, "custom_id \"line-8\": expected it once, found it in lines 8 and 9");
    assert!(!output.exists(), "what is refused makes no file");
}

#[test]
fn an_output_has_one_writer() {
    let folder = folder("locked");
    let output = folder.join("out.jsonl");
    let args = batch(Path::new("-"), &output, &[]);
    let mut child = start(&args);
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"{\"prompt\": \"One day\", \"max_tokens\": 1}\n").unwrap();
    assert!(has_grown(&mut child, &output, 1));
    fail(&args, b"", 1, "out.jsonl: expected to be its only writer, found it locked by another process");
    drop(input);
    assert!(child.wait().unwrap().success());
    succeed(&args, b"");
}

#[test]
fn shards_are_parts_of_the_whole() {
    let folder = folder("shards");
    let (input, whole) = (folder.join("in.jsonl"), folder.join("whole.jsonl"));
    write_lines(&input, &requests(20));
    succeed(&batch(&input, &whole, &[]), b"");
    let mut parts = BTreeMap::new();
    for shard in 1..=3 {
        let output = folder.join(format!("part-{shard}.jsonl"));
        let shard = format!("{shard}/3");
        succeed(&batch(&input, &output, &["--shard", &shard, "--ordered"]), b"");
        let numbers = order(&output);
        assert!(numbers.windows(2).all(|two| two[1] == two[0] + 3), "{numbers:?}");
        for (id, result) in results(&output) {
            assert_eq!(parts.insert(id, result), None);
        }
    }
    assert_eq!(parts, results(&whole));
    for wrong in ["0/3", "4/3", "1", "a/b"] {
        fail(&["batch", "-i", "-", "-o", "-", "--shard", wrong], b"", 2, "expected I/N with I from 1 to N");
    }
}

#[test]
fn errors_are_tried_again_if_that_is_wanted() {
    let folder = folder("retried");
    let (input, output) = (folder.join("in.jsonl"), folder.join("out.jsonl"));
    write_lines(&input, &requests(16));
    let args = batch(&input, &output, &["--ordered"]);
    succeed(&args, b"");
    let expect = results(&output);
    // As if the device had failed.
    let failed = |line: &str| {
        let mut result: Value = serde_json::from_str(line).unwrap();
        if ["request 1", "request 8", "line-14"].contains(&result["custom_id"].as_str().unwrap()) {
            result["response"] = Value::Null;
            result["error"] = json!({"code": "server_error", "message": "step failed"});
        }
        format!("{result}\n")
    };
    let text: String = fs::read_to_string(&output).unwrap().lines().map(failed).collect();
    fs::write(&output, &text).unwrap();
    succeed(&args, b"");
    assert_eq!(fs::read_to_string(&output).unwrap(), text, "errors are results");

    let ran = run(&[&args[..], &["--retry-errors"]].concat(), b"");
    // Two lines are no requests, and two ask for no tokens.
    assert!(ran.stderr.starts_with("7 requests, 4 errors, "), "{}", ran.stderr);
    assert_eq!(results(&output), expect);
    assert_eq!(order(&output), (1..=16).collect::<Vec<_>>(), "the order is kept");
}

/// Stops a run that waits for more lines; its exit status, and what it said.
#[cfg(unix)]
fn stop(signal: &str, output: &Path, lines: &[u8]) -> (Option<i32>, String) {
    let mut child = start(&batch(Path::new("-"), output, &["--batch-size", "2"]));
    let mut input = child.stdin.take().unwrap();
    input.write_all(lines).unwrap();
    assert!(has_grown(&mut child, output, 1));
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let ran = child.wait_with_output().unwrap();
    drop(input);
    (ran.status.code(), String::from_utf8(ran.stderr).unwrap())
}

#[test]
#[cfg(unix)]
fn a_signal_ends_a_run_in_good_order() {
    let folder = folder("signals");
    let whole = folder.join("whole.jsonl");
    let lines: String = requests(60).iter().map(|line| format!("{line}\n")).collect();
    let lines = lines.as_bytes();
    succeed(&batch(Path::new("-"), &whole, &[]), lines);
    for (signal, name, code) in [("-INT", "SIGINT", 130), ("-TERM", "SIGTERM", 143)] {
        let output = folder.join(format!("{name}.jsonl"));
        let (status, stderr) = stop(signal, &output, lines);
        assert_eq!(status, Some(code), "{stderr}");
        let done = results(&output).len();
        let says = format!(
            "\nstopped by {name}; {} has {done} results, the same command goes on\n",
            output.display()
        );
        assert!(stderr.ends_with(&says), "{stderr}");
        assert!(fs::read(&output).unwrap().ends_with(b"\n"));
        succeed(&batch(Path::new("-"), &output, &["--batch-size", "2"]), lines);
        assert_eq!(results(&output), results(&whole));
    }
}

/// A limit on the size of files stands in for a disk that is full.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_leaves_a_run_that_can_go_on() {
    let folder = folder("full_disk");
    let (input, output) = (folder.join("in.jsonl"), folder.join("out.jsonl"));
    let whole = folder.join("whole.jsonl");
    write_lines(&input, &requests(40));
    let args = batch(&input, &output, &[]);
    let limited = |blocks: usize| {
        let mut command = Command::new("sh");
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_rustorch")]).args(&args);
        command.stdin(Stdio::null()).output().unwrap()
    };
    let mut blocks = 8;
    let mut failures = 0;
    loop {
        let ran = limited(blocks);
        if ran.status.success() {
            break;
        }
        failures += 1;
        let stderr = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("out.jsonl: File too large"), "{stderr}");
        assert!(stderr.contains("hint: what ") && stderr.contains("is safe"), "{stderr}");
        // What is there is whole, though the write that failed was cut anywhere.
        results(&output);
        blocks += 5;
    }
    assert!(failures >= 2, "{failures}");
    succeed(&batch(&input, &whole, &[]), b"");
    assert_eq!(results(&output), results(&whole));
}

#[test]
fn a_run_that_goes_on_begins_where_it_was() {
    let folder = folder("begins_where_it_was");
    let (input, output) = (folder.join("in.jsonl"), folder.join("out.jsonl"));
    let mut lines = requests(40);
    write_lines(&input, &lines);
    let args = batch(&input, &output, &[]);
    succeed(&args, b"");
    let done = fs::metadata(&input).unwrap().len();
    lines.push(json!({"custom_id": "last", "prompt": "One day", "max_tokens": 900, "ignore_eos": true}));
    write_lines(&input, &lines);
    let share = done * 100 / fs::metadata(&input).unwrap().len();
    let ran = run(&[&args[..], &["--progress-interval", "0.000001"]].concat(), b"");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let began = format!("progress: {share} % of the input, 0 requests, ");
    assert!(ran.stderr.lines().any(|line| line.starts_with(&began)), "{began}: {}", ran.stderr);
}

#[test]
fn a_file_beside_the_output_that_is_no_manifest_is_left_alone() {
    let folder = folder("beside");
    let (input, output) = (folder.join("in.jsonl"), folder.join("out.jsonl"));
    write_lines(&input, &requests(1));
    let (manifest, precious) = (folder.join("out.jsonl.run.json"), folder.join("precious"));
    let args = ["batch", "-i", arg(&input), "-o", arg(&output)];
    for text in ["precious", "[1]", "{}"] {
        fs::write(&manifest, text).unwrap();
        fail(&args, b"", 1, "out.jsonl.run.json: ");
        assert_eq!(fs::read_to_string(&manifest).unwrap(), text);
    }
    fs::remove_file(&manifest).unwrap();
    // Nor is a file that a link of the temporary file's name leads to.
    #[cfg(unix)]
    {
        fs::write(&precious, "precious").unwrap();
        std::os::unix::fs::symlink(&precious, folder.join("out.jsonl.run.json.rustorch.tmp")).unwrap();
        succeed(&args, b"");
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    }
}
