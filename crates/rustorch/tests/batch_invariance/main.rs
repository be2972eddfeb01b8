//! The batch does not show: a sequence's logits, and the tokens sampled from them, are the same bits whether it runs alone
//! or among others, in whatever order, pages, chunks and slots, with its prefix computed or found in the cache, before or
//! after a preemption, on any number of threads.
//!
//! Three levels, each compared with the sequence alone in one chunk on one thread: [`steps`] runs a [`model::ModelRunner`]
//! through random steps, [`slots`] the public model through random calls, [`requests`] the engine through random
//! requests, and [`prefix_cache`] through requests that begin alike. What the results may depend on (model, device, attention, type of the cache) is [`Numerics`], for every instruction set.
//!
//! The checks would pass if they compared nothing. So [`split_k`] runs the same ones over a device that sums in another
//! order when it has more than one row, and they must fail there; [`prefix_cache`] has a cache that finds a wrong page.

#[cfg(feature = "device-tests")]
mod device;
mod prefix_cache;
mod requests;
mod slots;
mod split_k;
mod steps;

use std::num::NonZeroUsize;
use std::sync::Arc;

use cpu::CpuBackend;
use model::{Backend, BatchLimits, Decoder, ModelRunner};
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use rustorch_llama::{Activations, AttentionMode, CpuOptions, Device, Gguf, Isa, KvDtype, LlamaConfig, demo};

/// A device, as far as results may depend on it.
#[derive(Debug, Clone, Copy)]
enum On {
    Cpu(Isa, Activations),
    #[cfg(feature = "device-tests")]
    Gpu(Device),
}

/// What results may depend on, beside the model.
#[derive(Debug, Clone, Copy)]
struct Numerics {
    on: On,
    attention: AttentionMode,
    kv_dtype: KvDtype,
}

impl Numerics {
    /// Every combination that this machine has.
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            all.extend(Self::all_on(On::Cpu(isa, Activations::Bits8)));
        }
        all.push(Self { on: On::Cpu(Isa::detect(), Activations::Bits16), ..Self::usual() });
        all
    }

    /// Every combination on a device.
    fn all_on(on: On) -> Vec<Self> {
        let both = |attention| [KvDtype::F16, KvDtype::F32].map(|kv_dtype| Self { on, attention, kv_dtype });
        [AttentionMode::Fused, AttentionMode::Reference].into_iter().flat_map(both).collect()
    }

    /// What users get.
    fn usual() -> Self {
        let on = On::Cpu(Isa::detect(), Activations::Bits8);
        Self { on, attention: AttentionMode::Fused, kv_dtype: KvDtype::F16 }
    }

    /// The device as users name it; threads are the CPU's.
    fn device(&self, threads: usize) -> Device {
        match self.on {
            On::Cpu(isa, activations) => {
                let threads = NonZeroUsize::new(threads);
                Device::Cpu(CpuOptions { threads, isa: Some(isa), activations })
            }
            #[cfg(feature = "device-tests")]
            On::Gpu(device) => device,
        }
    }

    /// The CPU's backend.
    fn cpu_backend(&self, threads: usize) -> Arc<CpuBackend> {
        Arc::new(self.new_cpu_backend(threads))
    }

    /// As [`cpu_backend`](Self::cpu_backend), to be wrapped.
    fn new_cpu_backend(&self, threads: usize) -> CpuBackend {
        match self.device(threads) {
            Device::Cpu(options) => CpuBackend::new(options).expect("a backend"),
            device => panic!("{device} is not the CPU"),
        }
    }
}

/// A file under its name.
struct TestModel {
    name: &'static str,
    gguf: Gguf,
}

/// The demo model, or one of the test kit's.
fn test_model(name: &'static str) -> TestModel {
    if name == "demo" {
        return TestModel { name, gguf: demo::gguf() };
    }
    let model = testkit::models::all().into_iter().find(|model| model.name == name);
    let file = model.expect("a model of the test kit").spec.to_gguf();
    TestModel { name, gguf: Gguf::from_vec(file).expect("a GGUF file") }
}

/// A runner of `gguf` on `backend`, with pages of `page_size` tokens.
fn runner<B: Backend>(
    backend: Arc<B>,
    gguf: &Gguf,
    numerics: Numerics,
    page_size: usize,
    limits: impl FnOnce(&LlamaConfig) -> BatchLimits,
) -> ModelRunner<B> {
    let config = LlamaConfig::from_gguf(gguf)
        .expect("a model's configuration")
        .with_max_seq_len(MAX_SEQ_LEN)
        .with_kv_dtype(numerics.kv_dtype)
        .with_page_size(page_size);
    let limits = limits(&config);
    let decoder = Decoder::load(&*backend, gguf, config, |_, _| {}).expect("a model");
    ModelRunner::new(backend, Arc::new(decoder), limits, numerics.attention).expect("a runner")
}

/// Context of every model here: beyond two of the 64-position blocks that attention sums in.
const MAX_SEQ_LEN: usize = 160;

/// Tries `check` on `cases` values of `strategy`, and on simpler ones when it fails.
fn for_random<S: Strategy>(cases: u32, strategy: S, check: impl Fn(S::Value) -> Result<(), String>) {
    let config = Config {
        cases: testkit::soak(cases),
        failure_persistence: None,
        max_shrink_iters: 64,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&strategy, |value| check(value).map_err(TestCaseError::fail));
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// The first difference in bits, if there is one.
fn same_bits(got: &[f32], want: &[f32]) -> Result<(), String> {
    if got.len() != want.len() {
        return Err(format!("{} values, not {}", got.len(), want.len()));
    }
    let differs = |(got, want): (&f32, &f32)| got.to_bits() != want.to_bits();
    match got.iter().zip(want).position(differs) {
        None => Ok(()),
        Some(i) => Err(format!("value {i} is {:?}, not {:?}", got[i], want[i])),
    }
}
