//! Chat templates of any text over some chats: the worst that one does is an error. Limits of work and memory are checked by the
//! fuzzer's own: run it with `-timeout=30 -rss_limit_mb=1024`.

#![no_main]

use std::sync::LazyLock;

use gguf::{Array, GgufWriter, Metadata, Value};
use libfuzzer_sys::fuzz_target;
use tokenizer::{Chat, ChatMessage, GenerationPrompt, Tokenizer};

static METADATA: LazyLock<Metadata> = LazyLock::new(|| {
    let tokens = ["<unk>", "<s>", "</s>", "a", "b"].map(Into::into).to_vec();
    let mut file = GgufWriter::new();
    file.metadata("tokenizer.ggml.model", Value::String("llama".into()));
    file.metadata("tokenizer.ggml.tokens", Value::Array(Array::String(tokens)));
    file.metadata("tokenizer.ggml.token_type", Value::Array(Array::I32(vec![2, 3, 3, 1, 1])));
    file.metadata("tokenizer.ggml.scores", Value::Array(Array::F32(vec![0.0; 5])));
    file.into_gguf().metadata().clone()
});

fuzz_target!(|template: &str| {
    let tokenizer = Tokenizer::from_metadata(&METADATA).expect("a vocabulary");
    let Ok(tokenizer) = tokenizer.with_chat_template(template) else { return };
    let message = |i: usize| ChatMessage::new(["system", "user", "assistant"][i % 3], "says </s> {{ this }}");
    for count in [0, 1, 5] {
        let messages: Vec<_> = (0..count).map(message).collect();
        for prompt in [GenerationPrompt::Add, GenerationPrompt::Omit] {
            if let Err(error) = tokenizer.encode_chat(&Chat::new(&messages, prompt)) {
                assert!(!error.to_string().is_empty());
            }
        }
    }
});
