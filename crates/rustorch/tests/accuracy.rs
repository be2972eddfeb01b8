//! Logits of every block format and every variation of the architecture against float64, and beside llama.cpp's.
//!
//! The models are random, two layers deep and made by the test kit, which also computes what is right. llama.cpp's errors
//! on the same files were recorded by `reference/llama_cpp_errors.py`. With `--nocapture` the tests print all figures.

#![allow(clippy::print_stdout)] // The table is the tests' second result.

use gguf::{Format, Gguf};
use rustorch_llama::{
    Activations, AttentionMode, CpuOptions, Device, EmbeddingRequest, EngineConfig, Isa, KvDtype,
    LlamaConfig, LlamaModel, LoadOptions, Pooling, Weights,
};
use serde_json::Value;
use testkit::models::{self, TestModel};
use testkit::{Reference, relative_l2};

/// F32 weights and cache: rounding in f32 alone, through some 500 terms of a sum, 20 times.
const F32_LIMIT: f64 = 2e-5;
/// Weights of 16 bits are widened exactly, but a sum may be cut differently.
const HALF_LIMIT: f64 = 1e-4;
/// K and V rounded to 11 bits.
const F16_CACHE_LIMIT: f64 = 2e-3;
/// Quantised weights: activations are quantised too. As good as llama.cpp, give or take chance.
const RATIO_LIMIT: f64 = 1.25;
const QUANTIZED_LIMIT: f64 = 4.5e-2;
/// Activations of 16 bits, whose steps are 2^-15 of the largest in 32: [`HALF_LIMIT`] for all formats but this one, whose
/// random model makes most of a rounding: 1.01e-4 with AVX2, 1.03e-4 with AVX-512.
const WIDE_LIMIT_OF_IQ2_S: f64 = 1.1e-4;
/// What llama.cpp, given F32 weights and cache, may be off from the reference before one of the two is wrong.
const ORACLE_LIMIT: f64 = 5e-6;

/// Formats for which llama.cpp's figures have not been recorded: their models are held to [`QUANTIZED_LIMIT`] alone.
const UNRECORDED: [Format; 10] = [
    Format::MXFP4,
    Format::IQ1_S,
    Format::IQ1_M,
    Format::IQ2_XXS,
    Format::IQ2_XS,
    Format::IQ2_S,
    Format::IQ3_XXS,
    Format::IQ3_S,
    Format::TQ1_0,
    Format::TQ2_0,
];

/// llama.cpp's recorded figures.
struct Recorded(Value);

impl Recorded {
    fn read() -> Self {
        Self(serde_json::from_str(include_str!("reference/llama_cpp_errors.json")).unwrap())
    }

    fn number(&self, model: &str, path: &str) -> f64 {
        let number = self.0["models"][model].pointer(path).and_then(Value::as_f64);
        number.unwrap_or_else(|| panic!("{model}{path}: not recorded; run llama_cpp_errors.py again"))
    }
}

/// A test model, and the right logits after each of its sequences.
struct Case {
    model: TestModel,
    gguf: Gguf,
    sequences: Vec<Vec<u32>>,
    want: Vec<Vec<f64>>,
}

impl Case {
    fn new(model: TestModel) -> Self {
        let gguf = Gguf::from_vec(model.spec.to_gguf()).unwrap();
        let sequences = models::sequences(model.spec.vocab);
        let reference = Reference::new(&gguf);
        let want = sequences.iter().map(|tokens| reference.logits(tokens)).collect();
        Self { model, gguf, sequences, want }
    }

    fn named(name: &str) -> Self {
        Self::new(models::all().into_iter().find(|model| model.name == name).unwrap())
    }

    /// The logits of all sequences in one batch.
    fn logits(&self, kv_dtype: KvDtype, options: LoadOptions<'_>) -> Vec<Vec<f32>> {
        let config = LlamaConfig::from_gguf(&self.gguf)
            .unwrap()
            .with_batch_size(self.sequences.len())
            .with_max_seq_len(128)
            .with_kv_dtype(kv_dtype);
        let mut model = LlamaModel::load(&self.gguf, config, options).unwrap();
        let sequences: Vec<&[u32]> = self.sequences.iter().map(Vec::as_slice).collect();
        model.forward_batch(&sequences).unwrap()
    }
}

const CPU: Device = on_cpu(Activations::Bits8);

const fn on_cpu(activations: Activations) -> Device {
    Device::Cpu(CpuOptions { threads: None, isa: None, activations })
}

