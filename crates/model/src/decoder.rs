//! The transformer, once, for every family and every device.
//!
//! What differs between families was read into a [`ModelSpec`](crate::ModelSpec) before: here it is data of a layer.

use gguf::Gguf;

use crate::weights::{DecoderWeights, DenseFfn, ExpertFfn, Ffn, Layer};
use crate::{
    Activation, AttentionOp, Backend, BufferShape, ExpertInput, ExpertsLayout, ExpertsSpec, FfnSpec, Layout,
    LlamaConfig, Result, RopeConfig, RopeOp, RopeTable, SharedOutput, StepSize, Temperature,
};

/// A decoder-only transformer: weights on a device and the graph over them. Holds no state of any sequence.
pub struct Decoder<B: Backend> {
    config: LlamaConfig,
    weights: DecoderWeights<B>,
    /// The rotations of the model, each with its table, `[max_seq_len, dim]`.
    ropes: Vec<(RopeConfig, B::Buffer)>,
    /// The factors on queries, each `[max_seq_len, 1]`.
    temperatures: Vec<(Temperature, B::Buffer)>,
    /// Each layer's index among the layers of the KV cache.
    kv_layers: Vec<usize>,
}

/// The activations of a step, made once for the largest batch. `T` tokens, `R` rows of the LM head, `W` wanted rows.
pub struct RunState<B: Backend> {
    hidden: B::Buffer,     // [T, hidden_size], the residual stream
    normed: B::Buffer,     // [T, hidden_size]; in the end [W, hidden_size], the wanted rows
    qkv: ByWidth<B>,       // [T, q_dim + 2 * kv_dim]
    attended: ByWidth<B>,  // [T, q_dim]
    projected: B::Buffer,  // [T, hidden_size]; in the end [W, hidden_size], the wanted rows before their norm
    gate_up: ByWidth<B>,   // [T, 2 * inner]
    activated: ByWidth<B>, // [T, inner]
    experts: Option<ExpertState<B>>,
    logits: B::Buffer,      // [R, vocab_size]
    next_tokens: B::Buffer, // [R, 1]
    scores: ByWidth<B>,     // [T, num_heads * max_seq_len], reference attention only
    context: Option<usize>, // max_seq_len of reference attention
}

/// The activations of layers with experts. `P` pairs of a token and one of its experts.
struct ExpertState<B: Backend> {
    routes: B::Routes,
    router: B::Buffer,                      // [T, num_experts]
    gate_up: ByWidth<B>,                    // [P, 2 * inner]
    activated: ByWidth<B>,                  // [P, inner]
    outputs: B::Buffer,                     // [P, hidden_size]
    shared: Option<(B::Buffer, B::Buffer)>, // [T, hidden_size] and [T, 1]
}

impl<B: Backend> ExpertState<B> {
    fn new(backend: &B, layout: &ExpertsLayout) -> Result<Self> {
        let alloc = |shape: BufferShape| backend.alloc(shape.rows, shape.cols, shape.role);
        Ok(Self {
            routes: backend.alloc_routes(layout.routes)?,
            router: alloc(layout.router)?,
            gate_up: ByWidth::new(backend, &layout.gate_up)?,
            activated: ByWidth::new(backend, &layout.activated)?,
            outputs: alloc(layout.outputs)?,
            shared: match layout.shared {
                Some((values, gate)) => Some((alloc(values)?, alloc(gate)?)),
                None => None,
            },
        })
    }
}

/// A buffer for each width that rows of one kind have in the layers.
struct ByWidth<B: Backend>(Vec<(usize, B::Buffer)>);

impl<B: Backend> ByWidth<B> {
    fn new(backend: &B, shapes: &[BufferShape]) -> Result<Self> {
        let buffer =
            |shape: &BufferShape| Ok((shape.cols, backend.alloc(shape.rows, shape.cols, shape.role)?));
        shapes.iter().map(buffer).collect::<Result<_>>().map(Self)
    }

    fn get(&mut self, cols: usize) -> &mut B::Buffer {
        let found = self.0.iter_mut().find(|(width, _)| *width == cols);
        &mut found.expect("the layout has a buffer for every width").1
    }
}

