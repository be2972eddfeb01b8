//! From tensors by name to weights on a device, every shape checked and every tensor accounted for.

use std::collections::HashSet;

use gguf::{Gguf, TensorView};

use crate::{
    Backend, Error, ExpertInput, ExpertOp, ExpertsSpec, FfnSpec, LayerSpec, Linear, LlamaConfig, ModelSpec,
    QkNorm, Result, RopeConfig, RopeScaling, TensorNames,
};

/// One transformer layer. Comments give the shapes as `[rows, cols]`.
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
    /// `[vocab, hidden]`; absent when the file ties it to the LM head, from which rows are then gathered.
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
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let spec = &config.spec;
        let total = gguf.tensors().map(|t| t.data().len() as u64).sum();
        let mut loader = Loader {
            backend,
            gguf,
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
        let embedding = match is_tied {
            true => None,
            false => Some(loader.matrix(&format!("{}.weight", names.embedding), vocab, hidden)?),
        };
        let layers = (0..spec.layers.len()).map(|idx| loader.layer(idx, spec)).collect::<Result<_>>()?;
        let output_norm = loader.vector(names.output_norm, hidden)?;
        let mut output = loader.linear(&[head.to_owned()], &[vocab], hidden)?;
        if is_tied && let Some(bias) = loader.find_values(&format!("{}.bias", names.output), vocab)? {
            output.bias = Some(loader.upload(&bias)?);
        }
        let factors = |rope: &RopeConfig| loader.rope_factors(spec, rope, config.max_seq_len);
        let rope_factors = spec.ropes.iter().map(factors).collect::<Result<_>>()?;
        loader.refuse_unread(spec.architecture)?;
        let Loader { bytes, expert_bytes, .. } = loader;
        Ok(Self { embedding, layers, output_norm, output, rope_factors, bytes, expert_bytes })
    }
}

