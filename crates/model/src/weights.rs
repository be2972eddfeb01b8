//! From tensors by name to weights on a device, every shape checked and every tensor accounted for.

use std::collections::HashSet;
use std::ops::Range;

use gguf::{Gguf, TensorView};

use crate::{
    AttentionSpec, Backend, Error, ExpertInput, ExpertOp, ExpertsSpec, FfnSpec, LayerShards, LayerSpec,
    Linear, LlamaConfig, ModelShard, ModelSpec, QkNorm, Result, RopeConfig, RopeScaling, Shards, TensorNames,
};

/// One transformer layer. Comments give the shapes as `[rows, cols]`; a rank of a group has some of the rows, as its
/// [`ModelShard`] says.
pub(crate) struct Layer<B: Backend> {
    pub attn_norm: B::Buffer,                    // [hidden]
    pub qkv: Linear<B>,                          // [q_dim + 2 * kv_dim, hidden]
    pub qk_norm: Option<(B::Buffer, B::Buffer)>, // [head_dim] each
    pub sinks: Option<B::Buffer>,                // [num_heads]
    pub attn_out: Linear<B>,                     // [hidden, q_dim]
    pub post_attn_norm: Option<B::Buffer>,       // [hidden]
    pub ffn_norm: B::Buffer,                     // [hidden]
    pub ffn: Ffn<B>,
    pub post_ffn_norm: Option<B::Buffer>, // [hidden]
}

/// A feed-forward layer.
pub(crate) enum Ffn<B: Backend> {
    Dense(DenseFfn<B>),
    Experts(ExpertFfn<B>),
}

/// One that every token takes.
pub(crate) struct DenseFfn<B: Backend> {
    pub gate_up: Linear<B>, // [2 * inner, hidden]
    pub down: Linear<B>,    // [hidden, inner]
}

/// One of several experts.
pub(crate) struct ExpertFfn<B: Backend> {
    pub router: Linear<B>,        // [experts, hidden]
    pub gate_up: ExpertLinear<B>, // [experts][2 * inner, hidden]
    pub down: ExpertLinear<B>,    // [experts][hidden, inner]
    /// The expert that every token takes, and its gate, `[1, hidden]`.
    pub shared: Option<(DenseFfn<B>, Option<Linear<B>>)>,
}

/// The weights of one product of all experts.
pub(crate) struct ExpertLinear<B: Backend> {
    weights: B::Experts,
    bias: Option<B::Buffer>, // [experts, rows]
}

impl<B: Backend> ExpertLinear<B> {
    /// The product, over these rows.
    pub fn op(&self, input: ExpertInput) -> ExpertOp<'_, B> {
        ExpertOp { weights: &self.weights, bias: self.bias.as_ref(), input }
    }
}

/// All weights of a model.
pub(crate) struct DecoderWeights<B: Backend> {
    /// `[vocab, hidden]`, on every rank; absent when the file ties it to the LM head and that is whole: rows are then gathered from it.
    pub embedding: Option<B::Matrix>,
    pub layers: Vec<Layer<B>>,
    pub output_norm: B::Buffer, // [hidden]
    pub output: Linear<B>,      // [vocab, hidden]
    /// For each rotation of the model, one divisor per rotated pair where the file has them.
    pub rope_factors: Vec<Option<Vec<f32>>>,
    /// Bytes on the device.
    pub bytes: u64,
    /// Of these, the experts'.
    pub expert_bytes: u64,
}

