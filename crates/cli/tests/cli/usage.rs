//! Help, and arguments that are wrong whatever the model is.

use crate::harness::{fail, run, succeed};

/// Options of every command that runs a model.
const RUN: &[&str] = &[
    "-m, --model",
    "--hf-repo",
    "--hf-file",
    "--offline",
    "--device",
    "--no-matrix-units",
    "--no-subgroups",
    "--tensor-parallel",
    "-t, --threads",
    "--kv-type",
    "--page-size",
    "--chunk",
    "--attention",
    "--isa",
    "--activations",
    "--seed",
];
/// Options of every command.
const COMMON: &[&str] =
    &["--config", "-q, --quiet", "-v, --verbose", "--log-format", "-h, --help", "-V, --version"];
/// And of those that do not choose the batch and the context themselves.
const CAPACITY: &[&str] = &["-c, --ctx", "--kv-memory", "--batch-size", "--no-prefix-cache"];

#[test]
fn help_names_every_option() {
    let check = |command: &str, own: &[&str], shared: &[&str]| {
        let long = succeed(&[command, "--help"], b"");
        let short = succeed(&[command, "-h"], b"");
        assert_eq!(succeed(&["help", command], b""), long);
        for option in own.iter().chain(shared).chain(COMMON) {
            for help in [&long, &short] {
                assert!(help.contains(option), "{command}: {option} is not in\n{help}");
            }
        }
        let described = |line: &&str| line.trim_start().starts_with('-');
        let options = own.len() + shared.len() + COMMON.len();
        assert_eq!(
            short.lines().filter(described).count(),
            options,
            "{command}: untested options in\n{short}"
        );
    };
    let sampling = &[
        "--temperature",
        "--top-k",
        "--top-p",
        "--min-p",
        "--repeat-penalty",
        "--frequency-penalty",
        "--typical",
        "--top-nsigma",
        "--xtc-probability",
        "--xtc-threshold",
        "--mirostat",
        "--mirostat-ent",
        "--mirostat-lr",
        "--dry-multiplier",
        "--dry-base",
        "--dry-allowed-length",
        "--dry-penalty-last-n",
        "--dry-sequence-breaker",
        "--presence-penalty",
        "--stop",
        "--ignore-eos",
    ];
    let generate = &[
        "-p, --prompt",
        "-f, --file",
        "-n, --max-tokens",
        "--chat",
        "--system",
        "--json",
        "--json-schema",
        "--regex",
        "--grammar",
    ];
    let model = &[RUN, CAPACITY].concat();
    check("generate", &[generate, &sampling[..]].concat(), model);
    let chat = &["--system", "-n, --max-tokens", "--chat-template", "--history-file", "--no-history"];
    check("chat", &[chat, &sampling[..]].concat(), model);
    let answering = &[
        "--strict-fields",
        "--model-name",
        "--date",
        "--chat-template",
        "-n, --max-tokens",
        "--temperature",
        "--top-p",
        "--top-k",
        "--min-p",
        "--stop",
        "--chat",
        "--system",
    ];
    let batch = &[
        "-i, --input-file",
        "-o, --output-file",
        "--job",
        "--part",
        "--reproducible",
        "--ordered",
        "--shard",
        "--retry-errors",
        "--overwrite",
        "--fail-on",
        "--progress-interval",
        "--window",
        "--input-format",
        "--prompt-column",
    ];
    check("batch", &[batch, &answering[..]].concat(), model);
    check("split", &["-o, --output-folder", "--rows", "--input-format", "--prompt-column"], &[]);
    check("verify", &[&["--sample"], &answering[..]].concat(), model);
    check("merge", &["-o, --output-file"], &[]);
    let serve = &[
        "--host",
        "--port",
        "--metrics-listen",
        "--api-key",
        "--model-name",
        "--max-queue",
        "--max-connections",
        "--max-connections-per-address",
        "--request-timeout",
        "--itl-target",
        "--body-limit",
        "--request-memory",
        "--file-limit",
        "--strict-fields",
        "--chat-template",
        "--api-key-file",
        "--trusted-proxy",
        "--cors-origin",
        "--data-dir",
        "--access-log",
    ];
    check("serve", serve, model);
    let file = &["-m, --model", "--hf-repo", "--hf-file", "--offline"];
    check("tokenize", &["--text", "--no-bos", "--special"], file);
    check("logits", &["--tokens", "--alone"], model);
    check("inspect", &["--tensors"], model);
    check("perplexity", &["-f, --file"], model);
    let bench = &[
        "-b, --batch",
        "-l, --lengths",
        "-n, --gen",
        "-r, --repeat",
        "--json",
        "--csv",
        "--profile",
        "--plot",
        "--synthetic",
        "--save",
    ];
    check("bench", bench, RUN);
    let devices = &["--check", "--json", "--device", "--no-matrix-units", "--no-subgroups"];
    check("devices", devices, file);
    check("models", &["--json"], &[]);
    check("completions", &[], &[]);
    check("man", &["-o, --output-folder"], &[]);
}

