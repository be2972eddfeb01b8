//! The four `forward` calls: what they return, what they leave in the slots, and what they refuse.

use rustorch_llama::{Error, LlamaModel};

use crate::{assert_says, cached, demo_path, model};

const A: &[u32] = &[5, 17, 8, 250, 3, 3, 99];
const B: &[u32] = &[40, 41];
const C: &[u32] = &[299, 0, 1];

#[test]
fn one_sequence_is_a_batch_of_one_in_slot_0() {
    let mut model = model(3);
    let logits = model.forward(A).unwrap();
    assert_eq!(logits.len(), model.config().vocab_size());
    assert!(logits.iter().all(|logit| logit.is_finite()));
    assert_eq!(cached(&mut model), [A.len(), 0, 0]);
    assert_eq!(model.forward_with_position(A, 0).unwrap(), logits);
    let batch = vec![logits];
    assert_eq!(model.forward_batch(&[A]).unwrap(), batch);
    assert_eq!(model.forward_batch_with_position(&[A], &[0]).unwrap(), batch);
    assert_eq!(cached(&mut model), [A.len(), 0, 0]);
}

#[test]
fn a_batch_gives_each_sequence_its_own_logits_in_its_own_slot() {
    let mut batched = model(4);
    let mut single = model(1);
    let logits = batched.forward_batch(&[A, B, C]).unwrap();
    let alone = [A, B, C].map(|tokens| single.forward(tokens).unwrap());
    assert_eq!(logits, alone);
    assert_eq!(cached(&mut batched), [A.len(), B.len(), C.len(), 0]);
}

#[test]
fn a_sequence_replaces_what_its_slot_held() {
    let mut model = model(2);
    let first = model.forward_batch(&[B, C]).unwrap();
    model.forward_batch(&[A, A]).unwrap();
    assert_eq!(model.forward_batch(&[B, C]).unwrap(), first);
    assert_eq!(cached(&mut model), [B.len(), C.len()]);
}

#[test]
fn a_start_position_appends() {
    let mut model = model(2);
    let whole = model.forward_batch(&[A, C]).unwrap();
    model.forward_batch(&[&A[..4], &C[..1]]).unwrap();
    model.forward_batch_with_position(&[&A[4..6], &C[1..2]], &[4, 1]).unwrap();
    assert_eq!(cached(&mut model), [6, 2]);
    assert_eq!(model.forward_batch_with_position(&[&A[6..], &C[2..]], &[6, 2]).unwrap(), whole);
    assert_eq!(cached(&mut model), [A.len(), C.len()]);
}

#[test]
fn an_earlier_start_position_cuts_the_slot_first() {
    let mut model = model(2);
    let want = model.forward(&[&A[..3], B].concat()).unwrap();
    model.forward(A).unwrap();
    assert_eq!(model.forward_with_position(B, 3).unwrap(), want);
    assert_eq!(cached(&mut model), [3 + B.len(), 0], "the rest of the old sequence is gone");
    let error = model.forward_with_position(B, A.len()).unwrap_err();
    assert!(matches!(error, Error::StartBeyondCache { start: 7, cached: 5, .. }), "{error}");
    // A start of 0 cuts all of it.
    let whole = model.forward(B).unwrap();
    assert_eq!(model.forward_with_position(B, 0).unwrap(), whole);
}

#[test]
fn slots_beyond_the_batch_are_untouched() {
    let mut model = model(3);
    let whole = model.forward_batch(&[A, B, C]).unwrap();
    let rest = &C[C.len() - 1..];
    model.forward_batch(&[B, A, &C[..C.len() - 1]]).unwrap();
    model.forward(C).unwrap();
    model.forward_batch(&[A, B]).unwrap();
    assert_eq!(cached(&mut model), [A.len(), B.len(), C.len() - 1]);
    let starts = [A.len() - 1, B.len() - 1, C.len() - 1];
    let last = [&A[starts[0]..], &B[starts[1]..], rest];
    assert_eq!(model.forward_batch_with_position(&last, &starts).unwrap(), whole);
}

#[test]
fn the_logits_of_every_token_are_those_of_its_prefix() {
    let mut model = model(2);
    let mut all = Vec::new();
    model.forward_all(A, |index, logits| all.push((index, logits.to_vec()))).unwrap();
    assert_eq!(cached(&mut model), [A.len(), 0]);
    assert_eq!(all.len(), A.len());
    for (end, (index, logits)) in all.into_iter().enumerate() {
        assert_eq!(index, end);
        assert_eq!(logits, model.forward(&A[..=end]).unwrap());
    }
}

/// A call that must fail, and what its message must say.
struct Mistake<'a> {
    sequences: &'a [&'a [u32]],
    start: &'a [usize],
    says: &'a [&'a str],
}

