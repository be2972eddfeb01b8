//! Every pre-tokenizer against llama.cpp: `tests/pre` has texts and the ids they become in GPT-2's vocabulary
//! under each pre-tokenizer (`make.py` there says how they were made).

use std::fs;
use std::path::PathBuf;

use crate::support::published_path;
use gguf::{Gguf, GgufWriter, Value};
use tokenizer::{Bos, Special, Tokenizer};

/// GPT-2's vocabulary under another pre-tokenizer.
fn gpt_2_with(pre: &str) -> Tokenizer {
    let file = Gguf::open(&published_path("gpt-2")).unwrap();
    let mut writer = GgufWriter::new();
    for (key, value) in file.metadata().iter() {
        let value = if key == "tokenizer.ggml.pre" { Value::String(pre.into()) } else { value.clone() };
        writer.metadata(key, value);
    }
    Tokenizer::from_gguf(&Gguf::from_vec(writer.write()).unwrap()).unwrap()
}

#[test]
fn words_are_those_of_llama_cpp() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/pre");
    let texts = fs::read_to_string(folder.join("texts.inp")).unwrap();
    let mut checked = Vec::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "out") {
            continue;
        }
        let pre = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let tokenizer = gpt_2_with(&pre);
        let outputs = fs::read_to_string(&path).unwrap();
        let cases: Vec<_> = texts.split("\n__ggml_vocab_test__\n").zip(outputs.lines()).collect();
        assert_eq!(cases.len(), 76, "{pre}");
        for (text, ids) in cases {
            let expected: Vec<u32> = ids.split_whitespace().map(|id| id.parse().unwrap()).collect();
            assert_eq!(tokenizer.encode(text, Special::Text, Bos::Skip), expected, "{pre}: {text:?}");
        }
        checked.push(pre);
    }
    assert_eq!(checked.len(), 17, "{checked:?}");
}
