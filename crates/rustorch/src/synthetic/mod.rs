//! Models with published shapes and random weights, so that anyone can repeat a measurement with nothing to fetch.
//!
//! `tinyllama-1.1b:q4_k_m` has the tensors, shapes and block formats of the published file of that name; its weights say
//! nothing. All matrices of one format repeat one pattern of about a MiB, so a model in memory costs its largest tensor of
//! each format and is made in a fraction of a second. As a file it has the size of the published one, and other engines
//! read it too.
//!
//! ```
//! use rustorch_llama::synthetic::SyntheticModel;
//!
//! let model: SyntheticModel = "tinyllama-1.1b:q4_k_m".parse().unwrap();
//! let gguf = model.gguf();
//! let parameters: usize = gguf.tensors().map(|tensor| tensor.rows() * tensor.cols()).sum();
//! assert_eq!(parameters, 1_100_048_384);
//! ```

mod mixture;
mod shape;

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;
use std::sync::Arc;

use gguf::random::{Rng, placeholder_vocabulary, random_blocks};
use gguf::{Format, Gguf, GgufWriter, Value};

pub use mixture::Mixture;
pub use shape::{Llama3Scaling, Shape, ShapeExperts, ShapeNorms};

use mixture::Matrix;

/// A shape and the formats of its matrices. Parsed from `SHAPE:FORMAT`, such as `llama-3.2-1b:q8_0`, in either case.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SyntheticModel {
    /// Its dimensions.
    pub shape: Shape,
    /// Its block formats.
    pub mixture: Mixture,
}

/// Standard deviation of the weights: that with which training begins, and near what it ends with.
const SIGMA: f32 = 0.02;
/// About so many bytes of each format are random; the matrices repeat them.
const PATTERN_BYTES: usize = 1 << 20;
const SEED: u64 = 1;

impl SyntheticModel {
    /// The model, in memory.
    pub fn gguf(&self) -> Gguf {
        self.writer().into_gguf()
    }

