//! The transformer, once, for every family and every device.
//!
//! What differs between families was read into a [`ModelSpec`](crate::ModelSpec) before: here it is data of a layer.

use gguf::Gguf;

use crate::state::{ByWidth, Parts, RunState};
use crate::weights::{DecoderWeights, ExpertFfn, Ffn, Layer};
use crate::{
    Activation, AttentionOp, Backend, ExpertInput, ExpertsSpec, FfnSpec, Linear, LlamaConfig, ModelShard,
    Result, RopeConfig, RopeOp, RopeTable, Shards, SharedOutput, StepSize, Temperature,
};

/// A decoder-only transformer: weights on a device and the graph over them. Holds no state of any sequence.
///
/// On a rank of a group it has the rank's part of the weights, and all ranks run the one graph on the same batches.
pub struct Decoder<B: Backend> {
    config: LlamaConfig,
    /// The model as the device runs it: of a rank its part.
    shard: ModelShard,
    weights: DecoderWeights<B>,
    /// The rotations of the model, each with its table, `[max_seq_len, dim]`.
    ropes: Vec<(RopeConfig, B::Buffer)>,
    /// The factors on queries, each `[max_seq_len, 1]`.
    temperatures: Vec<(Temperature, B::Buffer)>,
    /// Each layer's index among the layers of the KV cache.
    kv_layers: Vec<usize>,
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
        let shard = ModelShard::new(spec, backend.rank())?;
        backend.check_spec(&shard.spec)?;
        let weights = DecoderWeights::load(backend, gguf, &config, &shard, &mut progress)?;
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
        Ok(Self { config, shard, weights, ropes, temperatures, kv_layers })
    }

    /// The configuration that the model was loaded with.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// The model as the device runs it: of a rank its part.
    pub fn shard(&self) -> &ModelShard {
        &self.shard
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

    /// Runs the gathers of such a step alone, with whatever is in `state`; for a rank of a group.
    pub(crate) fn gather(&self, backend: &B, size: StepSize, state: &mut RunState<B>) {
        let parts = state.parts.as_mut().expect("a rank has parts");
        let shards_of_rows = &self.shard.hidden;
        for (spec, shards) in self.shard.spec.layers.iter().zip(&self.shard.layers) {
            let out = state.attended.get(shards.attended.cols());
            backend.all_gather(size.tokens, parts.attended.get(spec.attn.q_dim()), &shards.attended, out);
            backend.all_gather(size.tokens, &parts.projected, shards_of_rows, &mut state.projected);
            let dense = match &spec.ffn {
                FfnSpec::Dense { inner, .. } => Some((*inner, &shards.activated)),
                FfnSpec::Experts(experts) => {
                    let outs =
                        &mut state.experts.as_mut().expect("the layout has buffers of experts").activated;
                    let (part, out) =
                        (parts.expert_activated.get(experts.inner), outs.get(shards.activated.cols()));
                    backend.all_gather(size.tokens * experts.routing.top_k, part, &shards.activated, out);
                    experts.shared.map(|shared| shared.inner).zip(shards.shared.as_ref())
                }
            };
            if let Some((inner, shards)) = dense {
                let out = state.activated.get(shards.cols());
                backend.all_gather(size.tokens, parts.activated.get(inner), shards, out);
            }
            backend.all_gather(size.tokens, &parts.projected, shards_of_rows, &mut state.projected);
        }
        if size.head_rows() > 0 {
            backend.all_gather(size.head_rows(), &parts.logits, &self.shard.vocab, &mut state.logits);
        }
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
        let (spec, layer) = (&self.shard.spec.layers[layer_idx], &self.weights.layers[layer_idx]);
        let shards = &self.shard.layers[layer_idx];
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
        let attended = state.attended.get(shards.attended.cols());
        let part = state.parts.as_mut().map(|parts| parts.attended.get(op.shape.q_cols()));
        gathered(backend, tokens, (part, &shards.attended), attended, |out| match state.context {
            None => backend.paged_attention(plan, op, (qkv, layer.sinks.as_ref()), cache, out),
            Some(context) => {
                let scores = state.scores.get(op.shape.num_heads * context);
                backend.attention_scores(plan, op, qkv, cache, scores);
                backend.attention_softmax(plan, op, layer.sinks.as_ref(), scores);
                backend.attention_values(plan, op, scores, cache, out);
            }
        });
        let part = state.parts.as_mut().map(|parts| &mut parts.projected);
        gathered(backend, tokens, (part, &self.shard.hidden), &mut state.projected, |out| {
            backend.matmul(tokens, attended, &layer.attn_out, out);
        });
        self.finish_branch(backend, tokens, (layer_idx, layer.post_attn_norm.as_ref()), state);
    }

    /// Adds the attention's output to the residual stream, and brings a layer's feed-forward output to `state.projected`.
    fn feed_forward(&self, backend: &B, tokens: usize, layer_idx: usize, state: &mut RunState<B>) {
        let (spec, layer) = (&self.shard.spec.layers[layer_idx], &self.weights.layers[layer_idx]);
        let Layer { ffn_norm, ffn, .. } = layer;
        let eps = self.config.spec.norm_eps;
        backend.add_rms_norm(tokens, &mut state.hidden, &state.projected, ffn_norm, eps, &mut state.normed);
        match (spec.ffn, ffn) {
            (FfnSpec::Dense { act, .. }, Ffn::Dense(weights)) => {
                let RunState { normed, gate_up, activated, projected, parts, .. } = state;
                let gate = (&weights.gate_up, act, &self.shard.layers[layer_idx].activated);
                let inner = activate(backend, tokens, normed, gate, (gate_up, activated, parts.as_mut()));
                let part = parts.as_mut().map(|parts| &mut parts.projected);
                gathered(backend, tokens, (part, &self.shard.hidden), projected, |out| {
                    backend.matmul(tokens, inner, &weights.down, out);
                });
            }
            (FfnSpec::Experts(spec), Ffn::Experts(weights)) => {
                self.experts(backend, tokens, (layer_idx, &spec, weights), state);
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
            let RunState { normed, logits, parts, .. } = state;
            let part = parts.as_mut().map(|parts| &mut parts.logits);
            gathered(backend, size.head_rows(), (part, &self.shard.vocab), logits, |out| {
                backend.matmul(size.head_rows(), normed, &self.weights.output, out);
            });
            // Logits are read, and tokens chosen, on the first rank alone.
            if backend.rank().idx() > 0 {
                return;
            }
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

    /// A layer of experts, from its normed input in `state.normed` to `state.projected`.
    fn experts(
        &self,
        backend: &B,
        tokens: usize,
        (layer_idx, spec, weights): (usize, &ExpertsSpec, &ExpertFfn<B>),
        state: &mut RunState<B>,
    ) {
        let RunState { normed, gate_up, activated, projected, experts, parts, .. } = state;
        let experts = experts.as_mut().expect("the layout has buffers of experts");
        let shards = &self.shard.layers[layer_idx];
        let pairs = tokens * spec.routing.top_k;
        backend.matmul(tokens, normed, &weights.router, &mut experts.router);
        backend.route(tokens, &experts.router, spec.routing, &mut experts.routes);
        let (both, inner) =
            (experts.gate_up.get(2 * spec.inner), experts.activated.get(shards.activated.cols()));
        backend.matmul_experts(normed, weights.gate_up.op(ExpertInput::Tokens), &experts.routes, both);
        let part = parts.as_mut().map(|parts| parts.expert_activated.get(spec.inner));
        gathered(backend, pairs, (part, &shards.activated), inner, |out| {
            backend.gated(pairs, spec.act, both, out);
        });
        let down = weights.down.op(ExpertInput::Pairs);
        backend.matmul_experts(inner, down, &experts.routes, &mut experts.outputs);
        let shared = match (&shards.shared, &weights.shared, &mut experts.shared) {
            (Some(shards), Some((weights, gate)), Some((values, gates))) => {
                let of_shared = (&weights.gate_up, spec.act, shards);
                let buffers = (gate_up, activated, parts.as_mut());
                let inner = activate(backend, tokens, normed, of_shared, buffers);
                backend.matmul(tokens, inner, &weights.down, values);
                let gate = gate.as_ref().map(|gate| {
                    backend.matmul(tokens, normed, gate, gates);
                    &*gates
                });
                Some(SharedOutput { values: &*values, gate })
            }
            _ => None,
        };
        // Outputs are this rank's columns of the sums that are gathered.
        let part = parts.as_mut().map(|parts| &mut parts.projected);
        gathered(backend, tokens, (part, &self.shard.hidden), projected, |out| {
            backend.combine_experts(&experts.outputs, &experts.routes, shared, out);
        });
    }
}

/// Lets `compute` fill rows: all of their columns, or those of this rank, in its `part`, and the ranks' parts are then gathered.
fn gathered<B: Backend>(
    backend: &B,
    rows: usize,
    (part, shards): (Option<&mut B::Buffer>, &Shards),
    out: &mut B::Buffer,
    compute: impl FnOnce(&mut B::Buffer),
) {
    match part {
        None => compute(out),
        Some(part) => {
            compute(part);
            backend.all_gather(rows, part, shards, out);
        }
    }
}

/// `act(gate(x)) * up(x)`, in the buffer that is returned.
fn activate<'a, B: Backend>(
    backend: &B,
    tokens: usize,
    x: &B::Buffer,
    (weights, act, shards): (&Linear<B>, Activation, &Shards),
    (gate_up, activated, parts): (&mut ByWidth<B>, &'a mut ByWidth<B>, Option<&mut Parts<B>>),
) -> &'a B::Buffer {
    let own_inner = shards.of(backend.rank().idx()).len();
    let (both, activated) = (gate_up.get(2 * own_inner), activated.get(shards.cols()));
    backend.matmul(tokens, x, weights, both);
    let part = parts.map(|parts| parts.activated.get(own_inner));
    gathered(backend, tokens, (part, shards), activated, |out| backend.gated(tokens, act, both, out));
    activated
}

/// `x *= factor`, if that changes anything.
fn scale<B: Backend>(backend: &B, rows: usize, x: &mut B::Buffer, factor: f32) {
    if factor != 1.0 {
        backend.scale(rows, x, factor);
    }
}
