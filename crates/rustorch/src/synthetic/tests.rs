use model::{LlamaConfig, RopeScaling};

use super::*;
use crate::{LlamaModel, Tokenizer};

fn model(text: &str) -> SyntheticModel {
    text.parse().unwrap()
}

impl Tensor {
    fn num_weights(&self) -> u64 {
        self.dims.iter().product()
    }

    fn bytes(&self) -> u64 {
        let format = if let Content::Random(format) = self.content { format } else { Format::F32 };
        format.bytes_for(self.num_weights()).unwrap()
    }
}

/// Three layers of tiny widths.
fn small(tied_embeddings: bool, mixture: Mixture) -> SyntheticModel {
    let shape = Shape { name: "small", tied_embeddings, ..shrunk(Shape::ALL[1]) };
    SyntheticModel { shape, mixture }
}

/// A shape with three layers of tiny widths.
fn shrunk(shape: Shape) -> Shape {
    let experts = shape.experts.map(|experts| ShapeExperts { inner: 256, ..experts });
    Shape {
        num_layers: 3,
        hidden_size: 256,
        num_heads: 4,
        num_kv_heads: 1,
        head_dim: 64,
        intermediate_size: 512,
        experts,
        vocab_size: 300,
        context_length: 64,
        window: shape.window.map(|_| 8),
        ..shape
    }
}

/// As the models' own `config.json` and weights have them; `rope_freqs` is no parameter.
#[test]
fn shapes_have_the_published_numbers_of_parameters() {
    for (name, expect) in [
        ("tinyllama-1.1b", 1_100_048_384),
        ("llama-3.2-1b", 1_235_814_400),
        ("llama-3.2-3b", 3_212_749_824),
        ("llama-3.1-8b", 8_030_261_248),
        ("llama-3.1-70b", 70_553_706_496),
        ("qwen3-0.6b", 596_049_920),
        ("qwen3-4b", 4_022_468_096),
        ("qwen3-8b", 8_190_735_360),
        ("gemma3-4b", 3_880_263_168),
        ("qwen3-30b-a3b", 30_532_122_624),
        ("gpt-oss-20b", 20_914_757_184),
        ("mixtral-8x7b", 46_702_792_704),
    ] {
        let tensors = model(&format!("{name}:q4_k_m")).tensors();
        let weights = tensors.iter().filter(|tensor| tensor.name != "rope_freqs.weight");
        assert_eq!(weights.map(Tensor::num_weights).sum::<u64>(), expect, "{name}");
    }
}

/// GB of published files. Some were made with an importance matrix, which changes the size of none of these kinds.
#[test]
fn files_have_the_published_sizes() {
    for (name, expect) in [
        ("llama-3.1-8b:q2_k", 3.18),
        ("llama-3.1-8b:q3_k_s", 3.66),
        ("llama-3.1-8b:q3_k_m", 4.02),
        ("llama-3.1-8b:q3_k_l", 4.32),
        ("llama-3.1-8b:q4_k_s", 4.69),
        ("llama-3.1-8b:q4_k_m", 4.92),
        ("llama-3.1-8b:q5_k_s", 5.60),
        ("llama-3.1-8b:q5_k_m", 5.73),
        ("llama-3.1-8b:q6_k", 6.60),
        ("llama-3.1-8b:q8_0", 8.54),
        ("llama-3.1-70b:q4_k_m", 42.5),
        ("tinyllama-1.1b:q4_k_m", 0.669),
        ("llama-3.2-1b:q4_k_m", 0.808),
        ("llama-3.2-3b:q4_k_m", 2.02),
        ("qwen3-0.6b:q8_0", 0.639),
        ("qwen3-4b:q4_k_m", 2.50),
        ("qwen3-8b:q4_k_m", 5.03),
        ("gemma3-4b:q4_k_m", 2.49),
        ("qwen3-30b-a3b:q4_k_m", 18.6),
        ("gpt-oss-20b:mxfp4", 12.1),
    ] {
        let weights: u64 = model(name).tensors().iter().map(Tensor::bytes).sum();
        // The models' own vocabularies, which the placeholder is not.
        let vocabulary = match name.split_once('-') {
            Some(("llama", _)) => 0.0078,
            Some(("qwen3", _)) => 0.0059,
            Some(("gemma3", _)) => 0.0066,
            _ => 0.0,
        };
        let found = weights as f64 / 1e9 + vocabulary;
        assert!((found / expect - 1.0).abs() < 0.01, "{name}: {found:.3} GB, published {expect}");
    }
}

/// Rows of 2,880 are no whole blocks of 256.
#[test]
fn rows_that_are_no_whole_blocks_have_another_format() {
    let formats = |name: &str| -> Vec<Format> {
        let of_tensor = |tensor: Tensor| match tensor.content {
            Content::Random(format) => Some(format),
            _ => None,
        };
        let mut formats: Vec<Format> = model(name).tensors().into_iter().filter_map(of_tensor).collect();
        formats.sort_unstable();
        formats.dedup();
        formats
    };
    assert_eq!(formats("gpt-oss-20b:mxfp4"), [Format::F32, Format::Q8_0, Format::MXFP4]);
    // The output of the attention has rows of 4,096.
    assert_eq!(formats("gpt-oss-20b:q4_k_m"), [Format::F32, Format::Q5_0, Format::Q8_0, Format::Q4_K]);
}