    /// Writes the model as a GGUF file, in many small writes.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        self.writer().write_to(out)
    }

    fn writer(&self) -> GgufWriter {
        let mut file = GgufWriter::new();
        self.add_metadata(&mut file);
        placeholder_vocabulary(&mut file, self.shape.vocab_size);
        self.add_tensors(&mut file);
        file
    }

    fn add_metadata(&self, file: &mut GgufWriter) {
        let shape = &self.shape;
        file.metadata("general.architecture", Value::String(shape.architecture.into()));
        file.metadata("general.name", Value::String(format!("{self}, random weights")));
        file.metadata("general.file_type", Value::U32(self.mixture.file_type()));
        file.metadata("general.quantization_version", Value::U32(2));
        let mut put = |name: &str, value: Value| {
            file.metadata(&format!("{}.{name}", shape.architecture), value);
        };
        let count = |value: usize| Value::U32(value as u32);
        put("vocab_size", count(shape.vocab_size));
        put("context_length", count(shape.context_length));
        put("embedding_length", count(shape.hidden_size));
        put("block_count", count(shape.num_layers));
        put("feed_forward_length", count(shape.intermediate_size));
        put("attention.head_count", count(shape.num_heads));
        put("attention.head_count_kv", count(shape.num_kv_heads));
        if shape.head_dim * shape.num_heads != shape.hidden_size {
            put("attention.key_length", count(shape.head_dim));
            put("attention.value_length", count(shape.head_dim));
        }
        if let Some(ShapeExperts { count: experts, used, inner }) = shape.experts {
            put("expert_count", count(experts));
            put("expert_used_count", count(used));
            if inner != shape.intermediate_size {
                put("expert_feed_forward_length", count(inner));
            }
        }
        if let Some(window) = shape.window {
            put("attention.sliding_window", count(window));
        }
        put("rope.dimension_count", count(shape.head_dim));
        put("attention.layer_norm_rms_epsilon", Value::F32(shape.norm_eps));
        put("rope.freq_base", Value::F32(shape.rope_base));
        if let Some(factor) = shape.rope_linear {
            put("rope.scaling.type", Value::String("linear".into()));
            put("rope.scaling.factor", Value::F32(factor));
        }
        if let Some((factor, original_context)) = shape.rope_yarn {
            put("rope.scaling.type", Value::String("yarn".into()));
            put("rope.scaling.factor", Value::F32(factor));
            put("rope.scaling.original_context_length", count(original_context));
        }
    }

    fn add_tensors(&self, file: &mut GgufWriter) {
        let widest = self.shape.hidden_size.max(self.shape.head_dim);
        let ones: Arc<[u8]> = f32_bytes(&vec![1.0; widest]).into();
        let mut patterns = HashMap::new();
        for Tensor { name, dims, content } in self.tensors() {
            match content {
                Content::Random(format) => {
                    let pattern = patterns.entry(format).or_insert_with(|| random_pattern(format));
                    file.patterned_tensor(&name, &dims, format, pattern);
                }
                Content::Ones => {
                    file.patterned_tensor(&name, &dims, Format::F32, &ones);
                }
                Content::Values(values) => {
                    file.tensor(&name, &dims, Format::F32, f32_bytes(&values));
                }
            }
        }
    }

    /// All tensors, in the order of the file.
    fn tensors(&self) -> Vec<Tensor> {
        let shape = &self.shape;
        let mut tensors =
            vec![self.matrix("token_embd", Matrix::Embedding, shape.vocab_size, shape.hidden_size)];
        tensors.extend(shape.rope_factors().map(|factors| Tensor {
            name: "rope_freqs.weight".to_owned(),
            dims: vec![factors.len() as u64],
            content: Content::Values(factors),
        }));
        (0..shape.num_layers).for_each(|layer| self.add_layer(layer, &mut tensors));
        tensors.push(norm("output_norm", shape.hidden_size));
        if !shape.tied_embeddings {
            tensors.push(self.matrix("output", Matrix::Output, shape.vocab_size, shape.hidden_size));
        }
        tensors
    }

    fn matrix(&self, name: &str, matrix: Matrix, rows: usize, cols: usize) -> Tensor {
        Tensor {
            name: format!("{name}.weight"),
            dims: vec![cols as u64, rows as u64],
            content: Content::Random(fitting(self.mixture.format(matrix, &self.shape), cols)),
        }
    }

    fn add_layer(&self, layer: usize, tensors: &mut Vec<Tensor>) {
        let shape = &self.shape;
        let (hidden, head_dim) = (shape.hidden_size, shape.head_dim);
        let (q, kv) = (shape.num_heads * head_dim, shape.num_kv_heads * head_dim);
        let name = |part: &str| format!("blk.{layer}.{part}");
        tensors.extend([
            norm(&name("attn_norm"), hidden),
            self.matrix(&name("attn_q"), Matrix::AttnQ, q, hidden),
            self.matrix(&name("attn_k"), Matrix::AttnK, kv, hidden),
            self.matrix(&name("attn_v"), Matrix::AttnV(layer), kv, hidden),
            self.matrix(&name("attn_output"), Matrix::AttnOutput, hidden, q),
        ]);
        let has_renamed = shape.norms == ShapeNorms::Renamed;
        tensors.push(norm(&name(if has_renamed { "post_attention_norm" } else { "ffn_norm" }), hidden));
        if shape.has_biases_and_sinks {
            let biases =
                [("attn_q.bias", q), ("attn_k.bias", kv), ("attn_v.bias", kv), ("attn_output.bias", hidden)];
            tensors.extend(biases.map(|(part, len)| floats(name(part), &[len])));
            tensors.push(floats(name("attn_sinks.weight"), &[shape.num_heads]));
        }
        if matches!(shape.norms, ShapeNorms::Heads | ShapeNorms::HeadsAndBranches) {
            tensors.extend(["attn_q_norm", "attn_k_norm"].map(|part| norm(&name(part), head_dim)));
        }
        if shape.norms == ShapeNorms::HeadsAndBranches {
            tensors.extend(["post_attention_norm", "post_ffw_norm"].map(|part| norm(&name(part), hidden)));
        }
        let inner = shape.experts.map_or(shape.intermediate_size, |experts| experts.inner);
        let matrices = [
            ("ffn_gate", Matrix::FfnGate, inner, hidden),
            ("ffn_up", Matrix::FfnUp, inner, hidden),
            ("ffn_down", Matrix::FfnDown(layer), hidden, inner),
        ];
        let Some(ShapeExperts { count, .. }) = shape.experts else {
            tensors
                .extend(matrices.map(|(part, kind, rows, cols)| self.matrix(&name(part), kind, rows, cols)));
            return;
        };
        // Converters leave the router as it is.
        tensors.push(floats(name("ffn_gate_inp.weight"), &[hidden, count]));
        if shape.has_biases_and_sinks {
            tensors.push(floats(name("ffn_gate_inp.bias"), &[count]));
            let bias = |(part, _, rows, _)| floats(name(&format!("{part}_exps.bias")), &[rows, count]);
            tensors.extend(matrices.map(bias));
        }
        tensors.extend(matrices.map(|(part, kind, rows, cols)| {
            let mut tensor = self.matrix(&name(&format!("{part}_exps")), kind, rows, cols);
            tensor.dims.push(count as u64);
            tensor
        }));
    }
}

