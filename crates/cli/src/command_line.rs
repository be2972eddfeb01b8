//! The command line as a whole: the subcommands, the options that all of them have, and what is done with arguments before
//! clap reads them.
//!
//! An option's value is, in this order: what the arguments say, the environment (`RUSTORCH_` and its name), the
//! configuration file's section of the subcommand, its top level, and the default.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::builder::{BoolishValueParser, Styles};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use rustorch_llama::Isa;

use crate::config_file::ConfigFile;
use crate::model_args::FileArgs;
use crate::{
    batch, bench, chat, completions, devices, generate, inspect, logits, models, output, perplexity, serve,
    tokenize,
};

/// Batched inference of Llama-family models from GGUF files.
///
/// Without --model, commands run the embedded demo model, which tells children's stories.
#[derive(Parser)]
#[command(name = "rustorch", version, long_version = long_version(), propagate_version = true, max_term_width = 100)]
#[command(after_help = "Results go to standard output, everything else to standard error.\n\
                        Every option can also be set in the environment, --batch-size as RUSTORCH_BATCH_SIZE, and in a\n\
                        configuration file (--config).\n\
                        Exit status: 0 done, 1 the run failed, 2 wrong usage; of batch also 1 if a line has an error\n\
                        (see --fail-on), of verify 1 if there is a fault, and 130 and 143 after SIGINT and SIGTERM.")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub common: Common,
}

/// Options of every subcommand.
#[derive(clap::Args)]
#[command(next_help_heading = "General options")]
pub struct Common {
    /// TOML file of defaults for options [default: rustorch/config.toml in the user's configuration folder]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print no notes on standard error, only errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Log what the engine and the server do on standard error; RUST_LOG says more exactly what, such as server=debug
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub verbose: bool,
    /// How log lines are written
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// The form of log lines.
#[derive(ValueEnum, Clone, Copy)]
pub enum LogFormat {
    /// For people
    Text,
    /// A JSON object each
    Json,
}

#[derive(Subcommand)]
pub enum Command {
    Generate(generate::Args),
    Chat(chat::Args),
    Batch(batch::Args),
    Split(batch::SplitArgs),
    Verify(batch::VerifyArgs),
    Merge(batch::MergeArgs),
    Serve(serve::Args),
    Tokenize(tokenize::Args),
    Logits(logits::Args),
    Inspect(inspect::Args),
    Perplexity(perplexity::Args),
    Bench(bench::Args),
    Devices(devices::Args),
    Models(models::Args),
    Completions(completions::Args),
    Man(completions::ManArgs),
}

impl Command {
    /// The options that name the model's file, of commands that read one.
    pub fn file_mut(&mut self) -> Option<&mut FileArgs> {
        match self {
            Self::Generate(args) => Some(&mut args.model.file),
            Self::Chat(args) => Some(&mut args.model.file),
            Self::Batch(args) => Some(&mut args.answering.model.file),
            Self::Verify(args) => Some(&mut args.answering.model.file),
            Self::Serve(args) => Some(&mut args.model.file),
            Self::Tokenize(args) => Some(&mut args.file),
            Self::Logits(args) => Some(&mut args.model.file),
            Self::Inspect(args) => Some(&mut args.model.file),
            Self::Perplexity(args) => Some(&mut args.model.file),
            Self::Bench(args) => args.synthetic.is_none().then_some(&mut args.file),
            Self::Devices(args) => Some(&mut args.file),
            Self::Split(_) | Self::Merge(_) | Self::Models(_) | Self::Completions(_) | Self::Man(_) => None,
        }
    }
}

/// Version, commit, features and instruction sets.
fn long_version() -> String {
    let names = |isas: &mut dyn Iterator<Item = Isa>| {
        let names: Vec<String> = isas.map(|isa| isa.to_string()).collect();
        names.join(", ")
    };
    format!(
        "{}\ncommit: {}\nfeatures: {}\ninstruction sets: {}; of this machine: {}",
        env!("CARGO_PKG_VERSION"),
        option_env!("RUSTORCH_COMMIT").unwrap_or("unknown"),
        [
            "cpu",
            if cfg!(feature = "gpu") { ", gpu" } else { "" },
            if cfg!(feature = "hub") { ", hub" } else { "" }
        ]
        .concat(),
        names(&mut Isa::ALL.into_iter()),
        names(&mut Isa::ALL.into_iter().filter(|isa| isa.is_available())),
    )
}

/// Reads the program's arguments, the environment and the configuration file. Ends the program if it is to print help, or
/// if the arguments are wrong.
///
/// # Errors
/// Names what is wrong with the configuration file.
pub fn parse() -> Result<Cli> {
    let (args, note) = translated(std::env::args_os());
    let file = ConfigFile::of(&args)?;
    let new_command = || {
        let command = with_environment(Cli::command());
        match &file {
            Some(file) => file.apply(command).with_context(|| file.path().display().to_string()),
            None => Ok(command),
        }
    };
    let mut command = new_command()?;
    let matches = match command.try_get_matches_from_mut(&args) {
        Ok(matches) => matches,
        Err(error) => {
            let plain = new_command()?.styles(Styles::plain()).try_get_matches_from(&args);
            exit(&error, plain.err().as_ref().unwrap_or(&error))
        }
    };
    let mut cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    choose_model(&mut command, &matches, &mut cli.command);
    output::set_quiet(cli.common.quiet);
    if let Some(note) = note {
        output::note(&note);
    }
    Ok(cli)
}

/// Ends the program, with help or with an error; `plain` is the same without styles of clap's own. What a terminal would obey in that
/// is of the arguments, the environment or the configuration file, and is escaped.
#[allow(clippy::print_stderr)] // As `error.exit()`.
fn exit(error: &clap::Error, plain: &clap::Error) -> ! {
    let text = plain.render().ansi().to_string();
    if let (Cow::Owned(visible), true) = (output::visible(&text), plain.use_stderr()) {
        eprint!("{visible}");
        std::process::exit(plain.exit_code())
    }
    error.exit()
}

/// Of a model's file and a repository, the one that was said in a place that counts before the other's. Ends the program if the
/// arguments have both.
fn choose_model(command: &mut clap::Command, matches: &ArgMatches, subcommand: &mut Command) {
    let Some(file) = subcommand.file_mut() else { return };
    let matches = matches.subcommand().map_or(matches, |(_, matches)| matches);
    let source = |id| matches.value_source(id);
    let [model, repo] = [source("model"), source("hf_repo")];
    if model == Some(ValueSource::CommandLine) && repo == model {
        let text = "the argument '--model <PATH>' cannot be used with '--hf-repo <USER/REPO[:QUANT]>'";
        command.error(ErrorKind::ArgumentConflict, text).exit();
    }
    // Clap orders them by how much they count.
    if file.hf_repo.is_some() && model > repo {
        (file.hf_repo, file.hf_file) = (None, None);
    }
}

/// The command with a variable of the environment for every option that has none of its own. That of the configuration file
/// is read before clap, and may be empty.
pub fn with_environment(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|arg| match arg.get_long() {
        Some(long) if arg.get_env().is_none() && !is_builtin(&arg) && long != "config" => {
            let name = format!("RUSTORCH_{}", long.replace('-', "_").to_ascii_uppercase());
            let arg = arg.env(name).hide_env(true);
            match arg.get_action() {
                ArgAction::SetTrue => arg.value_parser(BoolishValueParser::new()),
                _ => arg,
            }
        }
        _ => arg,
    });
    let names: Vec<String> = command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, with_environment))
}