impl<B: Backend> DecoderWeights<B> {
    /// Loads every tensor of the graph; `progress(done, total)` counts source bytes.
    pub fn load(
        backend: &B,
        gguf: &Gguf,
        config: &LlamaConfig,
        shard: &ModelShard,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let spec = &config.spec;
        let total = gguf.tensors().map(|t| t.data().len() as u64).sum();
        let mut loader = Loader {
            backend,
            gguf,
            shard,
            read: HashSet::new(),
            done: 0,
            total,
            bytes: 0,
            expert_bytes: 0,
            progress,
        };
        let (names, hidden, vocab) = (&spec.tensors, spec.hidden_size, spec.vocab_size);
        let is_tied = gguf.find_tensor(&format!("{}.weight", names.output)).is_none();
        let head = if is_tied { names.embedding } else { names.output };
        let embedding = match is_tied && shard.rank.is_only() {
            true => None,
            false => Some(loader.matrix(&format!("{}.weight", names.embedding), vocab, hidden)?),
        };
        let layers = (0..spec.layers.len()).map(|idx| loader.layer(idx, spec)).collect::<Result<_>>()?;
        let output_norm = loader.vector(names.output_norm, hidden)?;
        let mut output = loader.linear(&[head.to_owned()], &[loader.own(&shard.vocab)], hidden)?;
        if is_tied && let Some(bias) = loader.find_values(&format!("{}.bias", names.output), vocab)? {
            output.bias = Some(loader.upload(&bias[shard.vocab.of(shard.rank.idx())])?);
        }
        let factors = |rope: &RopeConfig| loader.rope_factors(spec, rope, config.max_seq_len);
        let rope_factors = spec.ropes.iter().map(factors).collect::<Result<_>>()?;
        loader.refuse_unread(spec.architecture)?;
        let Loader { bytes, expert_bytes, .. } = loader;
        Ok(Self { embedding, layers, output_norm, output, rope_factors, bytes, expert_bytes })
    }
}

/// Rows that are a piece of a stack, and which of them are this rank's.
#[derive(Clone)]
struct Piece {
    rows: usize,
    own: Range<usize>,
}

impl Piece {
    /// Rows that every rank has.
    fn whole(rows: usize) -> Self {
        Self { rows, own: 0..rows }
    }
}

/// The rows of pieces that lie behind one another which are this rank's, in as few ranges as can be, and the number of all.
fn own_rows(pieces: &[Piece]) -> (Vec<Range<usize>>, usize) {
    let (mut ranges, mut first) = (Vec::<Range<usize>>::new(), 0);
    for Piece { rows, own } in pieces {
        let own = first + own.start..first + own.end;
        match ranges.last_mut() {
            Some(last) if last.end == own.start => last.end = own.end,
            _ => ranges.push(own),
        }
        first += rows;
    }
    (ranges, first)
}

/// The tensors of a stack, each with the pieces in it: one each, or all in a single fused tensor.
fn tensors_of<'n>(names: &'n [String], pieces: &'n [Piece]) -> Vec<(&'n str, Vec<Range<usize>>, usize)> {
    let with_rows = |(name, pieces): (&'n String, &[Piece])| {
        let (own, rows) = own_rows(pieces);
        (name.as_str(), own, rows)
    };
    match names {
        [fused] => vec![with_rows((fused, pieces))],
        names => names.iter().zip(pieces.chunks(1)).map(with_rows).collect(),
    }
}

