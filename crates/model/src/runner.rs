//! Running steps: the trait that an engine drives, and the one implementation that is not a test's.

use std::sync::Arc;

use crate::{
    AttentionMode, Backend, Batch, BatchLimits, Decoder, Layout, Read, RunError, RunState, StepSize, Want,
};

/// A model with its KV pages, ready to run steps.
///
/// Its owner calls it on one thread. Whatever a step computes for a sequence may depend on that sequence's tokens alone, not
/// on what else is in the batch, nor on which pages it was given: schedulers rely on it.
pub trait Runner: Send + 'static {
    /// What this runner was made for. Constant over its life.
    fn spec(&self) -> RunnerSpec;

    /// Runs one step: stores the K and V of every token of `batch` in the slots that it names, and returns what each
    /// sequence wants of its rows.
    ///
    /// # Errors
    /// When the device fails. What the step's pages hold is then unknown.
    fn run<'a>(&'a mut self, batch: &'a Batch) -> Result<StepOutput<'a>, RunError>;
}

/// The sizes of a runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunnerSpec {
    /// The largest step, and the KV pages of the pool.
    pub limits: BatchLimits,
    /// Tokens of a KV page.
    pub page_size: usize,
    /// Logits of a row.
    pub vocab_size: usize,
    /// Values of a hidden state.
    pub hidden_size: usize,
    /// Most tokens of one sequence, prompt and generated.
    pub max_seq_len: usize,
    /// Whether tokens may be drawn on the device: [`Want::Draw`].
    pub draws: bool,
}

/// What a step yields.
#[derive(Debug, Clone, Copy)]
pub struct StepOutput<'a> {
    batch: &'a Batch,
    next_tokens: &'a [u32],   // [A]
    logits: &'a [f32],        // [L, vocab_size]
    hidden_states: &'a [f32], // [H, hidden_size]
    vocab_size: usize,
    hidden_size: usize,
}

/// What a step yields for one sequence; each list has an entry for each row that was wanted, in order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Output<'a> {
    /// Nothing was wanted.
    None,
    /// The tokens that the device has chosen; [`NO_INDEX`](crate::NO_INDEX) from a row without a finite logit.
    Tokens(&'a [u32]),
    /// `[rows, vocab_size]`.
    Logits(&'a [f32]),
    /// `[rows, hidden_size]` after the last layer and the final norm.
    Hidden(&'a [f32]),
}

impl<'a> Output<'a> {
    /// One of `num_rows` rows.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row(self, row: usize, num_rows: usize) -> Self {
        let of_row = |len: usize| len / num_rows * row..len / num_rows * (row + 1);
        match self {
            Output::None => Output::None,
            Output::Tokens(token_ids) => Output::Tokens(&token_ids[of_row(token_ids.len())]),
            Output::Logits(logits) => Output::Logits(&logits[of_row(logits.len())]),
            Output::Hidden(states) => Output::Hidden(&states[of_row(states.len())]),
        }
    }
}

impl<'a> StepOutput<'a> {
    /// The rows that `batch` wants, each kind in the order of the batch: `next_tokens: [A]`, `logits: [L, vocab_size]`,
    /// `hidden_states: [H, hidden_size]`.
    ///
    /// # Panics
    /// When there are more or fewer.
    pub fn new(
        batch: &'a Batch,
        spec: &RunnerSpec,
        next_tokens: &'a [u32],
        logits: &'a [f32],
        hidden_states: &'a [f32],
    ) -> Self {
        let RunnerSpec { vocab_size, hidden_size, .. } = *spec;
        let StepSize { token_rows, logit_rows, hidden_rows, .. } = batch.size();
        assert_eq!(
            (next_tokens.len(), logits.len(), hidden_states.len()),
            (token_rows, logit_rows * vocab_size, hidden_rows * hidden_size),
            "a step yields rows of another shape"
        );
        Self { batch, next_tokens, logits, hidden_states, vocab_size, hidden_size }
    }

    /// What a sequence of the batch wanted.
    pub fn of(&self, seq_idx: usize) -> Output<'a> {
        let (want, rows) = self.batch.wanted(seq_idx);
        let of_width = |width: usize| rows.start * width..rows.end * width;
        match want {
            Want::None => Output::None,
            Want::Argmax(_) | Want::Draw(_) => Output::Tokens(&self.next_tokens[rows.clone()]),
            Want::Logits(_) => Output::Logits(&self.logits[of_width(self.vocab_size)]),
            Want::Hidden(_) => Output::Hidden(&self.hidden_states[of_width(self.hidden_size)]),
        }
    }

    /// `[A]` of all sequences.
    pub fn next_tokens(&self) -> &'a [u32] {
        self.next_tokens
    }

    /// `[L, vocab_size]` of all sequences.
    pub fn logits(&self) -> &'a [f32] {
        self.logits
    }

    /// `[H, hidden_size]` of all sequences.
    pub fn hidden_states(&self) -> &'a [f32] {
        self.hidden_states
    }
}

