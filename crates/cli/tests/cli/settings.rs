//! Where options come from, other names for them, what is printed beside results, and what shells are told.

use std::fs;

use serde_json::Value;

use crate::harness::{Ran, arg, fail, folder, repository, run, run_in, succeed};

const PROMPT: [&str; 3] = ["generate", "-p", "One day, Lily"];

fn generate(environment: &[(&str, &str)], options: &[&str]) -> Ran {
    let ran = run_in(environment, &[&PROMPT, options].concat(), b"");
    assert_eq!(ran.code, Some(0), "{options:?}: {}", ran.stderr);
    ran
}

/// Tokens that were generated.
fn num_generated(environment: &[(&str, &str)], options: &[&str]) -> usize {
    let stderr = generate(environment, options).stderr;
    let count = stderr.split(", ").nth(1).and_then(|text| text.split(' ').next());
    count.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{stderr}"))
}

#[test]
fn options_come_from_arguments_the_environment_and_the_configuration_file() {
    let folder = folder("settings");
    let file = folder.join("config.toml");
    fs::write(&file, "max-tokens = 4\nthreads = 1\nchat = false\n\n[generate]\nmax-tokens = 5\nstop = [\"never\", \"ever\"]\n").unwrap();
    let config = [("RUSTORCH_CONFIG", arg(&file))];
    let both = [config[0], ("RUSTORCH_MAX_TOKENS", "6")];
    assert_eq!(num_generated(&[], &["--config", arg(&file)]), 5);
    assert_eq!(num_generated(&config, &[]), 5);
    assert_eq!(num_generated(&both, &[]), 6);
    assert_eq!(num_generated(&both, &["-n", "7"]), 7);
    assert!(generate(&config, &[]).began.is_some_and(|line| line.contains("1 threads")));

    // The user's own file.
    fs::create_dir_all(folder.join("rustorch")).unwrap();
    fs::write(folder.join("rustorch/config.toml"), "max-tokens = 8\n").unwrap();
    let user = |variable| [("XDG_CONFIG_HOME", arg(&folder)), ("RUSTORCH_CONFIG", variable)];
    assert_eq!(num_generated(&user(arg(&file)), &[]), 5);
    assert_ne!(num_generated(&user(""), &[]), 8, "an empty name is no file");

    // Flags.
    let ids = |environment: &[(&str, &str)]| run_in(environment, &["tokenize", "--text", "a"], b"").stdout;
    assert_eq!(ids(&[("RUSTORCH_NO_BOS", "1")]), succeed(&["tokenize", "--text", "a", "--no-bos"], b""));
    assert_eq!(ids(&[("RUSTORCH_NO_BOS", "0")]), succeed(&["tokenize", "--text", "a"], b""));
    fs::write(&file, "no-bos = true").unwrap();
    assert_eq!(ids(&config), succeed(&["tokenize", "--text", "a", "--no-bos"], b""));
}

#[test]
fn a_configuration_file_with_a_fault_is_refused_by_name() {
    let file = folder("settings_faults").join("config.toml");
    for (text, says) in [
        ("max_tokens = 1", "max_tokens: expected a long option or a command, found neither of that name"),
        (
            "[generate]\nport = 1",
            "[generate] port: expected a long option of `rustorch generate`, found none",
        ),
        ("ignore-eos = 3", "ignore-eos: expected true or false, found 3"),
        ("stop = { a = 1 }", "stop: expected a text or a number"),
        ("threads = ", "config.toml: "),
    ] {
        fs::write(&file, text).unwrap();
        fail(&[&PROMPT[..], &["--config", arg(&file)]].concat(), b"", 1, says);
    }
    fs::write(&file, "[generate]\nmax-tokens = \"many\"").unwrap();
    fail(
        &[&PROMPT[..], &["--config", arg(&file)]].concat(),
        b"",
        2,
        "invalid value 'many' for '--max-tokens <N>'",
    );
    fail(&[&PROMPT[..], &["--config", "nowhere.toml"]].concat(), b"", 1, "nowhere.toml: No such file");
}

#[test]
fn options_have_llama_cpp_s_names_too() {
    let same = |ours: &[&str], theirs: &[&str]| {
        let [our_run, their_run] = [ours, theirs].map(|options| generate(&[], options));
        assert_eq!((our_run.stdout, our_run.began), (their_run.stdout, their_run.began), "{theirs:?}");
    };
    same(&["--max-tokens", "5"], &["--n-predict", "5"]);
    same(&["-n", "5", "--temperature", "1.5"], &["-n", "5", "--temp", "1.5"]);
    same(&["-n", "5", "--ctx", "64"], &["-n", "5", "--ctx-size", "64"]);
    same(&["-n", "5", "--threads", "1"], &["-n", "5", "-t", "1"]);
    same(&["-n", "5", "--batch-size", "3"], &["-n", "5", "-np", "3"]);
    same(&["-n", "5", "--batch-size", "3"], &["-n", "5", "--parallel", "3"]);
    same(&["-n", "5", "--device", "cpu"], &["-n", "5", "-ngl", "0"]);
    let ranks = ["-n", "5", "--device", "cpu", "--threads", "2"];
    let [ours, vllm] =
        ["--tensor-parallel", "--tensor-parallel-size"].map(|name| [&ranks[..], &[name, "2"]].concat());
    same(&ours, &vllm);
    let began = generate(&[("RUSTORCH_TENSOR_PARALLEL", "2")], &ranks).began.unwrap();
    assert!(began.contains(" on 2 ranks: CPU (") && began.contains(", 1 threads), CPU ("), "{began}");
    let layers = generate(&[], &["-n", "5", "-ngl", "99"]).stderr;
    assert!(layers.starts_with("note: --gpu-layers 99 has no effect: "), "{layers}");
}

