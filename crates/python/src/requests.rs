//! Requests that share a channel: their events become [`Part`]s on the engine's thread, and Python takes them from there.

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openai::ApiError;
use pyo3::prelude::*;
use pyo3::types::PyByteArray;
use rustorch_llama::{EngineError, Event, EventSink, TokenLogprobs, Tokenizer, Usage};

use crate::error::of_request;

/// How long a wait goes on before it looks for signals such as Ctrl-C.
const SIGNALS_EVERY: Duration = Duration::from_millis(50);

/// Most parts that are taken at a time.
const MAX_PARTS: usize = 1024;

/// When the parts of a choice come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// As one, when it is complete.
    Whole,
    /// With each token.
    Parts,
}

/// A queue of what comes of requests.
#[pyclass(frozen, module = "rustorch_llama._rustorch")]
pub struct Requests {
    tokenizer: Arc<Tokenizer>,
    delivery: Delivery,
    sender: Sender<Parts>,
    receiver: Mutex<Receiver<Parts>>,
    closed: AtomicBool,
}

/// A request that was queued. Dropping it cancels the request.
#[pyclass(frozen, module = "rustorch_llama._rustorch")]
pub struct Submitted {
    prompt_token_ids: Vec<u32>,
    cancelled: Arc<AtomicBool>,
}

/// What came of a choice of a request, since the part before.
#[pyclass(frozen, module = "rustorch_llama._rustorch")]
pub struct Part {
    parts: Parts,
    tokenizer: Arc<Tokenizer>,
}

/// The contents of a [`Part`].
#[derive(Default)]
struct Parts {
    tag: u64,
    choice: usize,
    text: String,
    token_ids: Vec<u32>,
    logprobs: Vec<TokenLogprobs>,
    prompt_logprobs: Option<Vec<TokenLogprobs>>,
    finish_reason: Option<&'static str>,
    stop_string: Option<String>,
    embedding: Option<Vec<f32>>,
    usage: Option<Usage>,
    error: Option<EngineError>,
}

/// The engine's side of a choice.
pub struct Sink {
    /// What was not sent yet.
    parts: Parts,
    delivery: Delivery,
    keeps_stop: bool,
    sender: Sender<Parts>,
    cancelled: Arc<AtomicBool>,
}

/// A token's id, log-probability, rank and text.
type Scored = (u32, f32, usize, String);

impl Requests {
    pub fn new(tokenizer: Arc<Tokenizer>, delivery: Delivery) -> Self {
        let (sender, receiver) = mpsc::channel();
        Self { tokenizer, delivery, sender, receiver: Mutex::new(receiver), closed: AtomicBool::new(false) }
    }

    /// Where the events of a choice go. If it `keeps_stop`, the stop string that ends the text is its end.
    pub fn sink(&self, tag: u64, choice: usize, keeps_stop: bool, request: &Submitted) -> Sink {
        Sink {
            parts: Parts { tag, choice, ..Parts::default() },
            delivery: self.delivery,
            keeps_stop,
            sender: self.sender.clone(),
            cancelled: Arc::clone(&request.cancelled),
        }
    }

    /// What is there after a while at most.
    fn receive(&self) -> Vec<Parts> {
        let receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
        let first = receiver.recv_timeout(SIGNALS_EVERY).ok();
        first.into_iter().chain(receiver.try_iter().take(MAX_PARTS)).collect()
    }
}

#[pymethods]
impl Requests {
    /// Waits for parts. None come once the queue is closed.
    fn wait(&self, py: Python<'_>) -> PyResult<Vec<Part>> {
        loop {
            let parts = py.detach(|| self.receive());
            py.check_signals()?;
            if !parts.is_empty() || self.closed.load(Ordering::Relaxed) {
                let part = |parts| Part { parts, tokenizer: Arc::clone(&self.tokenizer) };
                return Ok(parts.into_iter().map(part).collect());
            }
        }
    }

    /// Ends the waiting.
    fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }
}

impl Submitted {
    pub fn new(prompt_token_ids: Vec<u32>) -> Self {
        Self { prompt_token_ids, cancelled: Arc::default() }
    }
}