#[test]
fn a_model_in_memory_costs_its_largest_tensors() {
    let (gguf, table) = (model("tinyllama-1.1b:q4_k_m").gguf(), 32_000 * 2048);
    let most = Format::Q4_K.bytes_for(table).unwrap() + Format::Q6_K.bytes_for(table).unwrap();
    assert!((most..most + most / 100).contains(&gguf.file_bytes()), "{} bytes", gguf.file_bytes());
}

/// Divisors that llama.cpp's converter writes for Llama 3.1 8B.
#[test]
fn rope_is_scaled_as_llama_3_has_it() {
    let factors = Shape::ALL[3].rope_factors().unwrap();
    assert_eq!((factors.len(), factors[0], factors[63]), (64, 1.0, 8.0));
    assert!(factors.is_sorted());
    let ramp: Vec<f32> = factors.into_iter().filter(|&factor| factor > 1.0 && factor < 8.0).collect();
    // Wavelengths from 8192 / 4 to 8192: pairs 29 to 34 of 64.
    assert_eq!(ramp.len(), 6, "{ramp:?}");
}

#[test]
fn every_mixture_loads_and_its_file_gives_the_same_logits() {
    for mixture in Mixture::ALL {
        for tied in [false, true] {
            let model = small(tied, mixture);
            let mut file = Vec::new();
            model.write_to(&mut file).unwrap();
            let logits = [model.gguf(), Gguf::from_vec(file).unwrap()].map(|gguf| {
                assert!(Tokenizer::from_gguf(&gguf).is_ok(), "{mixture}");
                let config = LlamaConfig::from_gguf(&gguf).unwrap();
                assert_eq!(config.spec.ropes[0].scaling, RopeScaling::None);
                let mut model = LlamaModel::load(&gguf, config, Default::default()).unwrap();
                model.forward(&[1, 200, 299]).unwrap()
            });
            assert!(logits[0].iter().all(|logit| logit.is_finite()), "{mixture}");
            assert!(logits[0].iter().any(|logit| logit.abs() > 1e-3), "{mixture}");
            assert_eq!(logits[0], logits[1], "{mixture}");
        }
    }
}

/// Small ones of every shape load and run.
#[test]
fn every_shape_is_read_as_its_family() {
    for shape in Shape::ALL {
        let gguf = SyntheticModel { shape: shrunk(shape), mixture: Mixture::Q4_K_M }.gguf();
        let config = LlamaConfig::from_gguf(&gguf).unwrap();
        assert_eq!(config.spec.architecture, shape.architecture, "{}", shape.name);
        let experts = config.spec.experts().map(|experts| (experts.num_experts, experts.routing.top_k));
        assert_eq!(experts, shape.experts.map(|experts| (experts.count, experts.used)), "{}", shape.name);
        let mut model = LlamaModel::load(&gguf, config, Default::default()).unwrap();
        let logits = model.forward(&[1, 200, 299]).unwrap();
        assert!(logits.iter().all(|logit| logit.is_finite()), "{}", shape.name);
    }
}

#[test]
fn rows_of_a_matrix_differ() {
    let gguf = small(false, Mixture::Q4_K_M).gguf();
    let table = gguf.tensor("token_embd.weight").unwrap();
    let rows: std::collections::HashSet<&[u8]> = (0..table.rows()).map(|row| table.row(row)).collect();
    assert_eq!(rows.len(), table.rows());
}

#[test]
fn names_are_parsed_in_either_case() {
    for (text, expect) in [
        ("tinyllama-1.1b:q4_k_m", "tinyllama-1.1b:q4_k_m"),
        ("TinyLlama-1.1B:Q4_K", "tinyllama-1.1b:q4_k_m"),
        ("llama-3.2-3b:IQ4_xs", "llama-3.2-3b:iq4_xs"),
        ("llama-3.1-8b:q3_K", "llama-3.1-8b:q3_k_m"),
    ] {
        assert_eq!(model(text).to_string(), expect);
    }
    for format in Format::ALL {
        assert_eq!(Mixture::from_name(format.name()).map(Mixture::base), Some(format));
    }
    for (text, says) in [
        ("tinyllama-1.1b", "expected SHAPE:FORMAT"),
        ("gpt-2:q8_0", "expected a shape of tinyllama-1.1b, llama-3.2-1b"),
        ("tinyllama-1.1b:q9", "expected a format of f32, f16"),
    ] {
        let error = text.parse::<SyntheticModel>().unwrap_err();
        assert!(error.starts_with(says), "{error}");
    }
}
