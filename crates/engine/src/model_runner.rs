//! The one [`Runner`] that is not a test's: a Llama on a device, with a KV cache and buffers of its own.

use std::sync::Arc;

use model::{AttentionMode, Backend, Batch, BatchLimits, KvShape, Llama, RunState};

use crate::error::RunError;
use crate::runner::{Runner, RunnerSpec};

/// Runs steps of a model whose weights it shares with other runners.
pub struct ModelRunner<B: Backend> {
    backend: Arc<B>,
    llama: Arc<Llama<B>>,
    cache: B::KvCache,
    plan: B::Plan,
    state: RunState<B>,
    logits: Vec<f32>, // [max_logit_rows, vocab_size]
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
            max_seq_len: config.max_seq_len,
        };
        Ok(Self { backend, llama, cache, plan, state, logits, spec })
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

    fn run(&mut self, batch: &Batch) -> Result<&[f32], RunError> {
        let (tokens, logit_rows) = (batch.num_tokens(), batch.num_logit_rows());
        self.backend.plan(batch, &mut self.plan)?;
        self.llama.forward(
            &*self.backend,
            &self.plan,
            (tokens, logit_rows),
            &mut self.cache,
            &mut self.state,
        );
        let logits = &mut self.logits[..logit_rows * self.spec.vocab_size];
        self.backend.read_into(self.state.logits(), logits)?;
        Ok(logits)
    }
}
