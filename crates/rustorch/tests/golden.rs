//! One answer on every processor: the logits of whole models are the same bits on every instruction set, and those of the demo
//! model the recorded ones.
//!
//! The models are the demo model and the test kit's, among them one of every block format and of every family, with experts,
//! windows, soft caps and sinks; the settings, both types of cache, both attention modes and both precisions of activations; the
//! batch, sequences of very different lengths.

use std::num::NonZeroUsize;

use gguf::{Format, Gguf};
use rustorch_llama::{
    Activations, AttentionMode, CpuOptions, Device, GpuOptions, Isa, KvDtype, LlamaConfig, LlamaModel,
    LoadOptions, check_device, demo,
};
use testkit::models;

/// A hash of the demo model's logits over all settings. After a change that means to change bits: copy what the test prints.
const DEMO: u64 = 0xc16d_cd08_4f18_b6d6;

/// Every setting that results may depend on.
fn settings() -> Vec<(AttentionMode, KvDtype, Activations)> {
    let mut all = Vec::new();
    for attention in [AttentionMode::Fused, AttentionMode::Reference] {
        for kv_dtype in [KvDtype::F16, KvDtype::F32] {
            all.extend(Activations::ALL.map(|activations| (attention, kv_dtype, activations)));
        }
    }
    all
}

/// The last logits of some sequences in one batch.
fn logits(
    gguf: &Gguf,
    isa: Isa,
    (attention, kv_dtype, activations): (AttentionMode, KvDtype, Activations),
) -> Vec<f32> {
    let config = LlamaConfig::from_gguf(gguf).unwrap();
    let sequences = models::sequences(config.spec.vocab_size);
    let config = config.with_batch_size(sequences.len()).with_max_seq_len(128).with_kv_dtype(kv_dtype);
    let device = Device::Cpu(CpuOptions { threads: NonZeroUsize::new(2), isa: Some(isa), activations });
    let options = LoadOptions { device, attention, ..LoadOptions::default() };
    let mut model = LlamaModel::load(gguf, config, options).unwrap();
    let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
    model.forward_batch(&sequences).unwrap().concat()
}

/// FNV-1a over a model's logits in all settings, which every instruction set gives.
fn hash(name: &str, gguf: &Gguf) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for setting in settings() {
        let portable = logits(gguf, Isa::Portable, setting);
        assert!(portable.iter().all(|value| value.is_finite()) && portable.iter().any(|&value| value != 0.0));
        for isa in Isa::ALL.into_iter().filter(|&isa| isa != Isa::Portable && isa.is_available()) {
            let other = logits(gguf, isa, setting);
            let differs = portable.iter().zip(&other).position(|(a, b)| a.to_bits() != b.to_bits());
            assert_eq!(
                (other.len(), differs),
                (portable.len(), None),
                "{name}, {setting:?}: {isa} and portable"
            );
        }
        for byte in portable.iter().flat_map(|value| value.to_bits().to_le_bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash
}

fn of_the_test_kit(wanted: impl Fn(&models::TestModel) -> bool) -> impl Iterator<Item = (String, Gguf)> {
    let models = models::all().into_iter().filter(move |model| wanted(model));
    models.map(|model| (model.name, Gguf::from_vec(model.spec.to_gguf()).unwrap()))
}

fn is_of_one_format(name: &str) -> bool {
    Format::ALL.iter().any(|format| format.name().to_lowercase() == name)
}

#[test]
fn the_demo_model_gives_the_recorded_bits() {
    let found = hash("demo", &demo::gguf());
    assert_eq!(found, DEMO, "{found:#018x}");
}

/// `rustorch devices --check`.
#[test]
fn the_check_of_a_cpu_compares_the_demo_model_with_its_recorded_bits() {
    let report = check_device(Device::Cpu(CpuOptions::default()), GpuOptions::default(), |_| {}).unwrap();
    assert_eq!(report.num_failed(), 0, "{report}");
    let last = report.findings.last().unwrap();
    assert_eq!((last.check.as_str(), last.cases), ("golden hash of the demo model", 4));
}

#[test]
fn every_block_format_gives_the_same_bits_on_every_instruction_set() {
    let mut checked = 0;
    for (name, gguf) in of_the_test_kit(|model| is_of_one_format(&model.name)) {
        hash(&name, &gguf);
        checked += 1;
    }
    assert_eq!(checked, Format::ALL.len());
}

#[test]
fn every_family_gives_the_same_bits_on_every_instruction_set() {
    // `families.rs` checks that each has a model.
    for models::TestModel { name, spec } in models::families() {
        hash(&name, &Gguf::from_vec(spec.to_gguf()).unwrap());
    }
}

#[test]
fn ragged_widths_and_a_mixture_give_the_same_bits() {
    let names = ["mix_q4_k_m", "short_heads", "odd_widths"];
    let mut checked = 0;
    for (name, gguf) in of_the_test_kit(|model| names.contains(&model.name.as_str())) {
        hash(&name, &gguf);
        checked += 1;
    }
    assert_eq!(checked, names.len());
}
