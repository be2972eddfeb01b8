//! The commands on a GPU, a software rasteriser if there is no other.

use serde_json::{Value, json};

use crate::harness::{arg, fail, folder, run, succeed};

/// A real GPU if there is one.
fn device() -> String {
    let list: Value = serde_json::from_str(&succeed(&["devices", "--json"], b"")).unwrap();
    let gpus = list["gpus"].as_array().unwrap();
    let real = gpus.iter().find(|gpu| gpu["kind"] != "software");
    let gpu = real.or(gpus.first()).expect("tests on a GPU need one, a software rasteriser at least");
    gpu["device"].as_str().unwrap().to_owned()
}

const PROMPTS: [&str; 4] =
    ["1 2 3 4 5 6 7", "9 8 7", "5", "11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28"];

fn logits(device: &str, options: &[&str]) -> String {
    let tokens = PROMPTS.iter().flat_map(|ids| ["--tokens", ids]);
    let args: Vec<&str> =
        ["logits", "--device", device].into_iter().chain(tokens).chain(options.iter().copied()).collect();
    succeed(&args, b"")
}

fn values(lines: &str) -> Vec<f64> {
    let of_line = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["logits"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect::<Vec<_>>()
    };
    lines.lines().flat_map(of_line).collect()
}

/// The CPU rounds activations to 8 bits before a product, which alone makes an error of about this size.
const CPU_ERROR: f64 = 4.5e-2;

#[test]
fn logits_are_the_cpu_s_and_the_batch_does_not_show() {
    let device = device();
    let together = logits(&device, &[]);
    let (got, want) = (values(&together), values(&logits("cpu", &[])));
    let error: f64 = got.iter().zip(&want).map(|(got, want)| (got - want).powi(2)).sum();
    let norm: f64 = want.iter().map(|want| want.powi(2)).sum();
    assert!((error / norm).sqrt() < CPU_ERROR, "{}", (error / norm).sqrt());
    for options in [&["--alone"][..], &["--chunk", "3", "--page-size", "5"]] {
        assert_eq!(logits(&device, options), together, "{options:?}");
    }
}

/// By its id, the answer's text and why it ended.
fn answers(file: &str) -> Vec<(String, String)> {
    let answer = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(line["error"].is_null(), "{line}");
        (line["custom_id"].to_string(), line["response"]["body"]["choices"].to_string())
    };
    let mut answers: Vec<_> = file.lines().map(answer).collect();
    answers.sort();
    answers
}

const NUM_REQUESTS: usize = 5;

/// Greedy and sampled, of different lengths.
fn requests() -> String {
    let request = |i: usize| {
        let prompt = &"Once upon a time, there was a little fox who loved to chase"[..10 + 9 * i];
        let body = json!({"model": "demo", "prompt": prompt, "max_tokens": 6 + 4 * i, "temperature": i as f32 / 4.0});
        json!({"custom_id": i.to_string(), "method": "POST", "url": "/v1/completions", "body": body})
    };
    (0..NUM_REQUESTS).map(|i| format!("{}\n", request(i))).collect()
}

#[test]
fn a_batch_file_is_answered_as_one_by_one() {
    let (device, folder) = (device(), folder("a_batch_file_is_answered_as_one_by_one"));
    let input = folder.join("in.jsonl");
    std::fs::write(&input, requests()).unwrap();
    let answered = |name: &str, options: &[&str]| {
        let out = folder.join(name);
        let args = ["batch", "-i", arg(&input), "-o", arg(&out), "--device", &device];
        let ran = run(&[&args, options].concat(), b"");
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        answers(&std::fs::read_to_string(out).unwrap())
    };
    let together = answered("together.jsonl", &[]);
    assert_eq!(together.len(), NUM_REQUESTS);
    assert_eq!(answered("few.jsonl", &["--batch-size", "2", "--page-size", "7"]), together);
}

#[test]
fn speed_is_measured_and_shared_out() {
    let args = ["bench", "--device", &device(), "-b", "1,2", "-l", "4", "-n", "2", "-r", "1"];
    let report: Value = serde_json::from_str(&succeed(&[&args[..], &["--json"]].concat(), b"")).unwrap();
    assert!(report["machine"]["device"].as_str().unwrap().contains('('), "{report}");
    for cell in report["cells"].as_array().unwrap() {
        assert!(cell["decode"]["tokens_per_s"].as_f64().unwrap() > 0.0, "{cell}");
    }
    let peaks = &report["machine"]["peaks"];
    for peak in ["read_bytes_per_s", "quantized_macs_per_s", "float_macs_per_s"] {
        assert!(peaks[peak].as_f64().unwrap() > 0.0, "{peaks}");
    }
}

#[test]
fn what_is_not_there_is_said() {
    fail(&["generate", "-p", "a", "--device", "gpu:99"], b"", 1, "gpu:99: expected a number below");
    fail(&["bench", "--profile", "--device", "cpu"], b"", 1, "--profile: expected a GPU that times kernels");
}
