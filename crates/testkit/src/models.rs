//! The models that stand for all that files hold: of the `llama` architecture one for each block format, the mixtures that
//! quantisers write, and one for each variation; one or more of every other family; and the token sequences to run them on.

use gguf::{Array, Format, Value};

use crate::{ExpertTensors, Experts, Formats, ModelSpec, Rng, RopeScaling, Router, YarnRamp};

/// A model under the name of its file.
#[derive(Debug, Clone, PartialEq)]
pub struct TestModel {
    /// Unique; lower case.
    pub name: String,
    /// What it is.
    pub spec: ModelSpec,
}

/// Lengths of [`sequences`]: one token, a few, and both sides of the 32 and 64 that kernels and pages are cut by.
pub const SEQUENCE_LENGTHS: [usize; 6] = [1, 2, 7, 33, 64, 70];

/// Random token ids below `vocab`, one sequence for each of [`SEQUENCE_LENGTHS`].
pub fn sequences(vocab: usize) -> Vec<Vec<u32>> {
    let mut rng = Rng::new(0x5e9);
    SEQUENCE_LENGTHS.iter().map(|&len| (0..len).map(|_| rng.below(vocab as u32)).collect()).collect()
}

/// All models.
pub fn all() -> Vec<TestModel> {
    let mut models = formats();
    models.extend(mixtures());
    models.extend(variations());
    models
}

fn formats() -> Vec<TestModel> {
    let of = |format: Format| model(&format.name().to_lowercase(), |spec| spec.formats = format.into());
    Format::ALL.into_iter().map(of).collect()
}

