//! `rustorch split`, `batch --job`, `verify`, `merge`: a job of parts, whose results are those of one run.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use crate::batch_reproducible::{VARIANTS, lines};
use crate::harness::{Ran, Random, arg, fail, folder, run, start, succeed};

/// An input with blank lines and line ends of both kinds, a job of it in parts of `rows`, and what one run over it gives.
fn job(test: &str, count: usize, rows: &str) -> (PathBuf, PathBuf, Vec<u8>) {
    let folder = folder(test);
    let (input, parts, whole) = (folder.join("in.jsonl"), folder.join("job"), folder.join("whole.jsonl"));
    let ended = |(index, line): (usize, String)| {
        let blank = if index % 5 == 2 { "\n  \n" } else { "" };
        format!("{blank}{line}{}\n", if index % 3 == 1 { " \r" } else { "" })
    };
    let text: String = lines(count).into_iter().enumerate().map(ended).collect();
    fs::write(&input, format!("\u{feff}{text}")).unwrap();
    assert_eq!(succeed(&["split", arg(&input), "-o", arg(&parts), "--rows", rows], b""), "");
    let args = ["batch", "--reproducible", "--fail-on", "never", "-i", arg(&input), "-o", arg(&whole)];
    succeed(&args, b"");
    let expect = fs::read(&whole).unwrap();
    (folder, parts, expect)
}

/// The command of a worker.
fn worker<'a>(parts: &'a Path, part: &'a str, options: &[&'a str]) -> Vec<&'a str> {
    [&["batch", "--job", arg(parts), "--part", part], options].concat()
}

fn hash(bytes: &[u8]) -> String {
    batch::FileHash::of_bytes(bytes).sha256
}

/// When a worker is killed.
#[derive(Clone, Copy)]
enum Kill {
    After(Duration),
    /// Once it has written so many bytes.
    Written(u64),
    Never,
}

/// Runs a worker, and kills it unless it ends before. Whether it has ended.
fn run_and_kill(args: &[&str], unfinished: &Path, kill: Kill) -> bool {
    let written = || fs::metadata(unfinished).map_or(0, |metadata| metadata.len());
    let (mut child, began, before) = (start(args), Instant::now(), written());
    drop(child.stdin.take());
    let goes_on = || match kill {
        Kill::After(time) => began.elapsed() < time,
        Kill::Written(bytes) => written() < before + bytes,
        Kill::Never => true,
    };
    while goes_on() && child.try_wait().unwrap().is_none() {
        thread::park_timeout(Duration::from_micros(300));
    }
    child.kill().unwrap();
    let ran = child.wait_with_output().unwrap();
    if let Some(code) = ran.status.code() {
        assert_eq!(code, 0, "{}", String::from_utf8_lossy(&ran.stderr));
    }
    ran.status.code().is_some()
}

#[test]
fn workers_that_are_killed_and_differ_give_the_bytes_of_one_run() {
    let (folder, parts, expect) = job("parts_killed", 60, "13");
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut kills, min_kills) = (0, testkit::soak(12));
    let mut left: Vec<usize> = (0..5).collect();
    while !left.is_empty() {
        let place = random.below(left.len() as u64) as usize;
        let part = left[place].to_string();
        let options = VARIANTS[random.below(4) as usize];
        // Once there were enough, workers may end.
        let kill = match random.below(2) {
            _ if kills >= min_kills => Kill::Never,
            0 => Kill::After(Duration::from_micros(random.below(150_000))),
            _ => Kill::Written(1 + random.below(3000)),
        };
        let unfinished = parts.join(format!("result-0000{part}.jsonl.unfinished"));
        match run_and_kill(&worker(&parts, &part, options), &unfinished, kill) {
            true => drop(left.remove(place)),
            false => kills += 1,
        }
    }
    assert!(kills > 0);
    let merged = folder.join("merged.jsonl");
    let told = succeed(&["merge", arg(&parts), "-o", arg(&merged)], b"");
    assert!(fs::read(&merged).unwrap() == expect, "after {kills} kills");
    assert_eq!(told, format!("rows 60\nsha256 {}\n", hash(&expect)));
    let ran = run(&["verify", arg(&parts), "--sample", "12", "--batch-size", "2"], b"");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), ""), "{}", ran.stderr);
    assert_eq!(ran.stderr, "60 rows in 5 parts, 0 faults; 12 rows were answered again\n");
    assert!(!fs::read_dir(&parts).unwrap().any(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        name.ends_with(".unfinished")
    }));
}