#[test]
fn the_program_s_help_lists_commands_and_exit_statuses() {
    let help = succeed(&["--help"], b"");
    for text in [
        "generate",
        "batch",
        "split",
        "verify",
        "merge",
        "serve",
        "tokenize",
        "logits",
        "inspect",
        "perplexity",
        "bench",
        "devices",
        "models",
        "completions",
        "man",
        "0 done, 1 the run failed, 2",
    ] {
        assert!(help.contains(text), "{text} is not in\n{help}");
    }
    let version = succeed(&["-V"], b"");
    assert_eq!(version, format!("rustorch {}\n", env!("CARGO_PKG_VERSION")));
    let long = succeed(&["--version"], b"");
    assert!(long.starts_with(&version), "{long}");
    for line in [
        "commit: ",
        "features: cpu",
        "instruction sets: portable, avx2, avxvnni, avx512; of this machine: portable",
    ] {
        assert!(long.contains(line), "{line} is not in\n{long}");
    }
}

#[test]
fn wrong_usage_ends_with_2() {
    let ran = run(&[], b"");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""));
    assert!(ran.stderr.contains("Usage: rustorch [OPTIONS] <COMMAND>"), "{}", ran.stderr);

    let check = |args: &[&str], says: &str| fail(args, b"", 2, says);
    check(&["train"], "unrecognized subcommand 'train'");
    check(&["generate"], "--prompt <TEXT>");
    check(&["batch", "-i", "-"], "--output-file");
    check(&["batch", "--job", "a"], "--part <K>");
    check(&["batch", "--part", "0"], "--job <DIR>");
    check(&["batch", "-i", "-", "-o", "-", "--part", "0"], "cannot be used with");
    check(&["batch", "--job", "a", "--part", "x"], "expected a whole number, 0 or more");
    check(&["batch", "--job", "a", "--part", "0", "-i", "-"], "cannot be used with");
    check(&["batch", "--job", "a", "--part", "0", "--overwrite"], "cannot be used with");
    check(&["batch", "-i", "-", "-o", "-", "--reproducible", "--retry-errors"], "cannot be used with");
    check(&["batch", "-i", "-", "-o", "-", "--date", "today"], "expected a day from 1970-01-01 on");
    check(&["split", "-", "-o", "a", "--rows", "0"], "invalid value '0' for '--rows <N>'");
    check(&["logits"], "--tokens <IDS>");
    check(&["perplexity"], "--file <PATH>");
    check(&["tokenize", "--threads", "1"], "unexpected argument '--threads'");
    check(&["inspect", "--everything"], "unexpected argument '--everything'");
    check(&["logits", "--tokens", "1 a"], "expected token ids, found 'a'");
    check(&["logits", "--tokens", "-1"], "expected token ids, found '-1'");
    check(&["logits", "--tokens", "4294967296"], "expected token ids, found '4294967296'");
    check(&["generate", "-p", "a", "--system", "b"], "--chat");

    let count = "expected a whole number from 1 to 16777216";
    let number = "expected a number";
    let whole = "expected a whole number, 0 or more";
    let options = [
        ("--batch-size", "0", count),
        ("--batch-size", "eight", count),
        ("--ctx", "0", count),
        ("--ctx", "100000000", count),
        ("--threads", "0", count),
        ("--chunk", "0", count),
        ("--tensor-parallel", "0", count),
        ("--page-size", "0", count),
        ("--max-tokens", "0", count),
        ("--max-tokens", "-1", count),
        ("--seed", "-2", whole),
        ("--top-k", "-1", whole),
        ("--kv-memory", "0", "expected a size above 0"),
        ("--kv-memory", "8X", "expected a unit of K, M, G or T, found 'X'"),
        ("--kv-type", "q8_0", "possible values: f16, f32"),
        ("--attention", "flash", "possible values: fused, reference"),
        (
            "--device",
            "cuda:x",
            "expected auto, cpu, gpu, gpu:N, cuda, cuda:N, metal, vulkan or dx12, found 'cuda:x'",
        ),
        ("--activations", "12", "expected 8 or 16, found '12'"),
        ("--isa", "sse", "expected one of portable, avx2, avxvnni, avx512"),
        ("--temperature", "-1", number),
        ("--temperature", "nan", number),
        ("--top-p", "1.5", "expected a number from 0 to 1"),
        ("--min-p", "-0.1", "expected a number from 0 to 1"),
        ("--repeat-penalty", "0", "expected a number above 0"),
        ("--frequency-penalty", "inf", number),
        ("--mirostat", "1", "expected 0 or 2 (1 is not supported)"),
        ("--dry-penalty-last-n", "-2", "expected a whole number, or -1 for all"),
        ("--stop", "", "a value is required for '--stop <TEXT>'"),
    ];
    for (option, value, says) in options {
        check(&["generate", "-p", "a", option, value], says);
    }
}

