//! `rustorch tokenize`

use std::io::{Read, Write};

use anyhow::{Context, Result, bail};
use rustorch_llama::{Bos, Special, Tokenizer};

use crate::model_args::FileArgs;

/// Print the token ids of a text on one line
///
/// The text is taken byte for byte: no newline is stripped. Any GGUF file with a supported tokenizer will do, whatever its
/// architecture, vocabulary-only files too.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    file: FileArgs,
    /// The text [default: standard input]
    #[arg(long)]
    text: Option<String>,
    /// Do not add the BOS (and EOS) token that the file asks for
    #[arg(long)]
    no_bos: bool,
    /// Take control tokens spelled in the text, such as <|eot_id|>, for what they spell
    #[arg(long)]
    special: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let tokenizer = if args.file.is_demo() {
        Tokenizer::from_gguf(&args.file.open()?)?
    } else {
        let metadata = rustorch_llama::Metadata::open(&args.file.model)?;
        Tokenizer::from_metadata(&metadata).with_context(|| args.file.model.display().to_string())?
    };
    let text = match &args.text {
        Some(text) => text.clone(),
        None => read_stdin()?,
    };
    let special = if args.special { Special::Parse } else { Special::Text };
    let bos = if args.no_bos { Bos::Skip } else { Bos::Add };
    let ids: Vec<String> = tokenizer.encode(&text, special, bos).iter().map(u32::to_string).collect();
    writeln!(std::io::stdout(), "{}", ids.join(" "))?;
    Ok(())
}

fn read_stdin() -> Result<String> {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).context("reading standard input")?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            bail!("standard input: expected UTF-8, found byte {:#04x} at offset {at}", error.as_bytes()[at])
        }
    }
}
