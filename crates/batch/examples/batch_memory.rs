//! Checks how much memory a long input takes, in child processes (Linux):
//!
//! ```text
//! cargo run --release -p rustorch-batch --example batch_memory -- target/release/rustorch DIR [LINES]
//! ```
//!
//! Runs `rustorch batch` over 1,000 lines and over LINES (1,000,000) and compares the peaks of resident memory: the longer
//! input may take [`BYTES_A_LINE`] more for each further line, which is what the index of ids is allowed. A second run over
//! the finished output reads all ids back from there and is held to the same. Of a thousand lines one asks for a token; the
//! others are refused, so that the time goes into lines and not into the model.

#![allow(clippy::print_stdout)] // The figures are what the program is for.

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// What the index may take.
const BYTES_A_LINE: u64 = 32;
const FEW: u64 = 1000;
const MANY: u64 = 1_000_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(rustorch), Some(dir)) = (args.next(), args.next()) else {
        return Err("usage: batch_memory RUSTORCH DIR [LINES]".into());
    };
    let many = args.next().map_or(Ok(MANY), |lines| lines.parse())?;
    let (input, output) = (Path::new(&dir).join("in.jsonl"), Path::new(&dir).join("out.jsonl"));
    let measure = |lines: u64| -> Result<[u64; 2], Box<dyn Error>> {
        write_input(&input, lines)?;
        let mut peaks = [0; 2];
        for (peak, what) in peaks.iter_mut().zip(["first run", "resumed"]) {
            let begin = Instant::now();
            *peak = run(&rustorch, &input, &output)?;
            let seconds = begin.elapsed().as_secs_f64();
            println!("{lines} lines, {what}: peak {} KiB, {seconds:.1} s", *peak / 1024);
            let found = BufReader::new(File::open(&output)?).lines().count() as u64;
            if found != lines {
                return Err(format!("results: expected {lines}, found {found}").into());
            }
        }
        for name in ["in.jsonl", "out.jsonl", "out.jsonl.run.json"] {
            fs::remove_file(Path::new(&dir).join(name))?;
        }
        Ok(peaks)
    };
    let (few, many_peaks) = (measure(FEW)?, measure(many)?);
    for (few, many_peak) in few.into_iter().zip(many_peaks) {
        let found = many_peak.saturating_sub(few) as f64 / (many - FEW) as f64;
        println!("{found:.1} bytes for each further line");
        if found > BYTES_A_LINE as f64 {
            return Err(format!("expected at most {BYTES_A_LINE} bytes a line, found {found:.1}").into());
        }
    }
    Ok(())
}

fn write_input(path: &Path, lines: u64) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for number in 0..lines {
        let prompt = if number % 1000 == 0 { "[1]" } else { "5" };
        writeln!(file, r#"{{"custom_id": "request-{number}", "prompt": {prompt}, "max_tokens": 1}}"#)?;
    }
    file.flush()
}

/// The peak of resident memory of a run, in bytes.
fn run(rustorch: &str, input: &Path, output: &Path) -> Result<u64, Box<dyn Error>> {
    let mut command = Command::new(rustorch);
    command
        .args(["batch", "--fail-on", "never"])
        .arg("-i")
        .arg(input)
        .arg("-o")
        .arg(output)
        .stderr(Stdio::null());
    let (status, peak) = testkit::peak_memory(&mut command)?;
    if !status.success() {
        return Err(format!("the child failed: {status}").into());
    }
    Ok(peak)
}