/// One of them is refused, or both end well.
#[test]
fn two_workers_of_one_part_do_no_damage() {
    let (folder, parts, expect) = job("parts_twice", 24, "24");
    let mut ended = 0;
    let workers = [VARIANTS[0], VARIANTS[1]].map(|options| start(&worker(&parts, "0", options)));
    for worker in workers {
        let ran = worker.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&ran.stderr);
        ended += usize::from(ran.status.success());
        assert!(ran.status.success() || stderr.contains("locked by another process"), "{stderr}");
    }
    assert!(ended > 0);
    let merged = folder.join("merged.jsonl");
    succeed(&["merge", arg(&parts), "-o", arg(&merged)], b"");
    assert!(fs::read(&merged).unwrap() == expect);
}

#[test]
fn parts_are_those_of_the_input_in_every_form() {
    let (folder, parts, _) = job("parts_forms", 30, "13");
    let description: Value = serde_json::from_slice(&fs::read(parts.join("job.json")).unwrap()).unwrap();
    assert_eq!((&description["format"], &description["rows"]), (&1.into(), &30.into()));
    let names = ["part-00000.jsonl", "part-00001.jsonl", "part-00002.jsonl"];
    for (part, expect) in description["parts"].as_array().unwrap().iter().zip([
        (names[0], 13, 1),
        (names[1], 13, 20),
        (names[2], 4, 37),
    ]) {
        let number = |field: &str| part[field].as_u64().unwrap();
        assert_eq!((part["file"].as_str().unwrap(), number("rows"), number("first_line")), expect);
    }
    let bytes = |parts: &Path| -> Vec<Vec<u8>> {
        names.iter().chain(&["job.json"]).map(|name| fs::read(parts.join(name)).unwrap()).collect()
    };
    let input = fs::read(folder.join("in.jsonl")).unwrap();
    assert_eq!(description["parts"][1]["sha256"], hash(&bytes(&parts)[1]));

    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&input).unwrap();
    let packed = folder.join("in.jsonl.gz");
    fs::write(&packed, gzip.finish().unwrap()).unwrap();
    // A folder may end in a separator, and be there if it is empty.
    let other = format!("{}/", arg(&folder.join("unpacked")));
    fs::create_dir(&other).unwrap();
    succeed(&["split", arg(&packed), "-o", &other, "--rows", "13"], b"");
    assert!(bytes(Path::new(&other)) == bytes(&parts));
    let piped = folder.join("piped");
    let ran = run(&["split", "-", "-o", arg(&piped), "--rows", "13"], &input);
    assert_eq!(ran.stderr, "30 rows in 3 parts, 0 to 2\n");
    assert!(bytes(&piped) == bytes(&parts));
}

#[test]
fn texts_and_tables_become_parts_too() {
    let folder = folder("parts_texts");
    let split = |name: &str, options: &[&str], input: &[u8]| -> Vec<String> {
        let parts = folder.join(name);
        let args = ["split", "-", "-o", arg(&parts), "--rows", "2"];
        succeed(&[&args[..], options].concat(), input);
        let read = |index: usize| fs::read_to_string(parts.join(format!("part-0000{index}.jsonl")));
        (0..).map_while(|index| read(index).ok()).collect()
    };
    let found = split("texts", &["--input-format", "text"], b"One\n\nday\n\nA\n");
    assert_eq!(found, ["{\"prompt\":\"One\"}\n\n{\"prompt\":\"day\"}\n", "{\"prompt\":\"A\"}\n"]);
    let found = split("tables", &["--input-format", "csv", "--prompt-column", "b"], b"a,b\n1,x\n");
    assert_eq!(found, ["{\"prompt\":\"x\"}\n"]);
    // The third text is line 5, as in one run over all.
    let worker = worker(&folder.join("texts"), "1", &[]).into_iter().map(str::to_owned).collect::<Vec<_>>();
    succeed(&worker.iter().map(String::as_str).collect::<Vec<_>>(), b"");
    let result = fs::read_to_string(folder.join("texts/result-00001.jsonl")).unwrap();
    assert!(result.contains("\"custom_id\":\"line-5\""), "{result}");
    // Nothing is a job of no parts.
    assert_eq!(split("nothing", &[], b"\n"), [""; 0]);
    let merged = folder.join("merged.jsonl");
    let told = succeed(&["merge", arg(&folder.join("nothing")), "-o", arg(&merged)], b"");
    assert_eq!(told, format!("rows 0\nsha256 {}\n", hash(b"")));
}

