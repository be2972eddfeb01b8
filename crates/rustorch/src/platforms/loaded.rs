//! A model on a device, with the back end's type erased.

use std::panic;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use cpu::{Activations, Isa};
use gguf::Gguf;
use model::{AttentionMode, Backend, BatchLimits, Decoder, LlamaConfig, Peaks, RankedModel, Runner};

use super::OpenDevice;
use crate::memory_fit::{Demand, Limits};
use crate::{Device, Error, Result};

/// How much of a device's time a kernel has taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KernelTime {
    /// Its name.
    pub name: &'static str,
    /// How often it ran.
    pub dispatches: u64,
    /// How long, all in all.
    pub seconds: f64,
}

/// What a back end says of itself.
pub(super) trait Described: Backend {
    /// The device, in words.
    fn describe(&self) -> String;

    /// The instruction set, of a CPU.
    fn isa(&self) -> Option<Isa> {
        None
    }

    /// The precision of activations, of a CPU.
    fn activations(&self) -> Option<Activations> {
        None
    }

    /// Whether kernels are timed.
    fn times_kernels(&self) -> bool {
        false
    }

    /// The times of all kernels since the last call, the slowest first.
    fn kernel_times(&self) -> Vec<KernelTime> {
        Vec::new()
    }

    /// How much the device holds.
    fn limits(&self) -> Limits {
        Limits::NONE
    }
}

/// A model on a device.
pub(crate) trait LoadedModel: Send + Sync {
    fn config(&self) -> &LlamaConfig;
    /// The device, or all ranks of the group.
    fn device(&self) -> String;
    /// The first device alone, which has the bits of the group.
    fn first_device(&self) -> String;
    fn num_ranks(&self) -> usize;
    /// The configuration of the model that the first rank runs, which takes the most.
    fn shard_config(&self) -> LlamaConfig;
    /// Bytes of K and V in so many pages, of all ranks together.
    fn kv_bytes(&self, num_pages: usize, page_size: usize) -> u64;
    fn isa(&self) -> Option<Isa>;
    fn activations(&self) -> Option<Activations>;
    fn times_kernels(&self) -> bool;
    fn kernel_times(&self) -> Vec<KernelTime>;
    /// Bytes of weights, of all ranks together.
    fn weight_bytes(&self) -> u64;
    fn step_weight_bytes(&self) -> u64;
    fn expert_weight_bytes(&self) -> u64;
    fn peaks(&self) -> Result<Option<Peaks>>;
    fn time_gathers(&self, tokens: usize, head_rows: usize) -> Result<Option<Duration>>;

    /// Refuses a runner that does not fit the device's memory beside the weights.
    fn check_fit(&self, attention: AttentionMode, num_seqs: usize, kv_memory: Option<u64>) -> Result<()>;

    fn runner(&self, limits: BatchLimits, attention: AttentionMode) -> Result<Box<dyn Runner>>;
}

/// A device that is fit for a model, or a group of them, opened.
pub(super) struct Opened<B> {
    /// By its own name, of a group the first.
    device: Device,
    /// In the order of the ranks.
    backends: Vec<Arc<B>>,
}

impl<B: Described> Opened<B> {
    /// A device without a group.
    pub fn one(device: Device, backend: Arc<B>) -> Self {
        Self { device, backends: vec![backend] }
    }

    /// The ranks of a group, in order.
    ///
    /// # Errors
    /// When they are GPUs of different models, whose results differ in the last bits.
    pub fn group(device: Device, backends: Vec<Arc<B>>) -> Result<Self> {
        let first = backends[0].describe();
        let other = backends.iter().map(|backend| backend.describe()).find(|other| *other != first);
        match other {
            Some(other) if backends[0].isa().is_none() => Err(Error::UnlikeDevices { first, other }),
            _ => Ok(Self { device, backends }),
        }
    }
}

/// The device, or the ranks of a group, in words.
fn describe<'a, B: Described>(backends: impl Iterator<Item = &'a Arc<B>>) -> String {
    let names: Vec<String> = backends.map(|backend| backend.describe()).collect();
    match &names[..] {
        [name] => name.clone(),
        names => format!("{} ranks: {}", names.len(), names.join(", ")),
    }
}

impl<B: Described> OpenDevice for Opened<B> {
    fn device(&self) -> Device {
        self.device
    }

    fn name(&self) -> String {
        describe(self.backends.iter())
    }

