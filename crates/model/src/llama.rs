//! The transformer, once, for every device.

use gguf::Gguf;

use crate::weights::{Layer, Weights};
use crate::{
    AttentionMode, Backend, BatchLimits, Error, LlamaConfig, QkvShape, Result, RopeShape, RopeTable, StepSize,
};

/// A Llama model: weights on a device and the graph over them. Holds no state of any sequence.
pub struct Llama<B: Backend> {
    config: LlamaConfig,
    weights: Weights<B>,
    rope: B::Buffer, // [max_seq_len, rope.dim]
}

/// The activations of a step, made once for the largest batch. `T` tokens, `R` logit rows, `H` hidden rows.
pub struct RunState<B: Backend> {
    hidden: B::Buffer,         // [T, hidden_size], the residual stream
    normed: B::Buffer,         // [T, hidden_size]; in the end [R + H, hidden_size], the wanted rows
    qkv: B::Buffer,            // [T, q_dim + 2 * kv_dim]
    attended: B::Buffer,       // [T, q_dim]
    projected: B::Buffer, // [T, hidden_size]; in the end [R + H, hidden_size], the wanted rows before their norm
    gate_up: B::Buffer,   // [T, 2 * intermediate_size]
    activated: B::Buffer, // [T, intermediate_size]
    logits: B::Buffer,    // [R, vocab_size]
    scores: Option<B::Buffer>, // [T, num_heads * max_seq_len], reference attention only
}

impl<B: Backend> RunState<B> {
    /// Makes the buffers for steps up to `limits`.
    ///
    /// # Errors
    /// When the device cannot hold them.
    pub fn new(
        backend: &B,
        config: &LlamaConfig,
        limits: BatchLimits,
        attention: AttentionMode,
    ) -> Result<Self> {
        let (tokens, rows, hidden) = (limits.max_tokens, limits.max_logit_rows, config.hidden_size);
        Ok(Self {
            hidden: backend.alloc(tokens, hidden)?,
            normed: backend.alloc(tokens, hidden)?,
            qkv: backend.alloc(tokens, qkv_shape(config).cols())?,
            attended: backend.alloc(tokens, config.q_dim())?,
            projected: backend.alloc(tokens, hidden)?,
            gate_up: backend.alloc(tokens, 2 * config.intermediate_size)?,
            activated: backend.alloc(tokens, config.intermediate_size)?,
            logits: backend.alloc(rows, config.vocab_size)?,
            scores: match attention {
                AttentionMode::Fused => None,
                AttentionMode::Reference => {
                    Some(backend.alloc(tokens, config.num_heads * reference_context(config)?)?)
                }
            },
        })
    }

    /// `[R, vocab_size]` logits of the last [`Llama::forward`].
    pub fn logits(&self) -> &B::Buffer {
        &self.logits
    }

    /// `[R + H, hidden_size]` hidden states of the last [`Llama::forward`], normed: those that the logits were made of,
    /// then those that were asked for.
    pub fn hidden_states(&self) -> &B::Buffer {
        &self.normed
    }
}

