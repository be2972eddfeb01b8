//! Cache slots and configuration: their number, their state, their memory, and what a caller may override.

use rustorch_llama::{KvDtype, RopeConfig, RopeScaling};

use crate::{assert_says, cached, load, model, small_config};

const A: &[u32] = &[5, 17, 8, 250, 3];
const B: &[u32] = &[40, 41];

#[test]
fn clear_empties_slots() {
    let mut model = model(3);
    let logits = model.forward_batch(&[A, B, A]).unwrap();
    model.kv_cache().clear_batch(1);
    assert_eq!(cached(&mut model), [A.len(), 0, A.len()]);
    let error = model.forward_batch_with_position(&[B, B], &[0, 1]).unwrap_err();
    assert_says(&error, &["sequence 1", "position 1", "0 tokens cached"]);
    model.kv_cache().clear();
    assert_eq!(cached(&mut model), [0; 3]);
    assert_eq!(model.forward_batch(&[A, B, A]).unwrap(), logits);
}

#[test]
fn memory_is_linear_in_the_batch_size() {
    let mut model = model(1);
    let config = model.config().clone();
    let slot = config.kv_bytes_per_token() * (config.pages_per_seq() * config.page_size) as u64;
    // Two layers, K and V, two heads of 16 halves, 64 positions.
    assert_eq!(slot, 2 * 2 * 2 * 16 * 2 * 64);
    for batch_size in [1, 2, 4, 8, 16, 3] {
        model.set_batch_size(batch_size).unwrap();
        assert_eq!(model.kv_cache().memory_bytes(), slot * batch_size as u64);
        assert_eq!(model.kv_cache().num_slots(), batch_size);
    }
}

#[test]
fn set_batch_size_makes_empty_slots_over_the_same_weights() {
    let mut model = model(2);
    let (weight_bytes, logits) = (model.weights().weight_bytes(), model.forward_batch(&[A, B]).unwrap());
    assert!(model.forward_batch(&[A, B, A]).is_err());
    for batch_size in [5, 3] {
        model.set_batch_size(batch_size).unwrap();
        assert_eq!(model.batch_size(), batch_size);
        assert_eq!(cached(&mut model), vec![0; batch_size]);
        assert_eq!(model.weights().weight_bytes(), weight_bytes);
        assert_eq!(model.forward_batch(&[A, B, A]).unwrap()[..2], logits[..]);
    }
    model.set_batch_size(1).unwrap();
    assert_eq!(model.forward(A).unwrap(), logits[0]);
    assert!(model.forward_batch(&[A, B]).is_err());
}

#[test]
fn an_impossible_batch_size_leaves_the_model_as_it_was() {
    let mut model = model(2);
    model.forward_batch(&[A, B]).unwrap();
    let next = model.forward_batch_with_position(&[&[7], &[7]], &[A.len(), B.len()]).unwrap();
    model.forward_batch(&[A, B]).unwrap();
    for impossible in [0, u32::MAX as usize, usize::MAX] {
        let error = model.set_batch_size(impossible).unwrap_err();
        assert_says(&error, &["batch size", "expected 1 to", &format!("found {impossible}")]);
        assert_eq!(model.batch_size(), 2);
        assert_eq!(cached(&mut model), [A.len(), B.len()]);
    }
    assert_eq!(model.forward_batch_with_position(&[&[7], &[7]], &[A.len(), B.len()]).unwrap(), next);
}

#[test]
fn the_context_is_the_callers() {
    for max_seq_len in [1, 5, 200] {
        let mut model = load(small_config().with_max_seq_len(max_seq_len).with_batch_size(1));
        let full = vec![1; max_seq_len];
        model.forward(&full).unwrap();
        let error = model.forward_with_position(&[1], max_seq_len).unwrap_err();
        assert_says(&error, &[&format!("context of {max_seq_len}"), &format!("found {}", max_seq_len + 1)]);
    }
}

#[test]
fn the_caches_type_is_the_callers() {
    let with = |dtype| load(small_config().with_kv_dtype(dtype).with_batch_size(1));
    let (mut half, mut single) = (with(KvDtype::F16), with(KvDtype::F32));
    assert_eq!(single.kv_cache().memory_bytes(), 2 * half.kv_cache().memory_bytes());
    let (half, single) = (half.forward(A).unwrap(), single.forward(A).unwrap());
    assert_ne!(half, single);
    let exact: Vec<f64> = single.iter().map(|&logit| f64::from(logit)).collect();
    assert!(testkit::relative_l2(&half, &exact) < 2e-3);
}

#[test]
fn the_page_size_is_the_callers_and_does_not_show() {
    let want = model(2).forward_batch(&[A, B]).unwrap();
    for (page_size, reserved) in [(1, 64), (7, 70), (64, 64), (1000, 1000)] {
        let mut model = load(small_config().with_page_size(page_size).with_batch_size(2));
        let tokens = 2 * reserved;
        assert_eq!(model.kv_cache().memory_bytes(), tokens * model.config().kv_bytes_per_token());
        assert_eq!(model.forward_batch(&[A, B]).unwrap(), want, "pages of {page_size}");
    }
}

#[test]
fn the_rotation_is_the_callers() {
    let config = small_config().with_batch_size(1);
    let rope = config.spec.ropes[0];
    let forward = |rope: RopeConfig| load(config.clone().with_rope(rope)).forward(A).unwrap();
    let want = forward(rope);
    let differing = [
        RopeConfig { base: 500_000.0, ..rope },
        RopeConfig { dim: 8, ..rope },
        RopeConfig { scaling: RopeScaling::Linear { factor: 2.0 }, ..rope },
    ];
    for other in differing {
        assert_ne!(forward(other), want, "{other:?}");
    }
    assert_eq!(forward(RopeConfig { scaling: RopeScaling::Linear { factor: 1.0 }, ..rope }), want);
    // The first position is not rotated.
    let mut scaled = load(config.clone().with_rope(differing[0]));
    assert_eq!(scaled.forward(&A[..1]).unwrap(), load(config).forward(&A[..1]).unwrap());
}
