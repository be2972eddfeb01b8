//! `rustorch logits`

use std::io::{self, BufWriter, Write};

use anyhow::{Context, Result, bail};
use rustorch_llama::{LlamaConfig, LlamaModel};
use serde::Serialize;

use crate::model_args::ModelArgs;

/// Print the logits after the last token of each sequence, as JSON lines
///
/// All sequences run in one batch, which grows beyond --batch-size if need be. Token ids are taken exactly as given: no BOS
/// is added. With any --alone, --threads, --chunk and --page-size the output is the same, bit for bit: a sequence's
/// logits do not depend on its batch.
#[derive(clap::Args)]
pub struct Args {
    /// Token ids of one sequence, separated by spaces or commas; repeat for more sequences
    #[arg(long, value_name = "IDS", required = true, value_parser = parse_ids, allow_hyphen_values = true)]
    tokens: Vec<TokenIds>,
    /// Run the sequences one by one instead of all together
    #[arg(long)]
    alone: bool,
    #[command(flatten)]
    pub model: ModelArgs,
}

#[derive(Clone)]
struct TokenIds(Vec<u32>);

fn parse_ids(text: &str) -> Result<TokenIds, String> {
    let ids = text.split([' ', ',', '\t', '\n']).filter(|id| !id.is_empty());
    ids.map(|id| id.parse().map_err(|_| format!("expected token ids, found '{id}'")))
        .collect::<Result<_, _>>()
        .map(TokenIds)
}

#[derive(Serialize)]
struct Line {
    tokens: usize,
    logits: Vec<f32>,
}

pub fn run(args: &Args) -> Result<()> {
    let gguf = args.model.file.open()?;
    let sequences: Vec<&[u32]> = args.tokens.iter().map(|ids| ids.0.as_slice()).collect();
    let config = slots(args, &sequences, args.model.config(&gguf)?)?;
    let mut model = LlamaModel::new(args.model.load(&gguf, config)?)?;
    let logits = if args.alone {
        let passes = sequences.iter().enumerate().map(|(index, tokens)| {
            model.forward(tokens).with_context(|| format!("pass {index} of one sequence each"))
        });
        passes.collect::<Result<Vec<_>>>()?
    } else {
        model.forward_batch(&sequences)?
    };
    write_lines(&sequences, logits).context("writing standard output")
}

/// One slot for each sequence that runs at the same time, as long as the longest.
fn slots(args: &Args, sequences: &[&[u32]], config: LlamaConfig) -> Result<LlamaConfig> {
    let context = config.max_seq_len;
    if let Some(index) = sequences.iter().position(|tokens| tokens.len() > context) {
        let found = sequences[index].len();
        bail!(
            "sequence {index}: expected at most the context of {context} tokens, found {found}\n\
             hint: raise --ctx"
        );
    }
    let num_slots = if args.alone { 1 } else { sequences.len() };
    let longest = sequences.iter().map(|tokens| tokens.len()).max().unwrap_or(0);
    let config = config.with_batch_size(num_slots).with_max_seq_len(longest.max(1));
    args.model.check_kv_memory(&config)?;
    Ok(config)
}

fn write_lines(sequences: &[&[u32]], logits: Vec<Vec<f32>>) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    for (tokens, logits) in sequences.iter().zip(logits) {
        serde_json::to_writer(&mut out, &Line { tokens: tokens.len(), logits })?;
        out.write_all(b"\n")?;
    }
    out.flush()
}
