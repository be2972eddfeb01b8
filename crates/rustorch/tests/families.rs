//! Every model family: logits against float64, and batch invariance, on small random models.

use gguf::Gguf;
use rustorch_llama::{
    Activations, AttentionMode, CpuOptions, Device, Isa, KvDtype, LlamaConfig, LlamaModel, LoadOptions,
    families,
};
use testkit::models::{self, TestModel};
use testkit::{Reference, relative_l2};

/// F32 weights and cache: rounding in f32 alone.
const F32_LIMIT: f64 = 2e-5;
/// K and V rounded to 11 bits.
const F16_CACHE_LIMIT: f64 = 2e-3;

const CPU: Device = Device::Cpu(CpuOptions { threads: None, isa: None, activations: Activations::Bits8 });

/// Where K and V are rounded, the logits of a router may be off by so much: tokens whose choice of experts hangs on less, and
/// those after them, are not compared.
const F16_ROUTING_GAP: f64 = 0.02;

/// A model, its file, and sequences with the right logits after each token.
struct Case {
    name: String,
    gguf: Gguf,
    sequences: Vec<Vec<u32>>,
    want: Vec<Vec<Vec<f64>>>,
    /// How much the choice of experts hangs on, by position.
    gaps: Vec<Vec<f64>>,
}

impl Case {
    fn new(TestModel { name, spec }: TestModel) -> Self {
        let gguf = Gguf::from_vec(spec.to_gguf()).unwrap();
        let reference = Reference::new(&gguf);
        let sequences = models::sequences(spec.vocab);
        let want = sequences.iter().map(|tokens| reference.all_logits(tokens)).collect();
        let gaps = sequences.iter().map(|tokens| reference.routing_gaps(tokens)).collect();
        Self { name, gguf, sequences, want, gaps }
    }

    fn load(
        &self,
        kv_dtype: KvDtype,
        options: LoadOptions<'_>,
        (page_size, chunk): (usize, usize),
    ) -> LlamaModel {
        let config = LlamaConfig::from_gguf(&self.gguf)
            .unwrap_or_else(|error| panic!("{}: {error}", self.name))
            .with_batch_size(self.sequences.len())
            .with_page_size(page_size)
            .with_prompt_chunk(chunk)
            .with_kv_dtype(kv_dtype);
        LlamaModel::load(&self.gguf, config, options).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// The last logits of all sequences in one batch.
    fn together(&self, model: &mut LlamaModel) -> Vec<Vec<f32>> {
        let sequences: Vec<&[u32]> = self.sequences.iter().map(Vec::as_slice).collect();
        model.forward_batch(&sequences).unwrap()
    }

    /// The error of every position, one sequence at a time; the last logits of each.
    fn check_alone(&self, model: &mut LlamaModel, limit: f64) -> Vec<Vec<f32>> {
        let mut last = Vec::new();
        let mut compared = 0;
        let gap = if limit == F16_CACHE_LIMIT { F16_ROUTING_GAP } else { 0.0 };
        for ((tokens, want), gaps) in self.sequences.iter().zip(&self.want).zip(&self.gaps) {
            let comparable = gaps.iter().position(|&found| found < gap).unwrap_or(gaps.len());
            let mut row = Vec::new();
            let each = |position: usize, logits: &[f32]| {
                if position < comparable {
                    let error = relative_l2(logits, &want[position]);
                    let place = format!("{}, position {position} of {}", self.name, tokens.len());
                    assert!(error <= limit, "{place}: error {error:e}, limit {limit:e}");
                    compared += 1;
                }
                row = logits.to_vec();
            };
            model.forward_all(tokens, each).unwrap();
            last.push(row);
        }
        assert!(compared >= 10, "{}: {compared} positions compared", self.name);
        last
    }
}

fn assert_same(what: &str, got: &[Vec<f32>], want: &[Vec<f32>]) {
    for (sequence, (got, want)) in got.iter().zip(want).enumerate() {
        let same = got.iter().zip(want).all(|(got, want)| got.to_bits() == want.to_bits());
        assert!(same, "{what}: other bits for sequence {sequence}");
    }
}

/// The last logits of a model, each sequence alone and all of them together, which are the same bits.
fn check(case: &Case, kv_dtype: KvDtype, options: LoadOptions<'_>, limit: f64) -> Vec<Vec<f32>> {
    let mut model = case.load(kv_dtype, options, (32, 512));
    let alone = case.check_alone(&mut model, limit);
    assert_same(&format!("{}, {kv_dtype:?}, in a batch", case.name), &case.together(&mut model), &alone);
    alone
}

#[test]
fn every_family_is_right_and_batch_invariant() {
    for model in models::families() {
        let case = Case::new(model);
        let exact = check(&case, KvDtype::F32, LoadOptions::on(CPU), F32_LIMIT);
        check(&case, KvDtype::F16, LoadOptions::on(CPU), F16_CACHE_LIMIT);
        let reference = LoadOptions { attention: AttentionMode::Reference, ..LoadOptions::on(CPU) };
        check(&case, KvDtype::F32, reference, F32_LIMIT);
        for (page_size, chunk) in [(7, 5), (1, 64)] {
            let mut model = case.load(KvDtype::F32, LoadOptions::on(CPU), (page_size, chunk));
            let what = format!("{}, pages of {page_size}, chunks of {chunk}", case.name);
            assert_same(&what, &case.together(&mut model), &exact);
        }
    }
}

#[test]
fn every_instruction_set_has_every_family() {
    for model in models::families() {
        let case = Case::new(model);
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let device = Device::Cpu(CpuOptions { isa: Some(isa), ..CpuOptions::default() });
            check(&case, KvDtype::F32, LoadOptions::on(device), F32_LIMIT);
        }
    }
}

