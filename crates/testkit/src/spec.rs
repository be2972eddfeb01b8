//! Random models as GGUF files: of the `llama` architecture with every variation that such files hold, and of others.

use gguf::random::{Rng, placeholder_vocabulary, random_blocks};
use gguf::{Array, Format, GgufWriter, Value};

/// How the file says that positions are stretched. The names are those of the metadata keys under `rope.`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// No key.
    None,
    /// `scaling.type = linear`, `scaling.factor`.
    Linear {
        /// Divides every angle.
        factor: f32,
    },
    /// `scale_linear`: what converters wrote before the `scaling` group.
    LegacyLinear {
        /// Divides every angle.
        factor: f32,
    },
    /// `scaling.type = yarn`, `scaling.factor` and what else is given.
    Yarn {
        /// Divides the angles of slow pairs.
        factor: f32,
        /// `scaling.original_context_length`; the context length when absent.
        original_context: Option<u32>,
        /// `scaling.attn_factor`; 1 when absent.
        attn_factor: Option<f32>,
        /// `scaling.yarn_ext_factor`, `.yarn_beta_fast` and `.yarn_beta_slow`; 1, 32 and 1 when absent.
        ramp: Option<YarnRamp>,
    },
}

/// YaRN's constants, for files that state their own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct YarnRamp {
    /// How much of the ramp is applied.
    pub ext_factor: f32,
    /// Rotations within the original context above which a pair is kept.
    pub beta_fast: f32,
    /// Rotations below which a pair is interpolated.
    pub beta_slow: f32,
}

/// Which format each matrix has. Vectors (norms, biases, RoPE factors) are always F32, as converters write them.
#[derive(Debug, Clone, PartialEq)]
pub struct Formats {
    /// Of the matrices that no exception names.
    pub rule: Format,
    /// Part of a tensor's name, and its format; the first that fits counts.
    pub exceptions: Vec<(&'static str, Format)>,
}

impl Formats {
    /// The format of a matrix.
    pub fn of(&self, tensor: &str) -> Format {
        let exception = self.exceptions.iter().find(|(part, _)| tensor.contains(part));
        exception.map_or(self.rule, |&(_, format)| format)
    }
}

impl From<Format> for Formats {
    fn from(rule: Format) -> Self {
        Self { rule, exceptions: Vec::new() }
    }
}

/// The experts of every layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Experts {
    /// `expert_count`.
    pub count: usize,
    /// `expert_used_count`.
    pub used: usize,
    /// Width of an expert; that of the layer's key, whichever the family reads.
    pub ffn: usize,
    /// Width of the shared expert; 0 without one.
    pub shared: usize,
    /// `ffn_gate_inp_shexp`.
    pub shared_gate: bool,
    /// Where the weights are.
    pub tensors: ExpertTensors,
    /// What the router does.
    pub router: Router,
    /// A bias of the router and of every matrix of an expert.
    pub biases: bool,
}

/// How a file keeps the experts' weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpertTensors {
    /// `ffn_gate_exps` and so on, each of all experts.
    Merged,
    /// `ffn_gate_up_exps`, the gate first.
    Fused,
    /// `ffn_gate.0` and so on, one for each expert.
    Split,
}

/// Whom a router gives tokens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Router {
    /// Anyone.
    Random,
    /// All logits are the same.
    Tied,
    /// Rows come in pairs of opposite signs, but for a last one of zeros: of an odd number of experts, as many as there are pairs
    /// have logits above its own. If a token takes no more, the last is never taken.
    NeverLast,
}

