//! Writes the test models and their float64 logits, for an engine of another language to be measured against:
//!
//! ```text
//! cargo run --release -p rustorch-testkit --example write_models -- DIR
//! ```
//!
//! For each model of `testkit::models::all`: `DIR/<name>.gguf`, and `DIR/<name>.json` with
//! `{"sequences": [[token, ..], ..], "logits": [[value, ..], ..]}`, the logits being those after each last token.

use std::error::Error;
use std::fmt::Debug;
use std::fs;
use std::path::PathBuf;

use gguf::Gguf;
use testkit::{Reference, models};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: write_models DIR")?);
    fs::create_dir_all(&dir)?;
    for model in models::all() {
        let bytes = model.spec.to_gguf();
        fs::write(dir.join(&model.name).with_extension("gguf"), &bytes)?;
        let reference = Reference::new(&Gguf::from_vec(bytes)?);
        let sequences = models::sequences(model.spec.vocab);
        let logits: Vec<_> = sequences.iter().map(|tokens| reference.logits(tokens)).collect();
        let json = format!("{{\"sequences\": {}, \"logits\": {}}}\n", array(&sequences), array(&logits));
        fs::write(dir.join(&model.name).with_extension("json"), json)?;
    }
    Ok(())
}

/// Rust's notation of nested lists of finite numbers is JSON's.
fn array(rows: &[impl Debug]) -> String {
    format!("{rows:?}")
}
