//! Ranks of a group: they fail together, none waits for one that has failed, and each has its part of the memory.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use conformance::faulty::{Fault, Faulty};
use conformance::{Subject, rank_checks};
use cpu::{CpuBackend, CpuOptions};
use gguf::Gguf;
use model::{
    AttentionMode, Backend, Batch, BatchLimits, Decoder, Layout, LlamaConfig, Rank, RankedModel, Rows,
    Runner, Want,
};

use super::demo_model;

const NONE: Fault = Fault::SplitK { from_rows: usize::MAX };
const LIMITS: BatchLimits =
    BatchLimits { max_tokens: 4, max_seqs: 1, max_logit_rows: 1, max_blocks: 2, num_pages: 2 };

fn config(model: &Gguf) -> LlamaConfig {
    LlamaConfig::from_gguf(model).unwrap().with_max_seq_len(64)
}

fn group(count: usize) -> Vec<CpuBackend> {
    let options = CpuOptions { threads: std::num::NonZeroUsize::new(1), ..CpuOptions::default() };
    CpuBackend::group(&vec![options; count]).unwrap()
}

/// Three ranks of which one has a fault.
fn faulty_group(fault: Fault, faulty: usize) -> Vec<Arc<Faulty<CpuBackend>>> {
    let of_rank = |(rank, backend)| Arc::new(Faulty::new(backend, if rank == faulty { fault } else { NONE }));
    group(3).into_iter().enumerate().map(of_rank).collect()
}

fn load<B: Backend>(ranks: Vec<Arc<B>>, model: &Gguf) -> RankedModel<B> {
    let load = |rank: Arc<B>| {
        let decoder = Decoder::load(&*rank, model, config(model), |_, _| {}).unwrap();
        (rank, Arc::new(decoder))
    };
    RankedModel::new(ranks.into_iter().map(load).collect())
}

/// What a step says, or the panic that it ends with.
fn step(runner: &mut dyn Runner) -> String {
    let spec = runner.spec();
    let mut batch = Batch::new(spec.limits, spec.page_size);
    batch.push(&[1, 2, 3], 0, &[0], Want::Logits(Rows::Last));
    match catch_unwind(AssertUnwindSafe(|| runner.run(&batch).map(|_| ()))) {
        Ok(Ok(())) => "no error".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => format!("a panic: {}", panic.downcast_ref::<&str>().copied().unwrap_or_default()),
    }
}

/// The step in which a rank fails, and the one after it.
fn two_steps(fault: Fault, faulty: usize) -> [String; 2] {
    let (sender, steps) = mpsc::channel();
    thread::spawn(move || {
        let model = load(faulty_group(fault, faulty), &demo_model());
        let mut runner = model.runner(LIMITS, AttentionMode::Fused).unwrap();
        sender.send([step(&mut *runner), step(&mut *runner)])
    });
    steps.recv_timeout(Duration::from_secs(120)).expect("no rank waits for ever")
}

#[test]
fn a_rank_that_fails_ends_the_step_with_its_reason() {
    for faulty in 0..3 {
        let reason = format!("device: rank {faulty} of 3: device: no step begins");
        assert_eq!(two_steps(Fault::PlanFails, faulty), [reason.clone(), reason]);
        let [first, second] = two_steps(Fault::GatePanics, faulty);
        let reason = format!("device: rank {faulty} of 3: a panic: there is no activation");
        match faulty {
            // It runs in the caller's thread, whose panic it is.
            0 => assert_eq!(first, "a panic: there is no activation"),
            _ => assert_eq!(first, reason),
        }
        assert_eq!(second, reason, "a group that was left stays so");
    }
    assert_eq!(two_steps(NONE, 0), ["no error", "no error"]);
}

/// The negative control of the checks.
#[test]
fn a_rank_that_gathers_other_rows_is_found() {
    let model = demo_model();
    let alone = Arc::new(Faulty::new(CpuBackend::new(CpuOptions::default()).unwrap(), NONE));
    for (fault, fails) in [(Fault::GatherFromSecondRow, true), (NONE, false)] {
        let checks = rank_checks(&model, "3 ranks", || Ok(faulty_group(fault, 1)));
        let check = checks.iter().find(|check| check.name().contains("other constants")).unwrap();
        let finding = check.finding(&alone, "");
        assert_eq!(finding.failure.is_some(), fails, "{}: {:?}", alone.name(), finding.failure);
    }
}

/// Beside its part a rank has norms and the embedding table, which is the LM head of the demo model as well.
#[test]
fn a_rank_has_its_part_of_weights_and_cache() {
    let model = demo_model();
    let config = config(&model);
    let kv = |rank| {
        let layout = Layout::of_rank(&config, LIMITS, AttentionMode::Fused, rank).unwrap();
        layout.kv.bytes()
    };
    let weights = |ranks: Vec<CpuBackend>| -> Vec<u64> {
        let model = load(ranks.into_iter().map(Arc::new).collect(), &model);
        model.ranks().iter().map(|(_, decoder)| decoder.weight_bytes()).collect()
    };
    let one = weights(vec![CpuBackend::new(CpuOptions::default()).unwrap()])[0];
    let two = weights(group(2));
    let table = model.tensor("token_embd.weight").unwrap().data().len() as u64;
    for (rank, of_rank) in two.iter().enumerate() {
        let expect = table + one / 2;
        assert!(
            of_rank.abs_diff(expect) < one / 100,
            "rank {rank}: {of_rank} bytes, expected {expect} or so"
        );
        assert_eq!(kv(Rank::new(rank, 2)) * 2, kv(Rank::ONLY));
    }
}