impl<R: Runner + ?Sized> Runner for Box<R> {
    fn spec(&self) -> RunnerSpec {
        (**self).spec()
    }

    fn run<'a>(&'a mut self, batch: &'a Batch) -> Result<StepOutput<'a>, RunError> {
        (**self).run(batch)
    }
}

/// Runs steps of a model whose weights it shares with other runners, with a KV cache and buffers of its own.
pub struct ModelRunner<B: Backend> {
    backend: Arc<B>,
    decoder: Arc<Decoder<B>>,
    cache: B::KvCache,
    plan: B::Plan,
    state: RunState<B>,
    next_token_bits: Vec<f32>, // [max_logit_rows]
    next_tokens: Vec<u32>,     // [max_logit_rows]
    logits: Vec<f32>,          // [max_logit_rows, vocab_size]
    hidden_states: Vec<f32>,   // [max_tokens, hidden_size]
    spec: RunnerSpec,
}

impl<B: Backend> ModelRunner<B> {
    /// Makes the KV cache and the buffers for steps up to `limits`.
    ///
    /// # Errors
    /// When the device cannot hold them.
    pub fn new(
        backend: Arc<B>,
        decoder: Arc<Decoder<B>>,
        limits: BatchLimits,
        attention: AttentionMode,
    ) -> crate::Result<Self> {
        let page_size = decoder.config().page_size;
        Self::with_page_size(backend, decoder, limits, page_size, attention)
    }

    /// As [`new`](Self::new), with pages of another size than the configuration's.
    ///
    /// # Errors
    /// As `new`.
    pub fn with_page_size(
        backend: Arc<B>,
        decoder: Arc<Decoder<B>>,
        limits: BatchLimits,
        page_size: usize,
        attention: AttentionMode,
    ) -> crate::Result<Self> {
        let config = decoder.config().clone().with_page_size(page_size);
        let spec = RunnerSpec {
            limits,
            page_size,
            vocab_size: config.vocab_size(),
            hidden_size: config.hidden_size(),
            max_seq_len: config.max_seq_len,
            draws: backend.draws(),
        };
        let layout = Layout::of_rank(&config, limits, attention, backend.rank())?;
        let cache = backend.alloc_kv_cache(&layout.kv)?;
        let plan = backend.alloc_plan(limits, &layout.attention)?;
        let state = RunState::new(&*backend, &layout)?;
        // Zeroed on first use by the system: what is never wanted takes no memory.
        let logits = vec![0.0; limits.max_logit_rows * spec.vocab_size];
        let hidden_states = vec![0.0; limits.max_tokens * spec.hidden_size];
        let (next_token_bits, next_tokens) =
            (vec![0.0; limits.max_logit_rows], vec![0; limits.max_logit_rows]);
        Ok(Self {
            backend,
            decoder,
            cache,
            plan,
            state,
            next_token_bits,
            next_tokens,
            logits,
            hidden_states,
            spec,
        })
    }
}

impl<B: Backend> ModelRunner<B> {
    /// The device.
    pub(crate) fn backend(&self) -> &B {
        &self.backend
    }

    /// Runs a step and waits for its end, without reading what it yields.
    pub(crate) fn compute(&mut self, batch: &Batch) -> Result<(), RunError> {
        self.begin(batch)?;
        Ok(self.backend.read_into(&mut [])?)
    }

    fn begin(&mut self, batch: &Batch) -> Result<(), RunError> {
        let Self { backend, decoder, cache, plan, state, .. } = self;
        backend.plan(batch, plan)?;
        decoder.forward(&**backend, plan, batch.size(), cache, state);
        Ok(())
    }
}

impl<B: Backend> Runner for ModelRunner<B> {
    fn spec(&self) -> RunnerSpec {
        self.spec
    }

    fn run<'a>(&'a mut self, batch: &'a Batch) -> Result<StepOutput<'a>, RunError> {
        self.begin(batch)?;
        let Self { backend, state, next_token_bits, next_tokens, logits, hidden_states, spec, .. } = self;
        let size = batch.size();
        let StepSize { token_rows, logit_rows, hidden_rows, .. } = size;
        let next_token_bits = &mut next_token_bits[..token_rows];
        let logits = &mut logits[..logit_rows * spec.vocab_size];
        let hidden_states = &mut hidden_states[..hidden_rows * spec.hidden_size];
        backend.read_into(&mut [
            Read { buffer: state.next_tokens(), first_row: 0, out: next_token_bits },
            Read { buffer: state.logits(), first_row: token_rows, out: logits },
            Read { buffer: state.hidden_states(), first_row: size.head_rows(), out: hidden_states },
        ])?;
        let next_tokens = &mut next_tokens[..token_rows];
        next_tokens.iter_mut().zip(next_token_bits).for_each(|(index, bits)| *index = bits.to_bits());
        Ok(StepOutput::new(batch, spec, next_tokens, logits, hidden_states))
    }
}
