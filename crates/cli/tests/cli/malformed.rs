//! Malformed model files: every command says what is wrong and with which file.

use std::fs;

use crate::harness::{arg, demo_bytes, folder, patched, run, with_key};

/// Results of the commands that read a file: those that run the model, `inspect` and `tokenize`.
const ALL: [bool; 3] = [false, false, false];
const NOT_TOKENIZE: [bool; 3] = [false, false, true];
const ONLY_MODEL: [bool; 3] = [false, true, true];

/// Runs every command on a damaged demo model. `served` says which of them go well nevertheless.
#[track_caller]
fn check(name: &str, bytes: Vec<u8>, served: [bool; 3], says: &str) {
    let folder = folder(&format!("malformed_{name}"));
    let model = folder.join(format!("{name}.gguf"));
    fs::write(&model, bytes).unwrap();
    let (requests, answers, text) =
        (folder.join("in.jsonl"), folder.join("out.jsonl"), folder.join("text.txt"));
    fs::write(&requests, r#"{"prompt": "a", "max_tokens": 1}"#).unwrap();
    fs::write(&text, "Once upon a time, there was a fox.").unwrap();
    let [model_served, inspect_served, tokenize_served] = served;
    let commands: [(&[&str], bool); 6] = [
        (&["generate", "-p", "a", "-n", "1"], model_served),
        (&["batch", "-i", arg(&requests), "-o", arg(&answers)], model_served),
        (&["logits", "--tokens", "1"], model_served),
        (&["perplexity", "-c", "4", "-f", arg(&text)], model_served),
        (&["inspect"], inspect_served),
        (&["tokenize", "--text", "a"], tokenize_served),
    ];
    for (command, served) in commands {
        let ran = run(&[command, &["-m", arg(&model)]].concat(), b"");
        let stderr = &ran.stderr;
        if served {
            assert_eq!(ran.code, Some(0), "{name}: {command:?}: {stderr}");
            continue;
        }
        assert_eq!(ran.code, Some(1), "{name}: {command:?}: {stderr}");
        assert!(stderr.starts_with(&format!("error: {}: ", arg(&model))), "{name}: {command:?}: {stderr}");
        assert!(stderr.contains(says), "{name}: {command:?}: {stderr}expected: {says}");
        assert_eq!(ran.stdout, "", "{name}: {command:?}");
    }
}

#[test]
fn headers() {
    let demo = demo_bytes();
    check("empty", Vec::new(), ALL, "the file ends inside the header");
    check("json", br#"{"model": 1}"#.to_vec(), ALL, "not a GGUF file: expected the magic \"GGUF\"");
    check("version", patched(demo.clone(), b"GGUF\x03", b"GGUF\x09"), ALL, "GGUF version 9 is not supported");
    check("header", demo[..20].to_vec(), ALL, "the file ends inside the header");
    let mut many_keys = demo.clone();
    many_keys[16..24].fill(0xff);
    check("many_keys", many_keys, ALL, "18446744073709551615 bytes expected at byte 24");
    let mut many_tensors = demo.clone();
    many_tensors[8..16].fill(0xff);
    check("many_tensors", many_tensors, NOT_TOKENIZE, "18446744073709551615 bytes expected");
}

#[test]
fn tensors() {
    let demo = demo_bytes();
    let half = demo.len() / 2;
    check("half", demo[..half].to_vec(), NOT_TOKENIZE, "does not fit in the file");
    check("one_byte_less", demo[..demo.len() - 1].to_vec(), NOT_TOKENIZE, "does not fit in the file");
    let renamed = patched(demo, b"blk.1.attn_q.weight", b"blk.1.attn_z.weight");
    check("renamed", renamed, ONLY_MODEL, "tensor \"blk.1.attn_q.weight\" is missing");
}

#[test]
fn metadata() {
    let set = |key: &str, value: u32| with_key(demo_bytes(), key, value.to_le_bytes());
    let check = |name, bytes, says| check(name, bytes, ONLY_MODEL, says);
    check("layers", set("llama.block_count", 6), "tensor \"blk.5.attn_norm.weight\" is missing");
    check(
        "fewer_layers",
        set("llama.block_count", 4),
        "tensor blk.4.attn_norm.weight: not part of the llama graph",
    );
    check("no_layers", set("llama.block_count", 0), "num_layers: expected at least 1, found 0");
    check("too_many_layers", set("llama.block_count", u32::MAX), "num_layers: expected at most 16777216");
    check("hidden_size", set("llama.embedding_length", 512), "expected shape [512], found [256]");
    check("heads", set("llama.attention.head_count", 3), "num_kv_heads: expected a divisor of num_heads = 3");
    let eps = with_key(demo_bytes(), "llama.attention.layer_norm_rms_epsilon", f32::NAN.to_le_bytes());
    check("norm_eps", eps, "norm_eps: expected a finite number, 0 or more, found NaN");
    let other = patched(demo_bytes(), b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0mamba");
    check("architecture", other, "'mamba' is not supported\nhint: supported architectures: llama");
}
