//! [`Engine`]: a loaded model, and what is asked of it.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use openai::{Context, Endpoint, ModelNames, UnknownFields, parse_object, prepare};
use pyo3::prelude::*;
use pyo3::types::PyByteArray;
use rustorch_llama::{Bos, ControlTokens, Grammars, LlamaModel, Special};

use crate::batch::{BatchOptions, BatchSummary, ModelHash};
use crate::error::{bad_argument, of_model, of_request};
use crate::load::{Loaded, Options};
use crate::requests::{Delivery, Requests, Submitted};

/// A model on a device, with an engine that serves many requests at a time. It stops when it is dropped.
#[pyclass(frozen, module = "rustorch_llama._rustorch")]
pub struct Engine {
    loaded: Loaded,
    grammars: Grammars,
    /// The slots of `forward_batch`, once it was called.
    slots: Mutex<Option<LlamaModel>>,
    /// Of the first batch on.
    hash: ModelHash,
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (model, *, device, tensor_parallel_size, activations, max_model_len, max_num_seqs, kv_dtype, threads, prompt_chunk))]
    #[allow(clippy::too_many_arguments)] // They are keywords.
    fn new(
        py: Python<'_>,
        model: PathBuf,
        device: String,
        tensor_parallel_size: usize,
        activations: Option<u32>,
        max_model_len: Option<usize>,
        max_num_seqs: Option<usize>,
        kv_dtype: Option<String>,
        threads: Option<usize>,
        prompt_chunk: Option<usize>,
    ) -> PyResult<Self> {
        let options = Options {
            model,
            device,
            tensor_parallel_size,
            activations,
            max_model_len,
            max_num_seqs,
            kv_dtype,
            threads,
            prompt_chunk,
        };
        let loaded = py.detach(|| options.load())?;
        let grammars = Grammars::new(loaded.tokenizer.clone());
        Ok(Self { loaded, grammars, slots: Mutex::new(None), hash: ModelHash::new() })
    }

    /// What a person should know of the model and its device.
    #[getter]
    fn notes(&self) -> Vec<String> {
        self.loaded.notes.clone()
    }

    /// The device, in words.
    #[getter]
    fn device(&self) -> String {
        self.loaded.weights.device()
    }

    /// Bits of the activations that quantised weights are multiplied with, on a CPU.
    #[getter]
    fn activations(&self) -> Option<u32> {
        self.loaded.weights.activations()?.to_string().parse().ok()
    }

    /// Tokens of the longest sequence, prompt and output together.
    #[getter]
    fn max_model_len(&self) -> usize {
        self.loaded.handle.max_seq_tokens()
    }

    /// Sequences that run together.
    #[getter]
    fn max_num_seqs(&self) -> usize {
        self.loaded.handle.stats().max_num_seqs
    }

    /// Bytes of keys and values for each token of a sequence.
    #[getter]
    fn kv_bytes_per_token(&self) -> u64 {
        self.loaded.weights.config().kv_bytes_per_token()
    }

    /// Tokens of the vocabulary.
    #[getter]
    fn vocab_size(&self) -> usize {
        self.loaded.weights.config().vocab_size()
    }

    /// Tokens after which generation ends.
    #[getter]
    fn eos_token_ids(&self) -> Vec<u32> {
        self.loaded.tokenizer.eog_tokens().to_vec()
    }

    /// Requests that ended because nobody wanted them any more.
    #[getter]
    fn num_cancelled(&self) -> u64 {
        self.loaded.handle.stats().cancelled
    }

    /// Requests whose parts come when each is complete.
    fn requests(&self) -> Requests {
        Requests::new(self.loaded.tokenizer.clone(), Delivery::Whole)
    }

    /// Requests whose parts come as they are generated.
    fn streams(&self) -> Requests {
        Requests::new(self.loaded.tokenizer.clone(), Delivery::Parts)
    }

    /// Queues a body of `endpoint`: completions, chat or embeddings. `seed` is that of a request without one.
    fn submit(
        &self,
        py: Python<'_>,
        endpoint: &str,
        requests: &Requests,
        tag: u64,
        body: &str,
        seed: u64,
    ) -> PyResult<Submitted> {
        let endpoint = match endpoint {
            "completions" => Endpoint::Completions,
            "chat" => Endpoint::ChatCompletions,
            "embeddings" => Endpoint::Embeddings,
            found => {
                let rest = format_args!("expected completions, chat or embeddings, found {found:?}");
                return Err(bad_argument("endpoint", rest));
            }
        };
        py.detach(|| self.queue(endpoint, requests, tag, body, seed))
    }

    /// Answers a file of requests, or a part of a job; `None` for a part that has its results. `progress` is called with the
    /// results that there are and the lines in all.
    fn run_batch(
        &self,
        py: Python<'_>,
        options: BatchOptions,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Option<BatchSummary>> {
        py.detach(|| options.run(&self.loaded, &self.hash, progress.as_ref()))
    }

    /// The tokens of a text, as of a prompt.
    fn tokenize(&self, py: Python<'_>, text: &str, add_special_tokens: bool) -> Vec<u32> {
        let bos = if add_special_tokens { Bos::Add } else { Bos::Skip };
        py.detach(|| self.loaded.tokenizer.encode(text, Special::Parse, bos))
    }

    /// The text of tokens.
    fn detokenize(&self, py: Python<'_>, token_ids: Vec<u32>, skip_special_tokens: bool) -> PyResult<String> {
        let vocab_size = self.loaded.tokenizer.vocab_size();
        if let Some(found) = token_ids.iter().find(|&&id| id as usize >= vocab_size) {
            let rest = format_args!("expected ids below the vocabulary size {vocab_size}, found {found}");
            return Err(bad_argument("token_ids", rest));
        }
        let control_tokens = if skip_special_tokens { ControlTokens::Hide } else { ControlTokens::Show };
        Ok(py.detach(|| self.loaded.tokenizer.decode(&token_ids, control_tokens)))
    }

    /// `[sequences, vocab_size]` numbers of type f32: the logits of each one's last token.
    fn forward_batch<'py>(
        &self,
        py: Python<'py>,
        tokens: Vec<Vec<u32>>,
    ) -> PyResult<Bound<'py, PyByteArray>> {
        let mut rows = Vec::with_capacity(tokens.len());
        let slots = self.loaded.weights.config().batch_size;
        // So that an empty batch is refused by the model.
        let groups = tokens.chunks(slots).chain(std::iter::repeat_n(&[][..], usize::from(tokens.is_empty())));
        for group in groups {
            rows.extend(py.detach(|| self.forward(group))?);
            py.check_signals()?;
        }
        let row_bytes = self.vocab_size() * size_of::<f32>();
        PyByteArray::new_with(py, rows.len() * row_bytes, |bytes| {
            let values = rows.iter().flatten().map(|value| value.to_ne_bytes());
            bytes
                .chunks_exact_mut(size_of::<f32>())
                .zip(values)
                .for_each(|(to, from)| to.copy_from_slice(&from));
            Ok(())
        })
    }

    /// Ends every request and the engine.
    fn shutdown(&self, py: Python<'_>) {
        py.detach(|| self.loaded.handle.shutdown());
    }
}

