//! Checks how much memory loading a real-sized model takes, in a child process (Linux):
//!
//! ```text
//! cargo run --release -p rustorch-testkit --example model_memory -- target/release/rustorch DIR
//! ```
//!
//! Writes a model of TinyLlama-1.1B's shape in the Q4_K_M mixture to DIR, runs `rustorch logits` on it and compares the
//! child's peak of resident memory with the file's size: weights stay packed, and the file's pages are given back as its
//! tensors are repacked. Fails above [`LIMIT`] times the file plus the KV cache.

#![allow(clippy::print_stdout)] // The figures are what the program is for.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use gguf::Format;
use testkit::{Formats, ModelSpec, peak_memory};

/// Peak of resident memory less the KV cache, over the file's size.
const LIMIT: f64 = 1.3;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let (Some(rustorch), Some(dir)) = (args.next(), args.next()) else {
        return Err("usage: model_memory RUSTORCH DIR".into());
    };
    let path = Path::new(&dir).join("tinyllama-1.1b-q4_k_m.gguf");
    fs::write(&path, tiny_llama().to_gguf())?;
    let file = fs::metadata(&path)?.len();

    let mut command = Command::new(rustorch);
    command.arg("logits").arg("-m").arg(&path).args(["--tokens", "1 2 3 4 5", "--tokens", "6 7"]);
    let ran = peak_memory(command.stdout(Stdio::null()));
    fs::remove_file(&path)?;
    let (status, peak) = ran?;
    if !status.success() {
        return Err(format!("the child failed: {status}").into());
    }
    // 8 slots of one page of 32 tokens; K and V, 22 layers, 4 heads of 64, two bytes each.
    let kv_cache = 8 * 32 * 2 * 22 * 4 * 64 * 2;
    let ratio = (peak - kv_cache) as f64 / file as f64;
    println!("file {file} bytes, peak {peak} bytes, less the KV cache {ratio:.3} times the file");
    if ratio > LIMIT {
        return Err(format!("peak memory: expected at most {LIMIT} times the file, found {ratio:.3}").into());
    }
    Ok(())
}

/// TinyLlama-1.1B, the formats mixed as in Q4_K_M files (with Q6_K in every layer's attn_v and ffn_down, not in half of
/// them, so that the name needs no layer list).
fn tiny_llama() -> ModelSpec {
    ModelSpec {
        hidden: 2048,
        heads: 32,
        kv_heads: 4,
        head_dim: 64,
        layers: 22,
        ffn: 5632,
        vocab: 32000,
        context: 2048,
        formats: Formats {
            rule: Format::Q4_K,
            exceptions: vec![
                ("output.weight", Format::Q6_K),
                ("attn_v", Format::Q6_K),
                ("ffn_down", Format::Q6_K),
            ],
        },
        ..ModelSpec::default()
    }
}
