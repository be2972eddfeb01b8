//! `rustorch tokenize`

use anyhow::{Context, Result};
use rustorch_llama::{Bos, Metadata, Special, Tokenizer};

use crate::model_args::{FileArgs, note_oddities};
use crate::{output, text_input};

/// Print the token ids of a text on one line
///
/// The text is taken byte for byte: no newline is stripped. Any GGUF file with a supported tokenizer will do, whatever its
/// architecture, vocabulary-only files too.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub file: FileArgs,
    /// The text [default: standard input]
    #[arg(long, allow_hyphen_values = true)]
    text: Option<String>,
    /// Do not add the BOS (and EOS) token that the file asks for
    #[arg(long)]
    no_bos: bool,
    /// Parse control tokens spelled in the text, such as <|eot_id|>
    #[arg(long)]
    special: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let tokenizer = if args.file.is_demo() {
        Tokenizer::from_gguf(&args.file.open()?)?
    } else {
        let metadata = Metadata::open(&args.file.model)?;
        Tokenizer::from_metadata(&metadata).with_context(|| args.file.model.display().to_string())?
    };
    note_oddities(&tokenizer);
    let text = match &args.text {
        Some(text) => text.clone(),
        None => text_input::read_stdin()?,
    };
    let special = if args.special { Special::Parse } else { Special::Text };
    let bos = if args.no_bos { Bos::Skip } else { Bos::Add };
    let ids: Vec<String> = tokenizer.encode(&text, special, bos).iter().map(u32::to_string).collect();
    output::print(&(ids.join(" ") + "\n"))
}
