//! Batch invariance of a whole model: the logits of every position, alone and in batches of any make-up.

use std::ops::Range;
use std::sync::Arc;

use gguf::Gguf;
use gguf::random::Rng;
use model::{
    Activation, AttentionMode, Backend, Batch, BatchLimits, Decoder, FfnSpec, KvDtype, LlamaConfig,
    RankedModel, Rows, RunError, Runner, StepOutput, Want,
};

use crate::reads::highest;
use crate::{Subject, Tally};

/// Around the tokens that kernels take at a time, and beyond the positions that attention takes at a time.
const LENGTHS: [usize; 5] = [1, 2, 18, SHORT, LONG];
const SHORT: usize = 70;
const LONG: usize = 300;
const MAX_TOKENS: usize = 400;

/// Tokens of a sequence in a step: the sequence, the first position, the tokens and what they yield.
type Piece<'a> = (usize, usize, &'a [u32], Want);

/// A model with shuffled pages of one size for as many sequences as `LENGTHS` has.
pub struct Sequences {
    runner: Box<dyn Runner>,
    batch: Batch,
    pages: Vec<Vec<u32>>,
}

impl Sequences {
    /// A KV cache of `page_size` tokens a page over these weights.
    ///
    /// # Errors
    /// When the device cannot hold it.
    pub fn new<B: Backend>(
        device: &Arc<B>,
        decoder: &Arc<Decoder<B>>,
        page_size: usize,
    ) -> model::Result<Self> {
        let model = RankedModel::new(vec![(Arc::clone(device), Arc::clone(decoder))]);
        Self::with_attention(&model, page_size, AttentionMode::Fused)
    }

    fn with_attention<B: Backend>(
        model: &RankedModel<B>,
        page_size: usize,
        mode: AttentionMode,
    ) -> model::Result<Self> {
        let config = model.ranks()[0].1.config();
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
        let runner = model.runner_with_page_size(limits, page_size, mode)?;
        let pages = pages.chunks_exact(max_blocks).map(<[u32]>::to_vec).collect();
        Ok(Self { runner, batch: Batch::new(limits, page_size), pages })
    }