impl Engine {
    fn queue(
        &self,
        endpoint: Endpoint,
        requests: &Requests,
        tag: u64,
        body: &str,
        seed: u64,
    ) -> PyResult<Submitted> {
        let Loaded { handle, weights, tokenizer, pooling, .. } = &self.loaded;
        let context = Context {
            tokenizer,
            grammars: &self.grammars,
            model: "",
            names: ModelNames::Any,
            hidden_size: weights.config().hidden_size(),
            pooling: *pooling,
            fingerprint: None,
            seed,
            unknown_fields: UnknownFields::Refuse,
        };
        let body = parse_object(body.as_bytes()).map_err(|error| of_request(&error))?;
        let keeps_stop = body.get("include_stop_str_in_output").is_some_and(|value| *value == true);
        let work = prepare(endpoint, &body, &context).map_err(|error| of_request(&error))?.work;
        let prompt = work.prompts().next().unwrap_or_default().to_vec();
        let submitted = Submitted::new(prompt);
        let sink = |choice| requests.sink(tag, choice, keeps_stop, &submitted);
        work.submit(handle, sink).map_err(|error| of_request(&error))?;
        Ok(submitted)
    }

    fn forward(&self, tokens: &[Vec<u32>]) -> PyResult<Vec<Vec<f32>>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let model = match slots.take() {
            Some(model) => model,
            None => LlamaModel::new(self.loaded.weights.clone()).map_err(|error| of_model(&error))?,
        };
        let sequences: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
        slots.insert(model).forward_batch(&sequences).map_err(|error| of_model(&error))
    }
}