#[test]
fn a_split_refuses_what_it_cannot_keep() {
    let folder = folder("parts_split");
    let parts = folder.join("job");
    let args = |rows: &'static str| ["split", "-", "-o", arg(&parts), "--rows", rows].map(str::to_owned);
    let refused = |rows: &'static str, input: &str, says: &str| {
        fail(&args(rows).each_ref().map(String::as_str), input.as_bytes(), 1, says);
    };
    let (a, b) = ("{\"custom_id\": \"a\"}\n", "{\"custom_id\": \"b\"}\n");
    let says = "custom_id \"a\" once in the part that begins with line 1, found it again in line 3";
    refused("3", &format!("{b}{a}{a}"), says);
    refused("2", "One\nday\n", "expected JSON lines");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "nothing is left");
    // The ids of a part are known, not those of the job.
    succeed(&args("2").each_ref().map(String::as_str), format!("{b}{a}{a}").as_bytes());
    refused("2", a, "expected no such folder, or an empty one, found files in it");
    // A description that someone has changed.
    let description = parts.join("job.json");
    let text = fs::read_to_string(&description).unwrap();
    for (from, to, says) in [
        ("\"format\": 1", "\"format\": 2", "expected a job's description of format 1, found format 2"),
        ("part-00001.jsonl", "../in.jsonl", "expected part 1 to be part-00001.jsonl with rows"),
        ("\"first_line\": 3", "\"first_line\": 18446744073709551615", "with rows and lines up to "),
        ("\"parts\"", "\"other\"", "job.json: expected a job's description of format 1, found missing field"),
    ] {
        fs::write(&description, text.replace(from, to)).unwrap();
        fail(&worker(&parts, "0", &[]), b"", 1, says);
    }
    fs::remove_dir_all(&parts).unwrap();
    fs::create_dir(folder.join("job.rustorch.tmp")).unwrap();
    refused("2", a, "job.rustorch.tmp: expected no other split of this name (remove it if none is running)");
    let no_job = "expected a job that `rustorch split` made, found no job.json";
    fail(&["merge", arg(&folder), "-o", "never"], b"", 1, no_job);
}

#[test]
fn workers_of_a_job_must_be_the_same() {
    let (_, parts, _) = job("parts_workers", 8, "4");
    fail(&worker(&parts, "2", &[]), b"", 1, "expected a part from 0 to 1, found part 2");
    let first = run(&worker(&parts, "0", &["--temperature", "0.5"]), b"");
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    let refused = |options: &[&str], says: &str| fail(&worker(&parts, "1", options), b"", 1, says);
    let same = ["--temperature", "0.5"];
    let fixed = "run.json: fixed by the first worker, this one differs: ";
    refused(&[], &format!("{fixed}options.defaults.temperature: expected 0.5, found none"));
    refused(&[&same[..], &["--seed", "3"]].concat(), "options.seed: expected 0, found 3");
    let date = [&same[..], &["--date", "2026-11-30"]].concat();
    refused(&date, "options.date: expected none, found 2026-11-30");
    // Another numeric path.
    let run_json = parts.join("run.json");
    let text = fs::read_to_string(&run_json).unwrap();
    fs::write(&run_json, text.replace("\"device\": \"cpu\"", "\"device\": \"a GPU\"")).unwrap();
    refused(&same, &format!("{fixed}device: expected a GPU, found cpu"));
    fs::write(&run_json, text).unwrap();

    // Another worker on the same part.
    let lock = File::create(parts.join("result-00001.jsonl.unfinished")).unwrap();
    lock.lock().unwrap();
    refused(&same, "expected to be its only writer, found it locked by another process");
    drop(lock);
    // A part that was changed.
    let part = parts.join("part-00001.jsonl");
    let text = fs::read_to_string(&part).unwrap();
    fs::write(&part, text.replace("One day", "one day")).unwrap();
    refused(&same, "part-00001.jsonl: expected 4 rows in ");
    fs::write(&part, text).unwrap();
    let missing = "expected the results of all 2 parts, found none of part 1";
    fail(&["merge", arg(&parts), "-o", "never"], b"", 1, missing);
    // Errors of lines are results.
    let second = run(&worker(&parts, "1", &same), b"");
    assert_eq!(second.code, Some(0), "{}", second.stderr);
    assert!(second.stderr.contains("4 requests, 1 errors"), "{}", second.stderr);
    // A part that is done is left as it is, whoever asks.
    let again = run(&worker(&parts, "1", &["-m", "nowhere.gguf", "--fail-on", "any"]), b"");
    assert_eq!((again.code, again.began), (Some(0), None));
    assert!(again.stderr.starts_with("part 1 has its results: "), "{}", again.stderr);
}

/// A fault is a line, and the exit status 1.
#[track_caller]
fn has_one(ran: &Ran, says: &str) {
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stdout.lines().count() == 1 && ran.stdout.contains(says), "{says}: {}", ran.stdout);
}

