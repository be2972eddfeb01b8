//! A chat of two messages: the model's template makes a prompt of the conversation, which the engine finds in its prefix cache the
//! second time.
//!
//! ```text
//! cargo run --release -p rustorch-llama --example chat [MODEL.gguf]
//! ```
#![allow(clippy::print_stdout)] // What an example is for.

use std::error::Error;
use std::sync::Arc;

use rustorch_llama::{
    Chat, ChatMessage, EngineConfig, GenerationPrompt, Gguf, LlamaConfig, LoadOptions, Request,
    SamplingParams, Tokenizer, Weights, demo,
};

const QUESTIONS: [&str; 2] =
    ["Tell me a story about a rabbit who lost a kite.", "Tell me a story about an owl."];

fn main() -> Result<(), Box<dyn Error>> {
    let gguf =
        std::env::args_os().nth(1).map_or_else(|| Ok(demo::gguf()), |path| Gguf::open(path.as_ref()))?;
    let tokenizer = Arc::new(Tokenizer::from_gguf(&gguf)?);
    let config = LlamaConfig::from_gguf(&gguf)?.with_max_seq_len(1024).with_batch_size(1);
    let weights = Weights::load(&gguf, config, LoadOptions::default())?;
    let engine = weights.start_engine(Some(Arc::clone(&tokenizer)), EngineConfig::default())?;

    let mut messages = Vec::new();
    for question in QUESTIONS {
        messages.push(ChatMessage::new("user", question));
        let chat = Chat::new(&messages, GenerationPrompt::Add);
        let request = Request {
            prompt_token_ids: tokenizer.encode_chat(&chat)?,
            params: SamplingParams { temperature: 0.0, max_tokens: Some(200), ..SamplingParams::default() },
            ..Request::default()
        };
        let answer = engine.submit(request)?.completion()?;
        let usage = answer.usage;
        println!("> {question}\n{}", answer.text.trim());
        println!("({} tokens of the prompt, {} of them cached)\n", usage.prompt_tokens, usage.cached_tokens);
        messages.push(ChatMessage::new("assistant", answer.text));
    }
    Ok(())
}