struct Loader<'a, B: Backend> {
    backend: &'a B,
    gguf: &'a Gguf,
    read: HashSet<String>,
    done: u64,
    total: u64,
    bytes: u64,
    expert_bytes: u64,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl<'a, B: Backend> Loader<'a, B> {
    fn layer(&mut self, layer_idx: usize, spec: &ModelSpec) -> Result<Layer<B>> {
        let (names, hidden) = (&spec.tensors, spec.hidden_size);
        let LayerSpec { attn, ffn, norms, .. } = &spec.layers[layer_idx];
        let (q, kv) = (attn.q_dim(), attn.kv_dim());
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
            qkv: self.linear(&all(qkv), &[q, kv, kv], hidden)?,
            qk_norm,
            sinks: self.vector_if(attn.sinks, &name(names.sinks), attn.num_heads)?,
            attn_out: self.linear(&all(&[names.attn_out]), &[hidden], q)?,
            post_attn_norm: self.vector_if(norms.post_attn, &name(names.post_attn_norm), hidden)?,
            ffn_norm: self.vector(&name(names.ffn_norm), hidden)?,
            ffn: match ffn {
                FfnSpec::Dense { inner, .. } => {
                    Ffn::Dense(self.dense(&all(names.gate_up), name(names.down), hidden, *inner)?)
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
        inner: usize,
    ) -> Result<DenseFfn<B>> {
        Ok(DenseFfn {
            gate_up: self.linear(gate_up, &[inner, inner], hidden)?,
            down: self.linear(&[down], &[hidden], inner)?,
        })
    }

    fn experts(
        &mut self,
        layer_idx: usize,
        names: &TensorNames,
        hidden: usize,
        spec: &ExpertsSpec,
    ) -> Result<ExpertFfn<B>> {
        let &ExpertsSpec { num_experts, inner, shared, .. } = spec;
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
        let router = self.linear(&[name(names.router)], &[num_experts], hidden)?;
        let rows = [inner, inner];
        let gate_up = self.expert_linear(&all(gate_up), &rows, (num_experts, hidden), is_split)?;
        let down = self.expert_linear(&all(&[down]), &[hidden], (num_experts, inner), is_split)?;
        let shared = match shared {
            None => None,
            Some(shared) => {
                let (gate_up, down) = (all(names.shared_gate_up), name(names.shared_down));
                let weights = self.dense(&gate_up, down, hidden, shared.inner)?;
                let gate = match shared.gated {
                    true => Some(self.linear(&[name(names.shared_gate)], &[1], hidden)?),
                    false => None,
                };
                Some((weights, gate))
            }
        };
        Ok(ExpertFfn { router, gate_up, down, shared })
    }

    /// As [`linear`](Self::linear), for each of `num_experts` experts: of one tensor's matrices, or of a tensor each.
    fn expert_linear(
        &mut self,
        names: &[String],
        rows: &[usize],
        (num_experts, cols): (usize, usize),
        is_split: bool,
    ) -> Result<ExpertLinear<B>> {
        let parts: Vec<(&str, usize)> = match names {
            [fused] => vec![(fused, rows.iter().sum())],
            names => names.iter().map(String::as_str).zip(rows.iter().copied()).collect(),
        };
        let mut experts = vec![Vec::with_capacity(parts.len()); num_experts];
        let mut sources = Vec::new();
        for &(name, rows) in &parts {
            if is_split {
                for (expert_idx, expert) in experts.iter_mut().enumerate() {
                    let tensor = self.gguf.tensor(&format!("{name}.{expert_idx}.weight"))?;
                    sources.push(self.checked(tensor, rows, cols)?);
                    expert.push(tensor);
                }
                continue;
            }
            let tensor = self.gguf.tensor(&format!("{name}.weight"))?;
            let tensor = self.checked(tensor, rows * num_experts, cols)?;
            sources.push(tensor);
            for (expert_idx, expert) in experts.iter_mut().enumerate() {
                expert.push(tensor.slice_rows(expert_idx * rows..(expert_idx + 1) * rows));
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

    /// `[num_experts, rows of all parts]` of `<name>.bias`, which are `[num_experts, rows of the part]`.
    fn expert_bias(&mut self, parts: &[(&str, usize)], num_experts: usize) -> Result<Option<B::Buffer>> {
        let mut biases = Vec::with_capacity(parts.len());
        for &(name, rows) in parts {
            let bias = self.gguf.find_tensor(&format!("{name}.bias"));
            let bias = bias.map(|bias| self.checked(bias, num_experts, rows)).transpose()?;
            biases.push(bias.map(|bias| bias.dequantize()));
        }
        if biases.iter().all(Option::is_none) {
            return Ok(None);
        }
        let mut values = Vec::new();
        for expert_idx in 0..num_experts {
            for (bias, &(_, rows)) in biases.iter().zip(parts) {
                match bias {
                    Some(bias) => values.extend(&bias[expert_idx * rows..][..rows]),
                    None => values.resize(values.len() + rows, 0.0),
                }
            }
        }
        Ok(Some(self.upload_rows(num_experts, &values)?))
    }

    /// Stacks `<name>.weight` of each part, and `<name>.bias` where a part has one. `rows` are those of each part, or, of
    /// a single fused part, of the pieces in it.
    fn linear(&mut self, names: &[String], rows: &[usize], cols: usize) -> Result<Linear<B>> {
        let parts: Vec<(&str, usize)> = match names {
            [fused] => vec![(fused, rows.iter().sum())],
            names => names.iter().map(String::as_str).zip(rows.iter().copied()).collect(),
        };
        let mut bias = Vec::new();
        let mut has_bias = false;
        for &(name, rows) in &parts {
            let values = self.find_values(&format!("{name}.bias"), rows)?;
            has_bias |= values.is_some();
            bias.extend(values.unwrap_or_else(|| vec![0.0; rows]));
        }
        let bias = if has_bias { Some(self.upload(&bias)?) } else { None };
        let tensors = parts
            .iter()
            .map(|&(name, rows)| self.checked(self.gguf.tensor(&format!("{name}.weight"))?, rows, cols))
            .collect::<Result<Vec<_>>>()?;
        let parts = self.backend.load_stack(&tensors)?;
        tensors.iter().for_each(|tensor| self.gguf.release(tensor));
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

/// Old converters stored RoPE's inverse frequencies, which follow from the metadata.
fn is_derived(name: &str) -> bool {
    name.ends_with(".attn_rot_embd.weight") || name.ends_with(".rotary_emb.inv_freq")
}