/// What the files of an architecture have that those of `llama` have not. The default is `llama`.
#[derive(Debug, Clone, PartialEq)]
pub struct Form {
    /// `general.architecture`, and the prefix of the keys.
    pub architecture: &'static str,
    /// Further keys, without the prefix; they replace those of the same name.
    pub keys: Vec<(&'static str, Value)>,
    /// `rope.dimension_count`; the head's width when `None`.
    pub rope_dim: Option<usize>,
    /// `attention.head_count_kv` of each layer, if they differ.
    pub kv_heads: Vec<usize>,
    /// `feed_forward_length` of each layer, if they differ.
    pub ffn: Vec<usize>,
    /// A bias of queries, keys and values.
    pub qkv_biases: bool,
    /// `output.bias`.
    pub output_bias: bool,
    /// `attn_q_norm` and `attn_k_norm`.
    pub qk_norms: bool,
    /// `post_attention_norm` and `post_ffw_norm`.
    pub post_norms: bool,
    /// `post_attention_norm` in place of `ffn_norm`: before the feed-forward layer.
    pub renamed_ffn_norm: bool,
    /// `attn_sinks`.
    pub sinks: bool,
    /// `attn_qkv` instead of its three parts.
    pub fused_qkv: bool,
    /// `ffn_up` with the gate's rows before its own.
    pub fused_gate_up: bool,
    /// `rope_factors_long` and `rope_factors_short`.
    pub long_factors: bool,
    /// Experts instead of one feed-forward layer.
    pub experts: Option<Experts>,
}

impl Default for Form {
    fn default() -> Self {
        Self {
            architecture: "llama",
            keys: Vec::new(),
            rope_dim: None,
            kv_heads: Vec::new(),
            ffn: Vec::new(),
            qkv_biases: false,
            output_bias: false,
            qk_norms: false,
            post_norms: false,
            renamed_ffn_norm: false,
            sinks: false,
            fused_qkv: false,
            fused_gate_up: false,
            long_factors: false,
            experts: None,
        }
    }
}

/// A model to make. Start from [`ModelSpec::default`] and change fields.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpec {
    /// `embedding_length`.
    pub hidden: usize,
    /// `attention.head_count`.
    pub heads: usize,
    /// `attention.head_count_kv`; the key is left out when it equals `heads`.
    pub kv_heads: usize,
    /// `attention.key_length` and `.value_length`; the keys are left out when it is `hidden / heads`.
    pub head_dim: usize,
    /// `block_count`.
    pub layers: usize,
    /// `feed_forward_length`.
    pub ffn: usize,
    /// Tokens.
    pub vocab: usize,
    /// `context_length`.
    pub context: usize,
    /// `attention.layer_norm_rms_epsilon`.
    pub norm_eps: f32,
    /// `rope.freq_base`.
    pub rope_base: f32,
    /// Context extension.
    pub rope_scaling: RopeScaling,
    /// The tensor `rope_freqs.weight`, rising from 1 to this figure (Llama 3.1 and later).
    pub rope_factors_to: Option<f32>,
    /// No `output.weight`: the embedding table serves as the LM head.
    pub tied_embeddings: bool,
    /// A bias beside every matrix of the layers.
    pub biases: bool,
    /// Its architecture.
    pub form: Form,
    /// Formats of the matrices.
    pub formats: Formats,
    /// Of the weights.
    pub seed: u64,
}

/// Two layers with grouped-query attention in F32, every width a multiple of 256, so that any format fits.
impl Default for ModelSpec {
    fn default() -> Self {
        Self {
            hidden: 256,
            heads: 4,
            kv_heads: 2,
            head_dim: 64,
            layers: 2,
            ffn: 512,
            vocab: 384,
            context: 512,
            norm_eps: 1e-5,
            rope_base: 10000.0,
            rope_scaling: RopeScaling::None,
            rope_factors_to: None,
            tied_embeddings: false,
            biases: false,
            form: Form::default(),
            formats: Format::F32.into(),
            seed: 1,
        }
    }
}

impl ModelSpec {
    /// The model as a GGUF file: the same bytes for the same specification, on every platform.
    ///
    /// Matrices have a standard deviation of `1 / sqrt(cols)`, which keeps activations of order 1 through any number of
    /// layers, as training does.
    ///
    /// # Panics
    /// When a matrix's columns are not whole blocks of its format.
    pub fn to_gguf(&self) -> Vec<u8> {
        let mut file = GgufWriter::new();
        self.write_metadata(&mut file);
        placeholder_vocabulary(&mut file, self.vocab);
        self.write_tensors(&mut file);
        file.write()
    }

