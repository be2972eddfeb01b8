//! Search: texts and a question become vectors of length 1, and the nearest text is the answer.
//!
//! ```text
//! cargo run --release -p rustorch-llama --example embeddings_search [MODEL.gguf]
//! ```
#![allow(clippy::print_stdout)] // What an example is for.

use std::error::Error;
use std::sync::Arc;

use rustorch_llama::{
    Bos, EmbeddingRequest, EngineConfig, EngineHandle, Gguf, LlamaConfig, LoadOptions, Pooling, Special,
    Tokenizer, Weights, demo,
};

const TEXTS: [&str; 4] = [
    "The fox lost his red ball in the forest.",
    "The princess was brave and went to the castle.",
    "It was a cold winter morning, and there was snow.",
    "The penguin wanted to swim in the sea.",
];
const QUESTION: &str = "A fox looked for a ball in the forest.";

fn main() -> Result<(), Box<dyn Error>> {
    let gguf =
        std::env::args_os().nth(1).map_or_else(|| Ok(demo::gguf()), |path| Gguf::open(path.as_ref()))?;
    let tokenizer = Arc::new(Tokenizer::from_gguf(&gguf)?);
    // For models that are not made for embeddings, as the demo model. Those that are say what they want: `file_pooling`.
    let pooling = Pooling::Mean;
    let config = LlamaConfig::from_gguf(&gguf)?.with_max_seq_len(256).with_batch_size(8);
    let weights = Weights::load(&gguf, config, LoadOptions::default())?;
    let engine = weights.start_engine(Some(Arc::clone(&tokenizer)), EngineConfig::default())?;

    let vectors = embed(&engine, &tokenizer, pooling, &TEXTS)?;
    let question = &embed(&engine, &tokenizer, pooling, &[QUESTION])?[0];
    let mut found: Vec<(f32, &str)> = vectors.iter().map(|vector| dot(vector, question)).zip(TEXTS).collect();
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    println!("{QUESTION}");
    for (similarity, text) in found {
        println!("  {similarity:.3} {text}");
    }
    Ok(())
}

/// All texts in the same steps.
fn embed(
    engine: &EngineHandle,
    tokenizer: &Tokenizer,
    pooling: Pooling,
    texts: &[&str],
) -> Result<Vec<Vec<f32>>, Box<dyn Error>> {
    let mut streams = Vec::new();
    for text in texts {
        let prompt_token_ids = tokenizer.encode(text, Special::Text, Bos::Add);
        streams.push(engine.embed(EmbeddingRequest {
            prompt_token_ids,
            pooling,
            ..EmbeddingRequest::default()
        })?);
    }
    streams.into_iter().map(|stream| Ok(stream.embedding()?.values)).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
