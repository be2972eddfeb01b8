//! The options of `rustorch bench`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use rustorch_llama::synthetic::SyntheticModel;

use crate::model_args::{FileArgs, RunArgs, parse_count};

/// Measure speed by batch and length, and compare it with what the machine could do
///
/// Each row is a batch of random prompts of one length. Prompt: all are submitted together with one token to generate,
/// timed until the last has it. Decode: steps in which all sequences take part. Figures are medians over --repeat; times
/// of steps are pooled. Shares are of the machine's peak rates, measured at the start: reading memory, and multiply-adds.
/// Several devices (--device cuda:0,1) are measured together: a step is a token of every sequence, peak rates are those of the first
/// device times their number.
///
/// --synthetic needs no file: it makes random weights with a published model's shape and block formats, such as
/// tinyllama-1.1b:q4_k_m, llama-3.2-1b:q8_0, llama-3.2-3b:q5_k_m or llama-3.1-8b:iq4_xs.
#[derive(clap::Args)]
pub struct Args {
    /// Sequences that run together, on all devices of --device in all; one or more numbers
    #[arg(short, long, value_name = "N,..", default_value = "1,2,4,8,16", value_delimiter = ',')]
    #[arg(value_parser = parse_count)]
    pub batch: Vec<NonZeroUsize>,
    /// Tokens of each prompt, one or more numbers
    #[arg(short, long, value_name = "N,..", default_value = "1,16,128,512", value_delimiter = ',')]
    #[arg(value_parser = parse_count)]
    pub lengths: Vec<NonZeroUsize>,
    /// Decode steps of a measurement
    #[arg(short = 'n', long, value_name = "N", default_value = "32", value_parser = parse_count)]
    pub r#gen: NonZeroUsize,
    /// Measurements of which the median is taken
    #[arg(short, long, value_name = "N", default_value = "3", value_parser = parse_count)]
    pub repeat: NonZeroUsize,
    /// Print JSON instead of a table
    #[arg(long, conflicts_with = "csv")]
    pub json: bool,
    /// Print CSV instead of a table
    #[arg(long)]
    pub csv: bool,
    /// Print what each kernel of a GPU took, to standard error; timing them slows the steps down a little
    #[arg(long)]
    pub profile: bool,
    /// Draw decode speed over the batch, and the machine's peak rates
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
    /// Random weights in place of a file: SHAPE:FORMAT
    #[arg(long, value_name = "SHAPE:FORMAT", conflicts_with_all = ["model", "hf_repo"])]
    pub synthetic: Option<SyntheticModel>,
    /// Write the synthetic model to a GGUF file, and do nothing else
    #[arg(long, value_name = "FILE.gguf", requires = "synthetic")]
    pub save: Option<PathBuf>,
    #[command(flatten, next_help_heading = "Model options")]
    pub file: FileArgs,
    #[command(flatten, next_help_heading = "Model options")]
    pub run: RunArgs,
}
