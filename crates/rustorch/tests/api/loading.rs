//! Loading: from a path, on a device, with a configuration; and files and configurations that are refused.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use gguf::Value;
use rustorch_llama::{
    Activation, AttentionMode, CpuOptions, Device, Error, FfnSpec, Format, Isa, KvDtype, LlamaConfig,
    LlamaModel, LoadOptions, RopeScaling, Weights,
};
use testkit::ModelSpec;

use crate::{Parts, Tensor, assert_says, changed, demo_path, small_config, small_gguf, spec};

/// A file of the small model, under a name of the test's own.
fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, bytes).expect("a file in the build directory");
    path
}

/// A mistake to make in a configuration.
type Change = fn(&mut LlamaConfig);

#[test]
fn a_path_suffices() {
    let mut model = LlamaModel::from_gguf(demo_path()).unwrap();
    assert_eq!(model.batch_size(), LlamaConfig::DEFAULT_BATCH_SIZE);
    assert_eq!(model.config().max_seq_len, 1024, "the demo model's own context");
    assert_eq!(model.config().kv_dtype, KvDtype::F16);
    assert_eq!(model.forward_batch(&[&[0, 1], &[2]]).unwrap().len(), 2);
}

#[test]
fn a_long_trained_context_is_not_reserved_unasked() {
    let path = file("long_context.gguf", &ModelSpec { context: 100_000, ..spec() }.to_gguf());
    assert_eq!(LlamaModel::from_gguf(&path).unwrap().config().max_seq_len, LlamaModel::DEFAULT_MAX_SEQ_LEN);
    // Whoever asks for it gets it.
    let config = LlamaConfig::from_gguf(&small_gguf()).unwrap().with_max_seq_len(10_000).with_batch_size(1);
    assert_eq!(LlamaModel::from_gguf_with_config(&path, config).unwrap().config().max_seq_len, 10_000);
}

#[test]
fn a_device_can_be_chosen() {
    let path = file("device.gguf", &spec().to_gguf());
    let want = LlamaModel::from_gguf(&path).unwrap().forward(&[1, 2, 3]).unwrap();
    let threads = NonZeroUsize::new(3);
    let device = Device::Cpu(CpuOptions { threads, isa: Some(Isa::detect()), ..CpuOptions::default() });
    let mut model = LlamaModel::from_gguf_with_backend(&path, device).unwrap();
    assert_says(&model.weights().device(), &["CPU", Isa::detect().name(), "3 threads"]);
    assert_eq!(model.forward(&[1, 2, 3]).unwrap(), want);
    for isa in Isa::ALL {
        let device = Device::Cpu(CpuOptions { threads, isa: Some(isa), ..CpuOptions::default() });
        match LlamaModel::from_gguf_with_backend(&path, device) {
            Ok(_) => assert!(isa.is_available()),
            Err(error) => {
                assert!(!isa.is_available());
                assert_says(&error, &["instruction set", isa.name(), Isa::Portable.name()]);
            }
        }
    }
}

#[test]
fn a_configuration_that_contradicts_the_weights_is_refused_before_they_are_loaded() {
    let path = file("contradicted.gguf", &spec().to_gguf());
    let contradictions: [(_, _, _, Change); 7] = [
        ("vocab_size", "300", "301", |config| config.spec.vocab_size = 301),
        ("hidden_size", "64", "128", |config| config.spec.hidden_size = 128),
        ("num_heads", "4", "8", |config| config.spec.layers[1].attn.num_heads = 8),
        ("num_kv_heads", "2", "4", |config| config.spec.layers[1].attn.num_kv_heads = 4),
        ("head_dim", "16", "32", |config| config.spec.layers[1].attn.head_dim = 32),
        ("num_layers", "2", "1", |config| config.spec.layers.truncate(1)),
        ("intermediate_size", "96", "97", |config| {
            config.spec.layers[0].ffn = FfnSpec::Dense { inner: 97, act: Activation::Silu };
        }),
    ];
    for (field, file_has, config_has, contradict) in contradictions {
        let mut config = small_config();
        contradict(&mut config);
        let says = [field, &format!("expected {file_has}"), &format!("found {config_has}")];
        let error = LlamaModel::from_gguf_with_config(&path, config.clone()).err().unwrap();
        assert_says(&error, &says);
        assert_says(&error, &["contradicted.gguf"]);
        let mut progress = |_, _| panic!("{field}: a weight was loaded");
        let options = LoadOptions { progress: Some(&mut progress), ..LoadOptions::default() };
        assert_says(&Weights::load(&small_gguf(), config, options).err().unwrap(), &says);
    }
}

