//! Batch invariance of a whole model: the logits of every position, alone and in batches of any make-up.

use std::sync::Arc;

use gguf::Gguf;
use gguf::random::Rng;
use model::{
    AttentionMode, Batch, BatchLimits, Decoder, KvDtype, LlamaConfig, ModelRunner, Rows, RunError, Runner,
    Want,
};

use crate::{Subject, Tally};

/// Around the tokens that kernels take at a time, and beyond the positions that attention takes at a time.
const LENGTHS: [usize; 5] = [1, 2, 18, SHORT, LONG];
const SHORT: usize = 70;
const LONG: usize = 300;
const MAX_TOKENS: usize = 400;

/// A model with shuffled pages of one size for [`LENGTHS`] sequences.
pub struct Sequences<S: Subject> {
    runner: ModelRunner<S>,
    batch: Batch,
    pages: Vec<Vec<u32>>,
}

impl<S: Subject> Sequences<S> {
    /// A KV cache of `page_size` tokens a page over these weights.
    ///
    /// # Errors
    /// When the device cannot hold it.
    pub fn new(device: &Arc<S>, decoder: &Arc<Decoder<S>>, page_size: usize) -> model::Result<Self> {
        let config = decoder.config();
        let max_blocks = config.max_seq_len.div_ceil(page_size);
        let num_pages = LENGTHS.len() * max_blocks;
        let mut pages: Vec<u32> = (0..num_pages as u32).collect();
        Rng::new(page_size as u64).shuffle(&mut pages);
        let limits = BatchLimits {
            max_tokens: MAX_TOKENS,
            max_seqs: LENGTHS.len(),
            max_logit_rows: MAX_TOKENS,
            max_blocks,
            num_pages,
        };
        let mode = AttentionMode::Fused;
        let runner =
            ModelRunner::with_page_size(Arc::clone(device), Arc::clone(decoder), limits, page_size, mode)?;
        let pages = pages.chunks_exact(max_blocks).map(<[u32]>::to_vec).collect();
        Ok(Self { runner, batch: Batch::new(limits, page_size), pages })
    }

    /// The logits of some tokens of some sequences: `(sequence, first position, tokens)`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn step(&mut self, pieces: &[(usize, usize, &[u32])]) -> Result<Vec<f32>, RunError> {
        self.batch.clear();
        for &(seq, start, tokens) in pieces {
            self.batch.push(tokens, start, &self.pages[seq], Want::Logits(Rows::All));
        }
        Ok(self.runner.run(&self.batch)?.logits().to_vec())
    }

    /// All logits of the sequences, `chunk` tokens of each a step.
    fn all(&mut self, sequences: &[&[u32]], chunk: usize) -> Result<Vec<Vec<f32>>, RunError> {
        let vocab = self.runner.spec().vocab_size;
        let mut all = vec![Vec::new(); sequences.len()];
        let longest = sequences.iter().map(|tokens| tokens.len()).max().unwrap_or(0);
        for start in (0..longest).step_by(chunk) {
            let rest = |(seq, tokens): (usize, &&'_ [u32])| {
                let tokens = tokens.get(start..)?;
                let piece = &tokens[..chunk.min(tokens.len())];
                (!piece.is_empty()).then_some((seq, start, piece.len()))
            };
            let ranges: Vec<_> = sequences.iter().enumerate().filter_map(rest).collect();
            let pieces: Vec<_> = ranges
                .iter()
                .map(|&(seq, start, len)| (seq, start, &sequences[seq][start..start + len]))
                .collect();
            let mut logits = self.step(&pieces)?;
            for &(seq, _, len) in &ranges {
                let others = logits.split_off(len * vocab);
                all[seq].append(&mut logits);
                logits = others;
            }
        }
        Ok(all)
    }
}

/// The sequences alone in one chunk against all of them together in chunks and pages of many sizes.
pub(crate) fn whole_model<S: Subject>(
    device: &Arc<S>,
    tally: &mut Tally,
    model: &Gguf,
    kv_dtype: KvDtype,
) -> Result<(), RunError> {
    let config = LlamaConfig::from_gguf(model)?.with_max_seq_len(320).with_kv_dtype(kv_dtype);
    let vocab = config.vocab_size() as u32;
    let decoder = Arc::new(Decoder::load(&**device, model, config, |_, _| {})?);
    let mut rng = Rng::new(5);
    // Attention reads either cache by the same code but for the width of a value: one of them at length is enough.
    let longest = if kv_dtype == KvDtype::F16 { LONG } else { SHORT };
    let lengths = LENGTHS.map(|len: usize| len.min(longest));
    let sequences = lengths.map(|len| (0..len).map(|_| rng.below(vocab)).collect::<Vec<u32>>());
    let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
    let mut want = Vec::new();
    let mut alone = Sequences::new(device, &decoder, 32)?;
    for tokens in &sequences {
        want.append(&mut alone.all(&[tokens], MAX_TOKENS)?);
    }
    drop(alone);
    for (page_size, chunk, most) in
        [(32, MAX_TOKENS, SHORT), (16, 64, LONG), (1, 33, SHORT), (7, 5, SHORT), (64, 1, 18)]
    {
        let mut together = Sequences::new(device, &decoder, page_size)?;
        let cut: Vec<&[u32]> = sequences.iter().map(|tokens| &tokens[..tokens.len().min(most)]).collect();
        for (got, want) in together.all(&cut, chunk)?.iter().zip(&want) {
            let case = || format!("pages of {page_size}, chunks of {chunk}, {} logits", got.len());
            tally.same(case, got, &want[..got.len()]);
        }
    }
    Ok(())
}
