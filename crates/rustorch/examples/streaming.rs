//! Streaming: two requests run in the same steps, and their texts arrive piece by piece on one channel.
//!
//! ```text
//! cargo run --release -p rustorch-llama --example streaming [MODEL.gguf]
//! ```
#![allow(clippy::print_stdout)] // What an example is for.

use std::error::Error;
use std::sync::{Arc, mpsc};

use rustorch_llama::{
    Bos, EngineConfig, Event, Gguf, LlamaConfig, LoadOptions, Request, SamplingParams, Special, Tokenizer,
    Weights, demo,
};

const PROMPTS: [&str; 2] = ["Once upon a time, there was a little fox", "One day, Lily"];

fn main() -> Result<(), Box<dyn Error>> {
    let gguf =
        std::env::args_os().nth(1).map_or_else(|| Ok(demo::gguf()), |path| Gguf::open(path.as_ref()))?;
    let tokenizer = Arc::new(Tokenizer::from_gguf(&gguf)?);
    let config = LlamaConfig::from_gguf(&gguf)?.with_max_seq_len(256).with_batch_size(2);
    let weights = Weights::load(&gguf, config, LoadOptions::default())?;
    let engine = weights.start_engine(Some(Arc::clone(&tokenizer)), EngineConfig::default())?;

    // Each event comes with the tag of its request. `EngineHandle::submit` gives a stream of its own to each instead.
    let (sender, events) = mpsc::channel();
    for (tag, prompt) in PROMPTS.iter().enumerate() {
        let request = Request {
            prompt_token_ids: tokenizer.encode(prompt, Special::Text, Bos::Add),
            params: SamplingParams {
                temperature: 0.8,
                seed: 7,
                max_tokens: Some(40),
                ..SamplingParams::default()
            },
            ..Request::default()
        };
        engine.submit_to(request, tag as u64, &sender)?;
    }
    // The channel ends when the last request has.
    drop(sender);
    let mut texts = PROMPTS.map(str::to_owned);
    for (tag, event) in events {
        match event {
            Event::Token(token) => {
                println!("{tag}: {:?}", token.text);
                texts[tag as usize] += &token.text;
            }
            Event::Finished { reason, usage, .. } => {
                println!("{tag}: {} after {} tokens", reason.as_str(), usage.completion_tokens);
            }
            Event::Error(error) => return Err(error.into()),
            _ => {}
        }
    }
    println!("\n{}", texts.join("\n\n"));
    Ok(())
}
