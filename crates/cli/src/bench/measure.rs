//! Runs one cell of the grid through the engine and records the times of its tokens.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustorch_llama::synthetic::random_tokens;
use rustorch_llama::{
    EngineError, EngineHandle, Event, EventSink, LlamaConfig, Request, SamplingParams, Weights,
};

/// `batch` sequences with prompts of `length` tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    pub batch: usize,
    pub length: usize,
    /// Decode steps of a measurement.
    pub gen_steps: usize,
    /// Devices that share the sequences.
    pub num_replicas: usize,
}

impl Cell {
    /// Most tokens of a sequence. The first sequences to finish their prompts generate while the last ones still read theirs;
    /// decoding is measured from then on.
    pub fn max_seq_len(&self, config: &LlamaConfig) -> usize {
        self.length + self.max_tokens(config)
    }

    /// Bytes of the KV pages that sequences of full length take, on each device.
    pub fn kv_bytes(&self, config: &LlamaConfig) -> u64 {
        self.batch.div_ceil(self.num_replicas) as u64 * kv_bytes(config, self.max_seq_len(config))
    }

    fn max_tokens(&self, config: &LlamaConfig) -> usize {
        // A step takes at least this many tokens of an incomplete prompt, or completes it.
        let budget = config.max_batch_tokens.max(config.batch_size);
        let chunk = config.prompt_chunk.min(budget + 1 - self.batch);
        let prompt_steps = self.batch * self.length.div_ceil(chunk);
        let skew = if self.batch == 1 { 0 } else { prompt_steps };
        // One device may be ahead of another.
        let ahead = if self.num_replicas == 1 { 0 } else { self.gen_steps };
        1 + skew + self.gen_steps + ahead
    }
}

/// Bytes of the KV pages of a sequence of `tokens` tokens.
pub fn kv_bytes(config: &LlamaConfig, tokens: usize) -> u64 {
    let pages = tokens.div_ceil(config.page_size);
    (pages * config.page_size) as u64 * config.kv_bytes_per_token()
}

/// The measurements of a cell.
#[derive(Debug, Default)]
pub struct Measured {
    /// For each repeat, the time from the submission of all prompts to the last one's first token.
    pub prompts: Vec<Duration>,
    /// For each repeat, the steps in which every sequence gets a token.
    pub decodes: Vec<Decode>,
}

/// Steps in which every sequence gets a token.
#[derive(Debug)]
pub struct Decode {
    /// The time of each step.
    pub steps: Vec<Duration>,
    /// Tokens that each sequence had cached when the first step began.
    pub contexts: Vec<usize>,
}

/// What the gathers of devices that run a model together take alone.
#[derive(Debug)]
pub struct Gathers {
    /// Of all steps that read a cell's prompts.
    pub prompts: Duration,
    pub decode_step: Duration,
}

impl Gathers {
    /// Of a cell; none on one device.
    pub fn time(cell: Cell, weights: &Weights) -> Result<Option<Self>> {
        let on_each = |count: usize| count.div_ceil(cell.num_replicas);
        let prompts = on_each(cell.batch * cell.length);
        let tokens = prompts.min(weights.config().max_batch_tokens);
        let Some(of_step) = weights.time_gathers(tokens, 1)? else { return Ok(None) };
        let batch = on_each(cell.batch);
        let decode_step = weights.time_gathers(batch, batch)?.unwrap_or_default();
        Ok(Some(Self { prompts: of_step.mul_f64(prompts as f64 / tokens as f64), decode_step }))
    }
}

/// An engine to measure.
pub struct Bench {
    engine: EngineHandle,
    config: LlamaConfig,
    seed: u64,
}

impl Bench {
    pub fn new(engine: EngineHandle, config: LlamaConfig, seed: u64) -> Self {
        Self { engine, config, seed }
    }

    /// Runs a cell like the largest for a while, so that memory is mapped, threads are awake and the clock is up when the
    /// first measurement starts.
    pub fn warm_up(&self, cells: &[Cell]) -> Result<()> {
        const LENGTH: usize = 32;
        const ENOUGH: Duration = Duration::from_secs(1);
        let Some(largest) = cells.iter().max_by_key(|cell| (cell.batch, cell.length)) else { return Ok(()) };
        let cell = Cell { length: largest.length.min(LENGTH), gen_steps: 1, ..*largest };
        let started = Instant::now();
        while started.elapsed() < ENOUGH {
            self.run(cell, cell.max_tokens(&self.config), self.seed)?;
        }
        Ok(())
    }

