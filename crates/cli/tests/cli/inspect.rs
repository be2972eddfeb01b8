//! `rustorch inspect`

use crate::harness::{arg, demo_bytes, fail, folder, patched, repository, run, succeed, with_key};

#[track_caller]
fn check(args: &[&str], lines: &[&str]) {
    let ran = run(&[&["inspect"], args].concat(), b"");
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{args:?}");
    for line in lines {
        assert!(
            ran.stdout.lines().any(|found| found == *line),
            "{args:?}: {line:?} is not in\n{}",
            ran.stdout
        );
    }
}

#[test]
fn a_model_is_described() {
    check(
        &[],
        &[
            "name             RusTorch demo storyteller",
            "architecture     llama",
            "parameters       3,476,224",
            "tokenizer        gpt2 (pre gpt-2)",
            "layers           5",
            "hidden size      256",
            "feed-forward     512",
            "attention        4 heads of 64, 2 KV heads",
            "RoPE             base 10000, 64 dimensions, no scaling",
            "vocabulary       2,048",
            "context          1024 tokens here, 1024 trained",
            "F32             11        2,816     11.0 KiB",
            "Q8_0            36    3,473,408      3.5 MiB",
        ],
    );
}

/// What a family adds to `llama`, of the test kit's models.
#[test]
fn traits_of_families_are_described() {
    let cases: [(&str, &[&str]); 8] = [
        (
            "gemma2",
            &[
                "window           24 tokens in 2 of 3 layers",
                "soft caps        1.5 of scores, 2.5 of logits",
                "further norms    attention's output, feed-forward output",
                "scales           embeddings by 10",
                "activation       GeGLU",
            ],
        ),
        (
            "gemma3",
            &[
                "RoPE             base 1000000, 18 dimensions, linear scaling by 8 in 1 of 3 layers",
                "RoPE             base 10000, 18 dimensions, no scaling in 2 of 3 layers",
                "further norms    queries and keys, attention's output, feed-forward output",
            ],
        ),
        ("granite", &["scales           embeddings by 12, scores by 0.3, branches by 0.22, logits by 0.125"]),
        ("qwen3_layers", &["attention        6 heads of 18, 1 to 3 KV heads", "feed-forward     40 to 91"]),
        (
            "gpt_oss",
            &[
                "RoPE             base 150000, 18 dimensions, YaRN by 32 from 16 tokens",
                "window           20 tokens in 1 of 2 layers",
                "sinks            one for each head",
                "experts          3 of 7 a token",
                "activation       SwiGLU, clamped at 7",
            ],
        ),
        ("smollm3", &["RoPE             none in 1 of 5 layers"]),
        (
            "qwen2moe",
            &["feed-forward     35", "experts          3 of 7 a token, one of 41 for all tokens with a gate"],
        ),
        ("qwen3moe_fused", &["experts          3 of 7 a token, shares normed, shares by 1.7"]),
    ];
    let dir = folder("inspect_families");
    for (name, lines) in cases {
        let mut models = testkit::models::families().into_iter();
        let path = dir.join(format!("{name}.gguf"));
        std::fs::write(&path, models.find(|model| model.name == name).unwrap().spec.to_gguf()).unwrap();
        check(&["-m", arg(&path)], lines);
    }
}

/// 5 layers, K and V, 2 heads of 64, 2 or 4 bytes: 2.5 or 5 KiB a token.
#[test]
fn memory_follows_the_options() {
    check(
        &[],
        &[
            "  weights        3.5 MiB",
            "  KV per token   2.5 KiB",
            "  KV per seq.    2.5 MiB (1024 tokens)",
            "  KV in all      20.0 MiB (8 sequences)",
            "  total          23.5 MiB",
        ],
    );
    let options = ["--ctx", "100", "--batch-size", "4", "--kv-type", "f32", "--page-size", "64"];
    check(
        &options,
        &[
            "context          100 tokens here, 1024 trained",
            "  KV per token   5.0 KiB",
            // Two pages of 64.
            "  KV per seq.    640.0 KiB (100 tokens)",
            "  KV in all      2.5 MiB (4 sequences)",
        ],
    );
    check(&["--kv-memory", "1M"], &["  KV in all      1.0 MiB (8 sequences)"]);
}

#[test]
fn formats_are_listed_by_tensor() {
    let norm = "output_norm.weight           256              F32";
    check(&[], &[norm, "blk.*.ffn_down.weight        512 x 256        5 Q8_0"]);
    check(&["--tensors"], &[norm, "blk.4.ffn_down.weight        512 x 256        Q8_0"]);
}

