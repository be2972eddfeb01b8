//! A model small enough to be checked by hand: its logits are a hash of all tokens so far, and it remembers them through
//! paged KV only. So a wrong slot, page, position or order shows in every later token of the sequence.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};

use gguf::{Array, Gguf, GgufWriter, Value};
use model::{Batch, BatchLimits, Output, RunError, Runner, RunnerSpec, StepOutput, draw};
use tokenizer::Tokenizer;

use crate::admission::Admission;
use crate::embedding::Pooler;
use crate::error::Result;
use crate::events::RequestStream;
use crate::request::{Completion, Embedding, EmbeddingRequest, Pooling, Request, Usage};
use crate::sampler::Sampler;
use crate::sequence::Sequence;

/// The vocabulary of [`tokenizer`], with SentencePiece's types: 1 normal, 2 unknown, 3 control, 6 byte.
const VOCAB: [(&str, i32); 19] = [
    ("<unk>", 2),
    ("<s>", 3),
    ("</s>", 3),
    ("a", 1),
    ("b", 1),
    ("ab", 1),
    ("▁a", 1),
    ("▁", 1),
    ("é", 1),
    ("<0xC3>", 6),
    ("<0xA9>", 6),
    ("<0xE2>", 6),
    ("<0x82>", 6),
    ("<0xAC>", 6),
    ("STOP", 1),
    ("ST", 1),
    ("OP", 1),
    ("aSTOPb", 1),
    ("<0x0A>", 6),
];

pub(crate) const VOCAB_SIZE: usize = VOCAB.len();
pub(crate) const HIDDEN_SIZE: usize = 3;

/// The id of a token of the test vocabulary.
pub(crate) fn id(text: &str) -> u32 {
    VOCAB.iter().position(|&(known, _)| known == text).expect("a token of the test vocabulary") as u32
}

/// The tokenizer of the test vocabulary; `</s>` ends generation.
pub(crate) fn tokenizer() -> Arc<Tokenizer> {
    let mut writer = GgufWriter::new();
    writer.metadata("tokenizer.ggml.model", Value::String("llama".into()));
    let tokens = VOCAB.map(|(text, _)| text.to_owned()).to_vec();
    writer.metadata("tokenizer.ggml.tokens", Value::Array(Array::String(tokens)));
    writer.metadata("tokenizer.ggml.scores", Value::Array(Array::F32(vec![0.0; VOCAB_SIZE])));
    let types = VOCAB.map(|(_, kind)| kind).to_vec();
    writer.metadata("tokenizer.ggml.token_type", Value::Array(Array::I32(types)));
    let file = Gguf::from_vec(writer.write()).expect("a GGUF file");
    Arc::new(Tokenizer::from_gguf(&file).expect("a tokenizer"))
}

/// Sizes that suit short tests; tests change what they are about.
pub(crate) fn spec() -> RunnerSpec {
    RunnerSpec {
        limits: BatchLimits { max_tokens: 16, max_seqs: 4, max_logit_rows: 4, max_blocks: 32, num_pages: 64 },
        page_size: 4,
        vocab_size: VOCAB_SIZE,
        hidden_size: HIDDEN_SIZE,
        max_seq_len: 128,
        draws: false,
    }
}

/// The same with so many pages.
pub(crate) fn with_pages(num_pages: usize) -> RunnerSpec {
    let spec = spec();
    RunnerSpec { limits: BatchLimits { num_pages, ..spec.limits }, ..spec }
}

/// See the module.
pub(crate) struct FakeRunner {
    spec: RunnerSpec,
    slots: Vec<u64>,         // [num_pages * page_size]
    logits: Vec<f32>,        // [L, vocab_size]
    next_tokens: Vec<u32>,   // [A]
    hidden_states: Vec<f32>, // [H, hidden_size]
    /// Each step takes one; a step that finds an error here fails with it.
    failures: Receiver<Option<RunError>>,
}

impl FakeRunner {
    pub fn new(spec: RunnerSpec) -> Self {
        Self::failing(spec, mpsc::channel().1)
    }

    /// Fails the steps for which `failures` yields an error.
    pub fn failing(spec: RunnerSpec, failures: Receiver<Option<RunError>>) -> Self {
        let slots = vec![u64::MAX; spec.limits.num_pages * spec.page_size];
        Self { spec, slots, logits: Vec::new(), next_tokens: Vec::new(), hidden_states: Vec::new(), failures }
    }
}

impl Runner for FakeRunner {
    fn spec(&self) -> RunnerSpec {
        self.spec
    }

