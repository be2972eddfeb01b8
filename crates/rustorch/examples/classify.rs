//! Classification: which of several labels does the model find the most likely end of a text? Nothing is generated; the labels'
//! tokens are scored as parts of prompts, all in the same steps, and the text before them is computed once.
//!
//! ```text
//! cargo run --release -p rustorch-llama --example classify [MODEL.gguf]
//! ```
#![allow(clippy::print_stdout)] // What an example is for.

use std::error::Error;
use std::sync::Arc;

use rustorch_llama::{
    Bos, EngineConfig, EngineHandle, Gguf, LlamaConfig, LoadOptions, Request, SamplingParams, Special,
    Tokenizer, Weights, demo,
};

const TEXTS: [&str; 2] = [
    "Once upon a time, there was a little fox. He lived in a cozy",
    "Once upon a time, there was a princess named Lily. She lived in a",
];
const LABELS: [&str; 3] = [" den", " nest", " castle"];

fn main() -> Result<(), Box<dyn Error>> {
    let gguf =
        std::env::args_os().nth(1).map_or_else(|| Ok(demo::gguf()), |path| Gguf::open(path.as_ref()))?;
    let tokenizer = Arc::new(Tokenizer::from_gguf(&gguf)?);
    let config = LlamaConfig::from_gguf(&gguf)?.with_max_seq_len(256).with_batch_size(8);
    let weights = Weights::load(&gguf, config, LoadOptions::default())?;
    let engine = weights.start_engine(Some(Arc::clone(&tokenizer)), EngineConfig::default())?;

    for text in TEXTS {
        let scores = scores(&engine, &tokenizer, text)?;
        let best = (0..LABELS.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap_or(0);
        let all: Vec<String> =
            LABELS.iter().zip(&scores).map(|(label, score)| format!("{label} {score:.2}")).collect();
        println!("{text}{}  ({})", LABELS[best], all.join(",").trim_start());
    }
    Ok(())
}

/// The logarithm of each label's probability after `text`.
fn scores(engine: &EngineHandle, tokenizer: &Tokenizer, text: &str) -> Result<Vec<f32>, Box<dyn Error>> {
    let text = tokenizer.encode(text, Special::Text, Bos::Add);
    let mut streams = Vec::new();
    for label in LABELS {
        let label = tokenizer.encode(label, Special::Text, Bos::Skip);
        let params =
            SamplingParams { max_tokens: Some(0), prompt_logprobs: Some(0), ..SamplingParams::default() };
        let request =
            Request { prompt_token_ids: [&text[..], &label].concat(), params, ..Request::default() };
        streams.push((label.len(), engine.submit(request)?));
    }
    let sums = streams.into_iter().map(|(num_tokens, stream)| {
        let logprobs = stream.completion()?.prompt_logprobs.unwrap_or_default();
        Ok(logprobs[logprobs.len() - num_tokens..].iter().map(|token| token.logprob).sum())
    });
    sums.collect()
}
