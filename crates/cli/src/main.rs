//! The command line: a module for each subcommand; [`model_args`] has the options of commands that run a model.
//!
//! Results go to standard output, everything else to standard error. Exit status: 0 done, 1 the run failed, 2 usage.
#![forbid(unsafe_code)]

mod api_keys;
mod batch;
mod bench;
mod chat;
mod command_line;
mod completions;
mod config_file;
mod devices;
mod generate;
mod inspect;
mod logits;
mod model_args;
mod model_facts;
mod model_source;
mod models;
mod output;
mod perplexity;
mod sampling_args;
mod serve;
mod structure;
mod text_input;
mod tokenize;

use std::process::ExitCode;

use anyhow::Result;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::command_line::{Cli, Command, Common, LogFormat};

fn main() -> ExitCode {
    let result = command_line::parse().and_then(|Cli { mut command, common }| {
        start_log(&common, &command);
        if let Some(file) = command.file_mut() {
            model_source::fetch(file)?;
        }
        dispatch(command)
    });
    result.unwrap_or_else(|error| {
        output::error(&error);
        ExitCode::FAILURE
    })
}

fn dispatch(command: Command) -> Result<ExitCode> {
    match command {
        // A batch whose reader has closed the pipe is not complete, which its exit status says.
        Command::Batch(args) => batch::run(&args),
        Command::Verify(args) => batch::verify(&args),
        command => match run(command) {
            // The reader of our output, such as `head`, has closed the pipe.
            Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
            result => result.map(|()| ExitCode::SUCCESS),
        },
    }
}

/// Sends log lines to standard error: of a server always, of other commands if they are asked for.
fn start_log(common: &Common, command: &Command) {
    let is_server = matches!(command, Command::Serve(_));
    let level = match (common.quiet, common.verbose, is_server) {
        (true, ..) => LevelFilter::ERROR,
        (false, true, _) => LevelFilter::DEBUG,
        (false, false, true) => LevelFilter::INFO,
        (false, false, false) => LevelFilter::OFF,
    };
    let asked = std::env::var("RUST_LOG").ok().and_then(|text| text.parse::<Targets>().ok());
    let filter = asked.unwrap_or_else(|| Targets::new().with_default(level));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let registry = tracing_subscriber::registry();
    match common.log_format {
        LogFormat::Text => registry.with(lines.with_filter(filter)).init(),
        LogFormat::Json => registry.with(lines.json().with_filter(filter)).init(),
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Generate(args) => generate::run(&args),
        Command::Chat(args) => chat::run(&args),
        Command::Batch(args) => batch::run(&args).map(drop),
        Command::Split(args) => batch::split(&args),
        Command::Verify(args) => batch::verify(&args).map(drop),
        Command::Merge(args) => batch::merge(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Tokenize(args) => tokenize::run(&args),
        Command::Logits(args) => logits::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Perplexity(args) => perplexity::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Devices(args) => devices::run(&args),
        Command::Models(args) => models::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => completions::run_man(&args),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut io = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.any(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