#[test]
fn several_devices_are_of_one_kind_and_different() {
    for (devices, says) in [
        (
            "cpu:0,cuda:0",
            "expected devices of one kind, as they compute different bits, found cpu:0 and cuda:0",
        ),
        ("cpu:0,cpu:0", "expected each device once, found cpu:0 twice"),
        (
            "cpu,cpu",
            "expected several devices as in cuda:0,1 or cuda:0,cuda:1, the same with gpu or cpu, found 'cpu'",
        ),
    ] {
        fail(&["generate", "-p", "a", "--device", devices], b"", 2, says);
    }
    for args in [&["logits", "--tokens", "1"][..], &["devices", "--check"]] {
        let args = [args, &["--device", "cpu:0,1"]].concat();
        fail(&args, b"", 1, "--device: expected one device, found cpu:0,cpu:1");
    }
    // An error of one of several names it.
    fail(&["generate", "-p", "a", "--device", "cuda:4000,4001"], b"", 1, "cuda:4000: device: cuda");
}

#[test]
fn ranks_are_of_a_kind_that_can_and_no_more_than_the_model_has_heads() {
    for (device, ranks, says) in [
        ("cpu", "5", "tensor parallel: expected at most 4 ranks, the attention heads of a layer, found 5"),
        (
            "cpu:0,1,2",
            "2",
            "tensor parallel: expected cpu, or 2 devices or a multiple of that, as in cpu:0,1, found cpu:0,cpu:1,cpu:2",
        ),
        ("auto", "2", "as in cpu:0,1, found auto"),
        ("gpu:0", "2", "as in cpu:0,1, found gpu:0"),
        (
            "gpu:0,1",
            "2",
            "tensor parallel: expected CUDA devices or CPUs, as GPUs that Vulkan, Metal or DX12 reach do not run a model together, found gpu:0, gpu:1",
        ),
    ] {
        fail(&["generate", "-p", "a", "--device", device, "--tensor-parallel", ranks], b"", 1, says);
    }
    fail(
        &["logits", "--tokens", "1", "--device", "cpu:0,1,2,3", "--tensor-parallel", "2"],
        b"",
        1,
        "--device: expected one device",
    );
    fail(&["bench", "--device", "cpu", "--tensor-parallel", "1000"], b"", 1, "at most 256 ranks");
}

/// Whether the driver is missing or has fewer cards, the message names the device and what was expected.
#[test]
fn a_cuda_device_that_is_not_there_is_named() {
    for args in [&["logits", "--tokens", "1"][..], &["devices", "--check"]] {
        let args = [args, &["--device", "cuda:4000"]].concat();
        fail(&args, b"", 1, "cuda");
        fail(&args, b"", 1, "expected");
    }
}

#[test]
fn activations_are_chosen_on_a_cpu_only() {
    for (bits, device) in [("8", "gpu:0"), ("16", "gpu:0"), ("16", "cuda")] {
        let args = ["generate", "-p", "a", "--device", device, "--activations", bits];
        let says = format!("--activations: expected a CPU, found {device}\nhint: --device cpu");
        fail(&args, b"", 1, &says);
    }
}

#[test]
fn values_are_escaped_in_errors() {
    let check = |args: &[&str], says: &str| {
        fail(args, b"", 2, says);
        assert!(!run(args, b"").stderr.contains(['\u{1b}', '\u{7}']), "{args:?}");
    };
    check(&["\u{1b}[31mx"], "unrecognized subcommand '\\u{1b}[31mx'");
    check(&["serve", "--\u{1b}]0;x\u{7}"], "unexpected argument '--\\u{1b}]0;x\\u{7}' found");
    check(&["serve", "--port", "\u{1b}[31mx"], "invalid value '\\u{1b}[31mx' for '--port <PORT>'");
    check(&["generate", "--device", "\u{1b}[31mx"], "found '\\u{1b}[31mx'");
}
