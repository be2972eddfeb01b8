//! The buffers of a runner: their sizes follow from the model and the limits of a step, once, for the allocation and for
//! the estimate of the memory it takes.

use crate::check::check;
use crate::{
    BatchLimits, ExpertsSpec, KvShape, LayerSpec, LlamaConfig, ModelShard, ModelSpec, QkvShape, Rank, Result,
    RoutesShape, Shards,
};

/// Which attention runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AttentionMode {
    /// One pass over the cached keys and values with a running softmax.
    #[default]
    Fused,
    /// Scores, softmax and values as three operations over whole rows: the readable twin that `Fused` is tested
    /// against. Its buffer grows with the batch's tokens times the context, which is therefore limited to
    /// [`AttentionMode::MAX_REFERENCE_CONTEXT`].
    Reference,
}

impl AttentionMode {
    /// Most tokens of a sequence with reference attention.
    pub const MAX_REFERENCE_CONTEXT: usize = 8192;
}

/// What a buffer is for, which decides what a device keeps beside its f32 values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BufferRole {
    /// Read and written by operations, and by the host.
    Values,
    /// Also the input of [`matmul`](crate::Backend::matmul), which a device may want in another form.
    MatmulInput,
    /// Also a rank's part of rows that are gathered ([`Backend::all_gather`](crate::Backend::all_gather)), which other ranks may read.
    Part,
}

/// A buffer of `rows x cols`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferShape {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// What it is for.
    pub role: BufferRole,
}

/// All that a runner allocates on its device. `T` tokens, `R` rows of the LM head; a list has a buffer for each width that
/// the layers' rows have. Of a rank, widths are those of the whole model where a row is gathered (`attended`, `activated`, `projected`,
/// `logits`), and its own otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The largest step.
    pub limits: BatchLimits,
    /// The KV cache.
    pub kv: KvShape,
    /// The attention of every layer.
    pub attention: Vec<QkvShape>,
    /// The residual stream, `[T, hidden_size]`.
    pub hidden: BufferShape,
    /// `[T, hidden_size]`, the input of products; in the end the wanted rows.
    pub normed: BufferShape,
    /// `[T, q_dim + 2 * kv_dim]`.
    pub qkv: Vec<BufferShape>,
    /// `[T, q_dim]`.
    pub attended: Vec<BufferShape>,
    /// `[T, hidden_size]`; in the end the wanted rows before their norm.
    pub projected: BufferShape,
    /// `[T, 2 * inner]` of feed-forward layers and of shared experts.
    pub gate_up: Vec<BufferShape>,
    /// `[T, inner]`.
    pub activated: Vec<BufferShape>,
    /// What layers with experts need.
    pub experts: Option<ExpertsLayout>,
    /// `[R, vocab_size]`.
    pub logits: BufferShape,
    /// `[R, 1]` the tokens that are chosen on the device.
    pub next_tokens: BufferShape,
    /// `[T, num_heads * max_seq_len]`; reference attention only.
    pub scores: Vec<BufferShape>,
    /// `max_seq_len` of reference attention.
    pub reference_context: Option<usize>,
    /// A rank's own columns of rows that are gathered; none without a group.
    pub parts: Option<PartsLayout>,
}

/// The buffers for a rank's own columns of rows that are gathered. Each kind of row has buffers of its own, so that no two
/// gathers in a row take the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartsLayout {
    /// `[T, q_dim]`.
    pub attended: Vec<BufferShape>,
    /// `[T, hidden_size]`.
    pub projected: BufferShape,
    /// `[T, inner]` of feed-forward layers and of shared experts.
    pub activated: Vec<BufferShape>,
    /// `[P, inner]` of experts.
    pub expert_activated: Vec<BufferShape>,
    /// `[R, vocab_size]`.
    pub logits: BufferShape,
}

impl PartsLayout {
    /// Of the rank that `shard` is the model of.
    fn new(shard: &ModelShard, limits: BatchLimits) -> Option<Self> {
        if shard.rank.is_only() {
            return None;
        }
        let part = |rows, cols| BufferShape { rows, cols, role: BufferRole::Part };
        let (tokens, spec) = (limits.max_tokens, &shard.spec);
        let own = |shards: &Shards| shards.of(shard.rank.idx()).len();
        let each = |rows, widths: Vec<usize>| widths.into_iter().map(|cols| part(rows, cols)).collect();
        let inners =
            distinct(spec.layers.iter().filter_map(|layer| layer.ffn.experts()).map(|experts| experts.inner));
        Some(Self {
            attended: each(tokens, widths(spec, |layer| layer.attn.q_dim())),
            projected: part(tokens, own(&shard.hidden)),
            activated: each(tokens, dense_widths(spec)),
            expert_activated: each(
                tokens * spec.experts().map_or(0, |experts| experts.routing.top_k),
                inners,
            ),
            logits: part(limits.max_logit_rows, own(&shard.vocab)),
        })
    }

