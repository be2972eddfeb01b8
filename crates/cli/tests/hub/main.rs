//! Models of the hub and from URLs, before a hub on this machine: what is fetched, what the cache then holds, and what is said when a
//! server refuses, breaks off or lies.

#[path = "../cli/harness.rs"]
#[allow(dead_code)]
mod harness;
mod server;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;

use crate::harness::{Ran, arg, demo_bytes, folder, run_in};
use crate::server::{COMMIT, REPO, Server, sha256};

/// A hub with the demo model, and a cache that is empty.
struct Case {
    server: Server,
    home: PathBuf,
}

impl Case {
    fn new(test: &str) -> Self {
        let server = Server::start(&[("README.md", b"tales".to_vec()), ("demo-Q4_K_M.gguf", demo_bytes())]);
        Self { server, home: folder(&format!("hub_{test}")) }
    }

    /// The program's environment: nothing of this machine's user.
    fn environment<'a>(&'a self, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let mut environment = vec![
            ("HF_ENDPOINT", self.server.endpoint.as_str()),
            ("HF_HOME", arg(&self.home)),
            ("XDG_CACHE_HOME", arg(&self.home)),
            ("NO_PROXY", "*"),
        ];
        for name in [
            "HF_TOKEN",
            "HF_TOKEN_PATH",
            "HF_HUB_CACHE",
            "HF_HUB_OFFLINE",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "ALL_PROXY",
        ] {
            environment.push((name, ""));
        }
        environment.extend(more);
        environment
    }

    fn run_in(&self, more: &[(&str, &str)], args: &[&str]) -> Ran {
        run_in(&self.environment(more), args, b"")
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.run_in(&[], args)
    }

    /// Token ids of a text with the model of these options.
    fn ids(&self, options: &[&str]) -> Ran {
        self.run(&[&TOKENIZE[..], options].concat())
    }

    #[track_caller]
    fn succeed(&self, options: &[&str]) -> String {
        let ran = self.ids(options);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), IDS), "{options:?}: {}", ran.stderr);
        ran.stderr
    }

    #[track_caller]
    fn fail(&self, options: &[&str], says: &[&str]) {
        let ran = self.ids(options);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{options:?}: {}", ran.stderr);
        for text in says {
            assert!(ran.stderr.contains(text), "{options:?}: expected {text:?}, found {}", ran.stderr);
        }
    }

    fn repo(&self) -> PathBuf {
        self.home.join("hub/models--tales--demo-GGUF")
    }

    fn link(&self, file: &str) -> PathBuf {
        self.repo().join("snapshots").join(COMMIT).join(file)
    }

    fn blobs(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.repo().join("blobs")) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn forget(&self) {
        fs::remove_dir_all(&self.home).unwrap();
    }
}

const TOKENIZE: [&str; 3] = ["tokenize", "--text", "One day"];
const HF: [&str; 2] = ["-hf", REPO];

/// What the embedded model makes of the text.
static IDS: &str = "0 380 337\n";

