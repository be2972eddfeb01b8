//! Tensor parallel: several ranks give the bits of one device, whatever the model, and fail together.

use std::num::NonZeroUsize;

use gguf::Gguf;
use rustorch_llama::{
    Activations, AttentionMode, CpuOptions, Device, Devices, KvDtype, LlamaConfig, LlamaModel, LoadOptions,
    Weights,
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
