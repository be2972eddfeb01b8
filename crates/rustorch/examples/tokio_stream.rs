//! With tokio: a request's events go into a channel that tasks await. The engine has a thread of its own and never waits for them;
//! a task that ends, or drops its receiver, cancels its request.
//!
//! ```text
//! cargo run --release -p rustorch-llama --example tokio_stream [MODEL.gguf]
//! ```
#![allow(clippy::print_stdout)] // What an example is for.

use std::error::Error;
use std::sync::Arc;

use rustorch_llama::{
    Bos, EngineConfig, EngineHandle, Event, EventSink, Gguf, LlamaConfig, LoadOptions, Request,
    SamplingParams, Special, Tokenizer, Weights, demo,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

const PROMPTS: [&str; 3] = ["Once upon a time, there was a little fox", "One day, Lily", "Tom was a boy who"];

/// The engine's end of a request.
struct Sink(UnboundedSender<Event>);

impl EventSink for Sink {
    fn send(&mut self, event: Event) {
        // Nobody may want it any more, which `is_closed` tells the engine.
        let _ = self.0.send(event);
    }

    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let gguf =
        std::env::args_os().nth(1).map_or_else(|| Ok(demo::gguf()), |path| Gguf::open(path.as_ref()))?;
    let tokenizer = Arc::new(Tokenizer::from_gguf(&gguf)?);
    let config = LlamaConfig::from_gguf(&gguf)?.with_max_seq_len(256).with_batch_size(4);
    let weights = Weights::load(&gguf, config, LoadOptions::default())?;
    let engine = weights.start_engine(Some(Arc::clone(&tokenizer)), EngineConfig::default())?;

    let mut tasks = Vec::new();
    for prompt in PROMPTS {
        let events = submit(&engine, &tokenizer, prompt)?;
        tasks.push((prompt, tokio::spawn(text(events))));
    }
    for (prompt, task) in tasks {
        println!("{prompt}{}\n", task.await??);
    }
    Ok(())
}

fn submit(
    engine: &EngineHandle,
    tokenizer: &Tokenizer,
    prompt: &str,
) -> rustorch_llama::Result<UnboundedReceiver<Event>> {
    let (sender, events) = unbounded_channel();
    let prompt_token_ids = tokenizer.encode(prompt, Special::Text, Bos::Add);
    let params = SamplingParams { temperature: 0.0, max_tokens: Some(40), ..SamplingParams::default() };
    engine.submit_with(Request { prompt_token_ids, params, ..Request::default() }, Sink(sender))?;
    Ok(events)
}

/// All of a request's text.
async fn text(mut events: UnboundedReceiver<Event>) -> Result<String, rustorch_llama::EngineError> {
    let mut text = String::new();
    while let Some(event) = events.recv().await {
        match event {
            Event::Token(token) => text += &token.text,
            Event::Error(error) => return Err(error),
            _ => {}
        }
    }
    Ok(text)
}