/// The mixtures of formats that llama.cpp's quantiser writes under these names.
fn mixtures() -> Vec<TestModel> {
    let mixture = |name: &str, rule: Format, exceptions: &[(&'static str, Format)]| {
        model(name, |spec| spec.formats = Formats { rule, exceptions: exceptions.to_vec() })
    };
    let high = Format::Q6_K;
    let medium = |name: &str, rule: Format| {
        mixture(
            name,
            rule,
            &[
                ("blk.0.attn_v", high),
                ("blk.0.ffn_down", high),
                ("attn_output", rule),
                ("output.weight", high),
            ],
        )
    };
    vec![
        medium("mix_q4_k_m", Format::Q4_K),
        medium("mix_q5_k_m", Format::Q5_K),
        mixture(
            "mix_q3_k_m",
            Format::Q3_K,
            &[
                ("blk.0.attn_v", Format::Q5_K),
                ("attn_v", Format::Q4_K),
                ("blk.0.ffn_down", Format::Q5_K),
                ("ffn_down", Format::Q4_K),
                ("attn_output", Format::Q4_K),
                ("output.weight", high),
            ],
        ),
        mixture(
            "mix_q2_k",
            Format::Q2_K,
            &[
                ("attn_v", Format::Q3_K),
                ("ffn_down", Format::Q3_K),
                ("attn_output", Format::Q3_K),
                ("output.weight", high),
            ],
        ),
        model("tied_q4_k_m", |spec| {
            spec.tied_embeddings = true;
            let exceptions = vec![("attn_v", high), ("ffn_down", high), ("token_embd", high)];
            spec.formats = Formats { rule: Format::Q4_K, exceptions };
        }),
    ]
}

fn variations() -> Vec<TestModel> {
    let yarn = |spec: &mut ModelSpec, attn_factor: Option<f32>, ramp: Option<YarnRamp>| {
        spec.context = 4096;
        spec.rope_scaling =
            RopeScaling::Yarn { factor: 4.0, original_context: Some(1024), attn_factor, ramp };
    };
    vec![
        model("mha", |spec| spec.kv_heads = spec.heads),
        model("one_kv_head", |spec| spec.kv_heads = 1),
        model("short_heads", |spec| spec.head_dim = 40),
        model("long_heads", |spec| (spec.heads, spec.head_dim) = (2, 192)),
        model("tied", |spec| spec.tied_embeddings = true),
        model("biases", |spec| spec.biases = true),
        model("odd_widths", |spec| {
            (spec.hidden, spec.heads, spec.kv_heads, spec.head_dim, spec.ffn, spec.vocab) =
                (100, 5, 1, 20, 171, 301)
        }),
        model("large_eps", |spec| spec.norm_eps = 0.1),
        model("rope_base", |spec| spec.rope_base = 500_000.0),
        model("rope_factors", |spec| (spec.rope_base, spec.rope_factors_to) = (500_000.0, Some(8.0))),
        model("rope_linear", |spec| spec.rope_scaling = RopeScaling::Linear { factor: 2.5 }),
        model("rope_linear_old", |spec| spec.rope_scaling = RopeScaling::LegacyLinear { factor: 4.0 }),
        model("rope_yarn", |spec| yarn(spec, None, None)),
        model("rope_yarn_attn", |spec| yarn(spec, Some(0.8), None)),
        model("rope_yarn_ramp", |spec| {
            yarn(spec, None, Some(YarnRamp { ext_factor: 0.7, beta_fast: 16.0, beta_slow: 2.0 }));
        }),
        model("rope_yarn_context", |spec| {
            spec.context = 2048;
            spec.rope_factors_to = Some(3.0);
            spec.rope_scaling =
                RopeScaling::Yarn { factor: 8.0, original_context: None, attn_factor: None, ramp: None };
        }),
        model("everything_q8_0", |spec| {
            (spec.heads, spec.kv_heads, spec.head_dim) = (6, 3, 32);
            (spec.biases, spec.tied_embeddings) = (true, true);
            (spec.rope_factors_to, spec.formats) = (Some(8.0), Format::Q8_0.into());
        }),
    ]
}

/// A small model of each family but `llama` without experts, with what its files add; of widths that are no power of two, of heads that do
/// not make up the hidden size, and of windows shorter than a sequence.
pub fn families() -> Vec<TestModel> {
    let family = |name: &str, architecture: &'static str, change: &dyn Fn(&mut ModelSpec)| {
        model(name, |spec| {
            (spec.hidden, spec.heads, spec.kv_heads, spec.head_dim) = (100, 6, 2, 18);
            (spec.layers, spec.ffn, spec.vocab, spec.context) = (2, 75, 301, 128);
            spec.form.architecture = architecture;
            change(spec);
        })
    };
    let qwen2 = |spec: &mut ModelSpec| spec.form.qkv_biases = true;
    let qwen3 = |spec: &mut ModelSpec| spec.form.qk_norms = true;
    let number = |value: f32| Value::F32(value);
    let phi3 = |spec: &mut ModelSpec| {
        (spec.form.fused_qkv, spec.form.fused_gate_up) = (true, true);
    };
    let long_phi3 = |spec: &mut ModelSpec, original_context: u32| {
        phi3(spec);
        (spec.form.rope_dim, spec.form.long_factors, spec.tied_embeddings) = (Some(12), true, true);
        spec.form.keys = vec![
            ("rope.scaling.type", Value::String("longrope".into())),
            ("rope.scaling.original_context_length", Value::U32(original_context)),
            ("rope.scaling.attn_factor", number(1.19)),
        ];
    };
    let granite = |spec: &mut ModelSpec| {
        spec.form.keys = vec![
            ("embedding_scale", number(12.0)),
            ("residual_scale", number(0.22)),
            ("attention.scale", number(0.3)),
            ("logit_scale", number(8.0)),
        ];
    };
    let experts = Experts {
        count: 7,
        used: 3,
        ffn: 35,
        shared: 0,
        shared_gate: false,
        tensors: ExpertTensors::Merged,
        router: Router::Random,
        biases: false,
    };
    let expert_ffn = ("expert_feed_forward_length", Value::U32(35));
    let shared_ffn = ("expert_shared_feed_forward_length", Value::U32(41));
    // Mixtral states the width of an expert as that of the layer.
    let mixtral = |spec: &mut ModelSpec, experts: Experts| {
        (spec.ffn, spec.form.experts) = (experts.ffn, Some(experts));
    };
    let gpt_oss = |spec: &mut ModelSpec, experts: Experts| {
        (spec.biases, spec.form.sinks, spec.form.renamed_ffn_norm) = (true, true, true);
        spec.form.experts = Some(Experts { biases: true, ..experts });
        (spec.rope_base, spec.rope_scaling) = (
            150_000.0,
            RopeScaling::Yarn { factor: 32.0, original_context: Some(16), attn_factor: None, ramp: None },
        );
        spec.form.keys = vec![expert_ffn.clone(), ("attention.sliding_window", Value::U32(20))];
    };
    let gemma = |spec: &mut ModelSpec, window: u32| {
        (spec.layers, spec.tied_embeddings, spec.form.post_norms) = (3, true, true);
        spec.form.keys = vec![("attention.sliding_window", Value::U32(window))];
    };
    vec![
        family("qwen2", "qwen2", &qwen2),
        family("qwen2_tied", "qwen2", &|spec| {
            qwen2(spec);
            (spec.tied_embeddings, spec.form.output_bias) = (true, true);
        }),
        family("qwen2vl", "qwen2vl", &|spec| {
            qwen2(spec);
            let sections = Array::I32(vec![3, 3, 3, 0]);
            spec.form.keys = vec![("rope.dimension_sections", Value::Array(sections))];
        }),
        family("qwen3", "qwen3", &qwen3),
        family("qwen3_layers", "qwen3", &|spec| {
            qwen3(spec);
            (spec.form.kv_heads, spec.form.ffn) = (vec![3, 1], vec![40, 91]);
        }),
        family("qwen3vl", "qwen3vl", &qwen3),
        family("mistral3", "mistral3", &|spec| {
            spec.rope_scaling =
                RopeScaling::Yarn { factor: 8.0, original_context: Some(16), attn_factor: None, ramp: None };
            spec.form.keys = vec![
                ("attention.temperature_scale", number(0.4)),
                ("rope.scaling.yarn_log_multiplier", number(0.6)),
            ];
        }),
        family("smollm3", "smollm3", &|spec| (spec.layers, spec.tied_embeddings) = (5, true)),
        family("granite", "granite", &granite),
        family("granite_unrotated", "granite", &|spec| {
            granite(spec);
            spec.form.keys.push(("rope.scaling.finetuned", Value::Bool(false)));
        }),
        family("mixtral", "llama", &|spec| mixtral(spec, experts)),
        family("mixtral_split", "llama", &|spec| {
            mixtral(spec, Experts { tensors: ExpertTensors::Split, ..experts });
        }),
        family("mixtral_tied", "llama", &|spec| mixtral(spec, Experts { router: Router::Tied, ..experts })),
        family("mixtral_never_last", "llama", &|spec| {
            mixtral(spec, Experts { count: 5, used: 2, router: Router::NeverLast, ..experts });
        }),
        family("qwen2moe", "qwen2moe", &|spec| {
            qwen2(spec);
            spec.form.experts = Some(Experts { shared: 41, shared_gate: true, ..experts });
            spec.form.keys = vec![expert_ffn.clone(), shared_ffn.clone()];
        }),
        family("qwen2moe_old", "qwen2moe", &|spec| {
            qwen2(spec);
            // The width of an expert is a third of 75, and that of the shared one is 75.
            spec.form.experts = Some(Experts { ffn: 25, shared: 75, shared_gate: true, ..experts });
        }),
        family("qwen3moe", "qwen3moe", &|spec| {
            qwen3(spec);
            spec.form.experts = Some(Experts { count: 19, used: 4, ..experts });
            spec.form.keys = vec![expert_ffn.clone()];
        }),
        family("qwen3moe_fused", "qwen3moe", &|spec| {
            qwen3(spec);
            spec.form.experts = Some(Experts { tensors: ExpertTensors::Fused, ..experts });
            spec.form.keys = vec![expert_ffn.clone(), ("expert_weights_scale", number(1.7))];
        }),
        family("granitemoe", "granitemoe", &|spec| {
            granite(spec);
            mixtral(spec, experts);
        }),
        family("granitemoe_shared", "granitemoe", &|spec| {
            granite(spec);
            mixtral(spec, Experts { shared: 41, ..experts });
            spec.form.keys.push(shared_ffn.clone());
        }),
        family("gpt_oss", "gpt-oss", &|spec| gpt_oss(spec, experts)),
        family("gpt_oss_pattern", "gpt-oss", &|spec| {
            gpt_oss(spec, Experts { count: 32, used: 4, ..experts });
            let pattern = Array::Bool(vec![false, true]);
            spec.form.keys.push(("attention.sliding_window_pattern", Value::Array(pattern)));
        }),
        family("phi3", "phi3", &phi3),
        family("phi3_long", "phi3", &|spec| long_phi3(spec, 64)),
        family("phi3_short", "phi3", &|spec| long_phi3(spec, 128)),
        family("gemma2", "gemma2", &|spec| {
            gemma(spec, 24);
            spec.form
                .keys
                .extend([("attn_logit_softcapping", number(1.5)), ("final_logit_softcapping", number(2.5))]);
        }),
        family("gemma3", "gemma3", &|spec| {
            gemma(spec, 20);
            (spec.form.qk_norms, spec.rope_base) = (true, 1e6);
            spec.rope_scaling = RopeScaling::Linear { factor: 8.0 };
            spec.form.keys.push(("attention.sliding_window_pattern", Value::U32(3)));
        }),
        family("gemma3_pattern", "gemma3", &|spec| {
            gemma(spec, 70);
            spec.form.qk_norms = true;
            let pattern = Array::Bool(vec![false, true, false]);
            spec.form.keys.push(("attention.sliding_window_pattern", Value::Array(pattern)));
            spec.form.keys.push(("rope.freq_base_swa", number(500.0)));
        }),
    ]
}

