//! Tensor parallel: several ranks give the bits of one device, whatever the model, and fail together.

use std::num::NonZeroUsize;
use std::thread;

use gguf::Gguf;
use rustorch_llama::{
    Activations, AttentionMode, CpuOptions, Device, Devices, EngineConfig, KvDtype, LlamaConfig, LlamaModel,
    LoadOptions, Request, SamplingParams, Weights, demo,
};
use testkit::models::{self, TestModel};

fn options(ranks: usize, attention: AttentionMode) -> LoadOptions<'static> {
    let threads = NonZeroUsize::new(2);
    let cpu = CpuOptions { threads, isa: None, activations: Activations::Bits8 };
    let tensor_parallel = NonZeroUsize::new(ranks);
    LoadOptions { tensor_parallel, attention, ..LoadOptions::on(Device::Cpu(cpu)) }
}

fn config(gguf: &Gguf, num_seqs: usize) -> LlamaConfig {
    LlamaConfig::from_gguf(gguf).unwrap().with_batch_size(num_seqs).with_page_size(16)
}

/// The logits of all sequences' last tokens, in chunks of some tokens, then those of a decode of each.
fn logits(model: &mut LlamaModel, sequences: &[Vec<u32>]) -> Vec<Vec<f32>> {
    let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
    let mut logits = model.forward_batch(&sequences).unwrap();
    let lengths: Vec<usize> = sequences.iter().map(|tokens| tokens.len()).collect();
    let next: Vec<&[u32]> = sequences.iter().map(|_| &[5][..]).collect();
    logits.extend(model.forward_batch_with_position(&next, &lengths).unwrap());
    logits
}

fn check(name: &str, gguf: &Gguf, (dtype, attention): (KvDtype, AttentionMode), most_ranks: usize) {
    let sequences = models::sequences(LlamaConfig::from_gguf(gguf).unwrap().vocab_size());
    let config = config(gguf, sequences.len()).with_kv_dtype(dtype).with_prompt_chunk(37);
    let of_ranks = |ranks| {
        let mut model = LlamaModel::load(gguf, config.clone(), options(ranks, attention)).unwrap();
        assert_eq!(model.weights().num_ranks(), ranks);
        let gathers = model.weights().time_gathers(3, 2).unwrap();
        assert_eq!(gathers.is_some_and(|time| !time.is_zero()), ranks > 1, "{name}");
        logits(&mut model, &sequences)
    };
    let one = of_ranks(1);
    for ranks in 2..=most_ranks {
        for (row, (got, want)) in of_ranks(ranks).iter().zip(&one).enumerate() {
            let same = got.iter().zip(want).all(|(got, want)| got.to_bits() == want.to_bits());
            assert!(
                same && got.len() == want.len(),
                "{name}, {ranks} ranks, {dtype:?}: other bits in row {row}"
            );
        }
    }
}

/// 2 ranks have heads of their own, 3 share them and have shards of different widths.
#[test]
fn every_family_has_the_bits_of_one_device() {
    for TestModel { name, spec } in models::families() {
        let gguf = Gguf::from_vec(spec.to_gguf()).unwrap();
        check(&name, &gguf, (KvDtype::F16, AttentionMode::Fused), 3);
        check(&name, &gguf, (KvDtype::F32, AttentionMode::Reference), 2);
    }
}

#[test]
fn every_format_and_variation_has_the_bits_of_one_device() {
    for TestModel { name, spec } in models::all() {
        let gguf = Gguf::from_vec(spec.to_gguf()).unwrap();
        check(&name, &gguf, (KvDtype::F16, AttentionMode::Fused), 2);
    }
}

/// Two groups of two ranks are two replicas.
#[test]
fn engines_give_what_one_device_gives() {
    let load = |devices: &str, ranks: usize| {
        let devices: Devices = devices.parse().unwrap();
        let mut told = (0, 0);
        let mut progress = |done: u64, total: u64| told = (done, total);
        let progress = Some(&mut progress as &mut dyn FnMut(u64, u64));
        let options =
            LoadOptions { progress, tensor_parallel: NonZeroUsize::new(ranks), ..LoadOptions::default() };
        let gguf = demo::gguf();
        let weights =
            Weights::load_on(&devices, &gguf, config(&gguf, 4).with_max_seq_len(128), options).unwrap();
        assert!(told.0 > 0 && told.0 == told.1, "{told:?}");
        assert_eq!(devices.num_replicas(NonZeroUsize::new(ranks)).unwrap(), weights.num_replicas());
        weights
    };
    let completions = |weights: &Weights| -> Vec<_> {
        let engine = weights.start_engine(None, EngineConfig::default()).unwrap();
        let request = |seed: u32| {
            let params = SamplingParams {
                seed: seed.into(),
                temperature: (seed % 2) as f32,
                max_tokens: Some(9),
                ..SamplingParams::default()
            };
            Request { prompt_token_ids: (0..seed % 40 + 1).collect(), params, ..Request::default() }
        };
        let streams: Vec<_> = (0..30).map(|seed| engine.submit(request(seed)).unwrap()).collect();
        assert_eq!(engine.replicas().len(), weights.num_replicas());
        streams.into_iter().map(|stream| stream.completion().unwrap().token_ids).collect()
    };
    let one = load("cpu", 1);
    let expect = completions(&one);
    for (devices, ranks, replicas) in [("cpu", 2, 1), ("cpu:0,1,2,3", 2, 2)] {
        let weights = load(devices, ranks);
        assert_eq!((weights.num_ranks(), weights.num_replicas()), (ranks, replicas));
        assert_eq!(weights.numeric_path(), one.numeric_path());
        assert!(weights.device().contains("2 ranks: CPU ("), "{}", weights.device());
        assert_eq!(completions(&weights), expect, "{devices}");
    }
}

/// Their steps take turns, as ranks would otherwise gather in different orders.
#[test]
fn several_models_share_a_group() {
    let gguf = demo::gguf();
    let config = config(&gguf, 1).with_max_seq_len(128);
    let weights = Weights::load(&gguf, config, options(2, AttentionMode::Fused)).unwrap();
    let run = &|seed: u32| {
        let mut model = LlamaModel::new(weights.clone()).unwrap();
        (0..20)
            .map(|step| model.forward_with_position(&[seed + step], step as usize).unwrap())
            .collect::<Vec<_>>()
    };
    let alone = [run(1), run(50)];
    let together = thread::scope(|scope| {
        let threads = [1, 50].map(|seed| scope.spawn(move || run(seed)));
        threads.map(|thread| thread.join().unwrap())
    });
    assert!(alone == together && alone[0] != alone[1]);
}
