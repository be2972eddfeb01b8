//! What is told of a model beside its answers.

use std::collections::BTreeMap;

use rustorch_llama::{Gguf, Pooling, Weights, file_pooling};
use server::ModelFile;

use crate::model_args::{Clock, RunArgs, TemplateArgs};
use crate::output;

/// What `system_fingerprint` is with these options.
pub fn fingerprint(gguf: &Gguf, run: &RunArgs, template: Option<&TemplateArgs>, weights: &Weights) -> String {
    let hash = template.and_then(TemplateArgs::hash);
    let time = template.and_then(|template| match template.clock {
        Clock::Stopped(time) => Some(time),
        Clock::Running | Clock::Absent => None,
    });
    batch::fingerprint(gguf, weights, run.attention.mode(), hash.as_deref(), time)
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
