//! Published test vectors: vocabularies of real models with texts and the ids they become.
//!
//! `tests/vocab` holds files of llama.cpp's `models` folder as they are there. An `.inp` has texts separated
//! by a line `__ggml_vocab_test__`; its `.out` has the ids of one text a line, without BOS.

use std::fs;

use crate::support::{published, published_path};
use tokenizer::{Bos, ControlTokens, Special};

fn check(vocab: &str) {
    let tokenizer = published(vocab);
    let read = |extension| fs::read_to_string(published_path(vocab).with_extension(extension)).unwrap();
    let (texts, outputs) = (read("gguf.inp"), read("gguf.out"));
    let cases: Vec<_> = texts.split("\n__ggml_vocab_test__\n").zip(outputs.lines()).collect();
    assert_eq!(cases.len(), 46);
    for (text, ids) in cases {
        let expected: Vec<u32> = ids.split_whitespace().map(|id| id.parse().unwrap()).collect();
        let tokens = tokenizer.encode(text, Special::Text, Bos::Skip);
        assert_eq!(tokens, expected, "{vocab}: {text:?}");
        assert_eq!(tokenizer.decode(&tokens, ControlTokens::Hide), text, "{vocab}: {tokens:?}");
    }
}

#[test]
fn gpt_2() {
    check("gpt-2");
}

#[test]
fn qwen2() {
    check("qwen2");
}

#[test]
fn phi_3() {
    check("phi-3");
}