    fn write_metadata(&self, file: &mut GgufWriter) {
        file.metadata("general.architecture", Value::String(self.form.architecture.into()));
        file.metadata("general.name", Value::String("random test model".into()));
        file.metadata("general.quantization_version", Value::U32(2));
        let mut put = |name: &str, value: Value| {
            if self.form.keys.iter().all(|(key, _)| *key != name) {
                file.metadata(&format!("{}.{name}", self.form.architecture), value);
            }
        };
        let mut count = |name: &str, value: usize| put(name, Value::U32(value as u32));
        count("vocab_size", self.vocab);
        count("context_length", self.context);
        count("embedding_length", self.hidden);
        count("block_count", self.layers);
        if let Some(experts) = &self.form.experts {
            count("expert_count", experts.count);
            count("expert_used_count", experts.used);
        }
        if self.form.ffn.is_empty() {
            count("feed_forward_length", self.ffn);
        }
        count("attention.head_count", self.heads);
        if self.kv_heads != self.heads && self.form.kv_heads.is_empty() {
            count("attention.head_count_kv", self.kv_heads);
        }
        if self.head_dim * self.heads != self.hidden {
            count("attention.key_length", self.head_dim);
            count("attention.value_length", self.head_dim);
        }
        count("rope.dimension_count", self.form.rope_dim.unwrap_or(self.head_dim));
        for (name, counts) in
            [("feed_forward_length", &self.form.ffn), ("attention.head_count_kv", &self.form.kv_heads)]
        {
            if !counts.is_empty() {
                let counts = counts.iter().map(|&count| count as i32).collect();
                put(name, Value::Array(Array::I32(counts)));
            }
        }
        put("attention.layer_norm_rms_epsilon", Value::F32(self.norm_eps));
        put("rope.freq_base", Value::F32(self.rope_base));
        for (name, value) in &self.form.keys {
            file.metadata(&format!("{}.{name}", self.form.architecture), value.clone());
        }
        self.write_rope_scaling(file);
    }

    fn write_rope_scaling(&self, file: &mut GgufWriter) {
        let mut put = |name: &str, value: Value| {
            file.metadata(&format!("{}.rope.{name}", self.form.architecture), value);
        };
        match self.rope_scaling {
            RopeScaling::None => {}
            RopeScaling::Linear { factor } => {
                put("scaling.type", Value::String("linear".into()));
                put("scaling.factor", Value::F32(factor));
            }
            RopeScaling::LegacyLinear { factor } => put("scale_linear", Value::F32(factor)),
            RopeScaling::Yarn { factor, original_context, attn_factor, ramp } => {
                put("scaling.type", Value::String("yarn".into()));
                put("scaling.factor", Value::F32(factor));
                if let Some(tokens) = original_context {
                    put("scaling.original_context_length", Value::U32(tokens));
                }
                if let Some(attn_factor) = attn_factor {
                    put("scaling.attn_factor", Value::F32(attn_factor));
                }
                if let Some(YarnRamp { ext_factor, beta_fast, beta_slow }) = ramp {
                    put("scaling.yarn_ext_factor", Value::F32(ext_factor));
                    put("scaling.yarn_beta_fast", Value::F32(beta_fast));
                    put("scaling.yarn_beta_slow", Value::F32(beta_slow));
                }
            }
        }
    }

    /// Key and value heads of a layer.
    fn kv_heads_of(&self, layer: usize) -> usize {
        self.form.kv_heads.get(layer).copied().unwrap_or(self.kv_heads)
    }

    /// Width of a layer's feed-forward part.
    fn ffn_of(&self, layer: usize) -> usize {
        self.form.ffn.get(layer).copied().unwrap_or(self.ffn)
    }