#[test]
#[cfg(not(feature = "hub"))]
fn a_program_without_downloads_says_how_to_build_them_in() {
    let hint = "hint: build it with `cargo install --path crates/cli --features hub`";
    for model in [["-hf", "user/repo:Q8_0"], ["-m", "https://models.example/a.gguf"]] {
        fail(&[&PROMPT[..], &model].concat(), b"", 1, hint);
    }
    fail(&[&PROMPT[..], &["-hf", "user/repo", "-m", "demo"]].concat(), b"", 2, "cannot be used with");
    fail(&[&PROMPT[..], &["--hf-file", "a.gguf"]].concat(), b"", 2, "--hf-repo");
}

#[test]
fn models_in_the_hub_s_cache_are_listed() {
    let folder = folder("settings_models");
    let snapshot = folder.join("models--a--b-c/snapshots/0123/sub");
    fs::create_dir_all(&snapshot).unwrap();
    fs::write(snapshot.join("m-Q8_0.gguf"), [0; 2048]).unwrap();
    fs::write(snapshot.join("m.json"), "{}").unwrap();
    fs::create_dir_all(folder.join("datasets--a--d/snapshots/1/x.gguf")).unwrap();
    let environment = [("HF_HUB_CACHE", arg(&folder)), ("XDG_CACHE_HOME", arg(&folder))];
    let ran = run_in(&environment, &["models"], b"");
    let path = snapshot.join("m-Q8_0.gguf");
    assert_eq!(ran.stdout, format!("   2.0 KiB  a/b-c  sub/m-Q8_0.gguf  {}\n", path.display()));
    let files: Value =
        serde_json::from_str(&run_in(&environment, &["models", "--json"], b"").stdout).unwrap();
    assert_eq!(
        (&files[0]["source"], &files[0]["bytes"], &files[1]),
        (&"a/b-c".into(), &2048.into(), &Value::Null)
    );
}

#[test]
fn notes_and_logs_are_as_wanted() {
    let ran = generate(&[], &["-n", "3", "-c", "64", "-t", "1"]);
    let began = ran.began.unwrap();
    assert!(began.starts_with("running demo (llama, ") && began.contains(" parameters, "), "{began}");
    assert!(began.contains(" on CPU (") && began.ends_with(": batch size 8, context 64"), "{began}");
    assert!(!ran.stderr.contains("hint: "), "{}", ran.stderr);
    // The same model, as any that was made for chats.
    let file = repository("models/demo/demo.gguf");
    let hint = "hint: the model has a chat template";
    assert!(generate(&[], &["-n", "3", "-m", arg(&file)]).stderr.starts_with(hint));
    assert!(!generate(&[], &["-n", "3", "-m", arg(&file), "--chat"]).stderr.contains(hint));
    let quiet = generate(&[], &["-n", "3", "-q"]);
    assert_eq!((quiet.began, quiet.stderr.as_str()), (None, ""));

    let lines = |environment: &[(&str, &str)], options: &[&str]| -> Vec<String> {
        let stderr = generate(environment, &[&["-n", "3"], options].concat()).stderr;
        stderr.lines().filter(|line| line.contains("finished")).map(str::to_owned).collect()
    };
    assert!(lines(&[], &[]).is_empty());
    assert!(!lines(&[], &["-v"]).is_empty());
    assert!(!lines(&[("RUST_LOG", "engine=debug")], &[]).is_empty());
    assert!(lines(&[("RUST_LOG", "engine=info")], &["-v"]).is_empty());
    let line: Value = serde_json::from_str(&lines(&[], &["-v", "--log-format", "json"])[0]).unwrap();
    assert_eq!((&line["level"], &line["fields"]["message"]), (&"DEBUG".into(), &"finished".into()));
    fail(&["inspect", "-q", "-v"], b"", 2, "cannot be used with");
}

#[test]
fn prompts_come_from_files_and_standard_input() {
    let path = folder("settings_prompts").join("prompt.txt");
    fs::write(&path, "One day, Lily\r\n").unwrap();
    fn own<'a>(options: &[&'a str]) -> Vec<&'a str> {
        [&["generate", "-n", "5"], options].concat()
    }
    let want = succeed(&own(&["-p", "One day, Lily"]), b"");
    assert_eq!(succeed(&own(&["-f", arg(&path)]), b""), want);
    assert_eq!(succeed(&own(&["-p", "-"]), b"One day, Lily\n"), want);
    let both = succeed(&own(&["-f", arg(&path), "-p", "The bird"]), b"");
    assert_eq!(both, succeed(&own(&["-p", "The bird", "-p", "One day, Lily"]), b""));
    fail(&own(&["-f", "nowhere.txt"]), b"", 1, "nowhere.txt: No such file");
    fail(&own(&["-p", "-"]), b"\xff", 1, "standard input: expected UTF-8");
}

#[test]
fn shells_and_man_know_the_options() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = succeed(&["completions", shell], b"");
        assert!(script.contains("batch-size") && script.contains("perplexity"), "{shell}: {script}");
    }
    fail(&["completions", "csh"], b"", 2, "invalid value 'csh'");
    let page = succeed(&["man"], b"");
    assert!(page.contains(".TH rustorch 1") && page.contains("perplexity"), "{page}");
    let folder = folder("settings_man");
    let ran = run(&["man", "-o", arg(&folder)], b"");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let page = fs::read_to_string(folder.join("rustorch-batch.1")).unwrap();
    assert!(page.contains("fail\\-on"), "{page}");
}