#[test]
fn a_configuration_that_cannot_be_is_refused() {
    const NO_STRETCH: RopeScaling = RopeScaling::Linear { factor: 0.0 };
    let impossible: [(_, Change); 12] = [
        ("batch_size", |config| config.batch_size = 0),
        ("max_seq_len", |config| config.max_seq_len = 0),
        ("max_seq_len", |config| config.max_seq_len = usize::MAX),
        ("page_size", |config| config.page_size = 0),
        ("max_batch_tokens", |config| config.max_batch_tokens = 0),
        ("prompt_chunk", |config| config.prompt_chunk = 0),
        ("num_kv_heads", |config| config.spec.layers[1].attn.num_kv_heads = 3),
        ("rope.dim", |config| config.spec.ropes[0].dim = 18),
        ("rope.dim", |config| config.spec.ropes[0].dim = 7),
        ("rope.base", |config| config.spec.ropes[0].base = f32::NAN),
        ("rope.scaling.factor", |config| config.spec.ropes[0].scaling = NO_STRETCH),
        ("norm_eps", |config| config.spec.norm_eps = -1.0),
    ];
    for (field, change) in impossible {
        let mut config = small_config();
        change(&mut config);
        let error = LlamaModel::load(&small_gguf(), config, LoadOptions::default()).err().unwrap();
        assert_says(&error, &[field, "expected", "found"]);
    }
}

#[test]
fn reference_attention_has_its_own_limit() {
    let load = |max_seq_len| {
        let config = small_config().with_max_seq_len(max_seq_len).with_batch_size(1).with_max_batch_tokens(8);
        let options = LoadOptions { attention: AttentionMode::Reference, ..LoadOptions::default() };
        LlamaModel::load(&small_gguf(), config, options)
    };
    let limit = AttentionMode::MAX_REFERENCE_CONTEXT;
    assert!(load(limit).is_ok());
    let error = load(limit + 1).expect_err("a refusal");
    assert_says(&error, &["max_seq_len", "at most 8192 with reference attention", "found 8193"]);
}

#[test]
fn progress_counts_every_byte() {
    let gguf = small_gguf();
    let total: u64 = gguf.tensors().map(|tensor| tensor.data().len() as u64).sum();
    let mut seen = Vec::new();
    let mut progress = |done, of| seen.push((done, of));
    let options = LoadOptions { progress: Some(&mut progress), ..LoadOptions::default() };
    Weights::load(&gguf, small_config(), options).unwrap();
    assert!(seen.is_sorted() && seen.iter().all(|&(_, of)| of == total));
    assert_eq!(seen.last(), Some(&(total, total)));
}

#[test]
fn a_file_that_is_none_is_named() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("not there.gguf");
    assert_says(&LlamaModel::from_gguf(&path).err().unwrap(), &["not there.gguf"]);
    let path = file("text.gguf", b"Once upon a time");
    let error = LlamaModel::from_gguf(&path).err().unwrap();
    assert!(matches!(error, Error::Gguf(_)));
    assert_says(&error, &["text.gguf", "GGUF", "Once"]);
    let bytes = spec().to_gguf();
    let path = file("cut.gguf", &bytes[..bytes.len() - 100]);
    assert_says(&LlamaModel::from_gguf(&path).err().unwrap(), &["cut.gguf", "output.weight"]);
}

/// The error of loading the small model's file after `change`, as a path's.
fn refusal(change: impl FnOnce(&mut Parts)) -> Error {
    let mut parts = Parts::of(&small_gguf());
    change(&mut parts);
    // One name for all: tests of a file run on several threads.
    let name = format!("refused-{:?}.gguf", std::thread::current().id());
    LlamaModel::from_gguf(file(&name, &parts.write())).expect_err("an error")
}

#[test]
fn every_tensor_must_be_there() {
    let names: Vec<String> = small_gguf().tensors().map(|tensor| tensor.name().to_owned()).collect();
    assert_eq!(names.len(), 1 + 2 * 9 + 2);
    // Without a head the embedding serves as one.
    for name in names.iter().filter(|name| *name != "output.weight") {
        let error = refusal(|parts| parts.tensors.retain(|tensor| tensor.name != *name));
        assert_says(&error, &[name, "refused-"]);
    }
}

