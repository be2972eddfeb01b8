//! Loads a model as the command line does.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pyo3::PyErr;
use pyo3::exceptions::PyFileNotFoundError;
use rustorch_llama::{
    Activations, CpuOptions, Devices, EngineConfig, EngineHandle, Gguf, KvDtype, LlamaConfig, LlamaModel,
    LoadOptions, Pooling, Tokenizer, Weights, demo, file_pooling,
};

use crate::error::{EngineError, bad_argument, of_model};

/// What a caller says of a model and how it runs.
pub struct Options {
    pub model: PathBuf,
    pub device: String,
    pub tensor_parallel_size: usize,
    pub activations: Option<u32>,
    pub max_model_len: Option<usize>,
    pub max_num_seqs: Option<usize>,
    pub kv_dtype: Option<String>,
    pub threads: Option<usize>,
    pub prompt_chunk: Option<usize>,
}

/// A model with its engine.
pub struct Loaded {
    pub gguf: Gguf,
    pub handle: EngineHandle,
    pub weights: Weights,
    pub tokenizer: Arc<Tokenizer>,
    pub pooling: Pooling,
    /// What a person should know of it.
    pub notes: Vec<String>,
}

impl Loaded {
    /// The files that the model is read from; none of the embedded one.
    pub fn model_files(&self) -> Vec<PathBuf> {
        self.gguf.paths().to_vec()
    }
}

impl Options {
    /// Opens the file, brings its weights to the device and starts the engine.
    pub fn load(&self) -> Result<Loaded, PyErr> {
        let gguf = self.open()?;
        let config = self.config(&gguf)?;
        let tokenizer = Tokenizer::from_gguf(&gguf).map_err(|error| self.failed(&error))?;
        let tokenizer = Arc::new(tokenizer);
        let weights = self.weights(&gguf, config)?;
        let mut options = EngineConfig::default();
        if self.max_num_seqs.is_none() {
            let chosen = weights.choose_batch_size(None);
            (options.max_num_seqs, options.kv_memory) = (Some(chosen.num_seqs), Some(chosen.kv_memory));
        }
        let handle = weights.start_engine(Some(Arc::clone(&tokenizer)), options);
        let handle = handle.map_err(|error| of_model(&error))?;
        let (pooling, note) = file_pooling(&gguf);
        let notes = tokenizer.notes().iter().cloned().chain(note);
        let notes = notes.chain(weights.device_note().map(str::to_owned)).collect();
        Ok(Loaded { gguf, handle, weights, tokenizer, pooling, notes })
    }

    fn open(&self) -> Result<Gguf, PyErr> {
        if self.model == Path::new("demo") {
            return Ok(demo::gguf());
        }
        Gguf::open(&self.model).map_err(|error| match self.model.exists() {
            true => EngineError::new_err(error.to_string()),
            false => PyFileNotFoundError::new_err(error.to_string()),
        })
    }

    fn config(&self, gguf: &Gguf) -> Result<LlamaConfig, PyErr> {
        let config = LlamaConfig::from_gguf(gguf).map_err(|error| self.failed(&error))?;
        let most = config.max_seq_len.min(LlamaModel::DEFAULT_MAX_SEQ_LEN);
        let kv_dtype = match self.kv_dtype.as_deref() {
            None | Some("auto" | "f16") => KvDtype::F16,
            Some("f32") => KvDtype::F32,
            Some(found) => {
                return Err(bad_argument("kv_dtype", format_args!("expected f16 or f32, found {found:?}")));
            }
        };
        let config = config
            .with_max_seq_len(counted("max_model_len", self.max_model_len)?.map_or(most, NonZeroUsize::get))
            .with_kv_dtype(kv_dtype);
        let config = match counted("max_num_seqs", self.max_num_seqs)? {
            Some(num_seqs) => config.with_batch_size(num_seqs.get()),
            None => config,
        };
        let config = match counted("prompt_chunk", self.prompt_chunk)? {
            Some(tokens) => config.with_prompt_chunk(tokens.get()),
            None => config,
        };
        config.validate().map_err(|error| bad_argument("LLM", error))?;
        Ok(config)
    }

    fn weights(&self, gguf: &Gguf, config: LlamaConfig) -> Result<Weights, PyErr> {
        let devices: Devices = self.device.parse().map_err(|error| bad_argument("device", error))?;
        let activations = match self.activations {
            None => Activations::default(),
            Some(bits) => bits.to_string().parse().map_err(|error| bad_argument("activations", error))?,
        };
        let needs_cpu = |found: &dyn std::fmt::Display| {
            let hint = "hint: device=\"cpu\", or leave activations out";
            bad_argument("activations", format_args!("expected a CPU, found {found}\n{hint}"))
        };
        if self.activations.is_some() && devices.are_gpus() {
            return Err(needs_cpu(&devices));
        }
        let cpu = CpuOptions { threads: counted("threads", self.threads)?, isa: None, activations };
        let ranks = counted("tensor_parallel_size", Some(self.tensor_parallel_size))?;
        let tensor_parallel = ranks.filter(|ranks| ranks.get() > 1);
        let options = LoadOptions { cpu, tensor_parallel, ..LoadOptions::default() };
        let weights =
            Weights::load_on(&devices, gguf, config, options).map_err(|error| self.failed(&error))?;
        match self.activations.is_some() && weights.activations().is_none() {
            true => Err(needs_cpu(&weights.device())),
            false => Ok(weights),
        }
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> PyErr {
        EngineError::new_err(format!("{}: {error}", self.model.display()))
    }
}

/// A count of at least 1, if there is one.
pub fn counted(name: &str, count: Option<usize>) -> Result<Option<NonZeroUsize>, PyErr> {
    let checked =
        |count| NonZeroUsize::new(count).ok_or_else(|| bad_argument(name, "expected at least 1, found 0"));
    count.map(checked).transpose()
}