#[pymethods]
impl Submitted {
    /// The prompt as the model sees it.
    #[getter]
    fn prompt_token_ids(&self) -> Vec<u32> {
        self.prompt_token_ids.clone()
    }

    /// Ends the request before the next step; nothing more comes of it.
    fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

impl Drop for Submitted {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl EventSink for Sink {
    fn send(&mut self, event: Event) {
        let parts = &mut self.parts;
        match event {
            Event::Prompt(logprobs) => parts.prompt_logprobs = Some(logprobs),
            Event::Token(token) => {
                parts.token_ids.push(token.token_id);
                parts.text.push_str(&token.text);
                parts.logprobs.extend(token.logprobs);
            }
            Event::Finished { reason, usage, stop_string } => {
                if self.keeps_stop {
                    parts.text.push_str(stop_string.as_deref().unwrap_or_default());
                }
                parts.finish_reason = Some(reason.as_str());
                (parts.usage, parts.stop_string) = (Some(usage), stop_string);
            }
            Event::Embedding { values, usage } => {
                (parts.usage, parts.embedding) = (Some(usage), Some(values));
            }
            Event::Error(error) => parts.error = Some(error),
        }
        let has_ended = parts.usage.is_some() || parts.error.is_some();
        let is_cancelled = self.cancelled.load(Ordering::Relaxed);
        if (has_ended || self.delivery == Delivery::Parts) && !is_cancelled {
            let rest = Parts { tag: parts.tag, choice: parts.choice, ..Parts::default() };
            // A failure means that the queue is gone, and the requests with it.
            let _ = self.sender.send(mem::replace(parts, rest));
        }
    }

    fn is_closed(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

#[pymethods]
impl Part {
    /// That of the request.
    #[getter]
    fn tag(&self) -> u64 {
        self.parts.tag
    }

    /// The index among the request's choices.
    #[getter]
    fn choice(&self) -> usize {
        self.parts.choice
    }

    #[getter]
    fn text(&self) -> &str {
        &self.parts.text
    }

    #[getter]
    fn token_ids(&self) -> Vec<u32> {
        self.parts.token_ids.clone()
    }

    /// For each token, first itself and then the most likely ones; empty if they were not asked for.
    #[getter]
    fn logprobs(&self) -> Vec<Vec<Scored>> {
        let scores = self.parts.token_ids.iter().zip(&self.parts.logprobs);
        scores.map(|(&token_id, scores)| self.scored(token_id, scores)).collect()
    }

    /// As `logprobs`, for the prompt's tokens from the second on.
    fn prompt_logprobs(&self, prompt_token_ids: Vec<u32>) -> Option<Vec<Vec<Scored>>> {
        let scores = prompt_token_ids.iter().skip(1).zip(self.parts.prompt_logprobs.as_ref()?);
        Some(scores.map(|(&token_id, scores)| self.scored(token_id, scores)).collect())
    }

    /// Why the choice ended, if it has.
    #[getter]
    fn finish_reason(&self) -> Option<&str> {
        self.parts.finish_reason
    }

    #[getter]
    fn stop_string(&self) -> Option<&str> {
        self.parts.stop_string.as_deref()
    }

    /// Tokens of the prompt that were found in the prefix cache.
    #[getter]
    fn num_cached_tokens(&self) -> Option<usize> {
        self.parts.usage.map(|usage| usage.cached_tokens)
    }

    /// Numbers of type f32.
    #[getter]
    fn embedding<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyByteArray>> {
        let values = self.parts.embedding.as_ref()?;
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
        Some(PyByteArray::new(py, &bytes))
    }

    /// What ended the request early.
    #[getter]
    fn error(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let error = of_request(&ApiError::from(self.parts.error.clone()?));
        Some(error.into_value(py).into_any())
    }
}

impl Part {
    fn scored(&self, token_id: u32, scores: &TokenLogprobs) -> Vec<Scored> {
        let text = |id| String::from_utf8_lossy(self.tokenizer.token_bytes(id)).into_owned();
        let own = (token_id, scores.logprob, scores.rank, text(token_id));
        let top = scores.top.iter().zip(1..).map(|(&(id, logprob), rank)| (id, logprob, rank, text(id)));
        [own].into_iter().chain(top.filter(|(id, ..)| *id != token_id)).collect()
    }
}
