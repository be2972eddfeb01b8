//! `rustorch perplexity`

use std::path::PathBuf;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use rustorch_llama::{Bos, LlamaModel, Special, perplexity};

use crate::model_args::ModelArgs;
use crate::{output, text_input};

/// Perplexity of a text, comparable with llama.cpp's
///
/// The text is tokenised whole and cut into windows of --ctx tokens; each window begins with BOS if the model uses one, and
/// the predictions of its second half are scored. Windows run one by one; --batch-size has no effect.
#[derive(clap::Args)]
#[command(mut_arg("ctx", |ctx| ctx.help("Tokens of a window [default: the smaller of the model's context and 512]")))]
pub struct Args {
    /// Text file
    #[arg(short, long, value_name = "PATH")]
    file: PathBuf,
    #[command(flatten)]
    pub model: ModelArgs,
}

/// llama.cpp's default.
const WINDOW: usize = 512;

pub fn run(args: &Args) -> Result<()> {
    let text = text_input::read_file(&args.file)?;
    let gguf = args.model.file.open()?;
    let tokenizer = args.model.file.tokenizer(&gguf)?;
    let config = args.model.config(&gguf)?;
    let window = args.model.ctx.map_or(WINDOW.min(config.max_seq_len), |ctx| ctx.get());
    let tokens = tokenizer.encode(&text, Special::Text, Bos::Add);
    let adds_bos = tokenizer.bos().filter(|&bos| tokens.first() == Some(&bos));
    let config = config.with_batch_size(1).with_max_seq_len(window);
    args.model.check_kv_memory(&config)?;
    let mut model = LlamaModel::new(args.model.load(&gguf, config)?)?;

    let bar = ProgressBar::new((tokens.len() / window) as u64).with_style(
        ProgressStyle::with_template("{bar:30} {pos}/{len} windows, perplexity {msg}, {eta} left")
            .expect("the template is valid"),
    );
    let result = perplexity(&mut model, &tokens, window, adds_bos, |windows, so_far| {
        bar.set_message(format!("{:.4}", so_far.value));
        bar.set_position(windows as u64);
    })
    .with_context(|| args.file.display().to_string())?;
    bar.finish_and_clear();
    output::print(&format!(
        "perplexity {:.4} +/- {:.5} over {} tokens in {} windows of {window}\n",
        result.value, result.standard_error, result.tokens, result.windows
    ))
}
