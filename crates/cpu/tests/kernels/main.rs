//! Every kernel of every instruction set that this machine has, through the public face: against float64, and against
//! itself in other batches, on other numbers of threads and other page sizes, bit for bit.

mod attention;
mod kv_cache;
mod matmul;
mod rows;

use std::num::NonZeroUsize;

use cpu::{CpuBackend, CpuBuffer, CpuOptions, CpuPlan, Isa};
use gguf::{Format, Gguf, GgufWriter};
use model::{Backend, Batch, BatchLimits, Logits, QkvShape};
use testkit::{Rng, random_blocks};

/// The instruction sets of this machine.
fn isas() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_available())
}

fn backend(isa: Isa, threads: usize) -> CpuBackend {
    CpuBackend::new(CpuOptions { threads: NonZeroUsize::new(threads), isa: Some(isa) }).unwrap()
}

/// A backend of every instruction set, with two threads.
fn backends() -> impl Iterator<Item = CpuBackend> {
    isas().map(|isa| backend(isa, 2))
}

/// A file of one tensor, `w`: random weights `[rows, cols]`.
fn weights(format: Format, rows: usize, cols: usize) -> Gguf {
    let mut rng = Rng::new((rows * 1000 + cols) as u64);
    let data = random_blocks(format, rows * cols, 0.05, &mut rng);
    let mut file = GgufWriter::new();
    file.tensor("w", &[cols as u64, rows as u64], format, data);
    Gguf::from_vec(file.write()).unwrap()
}

/// The first `len` values.
fn read(backend: &CpuBackend, buffer: &CpuBuffer, len: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; len];
    backend.read_into(buffer, &mut out).unwrap();
    out
}

/// One sequence's part of a step: `len` tokens from position `start` on, and all pages of the sequence.
#[derive(Clone)]
struct Chunk<'a> {
    start: usize,
    len: usize,
    pages: &'a [u32],
}

/// A step of these chunks with token ids 0, 1, .. and the wanted rows of each.
fn plan(backend: &CpuBackend, chunks: &[Chunk<'_>], page_size: usize, logits: Logits) -> CpuPlan {
    let tokens: Vec<u32> = (0..chunks.iter().map(|chunk| chunk.len as u32).sum()).collect();
    let limits = BatchLimits {
        max_tokens: tokens.len(),
        max_seqs: chunks.len(),
        max_logit_rows: tokens.len(),
        max_blocks: chunks.iter().map(|chunk| chunk.pages.len()).max().unwrap(),
    };
    let mut batch = Batch::new(limits, page_size);
    let mut tokens = tokens.as_slice();
    for chunk in chunks {
        let (own, rest) = tokens.split_at(chunk.len);
        batch.push(own, chunk.start, chunk.pages, logits);
        tokens = rest;
    }
    let shape = QkvShape { num_heads: 1, num_kv_heads: 1, head_dim: 1 };
    let mut plan = backend.alloc_plan(limits, shape).unwrap();
    backend.plan(&batch, &mut plan).unwrap();
    plan
}

/// Every value within `tolerance * scale(i)` of `want(i)`.
#[track_caller]
fn check_close(
    what: &str,
    got: &[f32],
    tolerance: f64,
    want: impl Fn(usize) -> f64,
    scale: impl Fn(usize) -> f64,
) {
    for (i, &got) in got.iter().enumerate() {
        let (want, allowed) = (want(i), tolerance * scale(i));
        let error = (f64::from(got) - want).abs();
        assert!(
            error <= allowed,
            "{what} [{i}]: {got}, expected {want} within {allowed:e}, off by {error:e}"
        );
    }
}

/// The same bits.
#[track_caller]
fn check_same(what: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{what}: lengths");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert_eq!(got.to_bits(), want.to_bits(), "{what} [{i}]: {got:e} and {want:e}");
    }
}