/// Whether it ends the program.
pub fn is_builtin(arg: &Arg) -> bool {
    matches!(
        arg.get_action(),
        ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version
    )
}

/// Options of llama.cpp's that have several letters behind one dash, which clap takes for several options, and their names
/// here.
const SEVERAL_LETTERS: [(&str, &str); 5] = [
    ("-np", "--batch-size"),
    ("-ngl", GPU_LAYERS),
    ("-hf", "--hf-repo"),
    ("-hfr", "--hf-repo"),
    ("-hff", "--hf-file"),
];
const GPU_LAYERS: &str = "--gpu-layers";
const GPU_LAYERS_ALIAS: &str = "--n-gpu-layers";

/// The arguments in this program's words, and what there is to say of them.
///
/// Models are not split between a GPU and the CPU. So a number of layers for the GPU says where the model runs: of 0, on the
/// CPU.
fn translated(args: impl Iterator<Item = OsString>) -> (Vec<OsString>, Option<String>) {
    let (mut out, mut note) = (Vec::new(), None);
    let mut args = args.peekable();
    let mut num_layers = None;
    while let Some(arg) = args.next() {
        let text = arg.to_str().unwrap_or_default();
        if text == "--" {
            out.push(arg);
            out.extend(args);
            break;
        }
        let (given, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        let name = SEVERAL_LETTERS
            .into_iter()
            .find(|(letters, _)| *letters == given)
            .map_or(given, |(_, long)| long);
        if name == GPU_LAYERS || name == GPU_LAYERS_ALIAS {
            let value = value.map(OsString::from).or_else(|| args.next()).unwrap_or_default();
            num_layers = Some(value.to_string_lossy().into_owned());
            continue;
        }
        out.push(match value {
            _ if name == given => arg,
            Some(value) => format!("{name}={value}").into(),
            None => name.into(),
        });
    }
    if let Some(num_layers) = num_layers {
        let has_device = out.iter().any(|arg| arg.to_string_lossy().starts_with("--device"));
        match num_layers.as_str() {
            "0" if !has_device => out.extend(["--device".into(), "cpu".into()]),
            _ => {
                note = Some(format!(
                    "note: {GPU_LAYERS} {num_layers} has no effect: a model runs on one device as a whole, see --device"
                ));
            }
        }
    }
    (out, note)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn llama_cpp_s_options_become_ours() {
        let check = |line: &str, want: &str, says: bool| {
            let (args, note) = translated(words(line).into_iter());
            assert_eq!((args, note.is_some()), (words(want), says), "{line}");
        };
        check("rustorch serve -np 4 -t 2", "rustorch serve --batch-size 4 -t 2", false);
        check("rustorch serve -np=4", "rustorch serve --batch-size=4", false);
        check("rustorch serve -hf a/b:Q8_0", "rustorch serve --hf-repo a/b:Q8_0", false);
        check("rustorch serve -hfr=a/b -hff c", "rustorch serve --hf-repo=a/b --hf-file c", false);
        check("rustorch serve -ngl 0", "rustorch serve --device cpu", false);
        check("rustorch serve --n-gpu-layers=0", "rustorch serve --device cpu", false);
        check("rustorch serve -ngl 0 --device gpu", "rustorch serve --device gpu", true);
        check("rustorch serve -ngl 99 -m a", "rustorch serve -m a", true);
        check("rustorch generate -p -n=x --temp=1", "rustorch generate -p -n=x --temp=1", false);
        check("rustorch generate -- -ngl 0", "rustorch generate -- -ngl 0", false);
    }

    #[test]
    fn the_command_is_consistent() {
        with_environment(Cli::command()).debug_assert();
    }
}