impl<B: Backend> RunState<B> {
    /// Makes the buffers of a layout.
    ///
    /// # Errors
    /// When the device cannot hold them.
    pub fn new(backend: &B, layout: &Layout) -> Result<Self> {
        let alloc = |shape: BufferShape| backend.alloc(shape.rows, shape.cols, shape.role);
        let by_width = |shapes: &[BufferShape]| ByWidth::new(backend, shapes);
        Ok(Self {
            hidden: alloc(layout.hidden)?,
            normed: alloc(layout.normed)?,
            qkv: by_width(&layout.qkv)?,
            attended: by_width(&layout.attended)?,
            projected: alloc(layout.projected)?,
            gate_up: by_width(&layout.gate_up)?,
            activated: by_width(&layout.activated)?,
            experts: layout.experts.as_ref().map(|layout| ExpertState::new(backend, layout)).transpose()?,
            logits: alloc(layout.logits)?,
            next_tokens: alloc(layout.next_tokens)?,
            scores: by_width(&layout.scores)?,
            context: layout.reference_context,
        })
    }

    /// `[A + L, vocab_size]` logits of the last [`Decoder::forward`].
    pub fn logits(&self) -> &B::Buffer {
        &self.logits
    }

    /// `[A, 1]` tokens that were chosen from the first logits.
    pub fn next_tokens(&self) -> &B::Buffer {
        &self.next_tokens
    }

    /// `[W, hidden_size]` hidden states of the last [`Decoder::forward`], normed: those that the logits were made of,
    /// then those that were wanted themselves.
    pub fn hidden_states(&self) -> &B::Buffer {
        &self.normed
    }
}