    /// The logits of some tokens of some sequences: `(sequence, first position, tokens)`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn step(&mut self, pieces: &[(usize, usize, &[u32])]) -> Result<Vec<f32>, RunError> {
        let all = Want::Logits(Rows::All);
        let pieces: Vec<Piece<'_>> =
            pieces.iter().map(|&(seq, start, tokens)| (seq, start, tokens, all)).collect();
        Ok(self.wanting(&pieces)?.logits().to_vec())
    }

    /// What some tokens of some sequences yield.
    fn wanting(&mut self, pieces: &[Piece<'_>]) -> Result<StepOutput<'_>, RunError> {
        self.batch.clear();
        for &(seq, start, tokens, want) in pieces {
            self.batch.push(tokens, start, &self.pages[seq], want);
        }
        self.runner.run(&self.batch)
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

/// What is run of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    /// It, with an f16 cache.
    HalfCache,
    /// It, with an f32 cache.
    FloatCache,
    /// It, with reference attention.
    ReferenceAttention,
    /// Its weights with scales, soft caps, windows, GeGLU, and a layer without rotation.
    OtherConstants,
}

/// All of them, with their names.
pub(crate) const VARIANTS: [(&str, Variant); 4] = [
    ("f16 cache", Variant::HalfCache),
    ("f32 cache", Variant::FloatCache),
    ("reference attention", Variant::ReferenceAttention),
    ("other constants", Variant::OtherConstants),
];

impl Variant {
    fn config(self, model: &Gguf) -> model::Result<LlamaConfig> {
        let kv_dtype = if self == Variant::FloatCache { KvDtype::F32 } else { KvDtype::F16 };
        let mut config = LlamaConfig::from_gguf(model)?.with_max_seq_len(320).with_kv_dtype(kv_dtype);
        if self == Variant::OtherConstants {
            let spec = &mut config.spec;
            (spec.embed_scale, spec.logit_scale, spec.final_softcap) = (1.7, 0.8, Some(5.0));
            for layer in &mut spec.layers {
                layer.residual_scale = 0.6;
                layer.attn.scale *= 1.1;
                layer.attn.softcap = Some(3.0);
                let FfnSpec::Dense { inner, .. } = layer.ffn else { continue };
                layer.ffn = FfnSpec::Dense { inner, act: Activation::GeluTanh };
            }
            spec.layers[0].attn.rope = None;
            spec.layers[1].attn.window = Some(11);
        }
        Ok(config)
    }

    fn attention(self) -> AttentionMode {
        match self {
            Variant::ReferenceAttention => AttentionMode::Reference,
            _ => AttentionMode::Fused,
        }
    }

    /// Attention reads either cache by the same code but for the width of a value: one of them at length is enough.
    fn longest(self) -> usize {
        if self == Variant::HalfCache { LONG } else { SHORT }
    }

    /// Page size, tokens of a sequence a step, and most tokens of a sequence.
    fn conditions(self) -> &'static [(usize, usize, usize)] {
        match self {
            Variant::HalfCache | Variant::FloatCache => {
                &[(32, MAX_TOKENS, SHORT), (16, 64, LONG), (1, 33, SHORT), (7, 5, SHORT), (64, 1, 18)]
            }
            Variant::ReferenceAttention | Variant::OtherConstants => &[(33, 31, SHORT), (7, 2, 18)],
        }
    }
}

/// The sequences alone in one chunk against all of them together in chunks and pages of many sizes.
pub(crate) fn whole_model<S: Subject>(
    device: &Arc<S>,
    tally: &mut Tally,
    model: &Gguf,
    variant: Variant,
) -> Result<(), RunError> {
    let one = load(std::slice::from_ref(device), model, variant)?;
    compare(&one, &one, tally, variant)
}

/// The sequences alone on one device against all of them together on the ranks of a group, in chunks and pages of many sizes.
pub(crate) fn over_ranks<S: Subject>(
    device: &Arc<S>,
    ranks: &[Arc<S>],
    tally: &mut Tally,
    model: &Gguf,
    variant: Variant,
) -> Result<(), RunError> {
    let (one, group) = (load(std::slice::from_ref(device), model, variant)?, load(ranks, model, variant)?);
    compare(&one, &group, tally, variant)
}

fn load<S: Subject>(ranks: &[Arc<S>], model: &Gguf, variant: Variant) -> model::Result<RankedModel<S>> {
    let config = variant.config(model)?;
    let load = |rank: &Arc<S>| {
        let decoder = Decoder::load(&**rank, model, config.clone(), |_, _| {})?;
        Ok((Arc::clone(rank), Arc::new(decoder)))
    };
    Ok(RankedModel::new(ranks.iter().map(load).collect::<model::Result<_>>()?))
}

/// `one` with a sequence at a time, `several` with all.
fn compare<S: Subject>(
    one: &RankedModel<S>,
    several: &RankedModel<S>,
    tally: &mut Tally,
    variant: Variant,
) -> Result<(), RunError> {
    let vocab = one.ranks()[0].1.config().vocab_size() as u32;
    let mut rng = Rng::new(5);
    let lengths = LENGTHS.map(|len: usize| len.min(variant.longest()));
    let sequences = lengths.map(|len| (0..len).map(|_| rng.below(vocab)).collect::<Vec<u32>>());
    let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
    let mut want = Vec::new();
    let mut alone = Sequences::with_attention(one, 32, variant.attention())?;
    for tokens in &sequences {
        want.append(&mut alone.all(&[tokens], MAX_TOKENS)?);
    }
    drop(alone);
    for &(page_size, chunk, most) in variant.conditions() {
        let mut together = Sequences::with_attention(several, page_size, variant.attention())?;
        let cut: Vec<&[u32]> = sequences.iter().map(|tokens| &tokens[..tokens.len().min(most)]).collect();
        for (got, want) in together.all(&cut, chunk)?.iter().zip(&want) {
            let case = || format!("pages of {page_size}, chunks of {chunk}, {} logits", got.len());
            tally.same(case, got, &want[..got.len()]);
        }
    }
    let mut together = Sequences::with_attention(several, 16, variant.attention())?;
    mixed_wants(&mut together, tally, &sequences, &want)?;
    Ok(())
}

/// Sequences of one step that want different things: rows of logits are those of the sequence alone, indices are those of
/// the highest of them, and hidden states do not depend on the neighbours.
fn mixed_wants(
    runner: &mut Sequences,
    tally: &mut Tally,
    sequences: &[&[u32]],
    logits: &[Vec<f32>],
) -> Result<(), RunError> {
    const LEN: usize = 18;
    let vocab = runner.runner.spec().vocab_size;
    let of_rows = |seq: usize, rows: Range<usize>| &logits[seq][rows.start * vocab..rows.end * vocab];
    // Sequences 2, 3 and 4 have at least so many tokens.
    let (a, b, c) = (&sequences[2][..LEN], &sequences[3][..LEN], &sequences[4][..LEN]);
    let hidden = runner.wanting(&[(3, 0, b, Want::Hidden(Rows::All))])?.hidden_states().to_vec();
    let step = runner.wanting(&[
        (2, 0, a, Want::Argmax(Rows::LastN(3))),
        (3, 0, b, Want::Hidden(Rows::All)),
        (0, 0, &sequences[0][..1], Want::None),
        (4, 0, c, Want::Logits(Rows::LastN(2))),
        (1, 0, &sequences[1][..1], Want::Argmax(Rows::Last)),
    ])?;
    tally.same(|| "hidden states among other wants".to_owned(), step.hidden_states(), &hidden);
    tally.same(|| "logits among other wants".to_owned(), step.logits(), of_rows(4, LEN - 2..LEN));
    let rows = [of_rows(2, LEN - 3..LEN), of_rows(1, 0..1)].concat();
    let want: Vec<u32> = rows.chunks_exact(vocab).map(highest).collect();
    tally.equal(|| "indices among other wants".to_owned(), step.next_tokens(), &want);
    Ok(())
}
