//! The GPUs of this machine: which one a model runs on, and whether it is fit for it.

use gguf::{Format, Gguf};
use gpu::check::{self, Finding, Report};
use gpu::{Adapter, Adapters, Description, GpuBackend, GpuChoice, GpuOptions};
use model::{LlamaConfig, qkv_shape};

use crate::room::Demand;
use crate::{Device, LoadOptions, Result, demo};

/// The GPUs that the drivers of this machine report, software among them, in the order of their numbers.
pub fn gpus() -> Vec<Description> {
    Adapters::find().iter().map(Adapter::describe).collect()
}

/// What [`Device::Auto`] comes to for a model, and why.
///
/// # Errors
/// A configuration that is invalid in itself.
pub fn what_auto_takes(
    gguf: &Gguf,
    config: &LlamaConfig,
    options: &LoadOptions<'_>,
) -> Result<(Device, String)> {
    config.validate()?;
    let cpu = Device::Cpu(options.cpu);
    Ok(match best(gguf, config, options) {
        Best::None => (cpu, "there is no GPU but software".to_owned()),
        Best::Unfit(reason) => (cpu, reason),
        Best::Gpu(backend) => {
            let chosen = Adapters::find().choose(GpuChoice::Any).map(Adapter::index)?;
            let reason = format!("{} holds the model and passes the self-test", backend.gpu());
            (Device::Gpu(GpuChoice::Index(chosen)), reason)
        }
    })
}

/// Checks a GPU: every kernel against plain code on the host in float64, and the demo model alone and in batches, which
/// must give the same bits. `found` is told each finding as it comes.
///
/// # Errors
/// When there is no such GPU or it cannot be opened. What it computes wrongly is in the report.
pub fn check_gpu(choice: GpuChoice, options: GpuOptions, found: impl FnMut(&Finding)) -> Result<Report> {
    Ok(check::run(Adapters::find().choose(choice)?, options, &demo::gguf(), found)?)
}

/// What `auto` finds.
pub(crate) enum Best {
    /// No GPU but software.
    None,
    /// A GPU, and what is wrong with it.
    Unfit(String),
    /// One that is fit for the model.
    Gpu(Box<GpuBackend>),
}

/// The GPU that `auto` takes.
pub(crate) fn best(gguf: &Gguf, config: &LlamaConfig, options: &LoadOptions<'_>) -> Best {
    let adapters = Adapters::find_real();
    let Ok(adapter) = adapters.choose(GpuChoice::Any) else { return Best::None };
    match open(adapter, gguf, config, options) {
        Ok(backend) => Best::Gpu(Box::new(backend)),
        Err(error) => Best::Unfit(error.to_string()),
    }
}

/// The GPU that is asked for.
pub(crate) fn named(
    choice: GpuChoice,
    gguf: &Gguf,
    config: &LlamaConfig,
    options: &LoadOptions<'_>,
) -> Result<GpuBackend> {
    open(Adapters::find().choose(choice)?, gguf, config, options)
}

/// Opens a GPU, if it has room for the model and passes the self-test with the model's shapes.
fn open(
    adapter: &Adapter,
    gguf: &Gguf,
    config: &LlamaConfig,
    options: &LoadOptions<'_>,
) -> Result<GpuBackend> {
    let backend = GpuBackend::new(adapter.open(options.gpu)?);
    let demand = Demand {
        config,
        attention: options.attention,
        num_seqs: config.batch_size,
        kv_memory: options.kv_memory,
        weights: gpu::weight_bytes(gguf, config),
    };
    demand.check(adapter.name(), backend.gpu().capabilities(), adapter.memory())?;
    check::self_test(&backend, main_format(gguf), qkv_shape(config), config.kv_dtype)?;
    Ok(backend)
}

/// The format of most of a file's bytes.
fn main_format(gguf: &Gguf) -> Format {
    let bytes_of = |format: Format| {
        let tensors = gguf.tensors().filter(|tensor| tensor.format() == format && tensor.dims().len() == 2);
        tensors.map(|tensor| tensor.data().len()).sum::<usize>()
    };
    Format::ALL.into_iter().max_by_key(|&format| bytes_of(format)).unwrap_or(Format::F32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_model_is_of_its_main_format() {
        let gguf = demo::gguf();
        assert_eq!(main_format(&gguf), gguf.tensor("blk.0.ffn_up.weight").unwrap().format());
    }
}
