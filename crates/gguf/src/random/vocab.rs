//! The smallest vocabulary that SentencePiece readers accept: `<unk>`, `<s>`, `</s>`, the 256 bytes, then words.

use crate::value::{Array, Value};
use crate::writer::GgufWriter;

/// Token types of the `tokenizer.ggml.token_type` key.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const BYTE: i32 = 6;

/// Adds the keys of a `llama` (SentencePiece) vocabulary of `size` tokens; the bytes are complete from 259 tokens on.
///
/// # Panics
/// If one of the keys is there already.
pub fn placeholder_vocabulary(writer: &mut GgufWriter, size: usize) {
    let (mut tokens, mut scores, mut types) = (Vec::new(), Vec::new(), Vec::new());
    for id in 0..size {
        let (token, kind) = match id {
            0 => ("<unk>".to_owned(), UNKNOWN),
            1 => ("<s>".to_owned(), CONTROL),
            2 => ("</s>".to_owned(), CONTROL),
            3..259 => (format!("<0x{:02X}>", id - 3), BYTE),
            _ => (word(id - 259), NORMAL),
        };
        tokens.push(token);
        scores.push(if kind == NORMAL { -(id as f32) } else { 0.0 });
        types.push(kind);
    }
    writer
        .metadata("tokenizer.ggml.model", Value::String("llama".into()))
        .metadata("tokenizer.ggml.pre", Value::String("default".into()))
        .metadata("tokenizer.ggml.tokens", Value::Array(Array::String(tokens)))
        .metadata("tokenizer.ggml.scores", Value::Array(Array::F32(scores)))
        .metadata("tokenizer.ggml.token_type", Value::Array(Array::I32(types)))
        .metadata("tokenizer.ggml.bos_token_id", Value::U32(1))
        .metadata("tokenizer.ggml.eos_token_id", Value::U32(2))
        .metadata("tokenizer.ggml.unknown_token_id", Value::U32(0));
}

/// `▁a` to `▁z`, `▁ba`, `▁bb`, ..: the number in base 26.
fn word(mut number: usize) -> String {
    let mut letters = Vec::new();
    loop {
        letters.push(b'a' + (number % 26) as u8);
        number /= 26;
        if number == 0 {
            break;
        }
    }
    let letters: String = letters.into_iter().rev().map(char::from).collect();
    format!("\u{2581}{letters}")
}