fn model(name: &str, change: impl FnOnce(&mut ModelSpec)) -> TestModel {
    // Weights of its own for each name, whatever comes before it in the list.
    let seed = name.bytes().fold(0, |seed: u64, byte| seed.wrapping_mul(257) + u64::from(byte));
    let mut spec = ModelSpec { seed, ..ModelSpec::default() };
    change(&mut spec);
    TestModel { name: name.to_owned(), spec }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use gguf::Gguf;

    use super::*;

    #[test]
    fn every_model_is_a_readable_file_under_a_name_and_with_weights_of_its_own() {
        let (mut names, mut weights) = (HashSet::new(), HashSet::new());
        for TestModel { name, spec } in all().into_iter().chain(families()) {
            let gguf = Gguf::from_vec(spec.to_gguf()).unwrap();
            let norm = gguf.tensor("output_norm.weight").unwrap().data().to_vec();
            assert!(weights.insert(norm), "{name}: the weights of another model");
            assert!(names.insert(name.clone()), "{name}: given twice");
            let tokens = gguf.metadata().strings("tokenizer.ggml.tokens").unwrap().unwrap();
            assert_eq!(tokens.iter().collect::<HashSet<_>>().len(), spec.vocab, "{name}: tokens");
        }
    }

    #[test]
    fn a_specification_gives_the_same_bytes_each_time() {
        let spec = ModelSpec { formats: Format::Q4_K.into(), ..ModelSpec::default() };
        assert_eq!(spec.to_gguf(), spec.to_gguf());
        assert_ne!(spec.to_gguf(), ModelSpec { seed: 2, ..spec }.to_gguf());
    }
}