    fn write_tensors(&self, file: &mut GgufWriter) {
        let hidden = self.hidden;
        let mut tensors = Tensors { file, formats: &self.formats, rng: Rng::new(self.seed) };
        tensors.matrix("token_embd", self.vocab, hidden);
        if let Some(last) = self.rope_factors_to {
            tensors.rising("rope_freqs.weight", self.head_dim / 2, last);
        }
        if self.form.long_factors {
            let pairs = self.form.rope_dim.unwrap_or(self.head_dim) / 2;
            tensors.rising("rope_factors_long.weight", pairs, 9.0);
            tensors.rising("rope_factors_short.weight", pairs, 1.4);
        }
        for layer in 0..self.layers {
            self.write_layer(&mut tensors, layer);
        }
        tensors.norm("output_norm", hidden);
        if !self.tied_embeddings {
            tensors.matrix("output", self.vocab, hidden);
        }
        if self.form.output_bias {
            tensors.bias("output", self.vocab);
        }
    }

    fn write_layer(&self, tensors: &mut Tensors<'_>, layer: usize) {
        let (hidden, ffn, form) = (self.hidden, self.ffn_of(layer), &self.form);
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads_of(layer) * self.head_dim);
        let name = |part: &str| format!("blk.{layer}.{part}");
        tensors.norm(&name("attn_norm"), hidden);
        tensors.norm(&name(if form.renamed_ffn_norm { "post_attention_norm" } else { "ffn_norm" }), hidden);
        let mut matrices: Vec<(&str, usize, usize)> = match form.fused_qkv {
            true => vec![("attn_qkv", q + 2 * kv, hidden)],
            false => vec![("attn_q", q, hidden), ("attn_k", kv, hidden), ("attn_v", kv, hidden)],
        };
        let num_of_qkv = matrices.len();
        matrices.push(("attn_output", hidden, q));
        match (form.fused_gate_up, form.experts) {
            (_, Some(_)) => {}
            (true, None) => matrices.push(("ffn_up", 2 * ffn, hidden)),
            (false, None) => matrices.extend([("ffn_gate", ffn, hidden), ("ffn_up", ffn, hidden)]),
        }
        match form.experts {
            None => matrices.push(("ffn_down", hidden, ffn)),
            Some(Experts { shared: 0, .. }) => {}
            Some(Experts { shared, .. }) => matrices.extend([
                ("ffn_gate_shexp", shared, hidden),
                ("ffn_up_shexp", shared, hidden),
                ("ffn_down_shexp", hidden, shared),
            ]),
        }
        for (i, (part, rows, cols)) in matrices.into_iter().enumerate() {
            tensors.matrix(&name(part), rows, cols);
            if self.biases || (form.qkv_biases && i < num_of_qkv) {
                tensors.bias(&name(part), rows);
            }
        }
        if let Some(experts) = &form.experts {
            self.write_experts(tensors, experts, name);
        }
        if form.sinks {
            // Of the size of the scores.
            let sinks = tensors.rng.normals(self.heads, 1.0);
            tensors.vector(&name("attn_sinks.weight"), &sinks);
        }
        if form.qk_norms {
            tensors.norm(&name("attn_q_norm"), self.head_dim);
            tensors.norm(&name("attn_k_norm"), self.head_dim);
        }
        if form.post_norms {
            tensors.norm(&name("post_attention_norm"), hidden);
            tensors.norm(&name("post_ffw_norm"), hidden);
        }
    }
}

