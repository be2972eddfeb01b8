//! The public face, row by row: what each call does, and what each mistake is told. Whatever the mistake, no slot changes.

mod engine;
mod families;
mod forward;
mod loading;
mod slots;

use std::fmt::Display;
use std::path::{Path, PathBuf};

use gguf::{GgufWriter, Value};
use rustorch_llama::{CpuOptions, Device, Format, Gguf, LlamaConfig, LlamaModel, LoadOptions};
use testkit::ModelSpec;

/// Two small layers; a vocabulary of 300 tokens.
fn spec() -> ModelSpec {
    ModelSpec { hidden: 64, head_dim: 16, ffn: 96, vocab: 300, context: 64, ..ModelSpec::default() }
}

fn small_gguf() -> Gguf {
    Gguf::from_vec(spec().to_gguf()).expect("a GGUF file")
}

fn small_config() -> LlamaConfig {
    LlamaConfig::from_gguf(&small_gguf()).expect("a model's configuration")
}

/// The small model with a configuration of the test's own.
fn load(config: LlamaConfig) -> LlamaModel {
    LlamaModel::load(&small_gguf(), config, LoadOptions::on(Device::Cpu(CpuOptions::default())))
        .expect("a model")
}

/// The small model with this many slots.
fn model(batch_size: usize) -> LlamaModel {
    load(small_config().with_batch_size(batch_size))
}

/// Tokens cached in each slot.
fn cached(model: &mut LlamaModel) -> Vec<usize> {
    (0..model.batch_size()).map(|slot| model.kv_cache().cached_tokens(slot)).collect()
}

/// That an error's message has every one of `parts`.
fn assert_says(error: &impl Display, parts: &[&str]) {
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

/// The demo model as the repository has it.
fn demo_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo/demo.gguf")
}

/// A file's content, to be changed and written again.
struct Parts {
    metadata: Vec<(String, Value)>,
    tensors: Vec<Tensor>,
}

struct Tensor {
    name: String,
    dims: Vec<u64>,
    format: Format,
    data: Vec<u8>,
}

impl Parts {
    fn of(gguf: &Gguf) -> Self {
        let metadata = gguf.metadata().iter().map(|(key, value)| (key.to_owned(), value.clone()));
        let tensors = gguf.tensors().map(|tensor| Tensor {
            name: tensor.name().to_owned(),
            dims: tensor.dims().to_vec(),
            format: tensor.format(),
            data: tensor.data().to_vec(),
        });
        Self { metadata: metadata.collect(), tensors: tensors.collect() }
    }

    fn set(&mut self, key: &str, value: Value) {
        self.metadata.retain(|(known, _)| known != key);
        self.metadata.push((key.to_owned(), value));
    }

    fn write(&self) -> Vec<u8> {
        let mut writer = GgufWriter::new();
        for (key, value) in &self.metadata {
            writer.metadata(key, value.clone());
        }
        for Tensor { name, dims, format, data } in &self.tensors {
            writer.tensor(name, dims, *format, data.as_slice());
        }
        writer.write()
    }
}

/// The small model's file after `change`.
fn changed(change: impl FnOnce(&mut Parts)) -> Gguf {
    let mut parts = Parts::of(&small_gguf());
    change(&mut parts);
    Gguf::from_vec(parts.write()).expect("a GGUF file")
}
