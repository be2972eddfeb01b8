//! What a step makes on the device, and what becomes of one when the device fails.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use conformance::Sequences;
use devices::{GpuOptions, Profile};
use gguf::random::{Rng, random_blocks};
use gguf::{Format, Gguf, GgufWriter};
use model::{
    AttentionMode, AttentionOp, Backend, Batch, BatchLimits, BufferRole, Decoder, Error, KvDtype, KvHeads,
    KvShape, Layout, Linear, LlamaConfig, QkvShape, Read, Rows, RunError, RunState, Want,
};

use super::{open, read};
use crate::backend::GpuBackend;

fn backend() -> GpuBackend {
    open(GpuOptions::default())
}

fn config() -> LlamaConfig {
    let gguf = Gguf::from_static(demo_model::BYTES).expect("the demo model");
    LlamaConfig::from_gguf(&gguf).expect("its configuration").with_max_seq_len(320)
}

/// The demo model's sequences on a device, in pages of 16 tokens.
fn sequences(backend: &Arc<GpuBackend>) -> Sequences {
    let gguf = Gguf::from_static(demo_model::BYTES).expect("the demo model");
    let decoder = Arc::new(Decoder::load(&**backend, &gguf, config(), |_, _| {}).expect("a model"));
    Sequences::new(backend, &decoder, 16).expect("a runner")
}

/// Whether an error is one of the device's, which name it.
fn is_of_device(backend: &GpuBackend, error: &RunError) -> bool {
    error.to_string().contains(&backend.gpu().info().name)
}

/// Buffers, bind groups, pipelines and submissions so far.
fn counts(backend: &GpuBackend) -> [u64; 4] {
    let counters = backend.gpu().counters();
    [&counters.buffers, &counters.bind_groups, &counters.pipelines, &counters.submissions]
        .map(|counter| counter.load(Ordering::Relaxed))
}

#[test]
fn a_step_makes_nothing_and_submits_once() {
    let backend = Arc::new(backend());
    let mut runner = sequences(&backend);
    let tokens: Vec<u32> = (1..200).collect();
    // A prompt chunk beside decodes, in every step; the first two of each shape may make what they need.
    let mut step = |i: usize| {
        let pieces: [(usize, usize, &[u32]); 3] =
            [(0, 3 * i, &tokens[..3]), (1, i, &tokens[50..51]), (2, i, &tokens[90..91])];
        runner.step(&pieces).expect("a step")
    };
    (0..2).for_each(|i| drop(step(i)));
    let before = counts(&backend);
    (2..12).for_each(|i| drop(step(i)));
    let after = counts(&backend);
    assert_eq!(after[..3], before[..3], "buffers, bind groups and pipelines made by steps");
    assert_eq!(after[3] - before[3], 10, "submissions of ten steps");
}

#[test]
fn an_error_on_the_device_ends_one_step_and_the_next_is_well() {
    let backend = Arc::new(backend());
    let mut runner = sequences(&backend);
    let want = runner.step(&[(0, 0, &[1, 2, 3])]).expect("a step");
    // A buffer for no use at all is an error that no call returns.
    let _ = backend.gpu().device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("refused"),
        size: u64::MAX,
        usage: wgpu::BufferUsages::STORAGE,
        mapped_at_creation: false,
    });
    let error = runner.step(&[(0, 0, &[1, 2, 3])]).expect_err("the error");
    assert!(is_of_device(&backend, &error), "{error}");
    assert_eq!(runner.step(&[(0, 0, &[1, 2, 3])]).expect("a step"), want);
}

#[test]
fn an_error_while_results_are_read_leaves_the_next_read_well() {
    let backend = backend();
    let values: Vec<f32> = (0..64).map(|i| i as f32).collect();
    let mut x = backend.upload(1, 64, &values).expect("a buffer");
    let ones = backend.upload(1, 64, &[1.0; 64]).expect("a buffer");
    backend.add(1, &mut x, &ones);
    let _ = backend.gpu().device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("refused"),
        size: u64::MAX,
        usage: wgpu::BufferUsages::STORAGE,
        mapped_at_creation: false,
    });
    let failed = backend.read_into(&mut [Read { buffer: &x, first_row: 0, out: &mut [0.0; 64] }]);
    assert!(matches!(failed, Err(Error::Device(_))));
    let want: Vec<f32> = values.iter().map(|value| value + 1.0).collect();
    assert_eq!(read(&backend, &x, 64), want);
}

/// A step of mean-pooled embeddings wants every row, however few rows may want logits. A group of 16 query heads makes a
/// run of each row, which leaves no words of the plan unused.
#[test]
fn a_plan_holds_a_step_that_wants_every_row() {
    let backend = backend();
    let limits =
        BatchLimits { max_tokens: 512, max_seqs: 8, max_logit_rows: 32, max_blocks: 16, num_pages: 17 };
    let shape = QkvShape { num_heads: 16, num_kv_heads: 1, head_dim: 16 };
    let mut plan = backend.alloc_plan(limits, &[shape]).expect("a plan");
    let mut batch = Batch::new(limits, 32);
    let pages: Vec<u32> = (0..17).collect();
    batch.push(&[0; 400], 0, &pages[..13], Want::Hidden(Rows::All));
    batch.push(&[0; 112], 0, &pages[13..], Want::Hidden(Rows::All));
    backend.plan(&batch, &mut plan).expect("the batch is on the device");
    let values: Vec<f32> = (0..512).map(|row| row as f32).collect();
    let x = backend.upload(512, 1, &values).expect("a buffer");
    let mut out = backend.alloc(512, 1, BufferRole::Values).expect("a buffer");
    backend.gather_rows(&plan, &x, &mut out);
    assert_eq!(read(&backend, &out, 512), values);
}