/// The models of 27 billion parameters have another scale, and are known by their layers alone.
#[test]
fn the_largest_gemmas_scale_scores_by_the_hidden_size() {
    let scale = |architecture: &str, layers: usize| {
        let mut models = models::families().into_iter();
        let mut spec = models.find(|model| model.name == architecture).expect("a model").spec;
        (spec.layers, spec.ffn, spec.vocab) = (layers, 4, 20);
        let config = LlamaConfig::from_gguf(&Gguf::from_vec(spec.to_gguf()).unwrap()).unwrap();
        config.spec.layers[0].attn.scale
    };
    let (by_hidden, by_head) = ((6.0f32 / 100.0).sqrt(), 1.0 / 18f32.sqrt());
    for (architecture, largest) in [("gemma2", 46), ("gemma3", 62)] {
        assert!((scale(architecture, largest) - by_hidden).abs() < 1e-7, "{architecture}");
        assert!((scale(architecture, largest - 1) - by_head).abs() < 1e-7, "{architecture}");
    }
}

/// A family without a model here would go untested.
#[test]
fn every_family_has_a_model() {
    let models = models::families();
    for family in families::FAMILIES.iter().filter(|family| family.architecture != "llama") {
        let has = models.iter().any(|model| model.spec.form.architecture == family.architecture);
        assert!(has, "testkit has no model of {}", family.architecture);
    }
}

#[cfg(feature = "device-tests")]
#[path = "common/gpu.rs"]
mod gpu;

#[cfg(feature = "device-tests")]
mod device {
    use super::*;

    /// Those whose operations `llama` does not have. The others differ from them in data alone.
    const MODELS: [&str; 8] =
        ["qwen3", "mistral3", "phi3_long", "gemma2", "gemma3", "qwen2moe", "mixtral_never_last", "gpt_oss"];

    #[test]
    fn families_run_on_a_gpu() {
        for model in models::families().into_iter().filter(|model| MODELS.contains(&model.name.as_str())) {
            check(&Case::new(model), KvDtype::F16, LoadOptions::on(gpu::device()), F16_CACHE_LIMIT);
        }
    }
}
