//! Vocabularies of any make-up over any text: a file's metadata may be refused; if it is not, texts and tokens must pass through.
//!
//! Input: a byte for the model and the pre-tokenizer, a line for each token (its first byte says its type and score) and one for
//! each merge after an empty line, then a text after another.

#![no_main]

use gguf::{Array, GgufWriter, Value};
use libfuzzer_sys::fuzz_target;
use tokenizer::{Bos, ControlTokens, Special, Tokenizer};

const MODELS: [&str; 3] = ["llama", "gpt2", "none"];
const PRE_TOKENIZERS: [&str; 6] = ["default", "gpt-2", "llama-bpe", "qwen2", "tekken", "unheard-of"];

fuzz_target!(|input: &[u8]| {
    let Some((&kind, rest)) = input.split_first() else { return };
    let mut parts = rest.splitn(3, |&byte| byte == 0).map(|part| part.split(|&byte| byte == b'\n'));
    let tokens: Vec<&[u8]> = parts.next().into_iter().flatten().filter(|token| !token.is_empty()).collect();
    let merges: Vec<&[u8]> = parts.next().into_iter().flatten().collect();
    let text = String::from_utf8_lossy(parts.next().and_then(|mut text| text.next()).unwrap_or(rest)).into_owned();

    let words = |of: &[&[u8]], from: usize| {
        Value::Array(Array::String(of.iter().map(|word| String::from_utf8_lossy(&word[from..]).into()).collect()))
    };
    let mut file = GgufWriter::new();
    let kind = usize::from(kind);
    file.metadata("tokenizer.ggml.model", Value::String(MODELS[kind % 3].into()));
    file.metadata("tokenizer.ggml.pre", Value::String(PRE_TOKENIZERS[kind / 3 % 6].into()));
    file.metadata("tokenizer.ggml.tokens", words(&tokens, 1));
    file.metadata("tokenizer.ggml.merges", words(&merges, 0));
    let types = tokens.iter().map(|token| i32::from(token[0] % 8)).collect();
    file.metadata("tokenizer.ggml.token_type", Value::Array(Array::I32(types)));
    let scores = tokens.iter().map(|token| f32::from(token[0]) - 128.0).collect();
    file.metadata("tokenizer.ggml.scores", Value::Array(Array::F32(scores)));
    file.metadata("tokenizer.ggml.bos_token_id", Value::U32(kind as u32 / 18));
    file.metadata("tokenizer.ggml.add_bos_token", Value::Bool(kind % 2 == 0));

    match Tokenizer::from_gguf(&file.into_gguf()) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(tokenizer) => {
            for special in [Special::Parse, Special::Text] {
                let ids = tokenizer.encode(&text, special, Bos::Add);
                assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
                let whole = tokenizer.decode(&ids, ControlTokens::Show);
                let mut detokenizer = tokenizer.detokenizer().control_tokens(ControlTokens::Show);
                let mut pieces: String = ids.iter().map(|&id| detokenizer.push(&tokenizer, id)).collect();
                pieces += &detokenizer.finish();
                assert_eq!(pieces, whole);
            }
        }
    }
});
