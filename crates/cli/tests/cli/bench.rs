//! `rustorch bench`. The figures depend on the machine; these tests check that they agree with one another.

use std::fs;
use std::io::Read;

use serde_json::Value;

use crate::harness::{arg, fail, folder, start, succeed};

/// A report on the demo model.
#[track_caller]
fn bench(args: &[&str]) -> Value {
    serde_json::from_str(&succeed(&[&["bench", "--json"], args].concat(), b"")).unwrap()
}

#[track_caller]
fn number(value: &Value, path: &str) -> f64 {
    value.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path} in {value:#}"))
}

#[track_caller]
fn close(found: f64, expect: f64) {
    assert!((found / expect - 1.0).abs() < 1e-9, "{found}, expected {expect}");
}

#[test]
fn figures_agree_with_one_another() {
    let report = bench(&["-b", "4,1,2,1", "-l", "40,3", "-n", "5", "-r", "2"]);
    let cells = report["cells"].as_array().unwrap();
    let grid: Vec<_> = cells.iter().map(|cell| (number(cell, "/length"), number(cell, "/batch"))).collect();
    assert_eq!(grid, [(3.0, 1.0), (3.0, 2.0), (3.0, 4.0), (40.0, 1.0), (40.0, 2.0), (40.0, 4.0)]);
    for (index, cell) in cells.iter().enumerate() {
        let (length, batch) = grid[index];
        let single = &cells[index / 3 * 3];
        let rate = number(cell, "/decode/tokens_per_s");
        close(number(cell, "/decode/speedup"), rate / number(single, "/decode/tokens_per_s"));
        // A page of 32 tokens, or two: 5 layers, K and V, 2 heads of 64, two bytes.
        let pages = if length + 5.0 > 32.0 { 2.0 } else { 1.0 };
        assert_eq!(number(cell, "/memory/kv_bytes"), batch * pages * 32.0 * 2560.0);

        let median = |path| (number(cell, &format!("{path}/0")) + number(cell, &format!("{path}/1"))) / 2.0;
        close(number(cell, "/prompt/tokens_per_s"), batch * length / median("/prompt/seconds"));
        close(number(cell, "/decode/ms_per_token/mean"), 1e3 * median("/decode/seconds") / 5.0);
        let peak = number(&report, "/machine/peaks/read_bytes_per_s");
        close(number(cell, "/decode/bytes_share"), number(cell, "/decode/bytes_per_s") / peak);
        let [p50, p99] = ["p50", "p99"].map(|p| number(cell, &format!("/decode/ms_per_token/{p}")));
        assert!(p50 <= p99, "{p50} {p99}");
        for (rate, share) in
            [("/prompt/macs_per_s", "/prompt/macs_share"), ("/decode/macs_per_s", "/decode/macs_share")]
        {
            // Between the peaks of quantised and of float arithmetic.
            let peak = number(cell, rate) / number(cell, share);
            assert!(peak <= number(&report, "/machine/peaks/quantized_macs_per_s") * 1.001, "{peak}");
            assert!(peak >= number(&report, "/machine/peaks/float_macs_per_s") * 0.999, "{peak}");
        }
    }
    assert_eq!(number(&report, "/model/parameters"), 3_476_224.0);
    assert_eq!(report["settings"]["repeats"], 2);
}

/// More prompt tokens than a step takes: the first sequences generate while the last ones still read their prompts.
#[test]
fn prompts_may_take_many_steps() {
    let report = bench(&["-b", "9", "-l", "100", "-n", "2", "-r", "1", "--chunk", "64"]);
    let cell = &report["cells"][0];
    assert_eq!(cell["decode"]["speedup"], Value::Null, "nothing to compare with");
    // Four pages of 32 for each hold the prompt and what was generated meanwhile.
    assert_eq!(number(cell, "/memory/kv_bytes"), 9.0 * 4.0 * 32.0 * 2560.0);
}

#[test]
fn the_table_is_markdown_and_the_plot_is_a_picture() {
    let path = folder("bench").join("speed.svg");
    let args = ["bench", "-b", "1,2", "-l", "2,4,8", "-n", "2", "-r", "1", "--plot", arg(&path)];
    let text = succeed(&args, b"");
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
    assert_eq!(rows.len(), 2 + 6, "{text}");
    assert!(rows.iter().all(|row| row.len() == rows[0].len()), "{text}");
    for line in ["# rustorch bench: demo", "- rustorch: 0.1.0"] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    let picture = fs::read_to_string(&path).unwrap();
    assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"), "{picture}");
    for label in ["length 2", "length 4", "length 8", "memory peak", "arithmetic peak", "tokens/s", "batch"] {
        assert!(picture.contains(label), "{label} is not in the picture");
    }
}

/// The fields of a line of CSV without quotation marks inside a field.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut is_quoted = false;
    for c in line.chars() {
        match c {
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => fields.push(String::new()),
            c => fields.last_mut().unwrap().push(c),
        }
    }
    fields
}

