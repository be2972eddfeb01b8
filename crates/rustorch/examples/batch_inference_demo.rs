//! Batched inference in four steps: load, run sequences of different lengths in one pass, change the batch size, and
//! generate for eight prompts at once.
//!
//! ```text
//! cargo run --release --example batch_inference_demo [MODEL.gguf]
//! ```
//!
//! Without a path it runs the demo model of this repository, a teller of children's stories.
#![allow(clippy::print_stdout)] // What an example is for.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustorch_llama::{Bos, ControlTokens, Gguf, LlamaConfig, LlamaModel, Special, Tokenizer};

/// Tokens to generate for each prompt.
const NEW_TOKENS: usize = 100;

const PROMPTS: [&str; 8] = [
    "Once upon a time, there was a little fox",
    "One day, a brave princess",
    "In a quiet forest lived a wise owl",
    "There was once a mouse named Pip",
    "Lily had a red kite.",
    "It was a cold winter morning. A little penguin",
    "Long ago, an old wizard",
    "Tom was a boy who",
];

fn main() -> Result<(), Box<dyn Error>> {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo/demo.gguf");
    let path = std::env::args_os().nth(1).map_or(demo, PathBuf::from);

    // 1. Load. The configuration comes from the file; what does not follow from the weights is ours to choose: here
    //    four cache slots of 256 tokens each.
    let gguf = Gguf::open(&path)?;
    let tokenizer = Tokenizer::from_gguf(&gguf)?;
    let config = LlamaConfig::from_gguf(&gguf)?.with_batch_size(4).with_max_seq_len(256);
    let mut model = LlamaModel::from_gguf_with_config(&path, config)?;
    println!("{} on {}", path.file_name().unwrap_or_default().display(), model.weights().device());

    // 2. One pass for sequences of different lengths. Nothing is padded: sequence i runs in slot i, and logits[i] are
    //    those after its own last token.
    let prompts = PROMPTS.map(|prompt| tokenizer.encode(prompt, Special::Text, Bos::Add));
    let sequences: Vec<&[u32]> = prompts[..4].iter().map(Vec::as_slice).collect();
    let logits = model.forward_batch(&sequences)?;
    println!("\nThe most likely next token of {} sequences, in one pass:", sequences.len());
    for ((prompt, tokens), logits) in PROMPTS.iter().zip(&sequences).zip(&logits) {
        let next = tokenizer.decode(&[argmax(logits)], ControlTokens::Show);
        println!("  {:2} tokens: {prompt} |{next}|", tokens.len());
    }

    // 3. Another batch size makes the cache and the buffers anew. The weights stay where they are.
    println!("\nMemory of the KV cache, with {} kB of weights:", model.weights().weight_bytes() / 1000);
    for batch_size in [1, 2, 4, 8] {
        model.set_batch_size(batch_size)?;
        println!("  batch {batch_size}: {:6} kB", model.kv_cache().memory_bytes() / 1000);
    }

    // 4. Generate for eight prompts, first one after the other, then all together. Each pass reads every weight once,
    //    whether it serves one sequence or eight.
    println!("\nGenerating {NEW_TOKENS} tokens for each of {} prompts:", prompts.len());
    let (one_by_one, slow) = timed(|| {
        let each = prompts.chunks(1).map(|prompt| generate(&mut model, prompt));
        each.collect::<Result<Vec<_>, _>>().map(|texts| texts.concat())
    })?;
    let (together, fast) = timed(|| generate(&mut model, &prompts))?;
    println!("  batch 1: {slow:7.0} tokens/s");
    println!("  batch 8: {fast:7.0} tokens/s, {:.1} times as many", fast / slow);

    // The batch does not show in the results: not a bit of the logits differs, and so not a token.
    assert_eq!(one_by_one, together);
    println!("  The tokens are the same.\n");
    for (prompt, tokens) in PROMPTS.iter().zip(&together) {
        let end = tokens.iter().position(|&token| tokenizer.is_eog(token)).unwrap_or(tokens.len());
        println!("{prompt}{}\n", tokenizer.decode(&tokens[..end], ControlTokens::Hide).trim_end());
    }
    Ok(())
}

/// Continues each prompt by the most likely tokens, prompt `i` in slot `i`.
///
/// Sequences are not stopped at their end, so that every run does the same work. `Weights::start_engine` has what a
/// program needs beside: sampling, stopping, streaming, and new requests taking the place of finished ones.
fn generate(model: &mut LlamaModel, prompts: &[Vec<u32>]) -> rustorch_llama::Result<Vec<Vec<u32>>> {
    let mut generated = vec![Vec::new(); prompts.len()];
    // The first pass takes the whole prompts, each later one the token that the pass before chose.
    let sequences: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let mut logits = model.forward_batch(&sequences)?;
    loop {
        for (tokens, logits) in generated.iter_mut().zip(&logits) {
            tokens.push(argmax(logits));
        }
        if generated[0].len() == NEW_TOKENS {
            return Ok(generated);
        }
        let last: Vec<&[u32]> = generated.iter().map(|tokens| &tokens[tokens.len() - 1..]).collect();
        let start: Vec<usize> = (0..prompts.len()).map(|slot| model.kv_cache().cached_tokens(slot)).collect();
        logits = model.forward_batch_with_position(&last, &start)?;
    }
}

/// The token with the highest logit; of equal ones the lowest id.
fn argmax(logits: &[f32]) -> u32 {
    let best = (0..logits.len()).rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
    best.expect("a vocabulary is never empty") as u32
}

/// What `run` generates, and how many tokens a second.
fn timed(
    run: impl FnOnce() -> rustorch_llama::Result<Vec<Vec<u32>>>,
) -> rustorch_llama::Result<(Vec<Vec<u32>>, f64)> {
    let started = Instant::now();
    let generated = run()?;
    let tokens: usize = generated.iter().map(Vec::len).sum();
    Ok((generated, tokens as f64 / started.elapsed().as_secs_f64()))
}