const BOTH_CACHES: &[(KvDtype, &str)] = &[(KvDtype::F32, "f32"), (KvDtype::F16, "f16")];

/// Checks a model with these caches; gives the ratios of its errors to llama.cpp's where those have been recorded.
fn check(device: Device, caches: &[(KvDtype, &str)], model: TestModel, recorded: &Recorded) -> Vec<f64> {
    let case = Case::new(model);
    let TestModel { name, spec } = &case.model;
    let want = case.want.concat();
    if UNRECORDED.contains(&spec.formats.rule) {
        for &(kv_dtype, setting) in caches {
            let got = case.logits(kv_dtype, LoadOptions::on(device));
            let error = relative_l2(&got.concat(), &want);
            println!("{name:18} {setting} {error:9.2e}");
            assert!(error <= QUANTIZED_LIMIT, "{name}, {setting} cache: error {error:e}");
        }
        return Vec::new();
    }
    let norm = want.iter().map(|want| want * want).sum::<f64>().sqrt();
    let recorded_norm = recorded.number(name, "/norm");
    assert!(
        (norm / recorded_norm - 1.0).abs() < 1e-9,
        "{name}: llama.cpp's figures are those of another model: run llama_cpp_errors.py again"
    );
    let mut ratios = Vec::new();
    for &(kv_dtype, setting) in caches {
        let got = case.logits(kv_dtype, LoadOptions::on(device));
        let error = relative_l2(&got.concat(), &want);
        let peers = recorded.number(name, &format!("/{setting}/all"));
        let limit = match (spec.formats.rule, kv_dtype) {
            (Format::F32, KvDtype::F32) => F32_LIMIT,
            (Format::F16 | Format::BF16, KvDtype::F32) => HALF_LIMIT,
            (Format::F32 | Format::F16 | Format::BF16, KvDtype::F16) => F16_CACHE_LIMIT,
            _ => QUANTIZED_LIMIT.min(RATIO_LIMIT * peers),
        };
        let worst = got
            .iter()
            .zip(&case.want)
            .enumerate()
            .map(|(i, (got, want))| {
                relative_l2(got, want) / recorded.number(name, &format!("/{setting}/each/{i}"))
            })
            .fold(0.0, f64::max);
        println!(
            "{name:18} {setting} {error:9.2e} {peers:9.2e} {:6.3}   worst sequence {worst:6.3}",
            error / peers
        );
        assert!(error <= limit, "{name}, {setting} cache: error {error:e}, limit {limit:e}");
        ratios.push(error / peers);
    }
    ratios
}

fn is_quantized(model: &TestModel) -> bool {
    model.spec.formats.rule.block_len() > 1
}

#[test]
fn logits_of_float_weights_are_right_to_rounding() {
    let recorded = Recorded::read();
    println!("model          cache      ours llama.cpp  ratio");
    for model in models::all().into_iter().filter(|model| !is_quantized(model)) {
        check(CPU, BOTH_CACHES, model, &recorded);
    }
}

#[test]
fn logits_of_quantized_weights_are_as_good_as_llama_cpps() {
    let recorded = Recorded::read();
    println!("model          cache      ours llama.cpp  ratio");
    let models = models::all().into_iter().filter(is_quantized);
    let ratios: Vec<f64> = models.flat_map(|model| check(CPU, BOTH_CACHES, model, &recorded)).collect();
    let mean = ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64;
    println!("geometric mean of the ratios: {:.3}", mean.exp());
}

/// Activations of 16 bits leave quantised weights the errors of weights that are not: the cache's, and f32's.
#[test]
fn logits_of_quantized_weights_with_activations_of_16_bits_are_right_to_rounding() {
    println!("model          cache      ours");
    for case in models::all().into_iter().filter(is_quantized).map(Case::new) {
        let (name, want) = (&case.model.name, case.want.concat());
        let wide_limit = if *name == "iq2_s" { WIDE_LIMIT_OF_IQ2_S } else { HALF_LIMIT };
        for (kv_dtype, setting, limit) in
            [(KvDtype::F32, "f32", wide_limit), (KvDtype::F16, "f16", F16_CACHE_LIMIT)]
        {
            let got = case.logits(kv_dtype, LoadOptions::on(on_cpu(Activations::Bits16)));
            let error = relative_l2(&got.concat(), &want);
            println!("{name:18} {setting} {error:9.2e}");
            assert!(error <= limit, "{name}, {setting} cache: error {error:e}, limit {limit:e}");
        }
    }
}

#[cfg(feature = "device-tests")]
#[path = "common/gpu.rs"]
mod gpu;

