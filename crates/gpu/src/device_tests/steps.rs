//! What a step makes on the device, and what becomes of one when the device fails.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use conformance::Sequences;
use devices::{GpuChoice, GpuOptions, Profile};
use gguf::random::{Rng, random_blocks};
use gguf::{Format, Gguf, GgufWriter};
use model::{Backend, BufferRole, Decoder, Error, Linear, LlamaConfig, Read, RunError};

use crate::adapters::Adapters;
use crate::backend::{GpuBackend, GpuBuffer};

const MODEL: &[u8] = include_bytes!("../../../../models/demo/demo.gguf");

fn backend() -> GpuBackend {
    let adapters = Adapters::find();
    let adapter = adapters.choose(GpuChoice::Any).or_else(|_| adapters.choose(GpuChoice::Index(0)));
    let adapter = adapter.expect("tests of kernels need a device, a software rasteriser at least");
    GpuBackend::new(adapter.open(GpuOptions::default()).expect("the device opens"))
}

/// The demo model, ready to run steps over pages of 16 tokens.
fn sequences(backend: &Arc<GpuBackend>) -> Sequences<GpuBackend> {
    let gguf = Gguf::from_static(MODEL).expect("the demo model");
    let config = LlamaConfig::from_gguf(&gguf).expect("its configuration").with_max_seq_len(320);
    let decoder = Decoder::load(&**backend, &gguf, config, |_, _| {}).expect("a model");
    Sequences::new(backend, &Arc::new(decoder), 16).expect("a runner")
}

fn read(backend: &GpuBackend, buffer: &GpuBuffer, out: &mut [f32]) -> model::Result<()> {
    backend.read_into(&mut [Read { buffer, first_row: 0, out }])
}

/// Whether a step failed because the device did.
fn is_of_device(error: &RunError) -> bool {
    error.to_string().starts_with("device: ")
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
    assert!(is_of_device(&error), "{error}");
    assert_eq!(runner.step(&[(0, 0, &[1, 2, 3])]).expect("a step"), want);
}

#[test]
fn an_error_while_results_are_read_leaves_the_next_read_well() {
    let backend = backend();
    let values: Vec<f32> = (0..64).map(|i| i as f32).collect();
    let mut x = backend.upload(1, 64, &values).expect("a buffer");
    let ones = backend.upload(1, 64, &[1.0; 64]).expect("a buffer");
    let mut out = vec![0.0; 64];
    backend.add(1, &mut x, &ones);
    let _ = backend.gpu().device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("refused"),
        size: u64::MAX,
        usage: wgpu::BufferUsages::STORAGE,
        mapped_at_creation: false,
    });
    assert!(matches!(read(&backend, &x, &mut out), Err(Error::Device(_))));
    read(&backend, &x, &mut out).expect("the values");
    let want: Vec<f32> = values.iter().map(|value| value + 1.0).collect();
    assert_eq!(out, want);
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
        let mut values = vec![0.0; 5 * rows];
        read(&backend, &out, &mut values).expect("values");
        (num_slices, values)
    });
    let [(whole, want), (slices, got)] = results;
    assert!(whole == 1 && slices > 2, "{whole} and {slices} slices");
    assert_eq!(got, want);
}

#[test]
fn times_of_kernels_are_those_of_all_steps() {
    let adapters = Adapters::find();
    let adapter = adapters.choose(GpuChoice::Any).or_else(|_| adapters.choose(GpuChoice::Index(0)));
    let options = GpuOptions { profile: Profile::Kernels, ..GpuOptions::default() };
    let gpu = adapter.expect("a device").open(options).expect("a device with timestamps");
    let backend = GpuBackend::new(gpu);
    let mut x = backend.upload(1, 64, &[1.0; 64]).expect("a buffer");
    let ones = backend.upload(1, 64, &[1.0; 64]).expect("a buffer");
    for _ in 0..3 {
        backend.add(1, &mut x, &ones);
        backend.add(1, &mut x, &ones);
        read(&backend, &x, &mut [0.0; 64]).expect("values");
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
        assert!(is_of_device(&error), "{error}");
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
