//! [`LlamaModel`]: logits of many sequences, each cached in a slot of its own.

use std::fmt;
use std::path::Path;

use gguf::Gguf;
use model::{Batch, LlamaConfig, Rows, Runner, Want};

use crate::{Device, Error, KvCache, LoadOptions, Result, Weights};

/// A model and a KV cache of `batch_size` slots, each with room for a sequence of `max_seq_len` tokens.
pub struct LlamaModel {
    weights: Weights,
    runner: Box<dyn Runner>,
    batch: Batch,
    cache: KvCache,
}

impl fmt::Debug for LlamaModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LlamaModel")
            .field("weights", &self.weights)
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

impl LlamaModel {
    /// The context of a model loaded without a configuration, unless its own is shorter. The trained context of many
    /// files would reserve more memory than a machine has.
    pub const DEFAULT_MAX_SEQ_LEN: usize = 4096;

    /// Loads a file on the best device of this build, with the file's configuration and a context of at most
    /// [`DEFAULT_MAX_SEQ_LEN`](Self::DEFAULT_MAX_SEQ_LEN).
    ///
    /// # Errors
    /// A file that cannot be read, is malformed, or does not fit the device.
    pub fn from_gguf(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_gguf_with_backend(path, Device::Auto)
    }

    /// As [`from_gguf`](Self::from_gguf), on a device of the caller's choice.
    ///
    /// # Errors
    /// As `from_gguf`.
    pub fn from_gguf_with_backend(path: impl AsRef<Path>, device: Device) -> Result<Self> {
        let path = path.as_ref();
        let gguf = Gguf::open(path)?;
        let config = LlamaConfig::from_gguf(&gguf).map_err(in_file(path))?;
        let max_seq_len = config.max_seq_len.min(Self::DEFAULT_MAX_SEQ_LEN);
        Self::load(&gguf, config.with_max_seq_len(max_seq_len), LoadOptions::on(device)).map_err(naming(path))
    }

    /// As [`from_gguf`](Self::from_gguf), with the caller's configuration, which is compared with the file before any
    /// weight is loaded. Start from [`LlamaConfig::from_gguf`].
    ///
    /// # Errors
    /// As `from_gguf`, and a field that contradicts the weights, naming both values.
    pub fn from_gguf_with_config(path: impl AsRef<Path>, config: LlamaConfig) -> Result<Self> {
        let path = path.as_ref();
        Self::load(&Gguf::open(path)?, config, LoadOptions::default()).map_err(naming(path))
    }

    /// Loads an opened file with every choice made by the caller.
    ///
    /// # Errors
    /// As [`from_gguf_with_config`](Self::from_gguf_with_config).
    pub fn load(gguf: &Gguf, config: LlamaConfig, options: LoadOptions<'_>) -> Result<Self> {
        Self::new(Weights::load(gguf, config, options)?)
    }

    /// A model over weights that are loaded already.
    ///
    /// # Errors
    /// When the device cannot hold the cache.
    pub fn new(weights: Weights) -> Result<Self> {
        let batch_size = weights.config().batch_size;
        Self::with_slots(weights, batch_size)
    }

    fn with_slots(weights: Weights, num_slots: usize) -> Result<Self> {
        let runner = weights.slot_runner(num_slots)?;
        let spec = runner.spec();
        let memory_bytes = weights.kv_bytes(spec.limits.num_pages, spec.page_size);
        let batch = Batch::new(spec.limits, spec.page_size);
        Ok(Self { weights, runner, batch, cache: KvCache::new(num_slots, memory_bytes) })
    }

    /// The configuration that the weights were loaded with. [`batch_size`](Self::batch_size) may have changed since.
    pub fn config(&self) -> &LlamaConfig {
        self.weights.config()
    }

    /// The weights, to start an engine or make another model of.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Number of cache slots.
    pub fn batch_size(&self) -> usize {
        self.cache.num_slots()
    }

    /// Makes a cache of `n` empty slots and the buffers for as many sequences; the weights stay.
    ///
    /// # Errors
    /// When `n` is 0 or the device cannot hold the cache; the model is then as before.
    pub fn set_batch_size(&mut self, n: usize) -> Result<()> {
        *self = Self::with_slots(self.weights.clone(), n)?;
        Ok(())
    }

    /// The cache's slots.
    pub fn kv_cache(&mut self) -> &mut KvCache {
        &mut self.cache
    }

    /// Runs one sequence in slot 0, replacing what it held; `[vocab_size]` logits of the last token.
    ///
    /// # Errors
    /// As [`forward_batch`](Self::forward_batch).
    pub fn forward(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        self.forward_with_position(tokens, 0)
    }

    /// Runs one sequence in slot 0 from position `start` on; `[vocab_size]` logits of the last token.
    ///
    /// # Errors
    /// As [`forward_batch_with_position`](Self::forward_batch_with_position).
    pub fn forward_with_position(&mut self, tokens: &[u32], start: usize) -> Result<Vec<f32>> {
        let mut logits = self.forward_batch_with_position(&[tokens], &[start])?;
        Ok(logits.swap_remove(0))
    }

    /// Runs sequence `i` in slot `i`, replacing what the slot held: every sequence in one pass (in several when there are
    /// more tokens than `max_batch_tokens`). Returns `[sequences][vocab_size]`, the logits of each one's last token.
    ///
    /// # Errors
    /// An empty batch, an empty sequence, more sequences than slots, a token out of the vocabulary, a sequence longer
    /// than the context. No slot has changed then.
    pub fn forward_batch(&mut self, sequences: &[&[u32]]) -> Result<Vec<Vec<f32>>> {
        self.forward_batch_with_position(sequences, &vec![0; sequences.len()])
    }