#[test]
fn faults_of_results_are_found() {
    let (folder, parts, _) = job("parts_faults", 12, "6");
    for part in ["0", "1"] {
        succeed(&worker(&parts, part, &[]), b"");
    }
    // Without a sample no model is needed.
    let unsampled = || run(&["verify", arg(&parts), "--sample", "0", "-m", "nowhere.gguf"], b"");
    assert_eq!(unsampled().stderr, "12 rows in 2 parts, 0 faults; 0 rows were answered again\n");

    let result = parts.join("result-00001.jsonl");
    let text = fs::read_to_string(&result).unwrap();
    let results: Vec<&str> = text.lines().collect();
    let with = |results: &[&str]| {
        fs::write(&result, results.join("\n") + "\n").unwrap();
        unsampled()
    };
    let mut swapped = results.clone();
    swapped.swap(0, 2);
    let says =
        "result-00001.jsonl: line 1: expected the result of custom_id \"row 6\", found that of \"row 8\"";
    has_one(&with(&swapped), says);
    has_one(&with(&results[..5]), "result-00001.jsonl: expected 6 results, found 5");
    has_one(&with(&[&results[..], &results[..1]].concat()), "line 7: expected the end, found more");
    has_one(&with(&[&["{}"], &results[1..]].concat()), "line 1: expected a result, found other text");
    let hash_of_line = results[1].split("request_hash\":\"").nth(1).unwrap();
    let other_line = results[1].replace(&hash_of_line[..16], "0123456789abcdef");
    let says = "line 2: custom_id \"row 7\": expected the result of its line, found another's";
    has_one(&with(&[&results[..1], &[&other_line], &results[2..]].concat()), says);
    let changed = text.replacen("\"total_tokens\"", "\"total_tokenz\"", 1);
    fs::write(&result, &changed).unwrap();
    has_one(&unsampled(), "result-00001.jsonl: expected SHA-256 ");
    let merged = folder.join("merged.jsonl");
    let merge = ["merge", arg(&parts), "-o", arg(&merged)];
    fail(&merge, b"", 1, "result-00001.jsonl: expected 6 rows with SHA-256 ");
    assert!(fs::read_dir(&folder).unwrap().all(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        !name.starts_with("merged")
    }));
}

#[test]
fn what_no_hash_tells_and_what_is_gone_is_found() {
    let (folder, parts, expect) = job("parts_made_up", 12, "6");
    for part in ["0", "1"] {
        succeed(&worker(&parts, part, &[]), b"");
    }
    let verify = |options: &[&str]| run(&[&["verify", arg(&parts)], options].concat(), b"");
    let one = verify(&["--sample", "1"]);
    assert_eq!(one.stderr, "12 rows in 2 parts, 0 faults; 1 rows were answered again\n");
    let other = verify(&["--temperature", "0"]).stderr;
    assert!(other.contains("options.defaults.temperature: expected none, found 0"), "{other}");

    // A result that someone has made up, with its hash: only another answer tells.
    let (result, recorded) = (parts.join("result-00001.jsonl"), parts.join("result-00001.json"));
    let text = fs::read_to_string(&result).unwrap();
    let changed = text.replacen("\"total_tokens\"", "\"total_tokenz\"", 1);
    fs::write(&result, &changed).unwrap();
    let hashes = fs::read_to_string(&recorded).unwrap();
    fs::write(&recorded, hashes.replace(&hash(text.as_bytes()), &hash(changed.as_bytes()))).unwrap();
    assert_eq!(verify(&["--sample", "0"]).code, Some(0));
    let says =
        "result-00001.jsonl: custom_id \"row 6\": expected the bytes that it gives again, found others";
    has_one(&verify(&["--sample", "12"]), says);

    fs::remove_file(&result).unwrap();
    has_one(&verify(&[]), "result-00001.jsonl: expected the results of part 1, found no such file");
    let part = parts.join("part-00001.jsonl");
    let lines = fs::read_to_string(&part).unwrap();
    fs::write(&part, lines.replace("One day", "one day")).unwrap();
    has_one(&verify(&[]), "part-00001.jsonl: expected 6 rows in ");
    fs::write(&part, lines).unwrap();
    succeed(&worker(&parts, "1", &[]), b"");
    let merged = folder.join("merged.jsonl");
    let merge = ["merge", arg(&parts), "-o", arg(&merged)];
    succeed(&merge, b"");
    assert!(fs::read(&merged).unwrap() == expect);
    fail(&merge, b"", 1, "merged.jsonl: expected no such file, found one");
}
