//! Rates of matrix products on a GPU, by format and number of tokens:
//!
//! ```text
//! cargo run --release -p rustorch-gpu --example gpu_matmul -- [ROWS COLS [FORMAT..]]
//! ```
//!
//! Several matrices take turns, so that caches hold none of them. One token shows how fast weights are read (GB/s of
//! device bytes), many tokens how fast they are multiplied (TFLOP/s). Each product's first and last rows are compared with
//! the sum in f64, and its first token's results with those of every other number of tokens, bit for bit.
#![allow(clippy::print_stdout)] // It prints a table.

use std::time::Instant;

use gguf::random::{Rng, random_blocks};
use gguf::{Format, Gguf, GgufWriter};
use gpu::{Gpu, GpuBackend, GpuOptions};
use model::{Backend, Linear};

const TOKENS: [usize; 9] = [1, 4, 8, 16, 32, 64, 128, 512, 2048];

/// Length of a round and of the rounds before the first that counts.
const ROUND_SECONDS: f64 = 0.01;
const WARM_SECONDS: f64 = 0.1;

/// Bytes that matrices of a round take together at least: several times a large cache.
const ROUND_BYTES: u64 = 600 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let rows: usize = args.next().map_or(Ok(4096), |arg| arg.parse())?;
    let cols: usize = args.next().map_or(Ok(4096), |arg| arg.parse())?;
    let formats = args.map(|name| Format::ALL.into_iter().find(|format| format.name() == name));
    let formats: Vec<_> = formats.collect::<Option<_>>().ok_or("no such format")?;
    let formats = if formats.is_empty() { Format::ALL.to_vec() } else { formats };
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let mut adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY));
    adapters.sort_by_key(|adapter| adapter.get_info().device_type == wgpu::DeviceType::Cpu);
    let gpu = Gpu::open(adapters.first().ok_or("no adapter")?, GpuOptions::default())?;
    println!("{} {:?}", gpu.info().name, gpu.capabilities());
    let backend = GpuBackend::new(gpu);
    println!("{rows} x {cols}; GB/s and TFLOP/s by tokens");
    println!("{:<8}{}", "", TOKENS.map(|n| format!("{n:>16}")).concat());
    let limit = std::env::var("MAX_TOKENS").ok().and_then(|n| n.parse().ok()).unwrap_or(usize::MAX);
    for format in formats {
        measure(&backend, format, rows, cols, limit)?;
    }
    Ok(())
}

fn measure(
    backend: &GpuBackend,
    format: Format,
    rows: usize,
    cols: usize,
    limit: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let data = random_blocks(format, rows * cols, 0.02, &mut Rng::new(1));
    let mut file = GgufWriter::new();
    file.tensor("w", &[cols as u64, rows as u64], format, data);
    let gguf = Gguf::from_vec(file.write())?;
    let tensor = gguf.tensor("w")?;
    let weights = tensor.dequantize();
    let first = backend.load(tensor)?;
    let bytes = backend.matrix_bytes(&first);
    let copies = (ROUND_BYTES / bytes).clamp(1, 64) as usize;
    let mut stack = vec![Linear { parts: vec![first], bias: None }];
    for _ in 1..copies {
        stack.push(Linear { parts: vec![backend.load(tensor)?], bias: None });
    }
    let values: Vec<f32> = Rng::new(2).normals(TOKENS[TOKENS.len() - 1] * cols, 1.0);
    let mut line = format!("{:<8}", format.name());
    let mut reference: Option<Vec<f32>> = None;
    let mut worst: f64 = 0.0;
    let mut same = true;
    for tokens in TOKENS.into_iter().filter(|&tokens| tokens <= limit) {
        let x = backend.upload(tokens, cols, &values[..tokens * cols])?;
        let mut out = backend.alloc(tokens, rows)?;
        let mut result = vec![0.0; tokens * rows];
        backend.matmul(tokens, &x, &stack[0], &mut out);
        backend.read_into(&out, &mut result)?;
        let reference = reference.get_or_insert_with(|| result[..rows].to_vec());
        same &= result[..rows].iter().zip(&*reference).all(|(a, b)| a.to_bits() == b.to_bits());
        for token in [0, tokens - 1] {
            worst =
                worst.max(error(&weights, &values[token * cols..][..cols], &result[token * rows..][..rows]));
        }
        // Long enough for clocks to rise and for the time of a submission to vanish.
        let run = |out: &mut gpu::GpuBuffer, products: usize| -> Result<f64, model::Error> {
            let start = Instant::now();
            for weight in stack.iter().cycle().take(products) {
                backend.matmul(tokens, &x, weight, out);
            }
            backend.read_into(out, &mut [0.0])?;
            Ok(start.elapsed().as_secs_f64() / products as f64)
        };
        let estimate = run(&mut out, 20)?.min(run(&mut out, 20)?);
        let products = ((ROUND_SECONDS / estimate) as usize).clamp(4, 2000);
        let warm = Instant::now();
        while warm.elapsed().as_secs_f64() < WARM_SECONDS {
            run(&mut out, products)?;
        }
        let mut seconds = (0..5).map(|_| run(&mut out, products)).collect::<Result<Vec<_>, _>>()?;
        seconds.sort_by(f64::total_cmp);
        let best = seconds[seconds.len() / 2];
        let flops = 2.0 * (rows * cols * tokens) as f64;
        line += &format!("{:>8.0}{:>8.2}", bytes as f64 / best / 1e9, flops / best / 1e12);
    }
    println!("{line}  error {worst:.1e}{}", if same { "" } else { "  BITS DIFFER" });
    Ok(())
}

/// Distance of some results from the sums in f64, relative to the results' size.
fn error(weights: &[f32], x: &[f32], found: &[f32]) -> f64 {
    let (mut distance, mut size) = (0.0, 0.0);
    for row in (0..found.len()).step_by((found.len() / 61).max(1)) {
        let products = weights[row * x.len()..][..x.len()].iter().zip(x);
        let sum: f64 = products.map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
        distance += (f64::from(found[row]) - sum).powi(2);
        size += sum * sum;
    }
    (distance / size).sqrt()
}