    fn buffers(&self) -> impl Iterator<Item = BufferShape> + '_ {
        let Self { attended, projected, activated, expert_activated, logits } = self;
        [*projected, *logits]
            .into_iter()
            .chain([attended, activated, expert_activated].into_iter().flatten().copied())
    }
}

/// The buffers of layers with experts. `P` pairs of a token and one of its experts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpertsLayout {
    /// The routes of a step.
    pub routes: RoutesShape,
    /// `[T, num_experts]` logits of the router.
    pub router: BufferShape,
    /// `[P, 2 * inner]`.
    pub gate_up: Vec<BufferShape>,
    /// `[P, inner]`.
    pub activated: Vec<BufferShape>,
    /// `[P, hidden_size]` outputs of the experts, of a rank its own columns.
    pub outputs: BufferShape,
    /// `[T, hidden_size]` output of shared experts, of a rank its own columns, and `[T, 1]` their gates.
    pub shared: Option<(BufferShape, BufferShape)>,
}

impl ExpertsLayout {
    fn new(spec: &ModelSpec, shard: &ModelShard, tokens: usize) -> Option<Self> {
        let &ExpertsSpec { num_experts, routing, .. } = spec.experts()?;
        fn experts(spec: &ModelSpec) -> impl Iterator<Item = &ExpertsSpec> {
            spec.layers.iter().filter_map(|layer| layer.ffn.experts())
        }
        let own_inners = distinct(experts(&shard.spec).map(|experts| experts.inner));
        let own_hidden = shard.hidden.of(shard.rank.idx()).len();
        let inners = distinct(experts(spec).map(|experts| experts.inner));
        let max_inner = inners.iter().copied().max().unwrap_or(0);
        let routes = RoutesShape {
            max_tokens: tokens,
            num_experts,
            top_k: routing.top_k,
            max_cols: max_inner.max(spec.hidden_size),
        };
        let pairs = routes.max_pairs();
        let has_shared = experts(spec).any(|experts| experts.shared.is_some());
        Some(Self {
            routes,
            router: BufferShape::values(tokens, num_experts),
            gate_up: own_inners.iter().map(|inner| BufferShape::values(pairs, 2 * inner)).collect(),
            activated: inners.iter().map(|&inner| BufferShape::input(pairs, inner)).collect(),
            outputs: BufferShape::values(pairs, own_hidden),
            shared: has_shared
                .then(|| (BufferShape::values(tokens, own_hidden), BufferShape::values(tokens, 1))),
        })
    }

    fn buffers(&self) -> impl Iterator<Item = BufferShape> + '_ {
        let Self { router, gate_up, activated, outputs, shared, .. } = self;
        [*router, *outputs]
            .into_iter()
            .chain(gate_up.iter().chain(activated).copied())
            .chain(shared.iter().flat_map(|&(values, gate)| [values, gate]))
    }
}

impl BufferShape {
    fn values(rows: usize, cols: usize) -> Self {
        Self { rows, cols, role: BufferRole::Values }
    }

    fn input(rows: usize, cols: usize) -> Self {
        Self { rows, cols, role: BufferRole::MatmulInput }
    }
}

impl Layout {
    /// The buffers of a model for steps up to `limits`.
    ///
    /// # Errors
    /// When reference attention is asked for a context that is too long for it.
    pub fn new(config: &LlamaConfig, limits: BatchLimits, attention: AttentionMode) -> Result<Self> {
        Self::of_rank(config, limits, attention, Rank::ONLY)
    }

