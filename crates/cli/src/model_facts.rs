//! What is told of a model beside its answers.

use std::collections::BTreeMap;
use std::fmt::Write;

use batch::FileHash;
use clap::ValueEnum;
use rustorch_llama::{Activations, Gguf, Pooling, Weights, file_pooling};
use server::ModelFile;

use crate::model_args::{Clock, RunArgs, TemplateArgs};
use crate::output;

/// Bytes of a tensor that are looked at, at its beginning and in its middle.
const SAMPLE: usize = 64;

/// What `system_fingerprint` is: a hash of what answers depend on beside the request. Of the weights only samples are read, so
/// that a server need not read its file twice.
pub fn fingerprint(gguf: &Gguf, run: &RunArgs, template: Option<&TemplateArgs>, weights: &Weights) -> String {
    let mut text = format!("{}\n{}\n", env!("CARGO_PKG_VERSION"), gguf.file_bytes());
    for (key, value) in gguf.metadata().iter() {
        let _ = writeln!(text, "{key}={value:?}");
    }
    let mut bytes = text.into_bytes();
    for tensor in gguf.tensors() {
        bytes.extend_from_slice(
            format!("{} {:?} {:?}", tensor.name(), tensor.dims(), tensor.format()).as_bytes(),
        );
        let data = tensor.data();
        for start in [0, data.len() / 2] {
            bytes.extend_from_slice(&data[start..data.len().min(start + SAMPLE)]);
        }
    }
    let name = |value: Option<clap::builder::PossibleValue>| value.map(|value| value.get_name().to_owned());
    let path = (
        weights.numeric_path(),
        name(run.kv_type.to_possible_value()),
        name(run.attention.to_possible_value()),
        template.and_then(TemplateArgs::hash),
    );
    bytes.extend_from_slice(format!("{path:?}").as_bytes());
    if let Some(Clock::Stopped(time)) = template.map(|template| template.clock) {
        bytes.extend_from_slice(format!("time={}", batch::unix_seconds(time)).as_bytes());
    }
    if let Some(activations) = wide_activations(weights) {
        bytes.extend_from_slice(format!("activations={activations}").as_bytes());
    }
    format!("fp_{}", &FileHash::of_bytes(&bytes).sha256[..16])
}

/// The precision of activations, if it is another than that of versions without a choice.
pub fn wide_activations(weights: &Weights) -> Option<Activations> {
    weights.activations().filter(|&activations| activations != Activations::Bits8)
}

/// How the file says that embeddings are pooled.
pub fn pooling(gguf: &Gguf) -> Pooling {
    let (pooling, note) = file_pooling(gguf);
    note.iter().for_each(|note| output::note(&format!("warning: {note}")));
    pooling
}

/// What the file is.
pub fn model_file(gguf: &Gguf) -> ModelFile {
    let mut formats = BTreeMap::<String, u64>::new();
    for tensor in gguf.tensors() {
        *formats.entry(tensor.format().to_string()).or_default() += tensor.dims().iter().product::<u64>();
    }
    ModelFile {
        architecture: gguf.metadata().architecture().unwrap_or_default().to_owned(),
        num_parameters: formats.values().sum(),
        num_bytes: gguf.file_bytes(),
        format: formats
            .into_iter()
            .max_by_key(|&(_, count)| count)
            .map_or_else(String::new, |(name, _)| name),
    }
}
