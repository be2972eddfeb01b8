//! From tensors by name to weights on a device, every shape checked and every tensor accounted for.

use std::collections::HashSet;

use gguf::{Gguf, TensorView};

use crate::{Backend, Error, LlamaConfig, Result};

/// `y = weight * x + bias`, the weight being a stack of matrices with the same number of columns.
///
/// A stack rather than one matrix, because files mix block formats inside one (attn_v is often wider than attn_k).
pub struct Linear<B: Backend> {
    /// The stacked matrices, in the order of their rows.
    pub parts: Vec<B::Matrix>,
    /// One value per stacked row, zero for parts that have none; absent when no part has one.
    pub bias: Option<B::Buffer>,
}

/// One transformer layer. Comments give the shapes as `[rows, cols]`.
pub(crate) struct Layer<B: Backend> {
    pub attn_norm: B::Buffer, // [hidden]
    pub qkv: Linear<B>,       // [q_dim + 2 * kv_dim, hidden]
    pub attn_out: Linear<B>,  // [hidden, q_dim]
    pub ffn_norm: B::Buffer,  // [hidden]
    pub gate_up: Linear<B>,   // [2 * intermediate, hidden]
    pub down: Linear<B>,      // [hidden, intermediate]
}

/// All weights of a model.
pub(crate) struct Weights<B: Backend> {
    /// `[vocab, hidden]`; absent when the file ties it to the LM head, from which rows are then gathered.
    pub embedding: Option<B::Matrix>,
    pub layers: Vec<Layer<B>>,
    pub output_norm: B::Buffer, // [hidden]
    pub output: Linear<B>,      // [vocab, hidden]
    /// One divisor per rotated pair (`rope_freqs.weight`, Llama 3.1 and later).
    pub rope_factors: Option<Vec<f32>>,
    /// Bytes on the device.
    pub bytes: u64,
}

impl<B: Backend> Weights<B> {
    /// Loads every tensor of the graph; `progress(done, total)` counts source bytes.
    pub fn load(
        backend: &B,
        gguf: &Gguf,
        config: &LlamaConfig,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let total = gguf.tensors().map(|t| t.data().len() as u64).sum();
        let mut loader = Loader { backend, gguf, read: HashSet::new(), done: 0, total, bytes: 0, progress };
        let (hidden, vocab) = (config.hidden_size, config.vocab_size);
        let head = if gguf.find_tensor("output.weight").is_some() { "output" } else { "token_embd" };
        let embedding = match head {
            "output" => Some(loader.matrix("token_embd.weight", vocab, hidden)?),
            _ => None,
        };
        let layers = (0..config.num_layers).map(|i| loader.layer(i, config)).collect::<Result<_>>()?;
        let output_norm = loader.vector("output_norm.weight", hidden)?;
        let output = loader.linear(&[(head, vocab)], hidden)?;
        let rope_factors = loader.find_values("rope_freqs.weight", config.rope.dim / 2)?;
        loader.refuse_unread()?;
        Ok(Self { embedding, layers, output_norm, output, rope_factors, bytes: loader.bytes })
    }
}

struct Loader<'a, B: Backend> {
    backend: &'a B,
    gguf: &'a Gguf,
    read: HashSet<String>,
    done: u64,
    total: u64,
    bytes: u64,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl<'a, B: Backend> Loader<'a, B> {
    fn layer(&mut self, i: usize, config: &LlamaConfig) -> Result<Layer<B>> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let (q, kv) = (config.q_dim(), config.kv_dim());
        let name = |part: &str| format!("blk.{i}.{part}");
        let (attn_q, attn_k, attn_v) = (name("attn_q"), name("attn_k"), name("attn_v"));
        Ok(Layer {
            attn_norm: self.vector(&name("attn_norm.weight"), hidden)?,
            qkv: self.linear(&[(&attn_q, q), (&attn_k, kv), (&attn_v, kv)], hidden)?,
            attn_out: self.linear(&[(&name("attn_output"), hidden)], q)?,
            ffn_norm: self.vector(&name("ffn_norm.weight"), hidden)?,
            gate_up: self.linear(&[(&name("ffn_gate"), inner), (&name("ffn_up"), inner)], hidden)?,
            down: self.linear(&[(&name("ffn_down"), hidden)], inner)?,
        })
    }

    /// Stacks `<name>.weight` of each part, and `<name>.bias` where a part has one.
    fn linear(&mut self, parts: &[(&str, usize)], cols: usize) -> Result<Linear<B>> {
        let mut bias = Vec::new();
        let mut has_bias = false;
        for &(name, rows) in parts {
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

    fn vector(&mut self, name: &str, len: usize) -> Result<B::Buffer> {
        let values = self.checked(self.gguf.tensor(name)?, 1, len)?.dequantize();
        self.upload(&values)
    }

    fn find_values(&mut self, name: &str, len: usize) -> Result<Option<Vec<f32>>> {
        let Some(tensor) = self.gguf.find_tensor(name) else { return Ok(None) };
        Ok(Some(self.checked(tensor, 1, len)?.dequantize()))
    }

    fn upload(&mut self, values: &[f32]) -> Result<B::Buffer> {
        self.bytes += size_of_val(values) as u64;
        self.backend.upload(1, values.len(), values)
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

    fn refuse_unread(&self) -> Result<()> {
        let mut unread = self
            .gguf
            .tensors()
            .map(|t| t.name().to_owned())
            .filter(|name| !self.read.contains(name) && !is_derived(name));
        match unread.next() {
            None => Ok(()),
            Some(tensor) => Err(Error::UnreadTensor { tensor, count: 1 + unread.count() }),
        }
    }
}

/// Old converters stored RoPE's inverse frequencies, which follow from the metadata.
fn is_derived(name: &str) -> bool {
    name.ends_with(".attn_rot_embd.weight") || name.ends_with(".rotary_emb.inv_freq")
}