    /// As [`forward_batch`](Self::forward_batch), sequence `i` continuing slot `i` at position `start[i]`: the slot is
    /// cut to `start[i]` tokens and the sequence appended. Slots beyond the batch are untouched.
    ///
    /// # Errors
    /// As `forward_batch`, and a start beyond what the slot has cached.
    pub fn forward_batch_with_position(
        &mut self,
        sequences: &[&[u32]],
        start: &[usize],
    ) -> Result<Vec<Vec<f32>>> {
        self.check(sequences, start)?;
        let vocab_size = self.config().vocab_size();
        let mut logits = vec![Vec::new(); sequences.len()];
        self.run(sequences, start, Want::Logits(Rows::Last), |sequence, _, row| {
            logits[sequence] = Vec::with_capacity(vocab_size);
            logits[sequence].extend_from_slice(row);
        })?;
        Ok(logits)
    }

    /// Runs one sequence in slot 0, replacing what it held, and gives `each(index, logits)` the `[vocab_size]` logits
    /// after every token.
    ///
    /// # Errors
    /// As [`forward_batch`](Self::forward_batch).
    pub fn forward_all(&mut self, tokens: &[u32], mut each: impl FnMut(usize, &[f32])) -> Result<()> {
        self.check(&[tokens], &[0])?;
        self.run(&[tokens], &[0], Want::Logits(Rows::All), |_, index, row| each(index, row))
    }

    fn check(&self, sequences: &[&[u32]], start: &[usize]) -> Result<()> {
        let (vocab_size, max_seq_len) = (self.config().vocab_size(), self.config().max_seq_len);
        if sequences.is_empty() {
            return Err(Error::EmptyBatch);
        }
        if sequences.len() > self.batch_size() {
            return Err(Error::BatchTooLarge { found: sequences.len(), batch_size: self.batch_size() });
        }
        if start.len() != sequences.len() {
            return Err(Error::StartCount { sequences: sequences.len(), found: start.len() });
        }
        for (sequence, (tokens, &start)) in sequences.iter().zip(start).enumerate() {
            if tokens.is_empty() {
                return Err(Error::EmptySequence { sequence });
            }
            if let Some(index) = tokens.iter().position(|&token| token as usize >= vocab_size) {
                return Err(Error::TokenOutOfRange { sequence, index, found: tokens[index], vocab_size });
            }
            let cached = self.cache.cached_tokens(sequence);
            if start > cached {
                return Err(Error::StartBeyondCache { sequence, start, cached });
            }
            if start + tokens.len() > max_seq_len {
                return Err(Error::ContextOverflow { sequence, start, tokens: tokens.len(), max_seq_len });
            }
        }
        Ok(())
    }

    /// Runs checked sequences in as few steps as the limits allow. `each(sequence, index of the token, logits)`.
    fn run(
        &mut self,
        sequences: &[&[u32]],
        start: &[usize],
        want: Want,
        mut each: impl FnMut(usize, usize, &[f32]),
    ) -> Result<()> {
        let spec = self.runner.spec();
        let is_all = want == Want::Logits(Rows::All);
        let budget = if is_all { spec.limits.max_logit_rows } else { spec.limits.max_tokens };
        let prompt_chunk = self.config().prompt_chunk;
        let pages_per_seq = spec.limits.max_blocks;
        // A slot that is half written holds nothing of use.
        (0..sequences.len()).for_each(|slot| self.cache.clear_batch(slot));
        let mut done = vec![0; sequences.len()];
        while done.iter().zip(sequences).any(|(&done, tokens)| done < tokens.len()) {
            self.batch.clear();
            let mut rows = Vec::new();
            for (sequence, tokens) in sequences.iter().enumerate() {
                let (first, left) = (done[sequence], tokens.len() - done[sequence]);
                let count = left.min(prompt_chunk).min(budget - self.batch.num_tokens());
                if count == 0 {
                    continue;
                }
                let want = if !is_all && count < left { Want::None } else { want };
                let pages = (sequence * pages_per_seq) as u32..((sequence + 1) * pages_per_seq) as u32;
                let block_table: Vec<u32> = pages.collect();
                self.batch.push(&tokens[first..first + count], start[sequence] + first, &block_table, want);
                // The last tokens of the chunk are those that yield logits.
                let num_rows = self.batch.wanted(self.batch.num_seqs() - 1).1.len();
                rows.extend((first + count - num_rows..first + count).map(|index| (sequence, index)));
                done[sequence] += count;
            }
            let logits = self.runner.run(&self.batch)?.logits();
            for ((sequence, index), row) in rows.into_iter().zip(logits.chunks_exact(spec.vocab_size)) {
                each(sequence, index, row);
            }
        }
        for (slot, (tokens, start)) in sequences.iter().zip(start).enumerate() {
            self.cache.set(slot, start + tokens.len());
        }
        Ok(())
    }
}

fn in_file(path: &Path) -> impl FnOnce(model::Error) -> Error {
    let path = path.to_owned();
    |source| Error::InFile { path, source }
}

/// Adds the file's name to errors about its model.
fn naming(path: &Path) -> impl FnOnce(Error) -> Error {
    let path = path.to_owned();
    |error| match error {
        Error::Model(source) => Error::InFile { path, source },
        other => other,
    }
}
