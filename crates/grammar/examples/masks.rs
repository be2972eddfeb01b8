//! How long a mask takes: `masks MODEL.gguf [TOKENS]`, of whose vocabulary all is used.
//!
//! Prints, for some schemas, the time to compile and the median and 99th percentile of the masks of random texts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gguf::Gguf;
use grammar::{Grammars, Spec};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokenizer::Tokenizer;

fn schemas() -> Vec<(&'static str, Value)> {
    let text = json!({"type": "string"});
    let person = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 80},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "email": {"type": "string", "format": "email"},
            "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "maxItems": 8},
            "notes": text
        },
        "required": ["name", "age", "email", "tags", "notes"],
        "additionalProperties": false
    });
    let tree = json!({
        "$defs": {"node": {
            "type": "object",
            "properties": {"label": text, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
            "required": ["label", "children"], "additionalProperties": false
        }},
        "$ref": "#/$defs/node"
    });
    vec![("person", person), ("tree", tree), ("any object", json!({"type": "object"}))]
}

/// Texts for each schema.
const NUM_TEXTS: u64 = 20;
/// Most tokens of a text.
const MAX_TOKENS: usize = 120;

#[allow(clippy::print_stdout)] // What an example is for.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: masks MODEL.gguf")?;
    let tokenizer = Arc::new(Tokenizer::from_gguf(&Gguf::open(path.as_ref())?)?);
    println!("vocabulary of {} tokens", tokenizer.vocab_size());
    let started = Instant::now();
    let grammars = Grammars::new(Arc::clone(&tokenizer));
    grammars.compile(&Spec::Choice(vec!["a".to_owned()]))?;
    println!("trie and first grammar: {:.0} ms", started.elapsed().as_secs_f64() * 1e3);
    println!(
        "{:12} {:>10} {:>8} {:>9} {:>9} {:>9}",
        "schema", "compile us", "masks", "p50 us", "p99 us", "max us"
    );
    for (name, schema) in schemas() {
        let started = Instant::now();
        let grammar = grammars.compile(&Spec::JsonSchema(schema))?;
        let compiled = started.elapsed();
        let mut times = Vec::new();
        for seed in 0..NUM_TEXTS {
            let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
            let mut constraint = grammar.start();
            for _ in 0..MAX_TOKENS {
                let started = Instant::now();
                let mask = constraint.mask()?;
                times.push(started.elapsed());
                let allowed: Vec<u32> =
                    (0..tokenizer.vocab_size() as u32).filter(|&id| mask.allows(id)).collect();
                if allowed.is_empty() {
                    break;
                }
                constraint.commit(allowed[rng.next_u64() as usize % allowed.len()])?;
            }
        }
        times.sort_unstable();
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        let at = |share: f64| us(times[((times.len() - 1) as f64 * share) as usize]);
        println!(
            "{name:12} {:10.0} {:8} {:9.1} {:9.1} {:9.1}",
            us(compiled),
            times.len(),
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
    Ok(())
}
