//! A model family that the crate does not know, brought by the caller: this file is all that it takes.
//!
//! It says the same as `llama` in other words, so the float64 forward of the original file is what its logits must be:
//! another rotation over rows in another order, fused tensors under other names, and factors that cancel.

use gguf::Value;
use rustorch_llama::families::{Family, Keys, LLAMA};
use rustorch_llama::{
    CpuOptions, Device, Gguf, LlamaConfig, LlamaModel, LoadOptions, ModelSpec, RopeStyle, TensorNames,
};
use testkit::{reference, relative_l2};

use crate::{Parts, Tensor, assert_says, small_config, small_gguf};

/// Twice the queries at half the scale, half the embeddings, and twice the head and both branches.
static MADE_UP: Family = Family {
    architecture: "made-up",
    spec: made_up,
    tensors: TensorNames {
        qkv: &["attn_qkv"],
        gate_up: &["ffn_gate_up"],
        ffn_norm: "post_attention_norm",
        ..TensorNames::STANDARD
    },
};

fn made_up(keys: &Keys<'_>) -> Result<ModelSpec, model::Error> {
    let mut spec = (LLAMA.spec)(keys)?;
    spec.embed_scale = 2.0;
    spec.logit_scale = 0.5;
    spec.ropes.iter_mut().for_each(|rope| rope.style = RopeStyle::Halves);
    for layer in &mut spec.layers {
        layer.attn.scale *= 0.5;
        layer.residual_scale = 0.5;
    }
    Ok(spec)
}

/// The small model as a file of the family.
fn file() -> Gguf {
    let mut parts = Parts::of(&small_gguf());
    for (key, value) in &mut parts.metadata {
        if let Some(rest) = key.strip_prefix("llama.") {
            *key = format!("made-up.{rest}");
        }
        if key == "general.architecture" {
            *value = Value::String("made-up".into());
        }
    }
    for tensor in &mut parts.tensors {
        let scale = |tensor: &mut Tensor, factor: f32| map(tensor, |value| value * factor);
        match tensor.name.rsplit_once('.').map_or("", |(name, _)| name.rsplit('.').next().unwrap_or(name)) {
            "token_embd" => scale(tensor, 0.5),
            "output" | "attn_output" | "ffn_down" => scale(tensor, 2.0),
            "attn_q" => {
                scale(tensor, 2.0);
                separate_pairs(tensor);
            }
            "attn_k" => separate_pairs(tensor),
            "ffn_norm" => tensor.name = tensor.name.replace("ffn_norm", "post_attention_norm"),
            _ => {}
        }
    }
    for layer in 0..2 {
        fuse(&mut parts, layer, &["attn_q", "attn_k", "attn_v"], "attn_qkv");
        fuse(&mut parts, layer, &["ffn_gate", "ffn_up"], "ffn_gate_up");
    }
    Gguf::from_vec(parts.write()).expect("a GGUF file")
}

fn map(tensor: &mut Tensor, each: impl Fn(f32) -> f32) {
    let values = tensor.data.as_chunks::<4>().0.iter().map(|bytes| each(f32::from_le_bytes(*bytes)));
    tensor.data = values.flat_map(f32::to_le_bytes).collect();
}

/// From pairs of neighbouring rows to pairs that are half a head apart. A head has 16 rows.
fn separate_pairs(tensor: &mut Tensor) {
    let row_bytes = 4 * tensor.dims[0] as usize;
    let rows: Vec<Vec<u8>> = tensor.data.chunks_exact(row_bytes).map(<[u8]>::to_vec).collect();
    let order = |row: usize| row / 16 * 16 + 2 * (row % 8) + row % 16 / 8;
    tensor.data = (0..rows.len()).flat_map(|row| rows[order(row)].clone()).collect();
}

/// Stacks tensors of a layer under one name.
fn fuse(parts: &mut Parts, layer: usize, names: &[&str], fused: &str) {
    let name = |part: &str| format!("blk.{layer}.{part}.weight");
    let mut stack: Option<Tensor> = None;
    for part in names {
        let at = parts.tensors.iter().position(|tensor| tensor.name == name(part)).expect("a tensor");
        let tensor = parts.tensors.remove(at);
        match &mut stack {
            None => stack = Some(Tensor { name: name(fused), ..tensor }),
            Some(stack) => {
                stack.dims[1] += tensor.dims[1];
                stack.data.extend(tensor.data);
            }
        }
    }
    parts.tensors.extend(stack);
}

#[test]
fn a_made_up_family_takes_one_file() {
    let tokens: [u32; 24] = std::array::from_fn(|i| (i * 37 % 300) as u32);
    let want = reference::all_logits(&small_gguf(), &tokens);
    let gguf = file();
    let config = LlamaConfig::from_gguf_with(&gguf, &[&LLAMA, &MADE_UP]).expect("a file of the family");
    let options = LoadOptions::on(Device::Cpu(CpuOptions::default()));
    let mut model =
        LlamaModel::load(&gguf, config.with_kv_dtype(rustorch_llama::KvDtype::F32), options).unwrap();
    let mut positions = 0;
    model
        .forward_all(&tokens, |position, logits| {
            let error = relative_l2(logits, &want[position]);
            // F32 weights and an F32 cache: as of `llama`.
            assert!(error < 2e-5, "position {position}: {error:.1e}");
            positions += 1;
        })
        .unwrap();
    assert_eq!(positions, tokens.len());
}

#[test]
fn a_family_that_nobody_brings_is_refused_with_those_that_are_known() {
    let error = LlamaConfig::from_gguf(&file()).unwrap_err();
    assert_says(&error, &["'made-up' is not supported", "supported architectures: llama"]);
}

/// A description with sinks is not run without them.
#[test]
fn sinks_that_the_file_lacks_are_missed_by_name() {
    let mut config = small_config();
    config.spec.layers[1].attn.sinks = true;
    let options = LoadOptions::on(Device::Cpu(CpuOptions::default()));
    let error = LlamaModel::load(&small_gguf(), config, options).expect_err("a refusal");
    assert_says(&error, &["blk.1.attn_sinks.weight", "is missing"]);
}