    /// The buffers of a rank. No other takes more than the first.
    ///
    /// # Errors
    /// As `new`, and when there are more ranks than the model can be cut into.
    pub fn of_rank(
        config: &LlamaConfig,
        limits: BatchLimits,
        attention: AttentionMode,
        rank: Rank,
    ) -> Result<Self> {
        let LlamaConfig { spec, max_seq_len, page_size, kv_dtype, .. } = config;
        let shard = ModelShard::new(spec, rank)?;
        let own = &shard.spec;
        let (tokens, rows, hidden) = (limits.max_tokens, limits.max_logit_rows, spec.hidden_size);
        let (values, input) = (BufferShape::values, BufferShape::input);
        // The norm of a branch's output writes to `normed`, which then takes the place of `projected`, and the other way round.
        let has_post_norms = spec.layers.iter().any(|layer| layer.norms.post_attn || layer.norms.post_ffn);
        let scores = match attention {
            AttentionMode::Fused => Vec::new(),
            AttentionMode::Reference => {
                let limit = AttentionMode::MAX_REFERENCE_CONTEXT;
                let expected = format!("at most {limit} with reference attention");
                check(*max_seq_len <= limit, "max_seq_len", expected, max_seq_len)?;
                widths(own, |layer| layer.attn.num_heads * max_seq_len)
            }
        };
        let each = |widths: Vec<usize>, shape: &dyn Fn(usize, usize) -> BufferShape| {
            widths.into_iter().map(|cols| shape(tokens, cols)).collect()
        };
        Ok(Self {
            limits,
            kv: own.kv_shape(limits.num_pages, *page_size, *kv_dtype),
            attention: own.layers.iter().map(|layer| layer.attn.qkv()).collect(),
            hidden: values(tokens, hidden),
            normed: input(tokens, hidden),
            qkv: each(widths(own, |layer| layer.attn.qkv().cols()), &values),
            attended: each(widths(spec, |layer| layer.attn.q_dim()), &input),
            projected: if has_post_norms { input(tokens, hidden) } else { values(tokens, hidden) },
            gate_up: each(dense_widths(own).iter().map(|inner| 2 * inner).collect(), &values),
            activated: each(dense_widths(spec), &input),
            experts: ExpertsLayout::new(spec, &shard, tokens),
            logits: values(rows, spec.vocab_size),
            next_tokens: values(rows, 1),
            scores: each(scores, &values),
            reference_context: (attention == AttentionMode::Reference).then_some(*max_seq_len),
            parts: PartsLayout::new(&shard, limits),
        })
    }

    /// Every buffer of activations.
    pub fn buffers(&self) -> impl Iterator<Item = BufferShape> + '_ {
        let Self {
            hidden,
            normed,
            qkv,
            attended,
            projected,
            gate_up,
            activated,
            experts,
            logits,
            next_tokens,
            scores,
            parts,
            ..
        } = self;
        [hidden, normed, projected, logits, next_tokens]
            .into_iter()
            .chain([qkv, attended, gate_up, activated, scores].into_iter().flatten())
            .copied()
            .chain(experts.iter().flat_map(ExpertsLayout::buffers))
            .chain(parts.iter().flat_map(PartsLayout::buffers))
    }
}

/// The different widths of a row over all layers, in the order of their first use. Operations take the width of a row from
/// its buffer, so each width has a buffer of its own.
fn widths(spec: &ModelSpec, width: impl Fn(&LayerSpec) -> usize) -> Vec<usize> {
    distinct(spec.layers.iter().map(width))
}

/// The different widths between the products of feed-forward layers and of shared experts.
fn dense_widths(spec: &ModelSpec) -> Vec<usize> {
    distinct(spec.layers.iter().filter_map(|layer| layer.ffn.dense_inner()))
}

fn distinct(values: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut distinct = Vec::new();
    for value in values {
        if !distinct.contains(&value) {
            distinct.push(value);
        }
    }
    distinct
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::families::LLAMA;
    use crate::{Activation, AttentionSpec, FfnSpec, KvDtype, NormSlots, TensorNames};

    fn config(norms: NormSlots) -> LlamaConfig {
        let attn = AttentionSpec::plain(2, 1, 8);
        let ffn = FfnSpec::Dense { inner: 32, act: Activation::Silu };
        let spec = ModelSpec {
            architecture: "llama",
            tensors: TensorNames::STANDARD,
            vocab_size: 32,
            hidden_size: 16,
            context_length: 64,
            norm_eps: 1e-5,
            embed_scale: 1.0,
            logit_scale: 1.0,
            final_softcap: None,
            ropes: Vec::new(),
            layers: vec![LayerSpec { attn, ffn, norms, residual_scale: 1.0 }],
        };
        LlamaConfig {
            family: &LLAMA,
            spec,
            max_seq_len: 64,
            batch_size: 1,
            kv_dtype: KvDtype::F16,
            page_size: 16,
            max_batch_tokens: 8,
            prompt_chunk: 8,
        }
    }

    /// With a norm of a branch's output the two buffers change places, so both are inputs of products in turn.
    #[test]
    fn buffers_that_change_places_have_the_same_role() {
        let limits =
            BatchLimits { max_tokens: 8, max_seqs: 1, max_logit_rows: 1, max_blocks: 4, num_pages: 4 };
        let roles = |norms| {
            let layout = Layout::new(&config(norms), limits, AttentionMode::Fused).expect("a layout");
            (layout.normed.role, layout.projected.role)
        };
        let (input, values) = (BufferRole::MatmulInput, BufferRole::Values);
        assert_eq!(roles(NormSlots::default()), (input, values));
        assert_eq!(roles(NormSlots { post_attn: true, post_ffn: false }), (input, input));
        assert_eq!(roles(NormSlots { post_attn: false, post_ffn: true }), (input, input));
    }
}