#[test]
fn every_instruction_set_and_either_attention_is_right() {
    for (name, activations, limit) in [
        ("short_heads", Activations::Bits8, F32_LIMIT),
        ("everything_q8_0", Activations::Bits8, QUANTIZED_LIMIT),
        ("everything_q8_0", Activations::Bits16, HALF_LIMIT),
    ] {
        let case = Case::named(name);
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            for attention in [AttentionMode::Fused, AttentionMode::Reference] {
                let device = Device::Cpu(CpuOptions { threads: None, isa: Some(isa), activations });
                let options = LoadOptions { device, attention, ..LoadOptions::default() };
                let error = relative_l2(&case.logits(KvDtype::F32, options).concat(), &case.want.concat());
                assert!(
                    error <= limit,
                    "{name}, {isa}, {activations} bits, {attention:?}: error {error:e}, limit {limit:e}"
                );
            }
        }
    }
}

#[test]
fn an_independent_implementation_agrees_with_the_reference() {
    let recorded = Recorded::read();
    for model in models::all().into_iter().filter(|model| model.spec.formats.rule == Format::F32) {
        let error = recorded.number(&model.name, "/f32/all");
        assert!(error <= ORACLE_LIMIT, "{}: llama.cpp is off by {error:e}", model.name);
    }
}

/// Directions of the reference's states, as an engine's embeddings are.
#[test]
fn embeddings_are_right_to_rounding() {
    for name in ["f32", "everything_q8_0"] {
        let Case { gguf, sequences, .. } = Case::named(name);
        let config = LlamaConfig::from_gguf(&gguf).unwrap().with_max_seq_len(128).with_kv_dtype(KvDtype::F32);
        let weights = Weights::load(&gguf, config, LoadOptions::default()).unwrap();
        let engine = weights.start_engine(None, EngineConfig::default()).unwrap();
        let reference = Reference::new(&gguf);
        let limit = if name == "f32" { F32_LIMIT } else { QUANTIZED_LIMIT };
        for tokens in &sequences {
            let states = reference.normed_states(tokens);
            for pooling in [Pooling::Last, Pooling::Mean] {
                let pooled = match pooling {
                    Pooling::Last => states[states.len() - 1].clone(),
                    Pooling::Mean => {
                        (0..states[0].len()).map(|i| states.iter().map(|state| state[i]).sum()).collect()
                    }
                };
                let length = pooled.iter().map(|value| value * value).sum::<f64>().sqrt();
                let want: Vec<f64> = pooled.iter().map(|value| value / length).collect();
                let request =
                    EmbeddingRequest { prompt_token_ids: tokens.clone(), pooling, ..Default::default() };
                let got = engine.embed(request).unwrap().embedding().unwrap().values;
                let error = relative_l2(&got, &want);
                println!("{name:18} {pooling:?} of {} tokens: {error:9.2e}", tokens.len());
                assert!(error <= limit, "{name}, {pooling:?}: error {error:e}, limit {limit:e}");
            }
        }
    }
}

/// The same on a GPU.
#[cfg(feature = "device-tests")]
mod device {
    use super::*;

    /// The formats of whose plain models there is one on a GPU. Its products differ between block formats in how a block is
    /// unpacked alone, which the conformance checks compare for every format.
    const FORMATS: [Format; 4] = [Format::F32, Format::BF16, Format::Q8_0, Format::Q4_K];

    /// The models of [`FORMATS`], the mixtures and the variations, with the cache that users get; and once, with weights that
    /// no GPU rounds, with the other.
    fn check_on_gpu(is_wanted: impl Fn(&TestModel) -> bool) {
        let recorded = Recorded::read();
        println!("model          cache      ours llama.cpp  ratio");
        let is_plain = |model: &TestModel, formats: &[Format]| {
            formats.iter().any(|format| model.name == format.name().to_lowercase())
        };
        let is_left_out = |model: &TestModel| is_plain(model, &Format::ALL) && !is_plain(model, &FORMATS);
        for model in models::all().into_iter().filter(|model| is_wanted(model) && !is_left_out(model)) {
            let caches = if model.name == "f32" { BOTH_CACHES } else { &BOTH_CACHES[1..] };
            check(gpu::device(), caches, model, &recorded);
        }
    }

    #[test]
    fn logits_of_float_weights_are_as_right() {
        check_on_gpu(|model| !is_quantized(model));
    }

    #[test]
    fn logits_of_quantized_weights_are_as_right() {
        check_on_gpu(is_quantized);
    }
}