#[test]
fn files_that_cannot_be_run_are_described_too() {
    let vocabulary = repository("crates/tokenizer/tests/vocab/ggml-vocab-gpt-2.gguf");
    check(&["-m", arg(&vocabulary)], &["architecture     gpt2", "parameters       0"]);
    let text = succeed(&["inspect", "-m", arg(&vocabulary)], b"");
    assert!(text.contains("not runnable") && text.contains("'gpt2' is not supported"), "{text}");

    // Counts that no tensor confirms.
    let path = folder("inspect_counts").join("model.gguf");
    let most = (1u32 << 24).to_le_bytes();
    let keys = ["llama.attention.head_count", "llama.attention.head_count_kv"];
    let bytes = keys.iter().fold(demo_bytes(), |bytes, key| with_key(bytes, key, most));
    std::fs::write(&path, &bytes).unwrap();
    check(&["-m", arg(&path)], &["attention        16777216 heads of 64, 16777216 KV heads"]);
    // A description has an entry for each layer, so there are no more than tensors could make up.
    std::fs::write(&path, with_key(bytes, "llama.block_count", most)).unwrap();
    let says = "llama.block_count: expected at most 47, the number of the file's tensors, found 16777216";
    let text = succeed(&["inspect", "-m", arg(&path)], b"");
    assert!(text.contains("not runnable") && text.contains(says), "{text}");
}

#[test]
fn a_part_that_is_a_link_out_of_the_folder_is_warned_about() {
    let key = |key: &str, value: u32| {
        const U32: u32 = 4;
        let length = (key.len() as u64).to_le_bytes();
        [&length[..], key.as_bytes(), &U32.to_le_bytes(), &value.to_le_bytes()].concat()
    };
    let split = |no: u32| [key("split.no", no), key("split.count", 2), key(&"x".repeat(29), 0)].concat();
    let (folder, elsewhere) = (folder("inspect_links"), folder("inspect_elsewhere"));
    // The demo model with more keys: 96 bytes, so that what follows stays aligned.
    let demo = demo_bytes();
    let n_keys = u64::from_le_bytes(demo[16..24].try_into().unwrap()) + 3;
    let first = [&demo[..16], &n_keys.to_le_bytes(), &split(0), &demo[24..]].concat();
    // No tensor, and three keys.
    let second = [&demo[..8], &0u64.to_le_bytes(), &3u64.to_le_bytes(), &split(1)].concat();
    let (path, target) = (folder.join("model-00001-of-00002.gguf"), elsewhere.join("other"));
    std::fs::write(&path, first).unwrap();
    std::fs::write(&target, second).unwrap();
    let link = folder.join("model-00002-of-00002.gguf");
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let ran = run(&["inspect", "-m", arg(&path)], b"");
    let target = target.canonicalize().unwrap();
    let says = format!("warning: {} is a link out of the model's folder, to {}\n", arg(&link), arg(&target));
    assert_eq!((ran.code, ran.stderr), (Some(0), says));
    std::fs::remove_file(&link).unwrap();
    std::fs::rename(&target, &link).unwrap();
    check(&["-m", arg(&path)], &["architecture     llama"]);
}

#[test]
fn a_file_cannot_speak_to_the_terminal() {
    let path = folder("inspect_escapes").join("model.gguf");
    let name = patched(demo_bytes(), b"RusTorch demo storyteller", b"\x1b]0;a title\x07\nlayers   999");
    let tensor = patched(name, b"blk.4.attn_q.weight", b"blk.4.attn\x1b[2Jeight");
    std::fs::write(&path, tensor).unwrap();
    let text = succeed(&["inspect", "--tensors", "-m", arg(&path)], b"");
    assert!(text.contains("name             \\u{1b}]0;a title\\u{7}\\nlayers   999\n"), "{text:?}");
    assert!(text.contains("blk.4.attn\\u{1b}[2Jeight"), "{text:?}");
    assert!(!text.contains('\u{1b}') && !text.contains('\u{7}'), "{text:?}");
    // Errors too.
    std::fs::write(&path, patched(demo_bytes(), b"blk.4.attn_q.weight", b"blk.4.attn\x1b[2Jeight")).unwrap();
    let ran = run(&["logits", "-m", arg(&path), "--tokens", "1"], b"");
    assert!(ran.code == Some(1) && !ran.stderr.contains('\u{1b}'), "{:?}", ran.stderr);
    fail(&["logits", "-m", "\u{1b}[2J.gguf", "--tokens", "1"], b"", 1, "\\u{1b}[2J.gguf");
}
