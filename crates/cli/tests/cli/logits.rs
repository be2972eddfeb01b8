//! `rustorch logits`

use rustorch_llama::{CpuOptions, Device, LlamaConfig, LlamaModel, LoadOptions, demo};
use serde::Deserialize;

use crate::harness::{arg, demo_bytes, fail, folder, patched, repository, run, succeed};

/// Lengths on both sides of pages and attention blocks, and more sequences than the default batch.
const LENGTHS: [usize; 11] = [1, 2, 3, 7, 31, 32, 33, 64, 65, 100, 129];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    tokens: usize,
    logits: Vec<f32>,
}

fn sequences() -> Vec<Vec<u32>> {
    let mut state = 1u32;
    let mut id = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) % 2048
    };
    LENGTHS.iter().map(|&len| (0..len).map(|_| id()).collect()).collect()
}

/// The program's output for sequences, run together with more options.
#[track_caller]
fn logits(sequences: &[Vec<u32>], options: &[&str]) -> String {
    let texts: Vec<String> =
        sequences.iter().map(|ids| ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")).collect();
    let tokens = texts.iter().flat_map(|text| ["--tokens", text]);
    let args: Vec<&str> = ["logits"].into_iter().chain(tokens).chain(options.iter().copied()).collect();
    let ran = run(&args, b"");
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{options:?}");
    ran.stdout
}

#[test]
fn the_batch_does_not_show() {
    let sequences = sequences();
    let together = logits(&sequences, &[]);
    let lines: Vec<&str> = together.lines().collect();
    let lengths: Vec<usize> =
        lines.iter().map(|line| serde_json::from_str::<Line>(line).unwrap().tokens).collect();
    assert_eq!(lengths, LENGTHS);

    let options: [&[&str]; 9] = [
        &["--alone"],
        &["--threads", "1"],
        &["--threads", "3"],
        &["--chunk", "1"],
        &["--chunk", "50"],
        &["--page-size", "1"],
        &["--page-size", "100"],
        &["--batch-size", "2"],
        &["--alone", "--threads", "2", "--chunk", "33", "--page-size", "7"],
    ];
    let ranks: [&[&str]; 3] = [
        &["--device", "cpu", "--tensor-parallel", "2"],
        &["--device", "cpu:0,cpu:1", "--tensor-parallel", "2", "--threads", "2", "--alone"],
        &["--device", "cpu", "--tensor-parallel", "3", "--chunk", "50"],
    ];
    for options in options.into_iter().chain(ranks) {
        assert_eq!(logits(&sequences, options), together, "{options:?}");
    }
    let reversed: Vec<_> = sequences.iter().rev().cloned().collect();
    let expect: Vec<&str> = lines.iter().rev().copied().collect();
    assert_eq!(logits(&reversed, &[]).lines().collect::<Vec<_>>(), expect, "in reverse");
    assert_eq!(logits(&sequences[4..5], &[]).lines().collect::<Vec<_>>(), lines[4..5], "by itself");
}

/// Limit of the error from a rounded cache, another order of sums or another instruction set: 8-bit rounding of activations
/// enlarges tiny differences.
const ROUNDING: f64 = 0.05;

#[test]
fn other_arithmetic_shows_a_little() {
    // For random ids the logits are close to one another.
    let story = std::fs::read(repository("crates/cli/tests/cli/story.txt")).unwrap();
    let ids = succeed(&["tokenize"], &story);
    let ids: Vec<u32> = ids.split_whitespace().map(|id| id.parse().unwrap()).collect();
    let sequences = LENGTHS.map(|len| ids[..len].to_vec());
    let exact = logits(&sequences, &["--kv-type", "f32"]);
    let read = |output: &str| -> Vec<Line> {
        output.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let squares = |logits: &[f32]| logits.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
    let options: [&[&str]; 3] = [
        &["--kv-type", "f16"],
        &["--kv-type", "f32", "--attention", "reference"],
        &["--kv-type", "f32", "--isa", "portable"],
    ];
    for options in options {
        let output = logits(&sequences, options);
        assert!(options.contains(&"portable") || output != exact, "{options:?} have no effect");
        for (found, expect) in read(&output).iter().zip(read(&exact)) {
            let difference: Vec<f32> = found.logits.iter().zip(&expect.logits).map(|(a, b)| a - b).collect();
            let error = (squares(&difference) / squares(&expect.logits)).sqrt();
            assert!(error < ROUNDING, "{options:?}: relative error {error} of {} tokens", found.tokens);
        }
    }
}

/// Without activations of 8 bits no rounding is enlarged: what is left is that of the f16 cache.
#[test]
fn activations_of_16_bits_bring_other_arithmetic_close() {
    const ROUNDING: f64 = 2e-3;
    let sequences = sequences();
    let read = |options: &[&str]| -> Vec<f32> {
        let output = logits(&sequences, options);
        let line = |line: &str| serde_json::from_str::<Line>(line).unwrap().logits;
        output.lines().flat_map(line).collect()
    };
    let squares = |values: &[f32]| values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
    let exact = read(&["--activations", "16", "--kv-type", "f32"]);
    for options in [&["--activations", "16"][..], &["--activations", "16", "--isa", "portable"], &[]] {
        let found = read(options);
        let difference: Vec<f32> = found.iter().zip(&exact).map(|(a, b)| a - b).collect();
        let error = (squares(&difference) / squares(&exact)).sqrt();
        assert_eq!(error < ROUNDING, !options.is_empty(), "{options:?}: relative error {error}");
    }
}

/// Ids are taken as they are and the figures are the model's own f32 values, in as few digits as identify them.
#[test]
fn decimals_round_trip() {
    let sequences = sequences();
    let config = LlamaConfig::from_gguf(&demo::gguf()).unwrap().with_batch_size(1).with_max_seq_len(256);
    let mut model =
        LlamaModel::load(&demo::gguf(), config, LoadOptions::on(Device::Cpu(CpuOptions::default()))).unwrap();
    let digits = |decimal: &str| {
        let mantissa = decimal.split(['e', 'E']).next().unwrap();
        let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
        digits.trim_matches('0').to_owned()
    };
    for (ids, line) in sequences.iter().zip(logits(&sequences, &[]).lines()) {
        let expect = model.forward(ids).unwrap();
        let Line { tokens, logits } = serde_json::from_str(line).unwrap();
        assert_eq!(tokens, ids.len());
        assert!(logits.iter().map(|x| x.to_bits()).eq(expect.iter().map(|x| x.to_bits())));
        let decimals = line.split_once('[').unwrap().1.trim_end_matches("]}").split(',');
        for (decimal, x) in decimals.zip(expect) {
            assert_eq!(digits(decimal), digits(&format!("{x:e}")), "{decimal}");
        }
    }
}

#[test]
fn ids_may_be_separated_by_commas_too() {
    let expect = logits(&[vec![1, 15, 27]], &[]);
    assert_eq!(succeed(&["logits", "--tokens", " 1,15,\t27\n"], b""), expect);
}

#[test]
fn no_tokenizer_is_needed() {
    let path = folder("no_tokenizer").join("model.gguf");
    std::fs::write(&path, patched(demo_bytes(), b"tokenizer.ggml.model", b"tokenizer.ggml.nodel")).unwrap();
    let sequences = [vec![1, 15, 27]];
    assert_eq!(logits(&sequences, &["-m", arg(&path)]), logits(&sequences, &[]));
    fail(&["tokenize", "-m", arg(&path)], b"a", 1, "tokenizer.ggml.model");
}

#[test]
fn what_cannot_be_run_is_refused() {
    let check = |args: &[&str], says: &str| fail(&[&["logits"], args].concat(), b"", 1, says);
    check(&["--tokens", ""], "sequence 0: expected at least one token, found none");
    check(&["--tokens", "1", "--tokens", " "], "sequence 1: expected at least one token, found none");
    check(
        &["--tokens", "1", "--tokens", "1 2048"],
        "sequence 1: token 2048 at index 1: expected an id below the vocabulary size 2048",
    );
    check(&["--tokens", "1", "--tokens", "4294967295", "--alone"], "pass 1 of one sequence each");
    check(
        &["--tokens", "1", "--tokens", "1 2 3", "--ctx", "2"],
        "sequence 1: expected at most the context of 2 tokens, found 3\nhint: raise --ctx",
    );
    let long = "1 ".repeat(1025);
    check(&["--tokens", &long], "sequence 0: expected at most the context of 1024 tokens, found 1025");
    check(
        &["--tokens", "1", "--tokens", "2", "--kv-memory", "100K"],
        "KV cache: 2 sequences of 32 tokens, in pages of 32: expected at most the 100.0 KiB of --kv-memory, found 160.0 KiB",
    );
    check(&["--tokens", "1", "--threads", "1000000"], "threads: expected at most 4096, found 1000000");
    let vocabulary = repository("crates/tokenizer/tests/vocab/ggml-vocab-gpt-2.gguf");
    check(
        &["--tokens", "1", "-m", arg(&vocabulary)],
        "'gpt2' is not supported\nhint: supported architectures: llama",
    );
}
