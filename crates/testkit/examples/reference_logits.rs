//! Prints the float64 logits of a model file, to compare an engine's with: for each token a JSON line
//! `{"tokens": N, "logits": [..]}` of the logits after the first N tokens, as `rustorch logits` prints them.
//!
//! ```text
//! cargo run --release -p rustorch-testkit --example reference_logits -- FILE ID [ID ..]
//! ```
//!
//! Takes eight bytes of memory for each weight.

use std::error::Error;

use gguf::Gguf;
use testkit::Reference;

#[allow(clippy::print_stdout)] // What the program is for.
fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let gguf = Gguf::open(args.next().ok_or("usage: reference_logits FILE ID [ID ..]")?.as_ref())?;
    let tokens = args.map(|id| id.parse()).collect::<Result<Vec<u32>, _>>()?;
    for (i, logits) in Reference::new(&gguf).all_logits(&tokens).iter().enumerate() {
        println!("{{\"tokens\": {}, \"logits\": {logits:?}}}", i + 1);
    }
    Ok(())
}