impl ModelSpec {
    fn write_experts(&self, tensors: &mut Tensors<'_>, experts: &Experts, name: impl Fn(&str) -> String) {
        let (hidden, &Experts { count, ffn, .. }) = (self.hidden, experts);
        tensors.router(&name("ffn_gate_inp"), experts, hidden);
        if experts.biases {
            tensors.bias(&name("ffn_gate_inp"), count);
        }
        if experts.shared_gate {
            let values = tensors.rng.normals(hidden, 1.0 / (hidden as f32).sqrt());
            tensors.vector(&name("ffn_gate_inp_shexp.weight"), &values);
        }
        let matrices: &[(&str, usize, usize)] = match experts.tensors {
            ExpertTensors::Fused => &[("ffn_gate_up", 2 * ffn, hidden), ("ffn_down", hidden, ffn)],
            _ => &[("ffn_gate", ffn, hidden), ("ffn_up", ffn, hidden), ("ffn_down", hidden, ffn)],
        };
        for &(part, rows, cols) in matrices {
            if experts.tensors == ExpertTensors::Split {
                (0..count).for_each(|expert| tensors.matrix(&name(&format!("{part}.{expert}")), rows, cols));
            } else {
                tensors.matrices(&name(&format!("{part}_exps")), count, rows, cols);
            }
            if experts.biases {
                tensors.biases(&name(&format!("{part}_exps")), count, rows);
            }
        }
    }
}

struct Tensors<'a> {
    file: &'a mut GgufWriter,
    formats: &'a Formats,
    rng: Rng,
}

impl Tensors<'_> {
    fn matrix(&mut self, name: &str, rows: usize, cols: usize) {
        let name = format!("{name}.weight");
        let format = self.formats.of(&name);
        let sigma = 1.0 / (cols as f32).sqrt();
        let data = random_blocks(format, rows * cols, sigma, &mut self.rng);
        self.file.tensor(&name, &[cols as u64, rows as u64], format, data);
    }

    /// `count` matrices, one behind the other.
    fn matrices(&mut self, name: &str, count: usize, rows: usize, cols: usize) {
        let name = format!("{name}.weight");
        let format = self.formats.of(&name);
        let data = random_blocks(format, count * rows * cols, 1.0 / (cols as f32).sqrt(), &mut self.rng);
        self.file.tensor(&name, &[cols as u64, rows as u64, count as u64], format, data);
    }

    /// Always F32, as converters write it.
    fn router(&mut self, name: &str, experts: &Experts, cols: usize) {
        // Logits far enough apart for experts to have very different weights.
        let mut values = self.rng.normals(experts.count * cols, 2.0 / (cols as f32).sqrt());
        match experts.router {
            Router::Random => {}
            Router::Tied => values.fill(0.0),
            Router::NeverLast => {
                for pair in values.chunks_exact_mut(2 * cols) {
                    let (plus, minus) = pair.split_at_mut(cols);
                    plus.iter().zip(minus).for_each(|(plus, minus)| *minus = -plus);
                }
                values[(experts.count - 1) * cols..].fill(0.0);
            }
        }
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let dims = [cols as u64, experts.count as u64];
        self.file.tensor(&format!("{name}.weight"), &dims, Format::F32, data);
    }

    fn norm(&mut self, name: &str, len: usize) {
        let values: Vec<f32> = (0..len).map(|_| self.rng.uniform(0.5, 1.5)).collect();
        self.vector(&format!("{name}.weight"), &values);
    }

    fn bias(&mut self, name: &str, len: usize) {
        let values = self.rng.normals(len, 0.2);
        self.vector(&format!("{name}.bias"), &values);
    }

    /// `count` biases, one behind the other.
    fn biases(&mut self, name: &str, count: usize, len: usize) {
        let values = self.rng.normals(count * len, 0.2);
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.file.tensor(&format!("{name}.bias"), &[len as u64, count as u64], Format::F32, data);
    }

    /// Values that rise from 1 to `last`.
    fn rising(&mut self, name: &str, len: usize, last: f32) {
        let step = (last - 1.0) / (len - 1) as f32;
        let values: Vec<f32> = (0..len).map(|i| 1.0 + step * i as f32).collect();
        self.vector(name, &values);
    }

    fn vector(&mut self, name: &str, values: &[f32]) {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.file.tensor(name, &[values.len() as u64], Format::F32, data);
    }
}