#[test]
fn every_tensor_must_have_its_shape() {
    let tensors: Vec<_> =
        small_gguf().tensors().map(|tensor| (tensor.name().to_owned(), tensor.dims().to_vec())).collect();
    for (name, dims) in tensors {
        let longer: Vec<u64> = [&dims[..dims.len() - 1], &[dims[dims.len() - 1] + 32]].concat();
        let error = refusal(|parts| {
            let tensor = parts.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap();
            tensor.data.resize(4 * longer.iter().product::<u64>() as usize, 0);
            tensor.dims = longer.clone();
        });
        // The embedding's rows are the vocabulary, which the metadata state too.
        let says = if name == "token_embd.weight" { "300" } else { &format!("{dims:?}") };
        assert_says(&error, &[&name, says]);
    }
}

#[test]
fn no_tensor_may_be_ignored() {
    let error = refusal(|parts| {
        for layer in 0..2 {
            parts.tensors.push(Tensor {
                name: format!("blk.{layer}.attn_q_norm.weight"),
                dims: vec![16],
                format: Format::F32,
                data: vec![0; 64],
            });
        }
    });
    assert_says(&error, &["blk.0.attn_q_norm.weight", "2 such tensors"]);
    let error = refusal(|parts| parts.set("llama.block_count", Value::U32(1)));
    assert_says(&error, &["blk.1."]);
}

#[test]
fn other_architectures_are_refused_with_those_supported() {
    let error = refusal(|parts| parts.set("general.architecture", Value::String("mamba".into())));
    assert_says(&error, &["general.architecture", "mamba", "supported architectures: llama"]);
}

#[test]
fn experts_that_are_not_described_whole_are_refused() {
    let error = refusal(|parts| parts.set("llama.expert_count", Value::U32(8)));
    assert_says(&error, &["llama.expert_used_count: missing"]);
    let with = |key: &'static str, value: u32| {
        refusal(move |parts| {
            parts.set("llama.expert_count", Value::U32(8));
            parts.set("llama.expert_used_count", Value::U32(2));
            parts.set(key, Value::U32(value));
        })
    };
    assert_says(
        &with("llama.expert_used_count", 9),
        &["expert_used_count: expected at most expert_count = 8"],
    );
    assert_says(&with("llama.expert_gating_func", 2), &["llama.expert_gating_func", "expected 1 (softmax)"]);
    assert_says(&with("llama.expert_group_count", 4), &["llama.expert_group_count: expected at most 1"]);
    assert_says(&with("llama.block_count", 1), &["blk.0.ffn_gate_inp.weight"]);
}

#[test]
fn every_key_of_the_shape_must_be_there_and_of_its_type() {
    let keys = [
        "general.architecture",
        "llama.context_length",
        "llama.embedding_length",
        "llama.block_count",
        "llama.feed_forward_length",
        "llama.attention.head_count",
        "llama.attention.layer_norm_rms_epsilon",
    ];
    for key in keys {
        let error = refusal(|parts| parts.metadata.retain(|(known, _)| known != key));
        assert_says(&error, &[key, "missing"]);
        let wrong = Value::Array(gguf::Array::U32(vec![1]));
        assert_says(&refusal(|parts| parts.set(key, wrong)), &[key]);
    }
}

#[test]
fn a_tied_model_needs_no_head() {
    let gguf = changed(|parts| {
        parts.tensors.retain(|tensor| tensor.name != "output.weight");
    });
    let tied =
        LlamaModel::load(&gguf, small_config(), LoadOptions::default()).unwrap().forward(&[1]).unwrap();
    let explicit = changed(|parts| {
        parts.tensors.retain(|tensor| tensor.name != "output.weight");
        let embedding = parts.tensors.iter().find(|tensor| tensor.name == "token_embd.weight").unwrap();
        let (dims, format, data) = (embedding.dims.clone(), embedding.format, embedding.data.clone());
        parts.tensors.push(Tensor { name: "output.weight".into(), dims, format, data });
    });
    let mut explicit = LlamaModel::load(&explicit, small_config(), LoadOptions::default()).unwrap();
    assert_eq!(explicit.forward(&[1]).unwrap(), tied);
}