    fn run<'a>(&'a mut self, batch: &'a Batch) -> std::result::Result<StepOutput<'a>, RunError> {
        if let Ok(Some(error)) = self.failures.try_recv() {
            // Who knows what the device had done by then.
            batch.slot_mapping().iter().for_each(|&slot| self.slots[slot as usize] = mix(u64::from(slot)));
            return Err(error);
        }
        let page_size = self.spec.page_size;
        let mut kvs = Vec::new();
        for row in 0..batch.num_tokens() {
            let block_table = batch.block_table(batch.seq_of_row()[row] as usize);
            let slot = |position: usize| {
                block_table[position / page_size] as usize * page_size + position % page_size
            };
            let past = (0..batch.positions()[row] as usize).map(|position| self.slots[slot(position)]);
            kvs.push(kv_of(batch.token_ids()[row], past));
            self.slots[batch.slot_mapping()[row] as usize] = kvs[row];
        }
        let of_rows = |rows: &[u32], width| -> Vec<Vec<f32>> {
            rows.iter().map(|&row| logits_of(kvs[row as usize], width).collect()).collect()
        };
        let RunnerSpec { vocab_size, hidden_size, .. } = self.spec;
        let rows = of_rows(batch.token_rows(), vocab_size);
        self.next_tokens = rows.iter().zip(batch.draws()).map(|(row, of)| draw(row, of)).collect();
        self.logits = of_rows(batch.logit_rows(), vocab_size).concat();
        self.hidden_states = of_rows(batch.hidden_rows(), hidden_size).concat();
        Ok(StepOutput::new(batch, &self.spec, &self.next_tokens, &self.logits, &self.hidden_states))
    }
}

/// What the fake model stores for a token, given what it stored for all before it.
fn kv_of(token_id: u32, past: impl Iterator<Item = u64>) -> u64 {
    past.fold(mix(u64::from(token_id) + 1), |hash, kv| mix(hash ^ kv))
}

/// Logits between -4 and 4.
fn logits_of(kv: u64, vocab_size: usize) -> impl Iterator<Item = f32> {
    (0..vocab_size as u64).map(move |i| (mix(kv ^ mix(i)) >> 40) as f32 / (1u64 << 21) as f32 - 4.0)
}

/// The finaliser of SplitMix64.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A sequence for `request`, and its events.
pub(crate) fn sequence(
    spec: RunnerSpec,
    tokenizer: Option<&Arc<Tokenizer>>,
    request: Request,
) -> Result<(Sequence, RequestStream)> {
    let (sink, stream) = RequestStream::new();
    Ok((Admission::new(spec, tokenizer.cloned()).admit(request, sink)?, stream))
}

/// A sequence for a prompt to embed, and its events.
pub(crate) fn embedding_sequence(
    spec: RunnerSpec,
    request: EmbeddingRequest,
) -> Result<(Sequence, RequestStream)> {
    let (sink, stream) = RequestStream::new();
    Ok((Admission::new(spec, None).admit_embedding(request, sink)?, stream))
}

/// What the fake model generates for a request alone, without scheduler, steps or pages.
pub(crate) fn generate_alone(
    spec: RunnerSpec,
    tokenizer: Option<&Arc<Tokenizer>>,
    request: Request,
) -> Completion {
    let mut kvs: Vec<u64> = Vec::new();
    generate_from(spec, tokenizer, request, |token_ids| {
        for &token_id in &token_ids[kvs.len()..] {
            kvs.push(kv_of(token_id, kvs.iter().copied()));
        }
        logits_of(kvs[kvs.len() - 1], spec.vocab_size).collect()
    })
}

/// The fake model's embedding of a prompt alone.
pub(crate) fn embed_alone(spec: RunnerSpec, request: &EmbeddingRequest) -> Embedding {
    let mut kvs: Vec<u64> = Vec::new();
    let mut states = Vec::new();
    for &token_id in &request.prompt_token_ids {
        kvs.push(kv_of(token_id, kvs.iter().copied()));
        states.extend(logits_of(kvs[kvs.len() - 1], spec.hidden_size));
    }
    let mut pooler = Pooler::new(request.pooling, spec.hidden_size);
    pooler.push(match request.pooling {
        Pooling::Last => &states[states.len() - spec.hidden_size..],
        Pooling::Mean => &states,
    });
    let usage = Usage { prompt_tokens: request.prompt_token_ids.len(), ..Usage::default() };
    Embedding { values: pooler.finish().expect("a direction"), usage }
}

/// What is generated if `logits` follow the tokens so far.
pub(crate) fn generate_from(
    spec: RunnerSpec,
    tokenizer: Option<&Arc<Tokenizer>>,
    request: Request,
    mut logits: impl FnMut(&[u32]) -> Vec<f32>,
) -> Completion {
    let (mut seq, stream) = sequence(spec, tokenizer, request).expect("a request that fits");
    let mut sampler = Sampler::default();
    while let Some(row) = seq.num_scored_rows() {
        let logits = logits(&seq.token_ids[..=row]);
        seq.score(Output::Logits(&logits), &mut sampler);
    }
    while !seq.events.has_ended() {
        seq.generate(Output::Logits(&logits(&seq.token_ids)), &mut sampler);
    }
    stream.completion().expect("an ending")
}
