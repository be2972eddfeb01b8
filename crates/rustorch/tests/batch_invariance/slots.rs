//! Random calls of the public model: each continues, cuts back or replaces what some of its slots hold, with pieces of any
//! length. The logits of every call are compared with those that a model of one slot gives for the whole sequence.

use proptest::prelude::*;
use rustorch_llama::{LlamaConfig, LlamaModel, LoadOptions};
use testkit::Rng;

use super::{MAX_SEQ_LEN, Numerics, TestModel, for_random, same_bits, test_model};

/// What must not show.
#[derive(Debug, Clone)]
pub struct Conditions {
    threads: usize,
    page_size: usize,
    max_batch_tokens: usize,
    prompt_chunk: usize,
    /// Of each slot's sequence.
    lengths: Vec<usize>,
    /// Of the tokens and of the choices made at each call.
    seed: u64,
}

pub fn conditions() -> impl Strategy<Value = Conditions> {
    let lengths = prop::collection::vec(1..=80usize, 1..=6);
    (1..=4usize, 1..=64usize, 1..=96usize, 1..=96usize, lengths, any::<u64>()).prop_map(
        |(threads, page_size, max_batch_tokens, prompt_chunk, lengths, seed)| Conditions {
            threads,
            page_size,
            max_batch_tokens,
            prompt_chunk,
            lengths,
            seed,
        },
    )
}

fn config(model: &TestModel) -> LlamaConfig {
    LlamaConfig::from_gguf(&model.gguf).expect("a model's configuration").with_max_seq_len(MAX_SEQ_LEN)
}

fn load(model: &TestModel, numerics: Numerics, threads: usize, config: LlamaConfig) -> LlamaModel {
    let config = config.with_kv_dtype(numerics.kv_dtype);
    let options = LoadOptions { attention: numerics.attention, ..LoadOptions::on(numerics.device(threads)) };
    LlamaModel::load(&model.gguf, config, options).expect("a model")
}

/// Calls of a case.
const NUM_CALLS: usize = 12;

/// `[sequences][tokens][vocabulary]`, each sequence by itself.
fn alone(model: &TestModel, numerics: Numerics, sequences: &[Vec<u32>]) -> Vec<Vec<Vec<f32>>> {
    let mut alone = load(model, numerics, 1, config(model).with_batch_size(1));
    let all_logits = |tokens: &Vec<u32>| {
        let mut all = Vec::new();
        alone.forward_all(tokens, |_, logits| all.push(logits.to_vec())).expect("logits");
        all
    };
    sequences.iter().map(all_logits).collect()
}

pub fn check(model: &TestModel, numerics: Numerics, conditions: &Conditions) -> Result<(), String> {
    let Conditions { threads, page_size, max_batch_tokens, prompt_chunk, .. } = *conditions;
    let config = config(model)
        .with_batch_size(conditions.lengths.len())
        .with_page_size(page_size)
        .with_max_batch_tokens(max_batch_tokens)
        .with_prompt_chunk(prompt_chunk);
    let (mut rng, vocab_size) = (Rng::new(conditions.seed), config.vocab_size() as u32);
    let mut random = |len: &usize| (0..*len).map(|_| rng.below(vocab_size)).collect();
    let sequences: Vec<Vec<u32>> = conditions.lengths.iter().map(&mut random).collect();
    let want = alone(model, numerics, &sequences);
    let mut together = load(model, numerics, threads, config);
    for _ in 0..NUM_CALLS {
        let (pieces, start) = draw_call(&mut together, &sequences, &mut rng);
        let got = together.forward_batch_with_position(&pieces, &start).map_err(|error| error.to_string())?;
        assert_eq!(got.len(), pieces.len());
        for (slot, got) in got.iter().enumerate() {
            let last = start[slot] + pieces[slot].len() - 1;
            same_bits(got, &want[slot][last]).map_err(|difference| {
                format!("{}, {numerics:?}: slot {slot}, position {last}: {difference}", model.name)
            })?;
        }
    }
    Ok(())
}

/// Pieces of the sequences of some slots, and where they start. Slots beyond the last one keep what they hold.
fn draw_call<'a>(
    model: &mut LlamaModel,
    sequences: &'a [Vec<u32>],
    rng: &mut Rng,
) -> (Vec<&'a [u32]>, Vec<usize>) {
    let num_slots = 1 + rng.below(sequences.len() as u32) as usize;
    let piece = |(slot, tokens): (usize, &'a Vec<u32>)| {
        let cached = model.kv_cache().cached_tokens(slot);
        let cut = cached == tokens.len() || rng.below(4) == 0;
        let start = if cut { rng.below(cached as u32) as usize } else { cached };
        let len = 1 + rng.below((tokens.len() - start) as u32) as usize;
        (&tokens[start..start + len], start)
    };
    sequences[..num_slots].iter().enumerate().map(piece).unzip()
}

#[test]
fn slots_hold_what_they_were_given() {
    for (name, cases) in [("odd_widths", 3), ("mix_q4_k_m", 1), ("demo", 1)] {
        let model = test_model(name);
        for numerics in Numerics::all() {
            for_random(cases, conditions(), |conditions| check(&model, numerics, &conditions));
        }
    }
}