    fn load(
        self: Box<Self>,
        gguf: &Gguf,
        config: LlamaConfig,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Arc<dyn LoadedModel>> {
        let backends = self.backends;
        let decoders = match &backends[..] {
            [backend] => vec![Decoder::load(&**backend, gguf, config, progress)?],
            ranks => load_ranks(ranks, gguf, &config, progress)?,
        };
        let ranks = backends.into_iter().zip(decoders.into_iter().map(Arc::new)).collect();
        Ok(Arc::new(OnBackend(RankedModel::new(ranks))))
    }
}

/// Loads the parts of a model, all at the same time.
fn load_ranks<B: Backend>(
    ranks: &[Arc<B>],
    gguf: &Gguf,
    config: &LlamaConfig,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Vec<Decoder<B>>> {
    let load = |idx: usize, report: &mut dyn FnMut(u64, u64)| {
        Decoder::load(&*ranks[idx], gguf, config.clone(), report)
    };
    // Each rank counts the file's bytes, whatever its part of them is.
    let mut report = |done: u64, total: u64| progress(done / ranks.len() as u64, total / ranks.len() as u64);
    let loaded = at_the_same_time(ranks.len(), load, &mut report);
    Ok(loaded.into_iter().collect::<model::Result<_>>()?)
}

/// Calls `load(idx, report)` in a thread for each of `count`; `progress` is told the sums of what they report.
pub(super) fn at_the_same_time<T: Send>(
    count: usize,
    load: impl Fn(usize, &mut dyn FnMut(u64, u64)) -> T + Sync,
    progress: &mut dyn FnMut(u64, u64),
) -> Vec<T> {
    let (sender, reports) = mpsc::channel();
    thread::scope(|scope| {
        let load = &load;
        let start = |idx| {
            let sender = sender.clone();
            // Nobody listens once another has failed.
            scope.spawn(move || {
                load(idx, &mut |done, total| {
                    let _ = sender.send((idx, done, total));
                })
            })
        };
        let threads: Vec<_> = (0..count).map(start).collect();
        drop(sender);
        let mut done_by = vec![0; count];
        for (idx, done, total) in reports {
            done_by[idx] = done;
            progress(done_by.iter().sum(), total * count as u64);
        }
        let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
        joined.map(|loaded| loaded.unwrap_or_else(|panic| panic::resume_unwind(panic))).collect()
    })
}

/// A model on a back end, or on the ranks of a group.
struct OnBackend<B: Backend>(RankedModel<B>);

impl<B: Backend> OnBackend<B> {
    /// The first rank.
    fn backend(&self) -> &B {
        &self.0.ranks()[0].0
    }

    fn sum(&self, bytes: impl Fn(&B, &Decoder<B>) -> u64) -> u64 {
        self.0.ranks().iter().map(|(backend, decoder)| bytes(backend, decoder)).sum()
    }
}

impl<B: Described> LoadedModel for OnBackend<B> {
    fn config(&self) -> &LlamaConfig {
        self.0.ranks()[0].1.config()
    }

    fn device(&self) -> String {
        describe(self.0.ranks().iter().map(|(backend, _)| backend))
    }

    fn first_device(&self) -> String {
        self.backend().describe()
    }

    fn num_ranks(&self) -> usize {
        self.0.ranks().len()
    }

    fn shard_config(&self) -> LlamaConfig {
        LlamaConfig { spec: self.0.ranks()[0].1.shard().spec.clone(), ..self.config().clone() }
    }

    fn kv_bytes(&self, num_pages: usize, page_size: usize) -> u64 {
        let dtype = self.config().kv_dtype;
        self.sum(|_, decoder| decoder.shard().spec.kv_shape(num_pages, page_size, dtype).bytes())
    }

    fn isa(&self) -> Option<Isa> {
        self.backend().isa()
    }

    fn activations(&self) -> Option<Activations> {
        self.backend().activations()
    }

    fn times_kernels(&self) -> bool {
        self.backend().times_kernels()
    }

    fn kernel_times(&self) -> Vec<KernelTime> {
        self.backend().kernel_times()
    }

    fn weight_bytes(&self) -> u64 {
        self.sum(|_, decoder| decoder.weight_bytes())
    }

    fn step_weight_bytes(&self) -> u64 {
        self.sum(|backend, decoder| decoder.step_weight_bytes(backend))
    }

    fn expert_weight_bytes(&self) -> u64 {
        self.sum(|_, decoder| decoder.expert_weight_bytes())
    }

    fn peaks(&self) -> Result<Option<Peaks>> {
        Ok(self.backend().peaks()?)
    }

    fn time_gathers(&self, tokens: usize, head_rows: usize) -> Result<Option<Duration>> {
        Ok(self.0.time_gathers(tokens, head_rows)?)
    }

    fn check_fit(&self, attention: AttentionMode, num_seqs: usize, kv_memory: Option<u64>) -> Result<()> {
        let ranks = self.num_ranks();
        let demand = Demand { config: self.config(), attention, ranks, num_seqs, kv_memory, weights: 0 };
        self.0.ranks().iter().try_for_each(|(backend, decoder)| {
            let limits = backend.limits();
            // Drivers that do not count say that all of the memory is available.
            let memory = limits.memory.map(|mut memory| {
                memory.available = memory.available.min(memory.total.saturating_sub(decoder.weight_bytes()));
                memory
            });
            demand.check(&Limits { memory, ..limits }, &|layout| backend.footprint(layout))
        })
    }

    fn runner(&self, limits: BatchLimits, attention: AttentionMode) -> Result<Box<dyn Runner>> {
        Ok(self.0.runner(limits, attention)?)
    }
}