impl<B: Backend> Llama<B> {
    /// Loads the weights of `gguf`; `progress(done, total)` counts the source's bytes.
    ///
    /// # Errors
    /// A configuration that contradicts the file, a tensor that is missing, misshapen or not part of the graph, or a
    /// device that cannot hold the weights.
    pub fn load(
        backend: &B,
        gguf: &Gguf,
        config: LlamaConfig,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Self> {
        config.validate()?;
        config.check_against(&LlamaConfig::from_gguf(gguf)?)?;
        let weights = Weights::load(backend, gguf, &config, &mut progress)?;
        let table = RopeTable::new(&config.rope, weights.rope_factors.as_deref(), config.max_seq_len);
        let rope = backend.upload(table.positions, table.dim, &table.values)?;
        Ok(Self { config, weights, rope })
    }

    /// The configuration that the model was loaded with.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// Bytes of the weights on the device.
    pub fn weight_bytes(&self) -> u64 {
        self.weights.bytes
    }

    /// Bytes of the weights that every step reads, if only for one token: all but an embedding table that is not the LM
    /// head as well.
    pub fn step_weight_bytes(&self, backend: &B) -> u64 {
        let gathered = self.weights.embedding.as_ref().map_or(0, |table| backend.matrix_bytes(table));
        self.weights.bytes - gathered
    }

    /// Runs one step: the batch planned as `plan`, of this `size`, through all layers. The logits are then in
    /// [`RunState::logits`], the hidden states in [`RunState::hidden_states`], and K and V of the step's tokens in `cache`.
    pub fn forward(
        &self,
        backend: &B,
        plan: &B::Plan,
        size: StepSize,
        cache: &mut B::KvCache,
        state: &mut RunState<B>,
    ) {
        let Weights { embedding, layers, output_norm, output, .. } = &self.weights;
        let StepSize { tokens, logit_rows, hidden_rows } = size;
        let eps = self.config.norm_eps;
        backend.embed(plan, embedding.as_ref().unwrap_or(&output.parts[0]), &mut state.hidden);
        backend.rms_norm(tokens, &state.hidden, &layers[0].attn_norm, eps, &mut state.normed);
        for (layer_idx, layer) in layers.iter().enumerate() {
            self.process_layer(backend, plan, tokens, (layer_idx, layer), cache, state);
            // The feed-forward's residual joins here, fused with the norm that follows it where there is one.
            match layers.get(layer_idx + 1) {
                Some(next) => backend.add_rms_norm(
                    tokens,
                    &mut state.hidden,
                    &state.projected,
                    &next.attn_norm,
                    eps,
                    &mut state.normed,
                ),
                None => backend.add(tokens, &mut state.hidden, &state.projected),
            }
        }
        let wanted = logit_rows + hidden_rows;
        if wanted > 0 {
            // The wanted rows are some of the step's, so its buffers have room for them.
            backend.gather_rows(plan, &state.hidden, &mut state.projected);
            backend.rms_norm(wanted, &state.projected, output_norm, eps, &mut state.normed);
        }
        if logit_rows > 0 {
            backend.matmul(logit_rows, &state.normed, output, &mut state.logits);
        }
    }

    /// One layer, from its normed input in `state.normed` to its feed-forward's output in `state.projected`.
    fn process_layer(
        &self,
        backend: &B,
        plan: &B::Plan,
        tokens: usize,
        (layer_idx, layer): (usize, &Layer<B>),
        cache: &mut B::KvCache,
        state: &mut RunState<B>,
    ) {
        let shape = qkv_shape(&self.config);
        let rope = RopeShape { dim: self.config.rope.dim, style: self.config.rope.style };
        backend.matmul(tokens, &state.normed, &layer.qkv, &mut state.qkv);
        backend.rope_store_kv(plan, shape, rope, &self.rope, &mut state.qkv, cache, layer_idx);
        match &mut state.scores {
            None => backend.paged_attention(plan, shape, &state.qkv, cache, layer_idx, &mut state.attended),
            Some(scores) => {
                backend.attention_scores(plan, shape, &state.qkv, cache, layer_idx, scores);
                backend.attention_softmax(plan, shape, scores);
                backend.attention_values(plan, shape, scores, cache, layer_idx, &mut state.attended);
            }
        }
        backend.matmul(tokens, &state.attended, &layer.attn_out, &mut state.projected);
        let eps = self.config.norm_eps;
        backend.add_rms_norm(
            tokens,
            &mut state.hidden,
            &state.projected,
            &layer.ffn_norm,
            eps,
            &mut state.normed,
        );
        backend.matmul(tokens, &state.normed, &layer.gate_up, &mut state.gate_up);
        backend.swiglu(tokens, &state.gate_up, &mut state.activated);
        backend.matmul(tokens, &state.activated, &layer.down, &mut state.projected);
    }
}

/// The context of reference attention, unless it is too long.
fn reference_context(config: &LlamaConfig) -> Result<usize> {
    let limit = AttentionMode::MAX_REFERENCE_CONTEXT;
    if config.max_seq_len <= limit {
        return Ok(config.max_seq_len);
    }
    Err(Error::InvalidValue {
        what: "max_seq_len".to_owned(),
        expected: format!("at most {limit} with reference attention"),
        found: config.max_seq_len.to_string(),
    })
}

/// The stacked row of a layer's QKV projection.
fn qkv_shape(config: &LlamaConfig) -> QkvShape {
    QkvShape { num_heads: config.num_heads, num_kv_heads: config.num_kv_heads, head_dim: config.head_dim }
}