#[test]
fn a_model_is_fetched_once_into_the_hub_s_cache() {
    let case = Case::new("fetch");
    let said = case.succeed(&HF);
    assert!(said.contains("fetching demo-Q4_K_M.gguf, 3.6 MiB\n"), "{said}");
    assert!(said.contains("fetched demo-Q4_K_M.gguf, 3.6 MiB\n"), "{said}");
    let hash = sha256(&demo_bytes());
    assert_eq!(case.blobs(), [&*hash]);
    assert_eq!(fs::read_link(case.link("demo-Q4_K_M.gguf")).unwrap(), Path::new("../../blobs").join(&hash));
    assert_eq!(fs::read_to_string(case.repo().join("refs/main")).unwrap(), COMMIT);
    assert_eq!(case.succeed(&HF), "");
    assert_eq!(case.server.ranges(), [None]);

    // Every command takes it, and answers have its name.
    let ran = case.run(&["generate", "-p", "One day", "-n", "1", "-hf", "tales/demo-GGUF:q4_k_m"]);
    assert!(ran.began.is_some_and(|line| line.starts_with("running demo-Q4_K_M (llama, ")), "{}", ran.stderr);
    assert_eq!(case.run(&["inspect", "--hf-repo", REPO]).code, Some(0));

    // Elsewhere.
    let other = folder("hub_fetch_other");
    let ran = case.run_in(&[("HF_HUB_CACHE", arg(&other))], &[&TOKENIZE[..], &HF].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(other.join("models--tales--demo-GGUF").join("blobs").join(hash).is_file());
}

#[test]
fn the_file_can_be_named_and_what_there_is_is_listed() {
    let case = Case::new("choice");
    let other = [&demo_bytes()[..], b"\0"].concat();
    case.server.world().files.push(("sub/other tale-Q8_0.gguf".to_owned(), other));
    case.succeed(&["-hf", REPO, "-hff", "sub/other tale-Q8_0.gguf"]);
    let link = case.link("sub/other tale-Q8_0.gguf");
    assert!(link.is_file() && link.is_symlink());
    let said = case.succeed(&["-hf", "tales/demo-GGUF:Q8_0"]);
    assert_eq!(said, "");
    case.fail(&["-hf", "tales/demo-GGUF:Q2_K"], &[
        "tales/demo-GGUF: expected a GGUF file in Q2_K, found \"demo-Q4_K_M.gguf\", \"sub/other tale-Q8_0.gguf\"",
        "hint: name one",
    ]);
    case.fail(&["-hf", REPO, "--hf-file", "none.gguf"], &["expected the file \"none.gguf\""]);
    case.fail(
        &["-hf", REPO, "--hf-file", "../none.gguf"],
        &["--hf-file: expected a path inside the repository"],
    );
    case.fail(&["-hf", "demo"], &["--hf-repo: expected USER/REPO or USER/REPO:QUANT, found \"demo\""]);
    let ran = case.ids(&["-hf", REPO, "-m", "demo"]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.contains("cannot be used with"), "{}", ran.stderr);
    assert_eq!(case.ids(&["-hff", "a.gguf"]).code, Some(2));
}

#[test]
fn what_is_said_nearer_counts() {
    let case = Case::new("nearer");
    let config = case.home.join("config.toml");
    fs::write(&config, format!("hf-repo = {REPO:?}\n")).unwrap();
    let fetches = |environment: &[(&str, &str)], options: &[&str]| {
        let ran = case.run_in(environment, &[&TOKENIZE[..], options, &["--offline"]].concat());
        assert!(ran.code == Some(0) || ran.stderr.contains("is not in the cache"), "{}", ran.stderr);
        ran.code != Some(0)
    };
    let file = [("RUSTORCH_CONFIG", arg(&config))];
    let of_hub = [("RUSTORCH_HF_REPO", REPO)];
    assert!(fetches(&file, &[]) && fetches(&of_hub, &[]));
    assert!(!fetches(&file, &["-m", "demo"]) && !fetches(&of_hub, &["-m", "demo"]));
    assert!(!fetches(&[file[0], ("RUSTORCH_MODEL", "demo")], &[]));
    assert!(fetches(&[("RUSTORCH_MODEL", "demo")], &HF));
}

#[test]
fn all_parts_of_a_split_model_are_fetched() {
    let case = Case::new("split");
    let part = |number| format!("Q4_K_M/tale-Q4_K_M-{number:05}-of-00003.gguf");
    case.server.world().files =
        (1..4).rev().map(|number| (part(number), format!("part {number}").into_bytes())).collect();
    // That these are none of a model's is seen when it is opened, and then all are there.
    case.fail(&HF, &["Q4_K_M/tale-Q4_K_M-00001-of-00003.gguf"]);
    for number in 1..4 {
        assert_eq!(fs::read(case.link(&part(number))).unwrap(), format!("part {number}").into_bytes());
    }
    case.forget();
    case.server.world().files.remove(1);
    case.fail(&HF, &["expected part 2 of 3, \"Q4_K_M/tale-Q4_K_M-00002-of-00003.gguf\", found none"]);
    assert!(case.blobs().is_empty());
}

#[test]
fn a_broken_download_goes_on() {
    let case = Case::new("resume");
    let bytes = demo_bytes();
    // In a run.
    case.server.world().breaks = vec![1_000_000, 500_000];
    let said = case.succeed(&HF);
    assert!(said.contains("warning: ") && said.contains("; going on"), "{said}");
    let ranges = case.server.ranges();
    assert_eq!(ranges, [None, Some("bytes=1000000-".to_owned()), Some("bytes=1500000-".to_owned())]);

    // In another run: this one is given up when nothing comes any more.
    case.forget();
    case.server.world().seen.clear();
    case.server.world().breaks = vec![1_000_000, 0, 0, 0, 0];
    case.fail(&HF, &["the same command goes on with it"]);
    let partial = format!("{}.incomplete", sha256(&bytes));
    assert_eq!(case.blobs(), [&*partial]);
    let said = case.succeed(&HF);
    assert!(said.contains("fetching demo-Q4_K_M.gguf, 3.6 MiB, 976.6 KiB of it there\n"), "{said}");
    assert_eq!(case.server.ranges().last().unwrap().as_deref(), Some("bytes=1000000-"));

    // What is there is damaged.
    case.forget();
    fs::create_dir_all(case.repo().join("blobs")).unwrap();
    fs::write(case.repo().join("blobs").join(&partial), [7; 1000]).unwrap();
    let said = case.succeed(&HF);
    assert!(said.contains("what was kept of an earlier download is damaged; going on"), "{said}");
    // It is longer than the file, or a link to another one.
    case.forget();
    fs::create_dir_all(case.repo().join("blobs")).unwrap();
    fs::write(case.repo().join("blobs").join(&partial), [&bytes[..], b"more"].concat()).unwrap();
    case.succeed(&HF);
    #[cfg(unix)]
    {
        case.forget();
        fs::create_dir_all(case.repo().join("blobs")).unwrap();
        let victim = case.home.join("victim");
        fs::write(&victim, "mine").unwrap();
        std::os::unix::fs::symlink(&victim, case.repo().join("blobs").join(&partial)).unwrap();
        case.succeed(&HF);
        assert_eq!(fs::read_to_string(victim).unwrap(), "mine");
    }

    // The server sends the whole file whatever is asked for.
    case.forget();
    case.server.world().ignores_range = true;
    case.server.world().breaks = vec![1_000_000];
    case.succeed(&HF);
}

#[test]
fn what_a_server_says_is_checked() {
    let case = Case::new("lies");
    let bytes = demo_bytes();
    let mut other = bytes.clone();
    other[1_000_000] ^= 1;
    case.server.world().sent = Some(other.clone());
    case.fail(
        &HF,
        &[
            &format!("expected bytes with SHA-256 {}, found {}", sha256(&bytes), sha256(&other)),
            "the download is removed",
        ],
    );
    assert!(case.blobs().is_empty());
    // A server that has the bytes itself.
    case.server.world().location = Some(format!("/{REPO}/resolve/{COMMIT}/other"));
    case.fail(&HF, &["/other: 404: Entry not found"]);
    case.server.world().location = None;
    // Without sizes and hashes in the list, those of the file's own answer count.
    case.server.world().is_terse = true;
    case.fail(&HF, &["expected bytes with SHA-256"]);
    case.server.world().sent = Some([&bytes[..], b"more"].concat());
    case.fail(&HF, &[&format!("expected a file of {} bytes, found {}", bytes.len(), bytes.len() + 4)]);
    case.server.world().hides_length = true;
    case.fail(&HF, &[&format!("expected a file of {} bytes, found more", bytes.len())]);
    case.forget();
    case.server.world().sent = Some(bytes[..1000].to_vec());
    case.fail(&HF, &["the connection ended after 1000 of"]);
    case.server.world().sent = None;
    case.succeed(&HF);

    case.forget();
    case.server.world().is_terse = false;
    case.server.world().linked_size = Some(12);
    case.fail(&HF, &[&format!("expected the size {} of the list of files, found 12", bytes.len())]);
    case.server.world().linked_size = None;
    case.server.world().location = Some("file:///etc/passwd".to_owned());
    case.fail(&HF, &["expected a redirect to a URL, found \"file:///etc/passwd\""]);
    case.server.world().location = Some(format!("/{REPO}/resolve/{COMMIT}/demo-Q4_K_M.gguf"));
    case.fail(&HF, &["expected at most 10 redirects, found more"]);
    assert!(!case.blobs().contains(&sha256(&bytes)));

    // A damaged file in the cache is fetched again.
    case.server.world().location = None;
    case.succeed(&HF);
    let blob = case.repo().join("blobs").join(sha256(&bytes));
    fs::write(&blob, b"short").unwrap();
    case.succeed(&HF);
    // So is one whose content is gone.
    fs::remove_file(&blob).unwrap();
    case.succeed(&HF);
}

#[test]
fn names_from_the_hub_are_no_paths_and_no_commands_for_the_terminal() {
    let case = Case::new("names");
    case.server.world().listed =
        ["../../../../evil-Q4_K_M.gguf", "/tmp/evil-Q4_K_M.gguf", "\u{1b}[2Jevil-Q4_K_M.gguf"]
            .map(str::to_owned)
            .to_vec();
    case.succeed(&HF);
    let world = case.server.world();
    assert!(!world.seen.iter().any(|request| request.path.contains("evil")), "{:?}", world.seen);
    drop(world);
    case.server.world().list_error =
        Some((404, String::new(), r#"{"error":"gone \u001b]0;title\u0007"}"#.to_owned()));
    case.fail(&HF, &["404: gone \\u{1b}]0;title\\u{7}", "hint: is the name right?"]);
}

#[test]
fn refusals_say_what_to_do() {
    let case = Case::new("refusals");
    let gated = "Access to model tales/demo-GGUF is restricted. You must be authenticated to access it.";
    let header = format!("X-Error-Code: GatedRepo\r\nX-Error-Message: {gated}\r\n");
    case.server.world().file_error = Some((401, header.clone(), String::new()));
    case.fail(&HF, &[gated, "a token of huggingface.co/settings/tokens in HF_TOKEN"]);
    case.server.world().file_error = Some((403, header, String::new()));
    case.fail(&HF, &["403: Access to model", "ask for access on its page"]);
    case.server.world().file_error = None;
    case.server.world().list_error =
        Some((401, String::new(), r#"{"error":"Invalid username or password."}"#.to_owned()));
    case.fail(&HF, &["401: Invalid username or password.", "is the name right?"]);
    case.server.world().list_error = Some((429, String::new(), "slow down".to_owned()));
    case.fail(&HF, &["429: slow down", "HF_TOKEN"]);
    case.server.world().list_error = Some((200, String::new(), "<html>".to_owned()));
    case.fail(&HF, &["expected a repository's commit and files in JSON"]);
    case.server.world().list_error =
        Some((200, String::new(), r#"{"sha":"../..","siblings":[]}"#.to_owned()));
    case.fail(&HF, &["found the commit \"../..\""]);
}

#[test]
fn the_token_is_for_the_hub_alone() {
    let case = Case::new("token");
    let args = [&TOKENIZE[..], &HF].concat();
    assert_eq!(case.run_in(&[("HF_TOKEN", "hf_secret")], &args).code, Some(0));
    let seen = std::mem::take(&mut case.server.world().seen);
    for request in &seen {
        let expect = if request.path.starts_with("/bytes/") { None } else { Some("Bearer hf_secret") };
        assert_eq!(request.authorization.as_deref(), expect, "{request:?}");
    }
    assert!(seen.iter().any(|request| request.path.starts_with("/bytes/")));
    fs::write(case.home.join("token"), "hf_kept\n").unwrap();
    assert_eq!(case.run(&args).code, Some(0));
    assert_eq!(case.server.world().seen[0].authorization.as_deref(), Some("Bearer hf_kept"));
    let ran = case.run_in(&[("HF_TOKEN", "a\u{e9}b")], &args);
    assert!(
        ran.code == Some(1) && ran.stderr.contains("expected a token") && !ran.stderr.contains('\u{e9}'),
        "{}",
        ran.stderr
    );
}

#[test]
fn without_the_hub_the_cache_will_do() {
    let case = Case::new("offline");
    case.fail(
        &["-hf", REPO, "--offline"],
        &["tales/demo-GGUF is not in the cache ", "hint: `rustorch models`"],
    );
    case.succeed(&HF);
    let num_seen = case.server.world().seen.len();
    case.succeed(&["-hf", REPO, "--offline"]);
    case.succeed(&["-hf", "tales/demo-GGUF:Q4_K_M", "--offline"]);
    let ran =
        case.run_in(&[("HF_HUB_OFFLINE", "1")], &[&TOKENIZE[..], &["-hf", "tales/demo-GGUF:Q8_0"]].concat());
    assert!(
        ran.code == Some(1) && ran.stderr.contains("tales/demo-GGUF:Q8_0 is not in the cache"),
        "{}",
        ran.stderr
    );
    assert_eq!(case.server.world().seen.len(), num_seen);

    // Nobody listens there.
    let away = [("HF_ENDPOINT", "http://127.0.0.1:9")];
    let ran = case.run_in(&away, &[&TOKENIZE[..], &HF].concat());
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), IDS), "{}", ran.stderr);
    assert!(ran.stderr.contains("; taking the model from the cache"), "{}", ran.stderr);
    let ran = case.run_in(&away, &[&TOKENIZE[..], &["-hf", "tales/other"]].concat());
    assert!(
        ran.code == Some(1) && ran.stderr.contains("http://127.0.0.1:9/api/models/tales/other"),
        "{}",
        ran.stderr
    );
    // The hub is ill.
    case.server.world().list_error = Some((503, String::new(), String::new()));
    assert!(case.succeed(&HF).contains("503"));
}

#[test]
fn models_come_from_urls() {
    let case = Case::new("urls");
    let url = format!("{}/files/demo-Q4_K_M.gguf?key=secret", case.server.endpoint);
    let said = case.succeed(&["-m", &url]);
    assert!(said.contains("fetched demo-Q4_K_M.gguf"), "{said}");
    assert_eq!(case.succeed(&["-m", &url]), "");
    assert_eq!(case.server.ranges(), [None]);
    case.succeed(&["-m", &url, "--offline"]);
    // Another file there now.
    let other = [&demo_bytes()[..], b"\0"].concat();
    case.server.world().files[1].1 = other;
    assert!(case.succeed(&["-m", &url]).contains("fetched"));
    let listed = case.run(&["models"]).stdout;
    assert!(
        listed.contains("/files/demo-Q4_K_M.gguf  demo-Q4_K_M.gguf  ") && !listed.contains("secret"),
        "{listed}"
    );

    // The hub's own links are its files.
    let link = format!("{}/{REPO}/blob/main/demo-Q4_K_M.gguf", case.server.endpoint);
    case.succeed(&["-m", &link]);
    assert!(case.link("demo-Q4_K_M.gguf").is_file());

    let missing = format!("{}/files/none.gguf?key=secret", case.server.endpoint);
    case.fail(&["-m", &missing], &["/files/none.gguf: 404: Entry not found"]);
    case.fail(&["-m", &missing, "--offline"], &["/files/none.gguf is not in the cache"]);
    case.fail(&["-m", "http://models.example/a.gguf"], &["expected an https:// URL"]);
    case.fail(&["-m", "https://models.example/..%2fa.gguf"], &["the name of a GGUF file"]);
    case.fail(&["-m", "https://models.example/"], &["the name of a GGUF file"]);
}

#[test]
fn what_was_fetched_is_listed() {
    let case = Case::new("models");
    let ran = case.run(&["models"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), ""));
    assert!(ran.stderr.starts_with("no models in "), "{}", ran.stderr);
    case.succeed(&HF);
    let path = case.link("demo-Q4_K_M.gguf");
    let expect = format!("   3.6 MiB  tales/demo-GGUF  demo-Q4_K_M.gguf  {}\n", path.display());
    assert_eq!(case.run(&["models"]).stdout, expect);
    let json: serde_json::Value = serde_json::from_str(&case.run(&["models", "--json"]).stdout).unwrap();
    assert_eq!(json[0]["bytes"], demo_bytes().len());
    assert_eq!(json[0]["path"], arg(&path));
}

#[test]
fn two_processes_fetch_a_file_once() {
    let case = Case::new("two");
    let ((reached, at_half), (go, wait)) = (channel(), channel());
    case.server.world().gate = Some((reached, wait));
    let start = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rustorch"));
        command.envs(case.environment(&[("RUSTORCH_CONFIG", "")])).args(TOKENIZE).args(HF);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let first = start();
    at_half.recv().unwrap();
    let mut second = start();
    let mut said = BufReader::new(second.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "waiting for another process that fetches demo-Q4_K_M.gguf\n");
    go.send(()).unwrap();
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    for output in [first.wait_with_output(), second.wait_with_output()] {
        assert_eq!(String::from_utf8(output.unwrap().stdout).unwrap(), IDS, "{rest}");
    }
    assert_eq!(case.server.ranges(), [None]);
}
