//! The one [`Runner`] that is not a test's: a Llama on a device, with a KV cache and buffers of its own.

use std::sync::Arc;

use model::{AttentionMode, Backend, Batch, BatchLimits, KvShape, Llama, RunState};

use crate::error::RunError;
use crate::runner::{Runner, RunnerSpec, StepOutput};

/// Runs steps of a model whose weights it shares with other runners.
pub struct ModelRunner<B: Backend> {
    backend: Arc<B>,
    llama: Arc<Llama<B>>,
    cache: B::KvCache,
    plan: B::Plan,
    state: RunState<B>,
    logits: Vec<f32>,        // [max_logit_rows, vocab_size]
    hidden_states: Vec<f32>, // [max_tokens, hidden_size], read as [R + H, hidden_size]
    spec: RunnerSpec,
}

impl<B: Backend> ModelRunner<B> {
    /// Makes the KV cache of `num_pages` pages and the buffers for steps up to `limits`.
    ///
    /// # Errors
    /// When the device cannot hold them.
    pub fn new(
        backend: Arc<B>,
        llama: Arc<Llama<B>>,
        limits: BatchLimits,
        num_pages: usize,
        attention: AttentionMode,
    ) -> model::Result<Self> {
        let config = llama.config();
        let cache = backend.alloc_kv_cache(kv_shape(config, num_pages))?;
        let plan = backend.alloc_plan(limits)?;
        let state = RunState::new(&*backend, config, limits, attention)?;
        let logits = vec![0.0; limits.max_logit_rows * config.vocab_size];
        let spec = RunnerSpec {
            limits,
            page_size: config.page_size,
            num_pages,
            vocab_size: config.vocab_size,
            hidden_size: config.hidden_size,
            max_seq_len: config.max_seq_len,
        };
        // Zeroed on first use by the system: a runner that is asked for no hidden states takes no memory for them.
        let hidden_states = vec![0.0; limits.max_tokens * config.hidden_size];
        Ok(Self { backend, llama, cache, plan, state, logits, hidden_states, spec })
    }
}

/// The KV cache of a model with `num_pages` pages a layer.
pub fn kv_shape(config: &model::LlamaConfig, num_pages: usize) -> KvShape {
    KvShape {
        num_layers: config.num_layers,
        num_pages,
        page_size: config.page_size,
        num_kv_heads: config.num_kv_heads,
        head_dim: config.head_dim,
        dtype: config.kv_dtype,
    }
}

impl<B: Backend> Runner for ModelRunner<B> {
    fn spec(&self) -> RunnerSpec {
        self.spec
    }

    fn run(&mut self, batch: &Batch) -> Result<StepOutput<'_>, RunError> {
        let size = batch.size();
        self.backend.plan(batch, &mut self.plan)?;
        self.llama.forward(&*self.backend, &self.plan, size, &mut self.cache, &mut self.state);
        let logits = &mut self.logits[..size.logit_rows * self.spec.vocab_size];
        if !logits.is_empty() || size.hidden_rows == 0 {
            // The step's one wait, even if nothing is asked for: a failure belongs to the step that had it.
            self.backend.read_into(self.state.logits(), logits)?;
        }
        // In the device's buffer, the states that the logits were made of come first.
        let hidden_size = self.spec.hidden_size;
        let first = if size.hidden_rows > 0 { size.logit_rows } else { 0 };
        let hidden_states = &mut self.hidden_states[..(first + size.hidden_rows) * hidden_size];
        if !hidden_states.is_empty() {
            self.backend.read_into(self.state.hidden_states(), hidden_states)?;
        }
        Ok(StepOutput { logits, hidden_states: &hidden_states[first * hidden_size..] })
    }
}