/// A norm of ones.
fn norm(name: &str, len: usize) -> Tensor {
    Tensor { name: format!("{name}.weight"), dims: vec![len as u64], content: Content::Ones }
}

/// A tensor that converters leave in F32: its name, and the length of a row first.
fn floats(name: String, dims: &[usize]) -> Tensor {
    let dims = dims.iter().map(|&len| len as u64).collect();
    Tensor { name, dims, content: Content::Random(Format::F32) }
}

/// The format, or what llama.cpp's quantiser takes instead for rows that are no whole blocks of it.
fn fitting(format: Format, cols: usize) -> Format {
    match format {
        _ if cols.is_multiple_of(format.block_len()) => format,
        Format::TQ1_0 | Format::TQ2_0 => Format::Q4_0,
        Format::IQ1_S
        | Format::IQ1_M
        | Format::IQ2_XXS
        | Format::IQ2_XS
        | Format::IQ2_S
        | Format::IQ3_XXS
        | Format::IQ3_S
        | Format::Q2_K
        | Format::Q3_K
        | Format::IQ4_XS => Format::IQ4_NL,
        Format::Q4_K => Format::Q5_0,
        Format::Q5_K => Format::Q5_1,
        Format::Q6_K => Format::Q8_0,
        _ => Format::F16,
    }
}

/// One tensor of the file.
struct Tensor {
    name: String,
    /// In the file's order: the length of a row first.
    dims: Vec<u64>,
    content: Content,
}

enum Content {
    /// Random blocks.
    Random(Format),
    /// A norm's weights.
    Ones,
    Values(Vec<f32>),
}

/// `len` random tokens of a vocabulary, others for each seed.
pub fn random_tokens(vocab_size: usize, len: usize, seed: u64) -> Vec<u32> {
    let mut rng = Rng::new(seed);
    (0..len).map(|_| rng.below(vocab_size as u32)).collect()
}

/// A prime number of blocks: rows then begin at different places of the pattern, and no two of the first so many are
/// alike.
fn random_pattern(format: Format) -> Arc<[u8]> {
    let is_prime = |n: &usize| (2..).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d));
    let most = PATTERN_BYTES / format.block_bytes();
    let blocks = (2..=most).rfind(is_prime).expect("two is prime");
    random_blocks(format, blocks * format.block_len(), SIGMA, &mut Rng::new(SEED)).into()
}

fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

impl FromStr for SyntheticModel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((name, format)) = text.split_once(':') else {
            return Err(format!("expected SHAPE:FORMAT, such as tinyllama-1.1b:q4_k_m, found '{text}'"));
        };
        let shape = Shape::ALL.into_iter().find(|shape| shape.name.eq_ignore_ascii_case(name));
        let shape = shape.ok_or_else(|| {
            format!("expected a shape of {}, found '{name}'", Shape::ALL.map(|shape| shape.name).join(", "))
        })?;
        let mixture = Mixture::from_name(format).ok_or_else(|| {
            let names = Mixture::ALL.map(|mixture| mixture.to_string().to_lowercase());
            format!("expected a format of {}, found '{format}'", names.join(", "))
        })?;
        Ok(Self { shape, mixture })
    }
}

/// As it is parsed.
impl fmt::Display for SyntheticModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.shape.name, self.mixture.to_string().to_lowercase())
    }
}

#[cfg(test)]
mod tests;
