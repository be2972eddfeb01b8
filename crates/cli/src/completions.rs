//! `rustorch completions` and `rustorch man`: what shells and `man` know of the program.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::Shell;

use crate::command_line::Cli;
use crate::output;

/// Print a script that completes commands and options in a shell
///
/// For bash: rustorch completions bash > ~/.local/share/bash-completion/completions/rustorch
#[derive(clap::Args)]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// Print the manual page, or write one for each command into a folder
#[derive(clap::Args)]
pub struct ManArgs {
    /// Folder for rustorch.1, rustorch-batch.1 and so on [default: rustorch.1 is printed]
    #[arg(short, long, value_name = "FOLDER")]
    output_folder: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "rustorch", &mut script);
    output::print(&String::from_utf8(script).context("the script")?)
}

pub fn run_man(args: &ManArgs) -> Result<()> {
    let Some(folder) = &args.output_folder else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page).context("the manual page")?;
        return output::print(&String::from_utf8(page).context("the manual page")?);
    };
    clap_mangen::generate_to(Cli::command(), folder).with_context(|| folder.display().to_string())
}
