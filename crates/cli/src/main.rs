//! The command line: a module for each subcommand; [`model_args`] has the options of commands that run a model.
//!
//! Results go to standard output, everything else to standard error. Exit status: 0 done, 1 the run failed, 2 usage.
#![forbid(unsafe_code)]

mod batch;
mod bench;
mod devices;
mod generate;
mod inspect;
mod logits;
mod model_args;
mod model_facts;
mod output;
mod perplexity;
mod sampling_args;
mod serve;
mod structure;
mod text_input;
mod tokenize;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Batched inference of Llama-family models from GGUF files.
///
/// Without --model, commands run the embedded demo model, which tells children's stories.
#[derive(Parser)]
#[command(name = "rustorch", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Results go to standard output, everything else to standard error.\n\
                        Exit status: 0 done, 1 the run failed, 2 wrong usage; of batch also 1 if a line has an error\n\
                        (see --fail-on), and 130 and 143 after SIGINT and SIGTERM.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Generate(generate::Args),
    Batch(batch::Args),
    Serve(serve::Args),
    Tokenize(tokenize::Args),
    Logits(logits::Args),
    Inspect(inspect::Args),
    Perplexity(perplexity::Args),
    Bench(bench::Args),
    Devices(devices::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        // A batch whose reader has closed the pipe is not complete, which its exit status says.
        Command::Batch(args) => batch::run(&args),
        command => match run(command) {
            // The reader of our output, such as `head`, has closed the pipe.
            Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
            result => result.map(|()| ExitCode::SUCCESS),
        },
    };
    result.unwrap_or_else(|error| {
        output::error(&error);
        ExitCode::FAILURE
    })
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Generate(args) => generate::run(&args),
        Command::Batch(args) => batch::run(&args).map(drop),
        Command::Serve(args) => serve::run(&args),
        Command::Tokenize(args) => tokenize::run(&args),
        Command::Logits(args) => logits::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Perplexity(args) => perplexity::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Devices(args) => devices::run(&args),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut io = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.any(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
