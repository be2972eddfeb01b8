//! The configuration file: defaults for options, in TOML.
//!
//! Keys are options' long names; a table named after a subcommand holds that subcommand's. Values at the top level hold for
//! every subcommand that has the option.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, anyhow, bail};
use clap::builder::BoolishValueParser;
use clap::{Arg, ArgAction, Command};
use toml::{Table, Value};

use crate::command_line::is_builtin;

/// See the module.
pub struct ConfigFile {
    path: PathBuf,
    table: Table,
}

const OPTION: &str = "--config";
const VARIABLE: &str = "RUSTORCH_CONFIG";

impl ConfigFile {
    /// The file that these arguments or the environment name, or else the user's, if there is one.
    ///
    /// # Errors
    /// A file that was named and cannot be read, and one that is not TOML.
    pub fn of(args: &[OsString]) -> Result<Option<Self>> {
        let (path, is_named) = match named(args) {
            Some(path) if path.as_os_str().is_empty() => return Ok(None),
            Some(path) => (path, true),
            None => match of_user() {
                Some(path) => (path, false),
                None => return Ok(None),
            },
        };
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !is_named => return Ok(None),
            text => text.with_context(|| path.display().to_string())?,
        };
        let table = text.parse().map_err(|error: toml::de::Error| {
            anyhow!("{}: {}", path.display(), error.to_string().trim_end())
        })?;
        Ok(Some(Self { path, table }))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The command with this file's defaults.
    ///
    /// # Errors
    /// Names a key that is no option, and a value that is none of the option's type.
    pub fn apply(&self, mut command: Command) -> Result<Command> {
        let names: Vec<String> =
            command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
        for (key, value) in &self.table {
            if let (Value::Table(section), true) = (value, names.contains(key)) {
                for (option, value) in section {
                    let found =
                        set(&mut command, key, option, value).with_context(|| format!("[{key}] {option}"))?;
                    if !found {
                        bail!(
                            "[{key}] {option}: expected a long option of `rustorch {key}`, found none of that name"
                        );
                    }
                }
                continue;
            }
            let mut is_known = false;
            for name in &names {
                let is_set =
                    self.table.get(name).and_then(Value::as_table).is_some_and(|own| own.contains_key(key));
                is_known |= match is_set {
                    true => has_option(&command, name, key),
                    false => set(&mut command, name, key, value).with_context(|| key.clone())?,
                };
            }
            if !is_known {
                bail!("{key}: expected a long option or a command, found neither of that name");
            }
        }
        Ok(command)
    }
}

/// The path that was named.
fn named(args: &[OsString]) -> Option<PathBuf> {
    for (idx, arg) in args.iter().enumerate() {
        let text = arg.to_string_lossy();
        if text == "--" {
            break;
        }
        if text == OPTION {
            return args.get(idx + 1).map(PathBuf::from);
        }
        if let Some(path) = text.strip_prefix(OPTION).and_then(|rest| rest.strip_prefix('=')) {
            return Some(path.into());
        }
    }
    env::var_os(VARIABLE).map(PathBuf::from)
}

/// The user's own.
fn of_user() -> Option<PathBuf> {
    let folder = |variable: &str| env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = match cfg!(windows) {
        true => folder("APPDATA"),
        false => folder("XDG_CONFIG_HOME").or_else(|| folder("HOME").map(|home| home.join(".config"))),
    };
    folder.map(|folder| folder.join("rustorch").join("config.toml"))
}

fn has_option(command: &Command, subcommand: &str, option: &str) -> bool {
    option_of(command, subcommand, option).is_some()
}

/// The option's id, if the subcommand has it.
fn option_of<'a>(command: &'a Command, subcommand: &str, option: &str) -> Option<&'a Arg> {
    let own = command.find_subcommand(subcommand)?.get_arguments();
    // Options of all subcommands are the command's.
    let mut all = own.chain(command.get_arguments()).filter(|arg| !is_builtin(arg));
    all.find(|arg| arg.get_long() == Some(option) && option != "config")
}

/// Gives an option of a subcommand a default. False if it has none of this name.
fn set(command: &mut Command, subcommand: &str, option: &str, value: &Value) -> Result<bool> {
    let Some(arg) = option_of(command, subcommand, option) else { return Ok(false) };
    let id = arg.get_id().clone();
    let is_flag = matches!(arg.get_action(), ArgAction::SetTrue);
    let takes_several = matches!(arg.get_action(), ArgAction::Append);
    let values = match value {
        Value::Boolean(flag) if is_flag => vec![flag.to_string()],
        _ if is_flag => bail!("expected true or false, found {value}"),
        Value::Array(values) if takes_several => values.iter().map(word).collect::<Result<_>>()?,
        value => vec![word(value)?],
    };
    let with_default = move |arg: Arg| {
        let arg = arg.required(false).default_values(values);
        if is_flag { arg.value_parser(BoolishValueParser::new()) } else { arg }
    };
    let taken = std::mem::take(command);
    let is_global = taken.get_arguments().any(|arg| *arg.get_id() == id);
    *command = match is_global {
        true => taken.mut_arg(id, with_default),
        false => taken.mut_subcommand(subcommand, |command| command.mut_arg(id, with_default)),
    };
    Ok(true)
}

/// A value as an argument.
fn word(value: &Value) -> Result<String> {
    Ok(match value {
        Value::String(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(flag) => flag.to_string(),
        found => bail!("expected a text or a number, found {found}"),
    })
}