impl<B: Backend> Decoder<B> {
    /// Loads the weights of `gguf`; `progress(done, total)` counts the source's bytes.
    ///
    /// # Errors
    /// A configuration that contradicts the file, a tensor that is missing, misshapen or not part of the graph, or a
    /// device that cannot run the model or hold the weights.
    pub fn load(
        backend: &B,
        gguf: &Gguf,
        config: LlamaConfig,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Self> {
        config.validate()?;
        let spec = &config.spec;
        spec.check_against(&config.family.read(gguf)?)?;
        backend.check_spec(spec)?;
        let weights = DecoderWeights::load(backend, gguf, &config, &mut progress)?;
        let table = |(&rope, factors): (&RopeConfig, &Option<Vec<f32>>)| {
            let table = RopeTable::new(&rope, factors.as_deref(), config.max_seq_len);
            Ok((rope, backend.upload(table.positions, table.dim, &table.values)?))
        };
        let ropes = spec.ropes.iter().zip(&weights.rope_factors).map(table).collect::<Result<_>>()?;
        let factors = |temperature: Temperature| {
            let factors = temperature.factors(config.max_seq_len);
            Ok((temperature, backend.upload(factors.len(), 1, &factors)?))
        };
        let temperatures = spec.temperatures().into_iter().map(factors).collect::<Result<_>>()?;
        let kv_layers = spec.kv_layers();
        Ok(Self { config, weights, ropes, temperatures, kv_layers })
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
    /// head as well, and the experts that the token does not take.
    pub fn step_weight_bytes(&self, backend: &B) -> u64 {
        let gathered = self.weights.embedding.as_ref().map_or(0, |table| backend.matrix_bytes(table));
        let experts = self.config.spec.experts().map_or(0, |experts| {
            // Experts are of one size.
            let of_expert = self.weights.expert_bytes / experts.num_experts as u64;
            of_expert * (experts.num_experts - experts.routing.top_k) as u64
        });
        self.weights.bytes - gathered - experts
    }

    /// Bytes of the weights of all experts.
    pub fn expert_weight_bytes(&self) -> u64 {
        self.weights.expert_bytes
    }

    /// Runs one step: the batch planned as `plan`, of this `size`, through all layers. What its rows yield is then in
    /// `state`, and K and V of the step's tokens in `cache`.
    pub fn forward(
        &self,
        backend: &B,
        plan: &B::Plan,
        size: StepSize,
        cache: &mut B::KvCache,
        state: &mut RunState<B>,
    ) {
        let DecoderWeights { embedding, layers, output, .. } = &self.weights;
        let (tokens, eps, spec) = (size.tokens, self.config.spec.norm_eps, &self.config.spec);
        backend.embed(plan, embedding.as_ref().unwrap_or(&output.parts[0]), &mut state.hidden);
        scale(backend, tokens, &mut state.hidden, spec.embed_scale);
        backend.rms_norm(tokens, &state.hidden, &layers[0].attn_norm, eps, &mut state.normed);
        for layer_idx in 0..layers.len() {
            self.attention(backend, plan, tokens, layer_idx, cache, state);
            self.feed_forward(backend, tokens, layer_idx, state);
            // The residual joins here, fused with the norm that follows it where there is one.
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
        self.head(backend, plan, size, state);
    }

    /// A layer's attention, from its normed input in `state.normed` to its output in `state.projected`.
    fn attention(
        &self,
        backend: &B,
        plan: &B::Plan,
        tokens: usize,
        layer_idx: usize,
        cache: &mut B::KvCache,
        state: &mut RunState<B>,
    ) {
        let (spec, layer) = (&self.config.spec.layers[layer_idx], &self.weights.layers[layer_idx]);
        let op = AttentionOp::new(&spec.attn, self.kv_layers[layer_idx]);
        let qkv = state.qkv.get(op.shape.cols());
        backend.matmul(tokens, &state.normed, &layer.qkv, qkv);
        if let Some((q_norm, k_norm)) = &layer.qk_norm {
            backend.norm_heads(plan, op.shape, (q_norm, k_norm), self.config.spec.norm_eps, qkv);
        }
        let rope = spec.attn.rope.map(|rope| {
            let (RopeConfig { dim, style, .. }, table) = &self.ropes[rope];
            RopeOp { dim: *dim, style: *style, table }
        });
        backend.rope_store_kv(plan, op, rope, qkv, cache);
        let temperature = self.temperatures.iter().find(|(known, _)| Some(*known) == spec.attn.temperature);
        if let Some((_, factors)) = temperature {
            backend.scale_queries(plan, op.shape, factors, qkv);
        }
        let attended = state.attended.get(op.shape.q_cols());
        match state.context {
            None => backend.paged_attention(plan, op, (qkv, layer.sinks.as_ref()), cache, attended),
            Some(context) => {
                let scores = state.scores.get(op.shape.num_heads * context);
                backend.attention_scores(plan, op, qkv, cache, scores);
                backend.attention_softmax(plan, op, layer.sinks.as_ref(), scores);
                backend.attention_values(plan, op, scores, cache, attended);
            }
        }
        backend.matmul(tokens, attended, &layer.attn_out, &mut state.projected);
        self.finish_branch(backend, tokens, (layer_idx, layer.post_attn_norm.as_ref()), state);
    }

    /// Adds the attention's output to the residual stream, and brings a layer's feed-forward output to `state.projected`.
    fn feed_forward(&self, backend: &B, tokens: usize, layer_idx: usize, state: &mut RunState<B>) {
        let (spec, layer) = (&self.config.spec.layers[layer_idx], &self.weights.layers[layer_idx]);
        let Layer { ffn_norm, ffn, .. } = layer;
        let eps = self.config.spec.norm_eps;
        backend.add_rms_norm(tokens, &mut state.hidden, &state.projected, ffn_norm, eps, &mut state.normed);
        match (spec.ffn, ffn) {
            (FfnSpec::Dense { inner, act }, Ffn::Dense(weights)) => {
                let RunState { normed, gate_up, activated, projected, .. } = state;
                dense(backend, tokens, normed, (weights, inner, act), (gate_up, activated), projected);
            }
            (FfnSpec::Experts(spec), Ffn::Experts(weights)) => {
                experts(backend, tokens, &spec, weights, state)
            }
            _ => unreachable!("weights are loaded by the spec"),
        }
        self.finish_branch(backend, tokens, (layer_idx, layer.post_ffn_norm.as_ref()), state);
    }

    /// Norms and scales a branch's output in `state.projected`, where the layer does so.
    fn finish_branch(
        &self,
        backend: &B,
        tokens: usize,
        (layer_idx, norm): (usize, Option<&B::Buffer>),
        state: &mut RunState<B>,
    ) {
        if let Some(norm) = norm {
            backend.rms_norm(tokens, &state.projected, norm, self.config.spec.norm_eps, &mut state.normed);
            // The norm's output becomes the branch's.
            std::mem::swap(&mut state.projected, &mut state.normed);
        }
        scale(backend, tokens, &mut state.projected, self.config.spec.layers[layer_idx].residual_scale);
    }

    /// From the residual stream in `state.hidden` to what the wanted rows yield.
    fn head(&self, backend: &B, plan: &B::Plan, size: StepSize, state: &mut RunState<B>) {
        let spec = &self.config.spec;
        if size.wanted_rows() > 0 {
            // The wanted rows are some of the step's, so its buffers have room for them.
            backend.gather_rows(plan, &state.hidden, &mut state.projected);
            backend.rms_norm(
                size.wanted_rows(),
                &state.projected,
                &self.weights.output_norm,
                spec.norm_eps,
                &mut state.normed,
            );
        }
        if size.head_rows() > 0 {
            let logits = &mut state.logits;
            backend.matmul(size.head_rows(), &state.normed, &self.weights.output, logits);
            scale(backend, size.head_rows(), logits, spec.logit_scale);
            if let Some(cap) = spec.final_softcap {
                backend.softcap(size.head_rows(), logits, cap);
            }
        }
        if size.token_rows > 0 {
            match size.has_draws {
                true => backend.draw(plan, &state.logits, &mut state.next_tokens),
                false => backend.argmax(0..size.token_rows, &state.logits, &mut state.next_tokens),
            }
        }
    }
}

/// `out = down(act(gate(x)) * up(x))`.
fn dense<B: Backend>(
    backend: &B,
    tokens: usize,
    x: &B::Buffer,
    (weights, inner, act): (&DenseFfn<B>, usize, Activation),
    (gate_up, activated): (&mut ByWidth<B>, &mut ByWidth<B>),
    out: &mut B::Buffer,
) {
    let (both, activated) = (gate_up.get(2 * inner), activated.get(inner));
    backend.matmul(tokens, x, &weights.gate_up, both);
    backend.gated(tokens, act, both, activated);
    backend.matmul(tokens, activated, &weights.down, out);
}

/// A layer of experts, from its normed input in `state.normed` to `state.projected`.
fn experts<B: Backend>(
    backend: &B,
    tokens: usize,
    spec: &ExpertsSpec,
    weights: &ExpertFfn<B>,
    state: &mut RunState<B>,
) {
    let RunState { normed, gate_up, activated, projected, experts, .. } = state;
    let experts = experts.as_mut().expect("the layout has buffers of experts");
    let pairs = tokens * spec.routing.top_k;
    backend.matmul(tokens, normed, &weights.router, &mut experts.router);
    backend.route(tokens, &experts.router, spec.routing, &mut experts.routes);
    let (both, inner) = (experts.gate_up.get(2 * spec.inner), experts.activated.get(spec.inner));
    backend.matmul_experts(normed, weights.gate_up.op(ExpertInput::Tokens), &experts.routes, both);
    backend.gated(pairs, spec.act, both, inner);
    backend.matmul_experts(inner, weights.down.op(ExpertInput::Pairs), &experts.routes, &mut experts.outputs);
    let shared = match (spec.shared, &weights.shared, &mut experts.shared) {
        (Some(spec_of_shared), Some((weights, gate)), Some((values, gates))) => {
            let of_shared = (weights, spec_of_shared.inner, spec.act);
            dense(backend, tokens, normed, of_shared, (gate_up, activated), values);
            let gate = gate.as_ref().map(|gate| {
                backend.matmul(tokens, normed, gate, gates);
                &*gates
            });
            Some(SharedOutput { values: &*values, gate })
        }
        _ => None,
    };
    backend.combine_experts(&experts.outputs, &experts.routes, shared, projected);
}

/// `x *= factor`, if that changes anything.
fn scale<B: Backend>(backend: &B, rows: usize, x: &mut B::Buffer, factor: f32) {
    if factor != 1.0 {
        backend.scale(rows, x, factor);
    }
}
