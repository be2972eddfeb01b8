//! What answers depend on beside their lines, as whoever starts a run knows it: for the run's manifest, and for the fingerprint
//! in its answers.

use std::num::NonZeroUsize;
use std::time::SystemTime;

use openai::UnknownFields;
use rustorch_llama::{Activations, AttentionMode, EngineHandle, Gguf, KvDtype, Weights};
use serde_json::{Map, Value, json};

use crate::clock::unix_seconds;
use crate::day::Day;
use crate::manifest::{FileHash, Manifest};
use crate::request::Defaults;
use crate::shard::Shard;

/// Everything but the model's file and the input that the results of a run depend on. They do not depend on threads, batch size,
/// chunk, page size and window, and their order can be changed later.
#[derive(Clone, Copy)]
pub struct Settings<'a> {
    /// The model.
    pub weights: &'a Weights,
    /// What runs it.
    pub engine: &'a EngineHandle,
    /// Its attention.
    pub attention: AttentionMode,
    /// The hash of a chat template that replaces the model's.
    pub chat_template: Option<&'a str>,
    /// What day chat templates are told; none for today.
    pub day: Option<&'a Day>,
    /// None for a random one, which is another when the run goes on.
    pub seed: Option<u64>,
    /// What is done with fields that nobody knows: refusals are results.
    pub unknown_fields: UnknownFields,
    /// What lines are given that do not say it.
    pub defaults: &'a Defaults,
    /// Which lines are answered, of a file.
    pub shard: Option<Shard>,
    /// As in [`Manifest`].
    pub reproducible: bool,
}

/// What would make the results of a run depend on more than their lines, the model and the options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Irreproducible {
    /// The run's seed is random.
    #[error("expected a seed that is the same each time, found a random one")]
    Seed,
    /// The pages decide how long an answer can be.
    #[error("expected KV pages for the {context} tokens of a context, found them for {pages}")]
    Pages {
        /// Tokens of the longest sequence.
        context: usize,
        /// Tokens that all pages hold.
        pages: usize,
    },
    /// The chat template asks what day it is.
    #[error("expected a chat template that does not ask what day it is, found strftime_now in it")]
    Clock,
}

impl Settings<'_> {
    /// Refuses what would make results depend on more than their lines, whatever [`reproducible`](Self::reproducible) says.
    ///
    /// # Errors
    /// The first that there is.
    pub fn must_be_reproducible(&self) -> Result<(), Irreproducible> {
        let (context, pages) = (self.weights.config().max_seq_len, self.engine.max_seq_tokens());
        match self.seed {
            None => Err(Irreproducible::Seed),
            Some(_) if pages < context => Err(Irreproducible::Pages { context, pages }),
            Some(_) => Ok(()),
        }
    }

    /// The manifest of a run of the model with this name and file.
    pub fn manifest(&self, model: String, model_file: FileHash) -> Manifest {
        let config = self.weights.config();
        let always = [
            ("seed", self.seed.map_or(json!(-1), |seed| json!(seed))),
            ("ctx", json!(config.max_seq_len)),
            // A smaller pool refuses longer requests.
            ("longest", json!(self.engine.max_seq_tokens())),
            ("kv_type", json!(kv_name(config.kv_dtype))),
            ("attention", json!(attention_name(self.attention))),
        ];
        // The defaults of what follows are not written, so that runs of versions without the option go on.
        let Defaults { fields, is_chat, system } = self.defaults;
        let strict = self.unknown_fields == UnknownFields::Refuse;
        let sometimes = [
            ("activations", wide_activations(self.weights).map(|activations| json!(activations.bits()))),
            ("strict_fields", strict.then(|| json!(true))),
            ("chat_template", self.chat_template.map(|hash| json!(hash))),
            ("defaults", (!fields.is_empty()).then(|| json!(fields))),
            ("chat", is_chat.then(|| json!(true))),
            ("system", system.as_ref().map(|text| json!(text))),
            ("date", self.day.map(|day| json!(day.to_string()))),
            ("shard", self.shard.map(|shard| json!(shard.to_string()))),
        ];
        let sometimes = sometimes.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let options: Map<String, Value> =
            always.into_iter().chain(sometimes).map(|(name, value)| (name.to_owned(), value)).collect();
        Manifest {
            format: Manifest::FORMAT,
            rustorch: env!("CARGO_PKG_VERSION").to_owned(),
            model,
            model_file,
            input: None,
            device: self.weights.numeric_path(),
            options,
            reproducible: self.reproducible,
        }
    }
}

