//! A step allocates nothing: buffers are made once, for the largest batch. The public model's calls return what they
//! allocate, so they may take memory, but they keep none. Of the buffers themselves, only inputs of products have more than their values.
//!
//! The counts are of the whole process. So this file has one test, and nothing runs beside it.

use std::alloc::System;
use std::num::NonZeroUsize;
use std::sync::Arc;

use cpu::CpuBackend;
use model::{Backend, Batch, BatchLimits, BufferRole, Decoder, ModelRunner, Rows, Runner, Want};
use rustorch_llama::{
    Activations, AttentionMode, CpuOptions, Device, Isa, KvDtype, LlamaConfig, LlamaModel, LoadOptions, demo,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, Stats, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const NUM_SEQS: usize = 4;
const NUM_STEPS: usize = 16;
const MAX_SEQ_LEN: usize = 256;

fn config(kv_dtype: KvDtype) -> LlamaConfig {
    let config = LlamaConfig::from_gguf(&demo::gguf()).expect("the demo model's configuration");
    config.with_max_seq_len(MAX_SEQ_LEN).with_batch_size(NUM_SEQS).with_kv_dtype(kv_dtype)
}

fn runner(
    (isa, activations): (Isa, Activations),
    attention: AttentionMode,
    kv_dtype: KvDtype,
) -> ModelRunner<CpuBackend> {
    let config = config(kv_dtype);
    let options = CpuOptions { threads: NonZeroUsize::new(2), isa: Some(isa), activations };
    let backend = Arc::new(CpuBackend::new(options).expect("a backend"));
    let limits = BatchLimits {
        max_tokens: 64,
        max_seqs: NUM_SEQS,
        max_logit_rows: NUM_SEQS,
        max_blocks: config.pages_per_seq(),
        num_pages: NUM_SEQS * config.pages_per_seq(),
    };
    let decoder = Decoder::load(&*backend, &demo::gguf(), config, |_, _| {}).expect("a model");
    ModelRunner::new(backend, Arc::new(decoder), limits, attention).expect("a runner")
}

/// What `times` runs of `step` allocate, after one that may allocate more.
fn allocated(times: usize, mut step: impl FnMut(usize)) -> Stats {
    step(0);
    let region = Region::new(ALLOCATOR);
    (1..=times).for_each(&mut step);
    region.change()
}

/// One step has a prompt chunk of one sequence and a decode of each other.
fn runner_allocates(cpu: (Isa, Activations), attention: AttentionMode, kv_dtype: KvDtype) -> Stats {
    let mut runner = runner(cpu, attention, kv_dtype);
    let spec = runner.spec();
    let pages: Vec<Vec<u32>> = (0..NUM_SEQS)
        .map(|seq| {
            (seq * spec.limits.max_blocks..(seq + 1) * spec.limits.max_blocks).map(|p| p as u32).collect()
        })
        .collect();
    let mut batch = Batch::new(spec.limits, spec.page_size);
    allocated(NUM_STEPS, |step| {
        batch.clear();
        batch.push(&[7; 3], 3 * step, &pages[0], Want::Logits(Rows::LastN(2)));
        let wants = [Want::Argmax(Rows::Last), Want::Hidden(Rows::Last), Want::Hidden(Rows::All)];
        for (pages, want) in pages[1..].iter().zip(wants) {
            batch.push(&[9], step, pages, want);
        }
        runner.run(&batch).expect("a step");
    })
}

/// Bytes that a buffer of so many columns and 8 rows takes beside its values.
fn scratch_of(backend: &CpuBackend, cols: usize, role: BufferRole) -> usize {
    let region = Region::new(ALLOCATOR);
    let buffer = backend.alloc(8, cols, role).expect("a buffer");
    let stats = region.change();
    drop(buffer);
    stats.bytes_allocated - stats.bytes_deallocated - 8 * cols * size_of::<f32>()
}

/// The scores of reference attention over a long context are the widest buffer of all, and nobody multiplies them.
fn only_inputs_of_products_have_scratch_for_their_quantised_form() {
    // Cache lines: of 32 integers of 8 or 16 bits with their scale and their sums.
    for (activations, bytes_per_block) in [(Activations::Bits8, 64), (Activations::Bits16, 128)] {
        let backend =
            CpuBackend::new(CpuOptions { activations, ..CpuOptions::default() }).expect("a backend");
        assert_eq!(scratch_of(&backend, 1 << 16, BufferRole::Values), 0, "{activations} bits");
        let scratch = scratch_of(&backend, 4096, BufferRole::MatmulInput);
        assert_eq!(scratch, 8 * 4096 / 32 * bytes_per_block, "{activations} bits");
        assert_eq!(
            scratch_of(&backend, 4096, BufferRole::MatmulInput),
            0,
            "{activations} bits: the next input shares it"
        );
    }
}

#[test]
fn a_step_allocates_nothing_and_a_call_keeps_nothing() {
    only_inputs_of_products_have_scratch_for_their_quantised_form();
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        for attention in [AttentionMode::Fused, AttentionMode::Reference] {
            for kv_dtype in [KvDtype::F16, KvDtype::F32] {
                let stats = runner_allocates((isa, Activations::Bits8), attention, kv_dtype);
                assert_eq!(stats, Stats::default(), "{NUM_STEPS} steps, {isa}, {attention:?}, {kv_dtype:?}");
            }
        }
    }
    let wide = (Isa::detect(), Activations::Bits16);
    assert_eq!(runner_allocates(wide, AttentionMode::Fused, KvDtype::F16), Stats::default());

    let mut model = LlamaModel::load(
        &demo::gguf(),
        config(KvDtype::F16),
        LoadOptions::on(Device::Cpu(CpuOptions::default())),
    )
    .expect("a model");
    let stats = allocated(NUM_STEPS, |step| {
        let sequences: [&[u32]; NUM_SEQS] = [&[5, 6], &[7], &[8], &[9]];
        model.forward_batch_with_position(&sequences, &[2 * step, step, step, step]).expect("logits");
    });
    assert_eq!(stats.bytes_allocated, stats.bytes_deallocated, "{NUM_STEPS} calls of the model: {stats:?}");
}