/// What a model is said to take before it is loaded is what its buffers take, to the byte.
#[test]
fn an_estimate_is_what_is_allocated() {
    let backend = backend();
    let config = config().with_page_size(16);
    for (attention, max_tokens) in [(AttentionMode::Fused, 100), (AttentionMode::Reference, 7)] {
        let limits =
            BatchLimits { max_tokens, max_seqs: 3, max_logit_rows: 5, max_blocks: 20, num_pages: 11 };
        let layout = Layout::new(&config, limits, attention).expect("a layout");
        let bytes = || backend.gpu().counters().bytes.load(Ordering::Relaxed);
        let before = bytes();
        let _cache = backend.alloc_kv_cache(&layout.kv).expect("a cache");
        let _state = RunState::new(&backend, &layout).expect("buffers");
        let mut plan = backend.alloc_plan(limits, &layout.attention).expect("a plan");
        backend.plan(&Batch::new(limits, 16), &mut plan).expect("an empty batch");
        assert_eq!(bytes() - before, backend.footprint(&layout), "{attention:?}");
    }
}

/// Kernels check no index, so a batch whose pages the cache lacks must not reach them.
#[test]
#[should_panic(expected = "the plan reaches page 9, but the KV cache has 9")]
fn pages_beyond_the_cache_are_refused() {
    let backend = backend();
    let limits = BatchLimits { max_tokens: 8, max_seqs: 1, max_logit_rows: 1, max_blocks: 2, num_pages: 10 };
    let shape = QkvShape { num_heads: 2, num_kv_heads: 1, head_dim: 16 };
    let cache = KvShape {
        layers: vec![KvHeads { num_kv_heads: 1, head_dim: 16 }],
        num_pages: 9,
        page_size: 16,
        dtype: KvDtype::F16,
    };
    let cache = backend.alloc_kv_cache(&cache).expect("a cache");
    let mut plan = backend.alloc_plan(limits, &[shape]).expect("a plan");
    let mut batch = Batch::new(limits, 16);
    batch.push(&[0; 8], 16, &[3, 9], Want::Logits(Rows::Last));
    backend.plan(&batch, &mut plan).expect("the batch is on the device");
    let qkv = backend.upload(8, shape.cols(), &vec![0.0; 8 * shape.cols()]).expect("a buffer");
    let mut out = backend.alloc(8, shape.q_cols(), BufferRole::MatmulInput).expect("a buffer");
    backend.paged_attention(&plan, AttentionOp::plain(shape, 0, 0.25), (&qkv, None), &cache, &mut out);
}

/// As if the device could bind no more than a few tiles of rows.
#[test]
fn a_matrix_in_slices_multiplies_as_a_whole() {
    const SIZE: (usize, usize) = (200, 256);
    let (rows, cols) = SIZE;
    let bytes = random_blocks(Format::Q4_K, rows * cols, 0.1, &mut Rng::new(1));
    let mut writer = GgufWriter::new();
    writer.tensor("matrix", &[cols as u64, rows as u64], Format::Q4_K, bytes);
    let gguf = writer.into_gguf();
    let results = [u64::MAX, 8192].map(|limit| {
        let mut backend = backend();
        backend.gpu.limit_bindings(limit);
        let matrix = backend.load(gguf.tensor("matrix").expect("a tensor")).expect("a matrix");
        backend.gpu.limit_bindings(u64::MAX);
        let num_slices = matrix.slices.len();
        let linear = Linear { parts: vec![matrix], bias: None };
        let x: Vec<f32> = Rng::new(2).normals(5 * cols, 1.0);
        let x = backend.upload(5, cols, &x).expect("a buffer");
        let mut out = backend.alloc(5, rows, BufferRole::Values).expect("a buffer");
        backend.matmul(5, &x, &linear, &mut out);
        (num_slices, read(&backend, &out, 5 * rows))
    });
    let [(whole, want), (slices, got)] = results;
    assert!(whole == 1 && slices > 2, "{whole} and {slices} slices");
    assert_eq!(got, want);
}

#[test]
fn times_of_kernels_are_those_of_all_steps() {
    let backend = open(GpuOptions { profile: Profile::Kernels, ..GpuOptions::default() });
    let mut x = backend.upload(1, 64, &[1.0; 64]).expect("a buffer");
    let ones = backend.upload(1, 64, &[1.0; 64]).expect("a buffer");
    for _ in 0..3 {
        backend.add(1, &mut x, &ones);
        backend.add(1, &mut x, &ones);
        read(&backend, &x, 64);
    }
    let times = backend.kernel_times();
    assert_eq!(times.len(), 1, "{times:?}");
    let (name, dispatches, seconds) = times[0];
    assert_eq!((name, dispatches), ("add", 6));
    assert!(seconds >= 0.0);
    assert!(backend.kernel_times().is_empty());
}

#[test]
fn a_lost_device_is_an_error_in_every_step() {
    let backend = Arc::new(backend());
    let mut runner = sequences(&backend);
    runner.step(&[(0, 0, &[1, 2, 3])]).expect("a step");
    backend.gpu().device.destroy();
    for _ in 0..2 {
        let error = runner.step(&[(0, 0, &[1, 2, 3])]).expect_err("a lost device");
        assert!(is_of_device(&backend, &error), "{error}");
    }
}

#[test]
fn more_than_a_device_can_hold_is_an_error() {
    let backend = backend();
    // Beyond the largest binding, and beyond any memory.
    for cols in [1 << 36, 1 << 50] {
        let error = backend.alloc(1, cols, BufferRole::Values).err().expect("too large");
        assert!(matches!(error, Error::InvalidValue { .. } | Error::OutOfMemory { .. }), "{error}");
    }
    backend.alloc(1, 16, BufferRole::Values).expect("a small buffer after a refused one");
}