#[test]
fn a_mistake_is_named_and_changes_no_slot() {
    let full: Vec<u32> = (0..64).collect();
    let long: Vec<u32> = (0..65).collect();
    let vocab = "vocabulary size 300";
    let mistakes = [
        Mistake { sequences: &[], start: &[], says: &["at least one sequence"] },
        Mistake {
            sequences: &[B, B, B, B],
            start: &[0; 4],
            says: &["at most 3", "found 4", "set_batch_size"],
        },
        Mistake { sequences: &[&[]], start: &[0], says: &["sequence 0", "at least one token"] },
        Mistake { sequences: &[B, &[]], start: &[0; 2], says: &["sequence 1", "at least one token"] },
        Mistake { sequences: &[B, C], start: &[0], says: &["start positions", "expected 2", "found 1"] },
        Mistake { sequences: &[B], start: &[0, 0], says: &["start positions", "expected 1", "found 2"] },
        Mistake { sequences: &[&[300]], start: &[0], says: &["sequence 0", "token 300 at index 0", vocab] },
        Mistake {
            sequences: &[B, &[1, u32::MAX]],
            start: &[0; 2],
            says: &["sequence 1", "token 4294967295 at index 1", vocab],
        },
        Mistake {
            sequences: &[B, &long],
            start: &[0; 2],
            says: &["sequence 1", "context of 64", "found 65"],
        },
        Mistake {
            sequences: &[&full[..58]],
            start: &[7],
            says: &["sequence 0", "7 cached", "58 new", "context of 64", "found 65"],
        },
        Mistake { sequences: &[B], start: &[8], says: &["sequence 0", "position 8", "7 tokens cached"] },
        Mistake {
            sequences: &[B, C, B],
            start: &[7, 2, 1],
            says: &["sequence 2", "position 1", "0 tokens cached"],
        },
        Mistake {
            sequences: &[B],
            start: &[usize::MAX],
            says: &["position 18446744073709551615", "7 tokens cached"],
        },
    ];
    let mut model = model(3);
    let next = |model: &mut LlamaModel| model.forward_batch_with_position(&[&[11], &[12]], &[7, 2]).unwrap();
    model.forward_batch(&[A, B]).unwrap();
    let want = next(&mut model);
    for Mistake { sequences, start, says } in mistakes {
        model.forward_batch(&[A, B]).unwrap();
        let error = model.forward_batch_with_position(sequences, start).unwrap_err();
        assert_says(&error, says);
        assert_eq!(cached(&mut model), [A.len(), B.len(), 0], "after: {error}");
        assert_eq!(next(&mut model), want, "after: {error}");
    }
}

#[test]
fn the_other_calls_refuse_the_same_mistakes() {
    let mut model = model(1);
    model.forward(B).unwrap();
    assert!(matches!(model.forward(&[]), Err(Error::EmptySequence { sequence: 0 })));
    assert!(matches!(model.forward(&[300]), Err(Error::TokenOutOfRange { found: 300, .. })));
    assert!(matches!(model.forward(&[0; 65]), Err(Error::ContextOverflow { tokens: 65, .. })));
    assert!(matches!(model.forward_with_position(B, 3), Err(Error::StartBeyondCache { .. })));
    assert!(matches!(model.forward_batch(&[]), Err(Error::EmptyBatch)));
    assert!(matches!(model.forward_batch(&[B, B]), Err(Error::BatchTooLarge { found: 2, batch_size: 1 })));
    assert!(matches!(model.forward_all(&[], |_, _| {}), Err(Error::EmptySequence { .. })));
    assert!(matches!(model.forward_all(&[0; 65], |_, _| {}), Err(Error::ContextOverflow { .. })));
    assert_eq!(cached(&mut model), [B.len()]);
}

#[test]
fn a_sequence_may_fill_the_context() {
    let mut model = model(2);
    let full: Vec<u32> = (0..64).collect();
    let logits = model.forward_batch(&[&full, B]).unwrap();
    model.forward_batch(&[&full[..63], B]).unwrap();
    assert_eq!(model.forward_with_position(&full[63..], 63).unwrap(), logits[0]);
    let error = model.forward_with_position(&[1], 64).unwrap_err();
    assert!(matches!(error, Error::ContextOverflow { start: 64, tokens: 1, max_seq_len: 64, .. }), "{error}");
}

#[test]
fn a_batch_may_exceed_the_tokens_of_a_pass() {
    let config = crate::small_config().with_batch_size(3);
    let mut wide = crate::load(config.clone());
    // Fewer tokens a pass than sequences: a pass still has one of each.
    let mut narrow = crate::load(config.with_max_batch_tokens(1).with_prompt_chunk(2));
    assert_eq!(narrow.forward_batch(&[A, B, C]).unwrap(), wide.forward_batch(&[A, B, C]).unwrap());
}

#[test]
fn the_demo_model_continues_a_story() {
    let mut model = LlamaModel::from_gguf(demo_path()).unwrap();
    let tokenizer = rustorch_llama::Tokenizer::from_gguf(&rustorch_llama::demo::gguf()).unwrap();
    let encode = |text| tokenizer.encode(text, rustorch_llama::Special::Text, rustorch_llama::Bos::Add);
    let logits = model.forward(&encode("Once upon a")).unwrap();
    let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
    assert_eq!(tokenizer.token_bytes(best as u32), b" time");
}
