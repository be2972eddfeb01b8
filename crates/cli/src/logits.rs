//! `rustorch logits`

use std::io::{BufWriter, Write};

use anyhow::{Result, bail};
use rustorch_llama::LlamaModel;
use serde::Serialize;

use crate::model_args::ModelArgs;
use crate::output;

/// Print the logits after the last token of each sequence, as JSON lines
///
/// All sequences run in one batch, which grows beyond --batch-size if need be. Token ids are taken exactly as given: no BOS
/// is added. With --alone, --threads, --chunk and --page-size anyone can check that the batch does not show: the output
/// is the same, bit for bit.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Token ids of one sequence, separated by spaces or commas; repeat for more sequences
    #[arg(long, value_name = "IDS", required = true, value_parser = parse_ids)]
    tokens: Vec<TokenIds>,
    /// Run one sequence a pass instead of all together
    #[arg(long)]
    alone: bool,
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
    let num_slots = if args.alone { 1 } else { sequences.len().max(args.model.batch_size.get()) };
    let longest = sequences.iter().map(|ids| ids.len()).max().unwrap_or(0);
    let config = args.model.config(&gguf)?;
    // Slots need room for what is asked, not for the whole context; a sequence beyond that is refused by its length.
    let context = longest.clamp(1, config.max_seq_len);
    let config = config.with_batch_size(num_slots).with_max_seq_len(context);
    let needed =
        num_slots as u64 * (config.pages_per_seq() * config.page_size) as u64 * config.kv_bytes_per_token();
    if let Some(limit) = args.model.kv_memory.filter(|&limit| needed > limit) {
        bail!(
            "KV memory: {num_slots} sequences of {longest} tokens need {}, --kv-memory permits {}",
            output::bytes(needed),
            output::bytes(limit)
        );
    }
    let mut model = LlamaModel::new(args.model.load(&gguf, config)?)?;
    let logits = if args.alone {
        sequences.iter().map(|tokens| Ok(model.forward(tokens)?)).collect::<Result<Vec<_>>>()?
    } else {
        model.forward_batch(&sequences)?
    };
    let mut out = BufWriter::new(std::io::stdout().lock());
    for (tokens, logits) in sequences.iter().zip(logits) {
        serde_json::to_writer(&mut out, &Line { tokens: tokens.len(), logits })?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(())
}