/// The fields of [`Defaults`] that front ends have options for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DefaultFields {
    /// Most tokens to generate.
    pub max_tokens: Option<NonZeroUsize>,
    /// 0 takes the most likely token each time.
    pub temperature: Option<f32>,
    /// The probability that the most likely tokens make up among which one is sampled.
    pub top_p: Option<f32>,
    /// The number of the most likely tokens among which one is sampled.
    pub top_k: Option<usize>,
    /// The least probability of these tokens, relative to the most likely.
    pub min_p: Option<f32>,
    /// Texts that end an answer.
    pub stop: Vec<String>,
}

impl From<DefaultFields> for Map<String, Value> {
    fn from(fields: DefaultFields) -> Self {
        // As it was written: 0.1, and not the nearest number of 32 bits.
        let decimal = |x: f32| x.to_string().parse().map_or(Value::Null, |x: f64| json!(x));
        let DefaultFields { max_tokens, temperature, top_p, top_k, min_p, stop } = fields;
        let fields = [
            ("max_tokens", max_tokens.map(|tokens| json!(tokens))),
            ("temperature", temperature.map(decimal)),
            ("top_p", top_p.map(decimal)),
            ("top_k", top_k.map(|k| json!(k))),
            ("min_p", min_p.map(decimal)),
            ("stop", (!stop.is_empty()).then(|| json!(stop))),
        ];
        fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

/// Bytes of a tensor that are looked at, at its beginning and in its middle.
const SAMPLE: usize = 64;

/// What `system_fingerprint` is: a hash of what answers depend on beside the request. Of the weights only samples are read, so
/// that a server need not read its file twice. `chat_template` is the hash of one that replaces the model's, `time` what templates
/// are told instead of what time it is.
pub fn fingerprint(
    gguf: &Gguf,
    weights: &Weights,
    attention: AttentionMode,
    chat_template: Option<&str>,
    time: Option<SystemTime>,
) -> String {
    let mut bytes = format!("{}\n{}\n", env!("CARGO_PKG_VERSION"), gguf.file_bytes()).into_bytes();
    for (key, value) in gguf.metadata().iter() {
        bytes.extend_from_slice(format!("{key}={value:?}\n").as_bytes());
    }
    for tensor in gguf.tensors() {
        bytes.extend_from_slice(
            format!("{} {:?} {:?}", tensor.name(), tensor.dims(), tensor.format()).as_bytes(),
        );
        let data = tensor.data();
        for start in [0, data.len() / 2] {
            bytes.extend_from_slice(&data[start..data.len().min(start + SAMPLE)]);
        }
    }
    let kv_name = Some(kv_name(weights.config().kv_dtype));
    let path = (weights.numeric_path(), kv_name, Some(attention_name(attention)), chat_template);
    bytes.extend_from_slice(format!("{path:?}").as_bytes());
    if let Some(time) = time {
        bytes.extend_from_slice(format!("time={}", unix_seconds(time)).as_bytes());
    }
    if let Some(activations) = wide_activations(weights) {
        bytes.extend_from_slice(format!("activations={activations}").as_bytes());
    }
    format!("fp_{}", &FileHash::of_bytes(&bytes).sha256[..16])
}

/// The precision of activations, if it is another than that of versions without a choice.
fn wide_activations(weights: &Weights) -> Option<Activations> {
    weights.activations().filter(|&activations| activations != Activations::Bits8)
}

fn kv_name(kv_dtype: KvDtype) -> &'static str {
    match kv_dtype {
        KvDtype::F16 => "f16",
        KvDtype::F32 => "f32",
    }
}

fn attention_name(attention: AttentionMode) -> &'static str {
    match attention {
        AttentionMode::Fused => "fused",
        AttentionMode::Reference => "reference",
    }
}