struct Loader<'a, B: Backend> {
    backend: &'a B,
    gguf: &'a Gguf,
    shard: &'a ModelShard,
    read: HashSet<String>,
    done: u64,
    total: u64,
    bytes: u64,
    expert_bytes: u64,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl<'a, B: Backend> Loader<'a, B> {
    /// The rows that are this rank's.
    fn own(&self, shards: &Shards) -> Piece {
        Piece { rows: shards.cols(), own: shards.of(self.shard.rank.idx()) }
    }

    fn layer(&mut self, layer_idx: usize, spec: &ModelSpec) -> Result<Layer<B>> {
        let (names, hidden) = (&spec.tensors, spec.hidden_size);
        let LayerSpec { attn, ffn, norms, .. } = &spec.layers[layer_idx];
        let LayerShards { attended, kv_heads, activated, .. } = &self.shard.layers[layer_idx];
        let q = attn.q_dim();
        let kv =
            Piece { rows: attn.kv_dim(), own: kv_heads.start * attn.head_dim..kv_heads.end * attn.head_dim };
        let out = self.own(&self.shard.hidden);
        let name = |part: &str| format!("blk.{layer_idx}.{part}");
        let all = |parts: &[&str]| parts.iter().map(|part| name(part)).collect::<Vec<_>>();
        let fused = std::slice::from_ref(&names.fused_qkv);
        let is_fused = self.gguf.find_tensor(&format!("{}.weight", name(names.fused_qkv))).is_some();
        let qkv = if is_fused { fused } else { names.qkv };
        let qk_norm = match attn.qk_norm {
            None => None,
            Some(QkNorm::PerHead) => Some((
                self.vector(&name(names.q_norm), attn.head_dim)?,
                self.vector(&name(names.k_norm), attn.head_dim)?,
            )),
        };
        Ok(Layer {
            attn_norm: self.vector(&name(names.attn_norm), hidden)?,
            qkv: self.linear(&all(qkv), &[self.own(attended), kv.clone(), kv], hidden)?,
            qk_norm,
            sinks: self.sinks(attn, &name(names.sinks), attended)?,
            attn_out: self.linear(&all(&[names.attn_out]), &[out], q)?,
            post_attn_norm: self.vector_if(norms.post_attn, &name(names.post_attn_norm), hidden)?,
            ffn_norm: self.vector(&name(names.ffn_norm), hidden)?,
            ffn: match ffn {
                FfnSpec::Dense { .. } => {
                    Ffn::Dense(self.dense(&all(names.gate_up), name(names.down), hidden, activated)?)
                }
                FfnSpec::Experts(spec) => Ffn::Experts(self.experts(layer_idx, names, hidden, spec)?),
            },
            post_ffn_norm: self.vector_if(norms.post_ffn, &name(names.post_ffn_norm), hidden)?,
        })
    }

    fn dense(
        &mut self,
        gate_up: &[String],
        down: String,
        hidden: usize,
        inner: &Shards,
    ) -> Result<DenseFfn<B>> {
        let (own, out) = (self.own(inner), self.own(&self.shard.hidden));
        Ok(DenseFfn {
            gate_up: self.linear(gate_up, &[own.clone(), own], hidden)?,
            down: self.linear(&[down], &[out], inner.cols())?,
        })
    }

    /// The logits of the sinks of this rank's heads, whose columns `attended` has.
    fn sinks(&mut self, attn: &AttentionSpec, name: &str, attended: &Shards) -> Result<Option<B::Buffer>> {
        if !attn.sinks {
            return Ok(None);
        }
        let tensor = self.gguf.tensor(&format!("{name}.weight"))?;
        let values = self.checked(tensor, 1, attn.num_heads)?.dequantize();
        let own = attended.of(self.shard.rank.idx());
        self.upload(&values[own.start / attn.head_dim..own.end / attn.head_dim]).map(Some)
    }

    fn experts(
        &mut self,
        layer_idx: usize,
        names: &TensorNames,
        hidden: usize,
        spec: &ExpertsSpec,
    ) -> Result<ExpertFfn<B>> {
        let &ExpertsSpec { num_experts, inner, shared, .. } = spec;
        let LayerShards { activated, shared: shared_shards, .. } = &self.shard.layers[layer_idx];
        let name = |part: &str| format!("blk.{layer_idx}.{part}");
        let all = |parts: &[&str]| parts.iter().map(|part| name(part)).collect::<Vec<_>>();
        let has = |part: &str| self.gguf.find_tensor(&format!("{}.weight", name(part))).is_some();
        let gate_up = match has(names.fused_expert_gate_up) {
            true => std::slice::from_ref(&names.fused_expert_gate_up),
            false => names.expert_gate_up,
        };
        // Old files have a tensor for each expert.
        let is_split = !has(names.expert_down) && has(&format!("{}.0", names.down));
        let gate_up = if is_split { names.gate_up } else { gate_up };
        let down = if is_split { names.down } else { names.expert_down };
        let router = self.linear(&[name(names.router)], &[Piece::whole(num_experts)], hidden)?;
        let (own, out) = (self.own(activated), self.own(&self.shard.hidden));
        let gate_up =
            self.expert_linear(&all(gate_up), &[own.clone(), own], (num_experts, hidden), is_split)?;
        let down = self.expert_linear(&all(&[down]), &[out], (num_experts, inner), is_split)?;
        let shared = match (shared, shared_shards) {
            (Some(shared), Some(shards)) => {
                let (gate_up, down) = (all(names.shared_gate_up), name(names.shared_down));
                let weights = self.dense(&gate_up, down, hidden, shards)?;
                let gate = match shared.gated {
                    true => Some(self.linear(&[name(names.shared_gate)], &[Piece::whole(1)], hidden)?),
                    false => None,
                };
                Some((weights, gate))
            }
            _ => None,
        };
        Ok(ExpertFfn { router, gate_up, down, shared })
    }

    /// As [`linear`](Self::linear), for each of `num_experts` experts: of one tensor's matrices, or of a tensor each.
    fn expert_linear(
        &mut self,
        names: &[String],
        pieces: &[Piece],
        (num_experts, cols): (usize, usize),
        is_split: bool,
    ) -> Result<ExpertLinear<B>> {
        let parts = tensors_of(names, pieces);
        let mut experts = vec![Vec::with_capacity(pieces.len()); num_experts];
        let mut sources = Vec::new();
        for (name, own, rows) in &parts {
            if is_split {
                for (expert_idx, expert) in experts.iter_mut().enumerate() {
                    let tensor = self.gguf.tensor(&format!("{name}.{expert_idx}.weight"))?;
                    sources.push(self.checked(tensor, *rows, cols)?);
                    expert.extend(own.iter().map(|own| tensor.slice_rows(own.clone())));
                }
                continue;
            }
            let tensor = self.gguf.tensor(&format!("{name}.weight"))?;
            let tensor = self.checked(tensor, rows * num_experts, cols)?;
            sources.push(tensor);
            for (expert_idx, expert) in experts.iter_mut().enumerate() {
                let first = expert_idx * rows;
                expert.extend(own.iter().map(|own| tensor.slice_rows(first + own.start..first + own.end)));
            }
        }
        let bias = self.expert_bias(&parts, num_experts)?;
        let weights = self.backend.load_experts(&experts)?;
        sources.iter().for_each(|tensor| self.gguf.release(tensor));
        let bytes = self.backend.experts_bytes(&weights);
        self.bytes += bytes;
        self.expert_bytes += bytes;
        Ok(ExpertLinear { weights, bias })
    }

    /// `[num_experts, own rows of all parts]` of `<name>.bias`, which are `[num_experts, rows of the part]`.
    fn expert_bias(
        &mut self,
        parts: &[(&str, Vec<Range<usize>>, usize)],
        num_experts: usize,
    ) -> Result<Option<B::Buffer>> {
        let mut biases = Vec::with_capacity(parts.len());
        for &(name, _, rows) in parts {
            let bias = self.gguf.find_tensor(&format!("{name}.bias"));
            let bias = bias.map(|bias| self.checked(bias, num_experts, rows)).transpose()?;
            biases.push(bias.map(|bias| bias.dequantize()));
        }
        if biases.iter().all(Option::is_none) {
            return Ok(None);
        }
        let mut values = Vec::new();
        for expert_idx in 0..num_experts {
            for (bias, (_, own, rows)) in biases.iter().zip(parts) {
                let bias = bias.as_ref().map(|bias| &bias[expert_idx * rows..][..*rows]);
                own.iter().for_each(|own| extend_bias(&mut values, bias, own));
            }
        }
        Ok(Some(self.upload_rows(num_experts, &values)?))
    }

    /// Stacks this rank's rows of `<name>.weight` of each tensor, and of `<name>.bias` where one has it. The pieces are those of each
    /// tensor, or, of a single fused one, all of those in it.
    fn linear(&mut self, names: &[String], pieces: &[Piece], cols: usize) -> Result<Linear<B>> {
        let parts = tensors_of(names, pieces);
        let mut bias = Vec::new();
        let mut has_bias = false;
        for (name, own, rows) in &parts {
            let values = self.find_values(&format!("{name}.bias"), *rows)?;
            has_bias |= values.is_some();
            own.iter().for_each(|own| extend_bias(&mut bias, values.as_deref(), own));
        }
        let bias = if has_bias { Some(self.upload(&bias)?) } else { None };
        let (mut sources, mut tensors) = (Vec::new(), Vec::new());
        for (name, own, rows) in &parts {
            let tensor = self.checked(self.gguf.tensor(&format!("{name}.weight"))?, *rows, cols)?;
            sources.push(tensor);
            tensors.extend(own.iter().map(|own| tensor.slice_rows(own.clone())));
        }
        let parts = self.backend.load_stack(&tensors)?;
        sources.iter().for_each(|tensor| self.gguf.release(tensor));
        self.bytes += parts.iter().map(|part| self.backend.matrix_bytes(part)).sum::<u64>();
        Ok(Linear { parts, bias })
    }

    fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<B::Matrix> {
        let tensor = self.checked(self.gguf.tensor(name)?, rows, cols)?;
        let matrix = self.backend.load(tensor)?;
        self.gguf.release(&tensor);
        self.bytes += self.backend.matrix_bytes(&matrix);
        Ok(matrix)
    }

    /// Loads `<name>.weight` of one row.
    fn vector(&mut self, name: &str, len: usize) -> Result<B::Buffer> {
        let values = self.checked(self.gguf.tensor(&format!("{name}.weight"))?, 1, len)?.dequantize();
        self.upload(&values)
    }

    fn vector_if(&mut self, wanted: bool, name: &str, len: usize) -> Result<Option<B::Buffer>> {
        if wanted { self.vector(name, len).map(Some) } else { Ok(None) }
    }

    fn find_values(&mut self, name: &str, len: usize) -> Result<Option<Vec<f32>>> {
        let Some(tensor) = self.gguf.find_tensor(name) else { return Ok(None) };
        Ok(Some(self.checked(tensor, 1, len)?.dequantize()))
    }

    /// The divisors of a rotation's frequencies, in a model that is loaded for sequences of `max_seq_len` tokens.
    fn rope_factors(
        &mut self,
        spec: &ModelSpec,
        rope: &RopeConfig,
        max_seq_len: usize,
    ) -> Result<Option<Vec<f32>>> {
        let names = &spec.tensors;
        let mut find = |name: &str| self.find_values(&format!("{name}.weight"), rope.dim / 2);
        let RopeScaling::LongRope { original_context, .. } = rope.scaling else {
            return find(names.rope_factors);
        };
        // Both are part of the graph, whichever is used.
        let (long, short) = (find(names.rope_factors_long)?, find(names.rope_factors_short)?);
        Ok(if max_seq_len > original_context as usize { long } else { short })
    }

    fn upload(&mut self, values: &[f32]) -> Result<B::Buffer> {
        self.upload_rows(1, values)
    }

    fn upload_rows(&mut self, rows: usize, values: &[f32]) -> Result<B::Buffer> {
        self.bytes += size_of_val(values) as u64;
        self.backend.upload(rows, values.len() / rows, values)
    }

    /// Compares a tensor's shape and marks it as read.
    fn checked(&mut self, tensor: TensorView<'a>, rows: usize, cols: usize) -> Result<TensorView<'a>> {
        if tensor.rows() != rows || tensor.cols() != cols {
            return Err(Error::Shape {
                tensor: tensor.name().to_owned(),
                expected: if rows == 1 { format!("[{cols}]") } else { format!("[{cols}, {rows}]") },
                found: format!("{:?}", tensor.dims()),
            });
        }
        if self.read.insert(tensor.name().to_owned()) {
            self.done += tensor.data().len() as u64;
            (self.progress)(self.done, self.total);
        }
        Ok(tensor)
    }

    fn refuse_unread(&self, architecture: &'static str) -> Result<()> {
        let mut unread = self
            .gguf
            .tensors()
            .map(|t| t.name().to_owned())
            .filter(|name| !self.read.contains(name) && !is_derived(name));
        match unread.next() {
            None => Ok(()),
            Some(tensor) => Err(Error::UnreadTensor { tensor, architecture, count: 1 + unread.count() }),
        }
    }
}

/// Appends some rows of a bias, zeros where there is none.
fn extend_bias(out: &mut Vec<f32>, bias: Option<&[f32]>, rows: &Range<usize>) {
    match bias {
        Some(bias) => out.extend(&bias[rows.clone()]),
        None => out.resize(out.len() + rows.len(), 0.0),
    }
}

/// Old converters stored RoPE's inverse frequencies, which follow from the metadata.
fn is_derived(name: &str) -> bool {
    name.ends_with(".attn_rot_embd.weight") || name.ends_with(".rotary_emb.inv_freq")
}