/// CSV has the figures of the JSON under its own names. Values that do not vary between runs are compared.
#[test]
fn csv_has_what_json_has() {
    let args = ["-b", "2", "-l", "3", "-n", "2", "-r", "1"];
    let report = bench(&args);
    let text = succeed(&[&["bench", "--csv"], &args[..]].concat(), b"");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    let (titles, values) = (fields(lines[0]), fields(lines[1]));
    assert_eq!(titles.len(), values.len(), "{text}");
    let value_of = |title: &str| {
        let at = titles.iter().position(|found| found == title);
        &values[at.unwrap_or_else(|| panic!("{title} is not in\n{text}"))]
    };
    for (title, path) in [
        ("model", "/model/name"),
        ("device", "/machine/device"),
        ("parameters", "/model/parameters"),
        ("bits_per_weight", "/model/bits_per_weight"),
        ("step_weight_bytes", "/model/step_weight_bytes"),
        ("gen_steps", "/settings/gen_steps"),
        ("length", "/cells/0/length"),
        ("batch", "/cells/0/batch"),
        ("weight_bytes", "/cells/0/memory/weight_bytes"),
        ("kv_bytes", "/cells/0/memory/kv_bytes"),
    ] {
        let expect = report.pointer(path).unwrap();
        assert_eq!(value_of(title), expect.to_string().trim_matches('"'), "{title}");
    }
    for title in ["prompt_tokens_per_s", "decode_tokens_per_s", "decode_ms_p99", "decode_macs_share"] {
        assert!(value_of(title).parse::<f64>().is_ok_and(|value| value > 0.0), "{title}: {text}");
    }
    for title in ["prompt_gathers_share", "decode_gathers_share"] {
        assert_eq!(value_of(title), "", "one device gathers nothing");
    }
}

#[test]
fn gathers_of_ranks_have_a_share_of_the_time() {
    let report =
        bench(&["-b", "2", "-l", "3", "-n", "2", "-r", "1", "--device", "cpu", "--tensor-parallel", "2"]);
    for path in ["/cells/0/prompt/gathers_share", "/cells/0/decode/gathers_share"] {
        let share = report.pointer(path).and_then(Value::as_f64);
        assert!(share.is_some_and(|share| share > 0.0), "{path}: {report}");
    }
}

/// Read from a pipe as it is written: the file has hundreds of megabytes.
#[test]
#[cfg(unix)]
fn a_synthetic_model_is_saved_as_a_file_of_its_shape() {
    let mut child = start(&["bench", "--synthetic", "tinyllama-1.1b:q2_k", "--save", "/dev/stdout"]);
    drop(child.stdin.take());
    let mut file = child.stdout.take().unwrap();
    let mut head = vec![0; 1 << 16];
    file.read_exact(&mut head).unwrap();
    assert!(head.starts_with(b"GGUF"));
    // A key, the type of its value (a 32-bit number), the value.
    let layers = [&b"llama.block_count"[..], &4u32.to_le_bytes(), &22u32.to_le_bytes()].concat();
    assert!(head.windows(layers.len()).any(|window| window == layers));
    let rest = std::io::copy(&mut file, &mut std::io::sink()).unwrap();
    // 1.1 billion parameters in between 2.6 and 3.5 bits.
    assert!((300_000_000..500_000_000).contains(&rest), "{rest}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let usage = |args: &[&str], says: &str| fail(&[&["bench"], args].concat(), b"", 2, says);
    let count = "expected a whole number from 1 to 16777216";
    usage(&["-b", "0"], count);
    usage(&["-b", "1,two"], count);
    usage(&["--lengths", ""], count);
    usage(&["--gen", "0"], count);
    usage(&["--repeat", "1.5"], count);
    usage(&["--json", "--csv"], "cannot be used with");
    usage(&["--synthetic", "tinyllama-1.1b"], "expected SHAPE:FORMAT");
    usage(&["--synthetic", "gpt-2:q8_0"], "expected a shape of tinyllama-1.1b, llama-3.2-1b");
    usage(&["--synthetic", "llama-3.2-1b:q9"], "expected a format of f32, f16");
    usage(&["--synthetic", "llama-3.2-1b:q8_0", "-m", "demo"], "cannot be used with");
    usage(&["--save", "model.gguf"], "--synthetic <SHAPE:FORMAT>");

    let run = |args: &[&str], says: &str| fail(&[&["bench"], args].concat(), b"", 1, says);
    run(
        &["-b", "1", "-l", "1000", "-n", "64"],
        "expected at most the trained context of 1024 tokens, found 1065",
    );
    // The context of the shape; no weight is made for this.
    run(
        &["--synthetic", "tinyllama-1.1b:q4_k_m", "-b", "1", "-l", "3000"],
        "tinyllama-1.1b:q4_k_m: batch 1, length 3000: expected at most the trained context of 2048 tokens",
    );
    let missing = folder("bench_refused").join("missing").join("file");
    run(&["--plot", arg(&missing)], arg(&missing));
    run(&["--synthetic", "tinyllama-1.1b:q4_k_m", "--save", arg(&missing)], arg(&missing));
}

#[test]
fn several_devices_are_measured_together() {
    let report = bench(&["-b", "1,5", "-l", "7", "-n", "4", "-r", "1", "--device", "cpu:0,1"]);
    let device = report["machine"]["device"].as_str().unwrap();
    assert!(device.contains("cpu:0: CPU (") && device.contains("cpu:1: CPU ("), "{device}");
    for (cell, batch) in report["cells"].as_array().unwrap().iter().zip([1.0, 5.0]) {
        assert_eq!(number(cell, "/batch"), batch);
        assert!(number(cell, "/decode/tokens_per_s") > 0.0);
    }
    // One sequence keeps one device busy, five both.
    let read = |idx: usize| {
        let cell = &report["cells"][idx];
        number(cell, "/decode/bytes_per_s") * number(cell, "/decode/seconds/0") / 4.0
    };
    let weights = number(&report, "/model/step_weight_bytes");
    assert!(
        (read(0) / weights).floor() == 1.0 && (read(1) / weights).floor() == 2.0,
        "{} {}",
        read(0),
        read(1)
    );
}