    /// Measures a cell `repeats` times; `done` is called after each.
    pub fn measure(&self, cell: Cell, repeats: usize, done: impl Fn()) -> Result<Measured> {
        let mut measured = Measured::default();
        for repeat in 0..repeats {
            let seed = self.seed.wrapping_add((repeat * cell.batch) as u64);
            let prompt = self.run(Cell { gen_steps: 0, ..cell }, 1, seed)?;
            measured.prompts.push(prompt.all_started - prompt.submitted);
            let decode = self.run(cell, cell.max_tokens(&self.config), seed)?;
            let ends = &decode.step_ends;
            let starts = std::iter::once(&decode.all_started).chain(ends);
            let steps = ends.iter().zip(starts).map(|(end, start)| *end - *start).collect();
            // The last generated token is cached by the next step.
            let contexts = decode.tokens_at_start.iter().map(|tokens| cell.length + tokens - 1).collect();
            measured.decodes.push(Decode { steps, contexts });
            done();
        }
        Ok(measured)
    }

    /// Submits the cell's prompts together and waits until `gen_steps` steps with all of them have run.
    fn run(&self, cell: Cell, max_tokens: usize, seed: u64) -> Result<Times> {
        let (ended, all_ended) = mpsc::channel();
        let shared =
            Arc::new(Shared { record: Mutex::new(Record::new(cell)), enough: AtomicBool::new(false) });
        let requests: Vec<_> = (0..cell.batch)
            .map(|index| {
                let seed = seed.wrapping_add(index as u64);
                let prompt_token_ids = random_tokens(self.config.vocab_size(), cell.length, seed);
                let params = SamplingParams {
                    ignore_eos: true,
                    max_tokens: Some(max_tokens),
                    ..SamplingParams::greedy()
                };
                let sink = Sink { index, shared: Arc::clone(&shared), _ended: ended.clone() };
                (Request { prompt_token_ids, params, ..Request::default() }, sink)
            })
            .collect();
        drop(ended);
        let submitted = Instant::now();
        self.engine.submit_together(requests)?;
        // Nothing is sent. The channel closes when the last sequence drops its sender.
        let _ = all_ended.recv();
        let record = std::mem::replace(&mut *shared.lock(), Record::new(cell));
        record.into_times(cell, submitted)
    }
}

/// The times of a run.
struct Times {
    submitted: Instant,
    /// When the last sequence got its first token.
    all_started: Instant,
    /// Tokens that each sequence had generated then.
    tokens_at_start: Vec<usize>,
    /// When each of the following steps ended.
    step_ends: Vec<Instant>,
}

/// What the sinks of a run write to. Only the engines' threads do, so the lock is hardly ever contended.
struct Shared {
    record: Mutex<Record>,
    /// Set when all steps have been seen: the sequences are then cancelled.
    enough: AtomicBool,
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A run so far.
struct Record {
    gen_steps: usize,
    /// Tokens of each sequence until all have one.
    tokens: Vec<usize>,
    all_started: Option<Instant>,
    /// Tokens since, each sequence getting one a step. Of several devices, a step is as many tokens as there are sequences.
    tokens_since: usize,
    step_ends: Vec<Instant>,
    error: Option<EngineError>,
}

impl Record {
    fn new(cell: Cell) -> Self {
        Self {
            gen_steps: cell.gen_steps,
            tokens: vec![0; cell.batch],
            all_started: None,
            tokens_since: 0,
            step_ends: Vec::with_capacity(cell.gen_steps),
            error: None,
        }
    }

    /// A sequence got a token. True when all steps have been seen.
    fn token(&mut self, index: usize) -> bool {
        if self.all_started.is_none() {
            self.tokens[index] += 1;
            // On a device, the last sequence's first token is never before those of the others, which are older.
            if self.tokens.iter().all(|&tokens| tokens > 0) {
                self.all_started = Some(Instant::now());
            }
        } else if self.step_ends.len() < self.gen_steps {
            self.tokens_since += 1;
            if self.tokens_since.is_multiple_of(self.tokens.len()) {
                self.step_ends.push(Instant::now());
            }
        }
        self.all_started.is_some() && self.step_ends.len() == self.gen_steps
    }

    fn into_times(self, cell: Cell, submitted: Instant) -> Result<Times> {
        let cell = format!("batch {}, length {}", cell.batch, cell.length);
        if let Some(error) = self.error {
            return Err(anyhow!(error).context(cell));
        }
        let all_started = self.all_started.filter(|_| self.step_ends.len() == self.gen_steps);
        let all_started = all_started.with_context(|| format!("{cell}: the sequences ended too early"))?;
        Ok(Times { submitted, all_started, tokens_at_start: self.tokens, step_ends: self.step_ends })
    }
}

/// Records the times of a sequence's tokens.
struct Sink {
    index: usize,
    shared: Arc<Shared>,
    _ended: Sender<()>,
}

impl EventSink for Sink {
    fn send(&mut self, event: Event) {
        match event {
            Event::Token(_) => {
                if self.shared.lock().token(self.index) {
                    self.shared.enough.store(true, Ordering::Relaxed);
                }
            }
            Event::Error(error) if !self.shared.enough.load(Ordering::Relaxed) => {
                self.shared.lock().error.get_or_insert(error);
            }
            Event::Prompt(_) | Event::Error(_) | Event::Finished { .. } | Event::Embedding { .. } => {}
        }
    }

    fn is_closed(&self) -> bool {
        self.shared.enough.load(Ordering::Relaxed)
    }
}
