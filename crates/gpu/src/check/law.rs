//! The law over a whole model: the logits of every position, alone and in batches of any make-up.

use gguf::Gguf;
use gguf::random::Rng;
use model::{
    AttentionMode, Backend, Batch, BatchLimits, KvDtype, KvShape, Llama, LlamaConfig, Logits, Result,
    RunState, qkv_shape,
};

use super::{Tally, read};
use crate::backend::GpuBackend;
use crate::kv_cache::GpuKvCache;
use crate::plan::GpuPlan;

/// Around the tokens that kernels take at a time, and beyond the positions that attention takes at a time.
const LENGTHS: [usize; 5] = [1, 2, 18, SHORT, LONG];
const SHORT: usize = 70;
const LONG: usize = 300;
const MAX_TOKENS: usize = 400;

/// A model with pages of one size.
pub(crate) struct Runner<'a> {
    backend: &'a GpuBackend,
    llama: &'a Llama<GpuBackend>,
    cache: GpuKvCache,
    plan: GpuPlan,
    state: RunState<GpuBackend>,
    batch: Batch,
    pages: Vec<Vec<u32>>,
}

impl<'a> Runner<'a> {
    pub fn new(backend: &'a GpuBackend, llama: &'a Llama<GpuBackend>, page_size: usize) -> Result<Self> {
        let config = llama.config();
        let max_blocks = config.max_seq_len.div_ceil(page_size);
        let mut pages: Vec<u32> = (0..(LENGTHS.len() * max_blocks) as u32).collect();
        Rng::new(page_size as u64).shuffle(&mut pages);
        let limits = BatchLimits {
            max_tokens: MAX_TOKENS,
            max_seqs: LENGTHS.len(),
            max_logit_rows: MAX_TOKENS,
            max_blocks,
        };
        let cache = KvShape {
            num_layers: config.num_layers,
            num_pages: pages.len(),
            page_size,
            num_kv_heads: config.num_kv_heads,
            head_dim: config.head_dim,
            dtype: config.kv_dtype,
        };
        Ok(Self {
            cache: backend.alloc_kv_cache(cache)?,
            plan: backend.alloc_plan(limits, qkv_shape(config))?,
            state: RunState::new(backend, config, limits, AttentionMode::Fused)?,
            batch: Batch::new(limits, page_size),
            pages: pages.chunks_exact(max_blocks).map(<[u32]>::to_vec).collect(),
            backend,
            llama,
        })
    }

    /// The logits of some tokens of some sequences: `(sequence, first position, tokens)`.
    pub fn step(&mut self, pieces: &[(usize, usize, &[u32])]) -> Result<Vec<f32>> {
        self.batch.clear();
        for &(seq, start, tokens) in pieces {
            self.batch.push(tokens, start, &self.pages[seq], Logits::All);
        }
        self.backend.plan(&self.batch, &mut self.plan)?;
        self.llama.forward(self.backend, &self.plan, self.batch.size(), &mut self.cache, &mut self.state);
        let len = self.batch.num_logit_rows() * self.llama.config().vocab_size;
        read(self.backend, self.state.logits(), len)
    }

    /// All logits of the sequences, `chunk` tokens of each a step.
    fn all(&mut self, sequences: &[&[u32]], chunk: usize) -> Result<Vec<Vec<f32>>> {
        let vocab = self.llama.config().vocab_size;
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

pub(in crate::check) fn whole_model(
    backend: &GpuBackend,
    tally: &mut Tally,
    model: &Gguf,
    kv_dtype: KvDtype,
) -> Result<()> {
    let config = LlamaConfig::from_gguf(model)?.with_max_seq_len(320).with_kv_dtype(kv_dtype);
    let vocab = config.vocab_size as u32;
    let llama = Llama::load(backend, model, config, |_, _| {})?;
    let mut rng = Rng::new(5);
    // Attention reads either cache by the same code but for the width of a value: one of them at length is enough.
    let longest = if kv_dtype == KvDtype::F16 { LONG } else { SHORT };
    let lengths = LENGTHS.map(|len: usize| len.min(longest));
    let sequences = lengths.map(|len| (0..len).map(|_| rng.below(vocab)).collect::<Vec<u32>>());
    let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
    let mut want = Vec::new();
    let mut alone = Runner::new(backend, &llama, 32)?;
    for tokens in &sequences {
        want.append(&mut alone.all(&[tokens], MAX_TOKENS)?);
    }
    drop(alone);
    for (page_size, chunk, most) in
        [(32, MAX_TOKENS, SHORT), (16, 64, LONG), (1, 33, SHORT), (7, 5, SHORT), (64, 1, 18)]
    {
        let mut together = Runner::new(backend, &llama, page_size)?;
        let cut: Vec<&[u32]> = sequences.iter().map(|tokens| &tokens[..tokens.len().min(most)]).collect();
        for (got, want) in together.all(&cut, chunk)?.iter().zip(&want) {
            let case = || format!("pages of {page_size}, chunks of {chunk}, {} logits", got.len());
            tally.same(case, got, &want[..got.len()]);
        }
    }
    Ok(())
}
