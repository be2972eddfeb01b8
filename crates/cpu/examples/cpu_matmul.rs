//! Rates of one matrix product, by format and number of tokens:
//!
//! ```text
//! cargo run --release -p rustorch-cpu --example cpu_matmul -- [THREADS [ISA [BITS [FORMAT..]]]]
//! ```
//!
//! The matrices are larger than the caches, so one token shows how fast weights are read (GB/s of file bytes), many
//! tokens how fast they are multiplied (G multiply-adds/s). Medians of several rounds; the activations' quantisation is
//! included.
#![allow(clippy::print_stdout)] // It prints a table.

use std::num::NonZeroUsize;
use std::time::Instant;

use cpu::{CpuBackend, CpuOptions};
use gguf::{Format, Gguf, GgufWriter};
use model::{Backend, BufferRole, Linear};
use testkit::{Rng, random_blocks};

const ROWS: usize = 65536;
const COLS: usize = 2048;
const TOKENS: [usize; 8] = [1, 2, 4, 8, 16, 32, 64, 256];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let threads = args.next().map(|n| n.parse::<NonZeroUsize>()).transpose()?;
    let isa = args.next().map(|name| name.parse()).transpose()?;
    let activations = args.next().map(|bits| bits.parse()).transpose()?.unwrap_or_default();
    let formats = args.map(|name| Format::ALL.into_iter().find(|format| format.name() == name));
    let formats: Vec<_> = formats.collect::<Option<_>>().ok_or("no such format")?;
    let formats = if formats.is_empty() { Format::ALL.to_vec() } else { formats };
    let backend = CpuBackend::new(CpuOptions { threads, isa, activations })?;
    println!(
        "{} threads, {}, {activations} bits; GB/s and G multiply-adds/s by tokens",
        backend.num_threads(),
        backend.isa()
    );
    println!("{:<8}{}", "", TOKENS.map(|n| format!("{n:>14}")).concat());
    for format in formats {
        let mut file = GgufWriter::new();
        let data = random_blocks(format, ROWS / 16 * COLS, 0.02, &mut Rng::new(1)).repeat(16);
        let bytes = data.len();
        file.tensor("w", &[COLS as u64, ROWS as u64], format, data);
        let gguf = Gguf::from_vec(file.write())?;
        let weight = Linear { parts: vec![backend.load(gguf.tensor("w")?)?], bias: None };
        let mut line = format!("{:<8}", format.name());
        for tokens in TOKENS {
            let values: Vec<f32> = (0..tokens * COLS).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
            let x = backend.upload(tokens, COLS, &values)?;
            let mut out = backend.alloc(tokens, ROWS, BufferRole::Values)?;
            let rounds = (48 / tokens).clamp(3, 9);
            let mut seconds: Vec<f64> = (0..rounds + 1)
                .map(|_| {
                    let start = Instant::now();
                    backend.matmul(tokens, &x, &weight, &mut out);
                    start.elapsed().as_secs_f64()
                })
                .collect();
            seconds.remove(0);
            seconds.sort_by(f64::total_cmp);
            let median = seconds[seconds.len() / 2];
            let macs = (ROWS * COLS * tokens) as f64;
            line += &format!("{:>7.1}{:>7.1}", bytes as f64 / median / 1e9, macs / median / 1e9);
        }
        println!("{line}");
    }
    Ok(())
}
